"""The verbs about single machines: drain, cordon, uncordon, remove, replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.driver import Operation, drive
from clusterctl.cli.options import DrainInvocation, Invocation, YesOption, verb
from clusterctl.cli.prompts import Consent

if TYPE_CHECKING:
    from clusterctl.commands.node.remove import RemovePlan
    from clusterctl.commands.node.replace import ReplacePlan
    from clusterctl.kube.client import Api
    from clusterctl.kube.drain import DrainPlan
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

API_SECONDS = 15.0
"""How long cordon and uncordon wait for an API server that is ready."""

NamesArgument = Annotated[list[str], typer.Argument(
    metavar="NAME...", autocompletion=words.hosts, help="Nodes of the inventory.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    node = typer.Typer(help="Single nodes.", no_args_is_help=True, rich_markup_mode=None)
    node.command("drain")(drain)
    node.command("cordon")(cordon)
    node.command("uncordon")(uncordon)
    node.command("remove")(remove)
    node.command("replace")(replace)
    app.add_typer(node, name="node")


def nodes_of(opened: Session, names: Sequence[str]) -> list[str]:
    """The names, each once. Raises InputError for one that is no node of the inventory."""
    from clusterctl.errors import InputError

    known = [host.name for host in opened.cluster.nodes]
    for name in names:
        if name not in known:
            raise InputError(f"the inventory has no node {name!r}", where="NAME", hint=f"it has {', '.join(known)}",
                             code="inventory.no-host")
    return list(dict.fromkeys(names))


def serving_api(opened: Session) -> Api:
    """Return an API server that is ready. Raises Unreachable for all control planes together, Refused where none is ready."""
    from clusterctl.errors import Refused, Stopped

    opened.connect_any(opened.cluster.control_planes)
    try:
        return opened.ready_api(deadline=API_SECONDS)
    except Stopped as error:
        raise Refused(f"{error.message}; nothing was changed", hint="clusterctl status", code="api.not-ready") from None


@verb
def drain(call: DrainInvocation, names: NamesArgument, yes: YesOption = False) -> None:
    """Cordon nodes and evict their pods. PodDisruptionBudgets are always respected."""
    from clusterctl.kube.drain import DrainPlan, carry_out, look, refuse_unsafe

    policy = call.policy

    def begin(session: Session, report: Report) -> Operation[DrainPlan]:
        chosen = nodes_of(session, names)
        return Operation(
            plans=lambda: [DrainPlan(look(session.ready_api(), chosen, policy))], check=lambda plan: refuse_unsafe(plan.drains),
            journal="drain", prepare=lambda plan: partial(carry_out, session.ready_api, plan, policy, report.progress),
            finish=lambda plan: [f"clusterctl node uncordon {' '.join(chosen)}"])

    drive(call, "node drain", begin, Consent(yes))


@verb
def cordon(call: Invocation, names: NamesArgument) -> None:
    """Mark nodes as unschedulable. Running pods stay."""
    from clusterctl.kube import drain

    _mark(call, names, drain.cordon, "cordoned", "is cordoned already")


@verb
def uncordon(call: Invocation, names: NamesArgument) -> None:
    """Mark nodes as schedulable again."""
    from clusterctl.kube import drain

    _mark(call, names, partial(drain.uncordon, ours=False), "uncordoned", "is not cordoned")


def _mark(call: Invocation, names: Sequence[str], mark: Callable[[Api, str], bool], done: str, already: str) -> None:
    report = call.report()
    with call.session(report) as session:
        chosen = nodes_of(session, names)
        api = serving_api(session)
        for name in chosen:
            report.progress(f"{name}: {done if mark(api, name) else already}")


EditOption = Annotated[bool, typer.Option("--edit-inventory", help="Remove it from the inventory file; comments are kept.")]


@verb
def remove(
    call: DrainInvocation,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=words.hosts, help="Machines that leave.")],
    offline: Annotated[bool, typer.Option("--offline", help="The machine is dead; keep it from rejoining.")] = False,
    edit_inventory: EditOption = False,
    yes: YesOption = False,
) -> None:
    """Take machines out of the cluster.

    Drains them, removes their etcd members, resets them and deletes their nodes; any machine but the last control plane.
    """
    from clusterctl.commands.node.remove import RemoveNodes, make, next_steps, refuse_unknown

    policy, chosen = call.policy, list(dict.fromkeys(names))

    def begin(session: Session, report: Report) -> Operation[RemovePlan]:
        whole = session.cluster
        named = [host.name for host in whole.hosts if host.name in chosen]
        if not offline:
            refuse_unknown(session, chosen)
        if edit_inventory:
            _refuse_edit(session, named)

        return Operation(
            dead=chosen if offline else (), connect=[host for host in whole.hosts if not offline or host.name not in chosen],
            plans=lambda: [make(session, chosen, offline=offline, policy=policy)], journal="node-remove",
            prepare=lambda plan: RemoveNodes(session, plan, policy, report.progress).run,
            finish=lambda plan: next_steps(whole, plan, named, edit_inventory and _edit(session, named, report)))

    drive(call, "node remove", begin, Consent(yes))


def _refuse_edit(opened: Session, names: Sequence[str]) -> None:
    """Refuse an inventory that cannot be edited, before a machine is touched. Raises Refused."""
    from clusterctl.inventory.edit import without_host

    for name in names:
        without_host(opened.options.inventory, name)


def _edit(opened: Session, names: Sequence[str], report: Report) -> bool:
    from clusterctl.inventory.edit import remove_host

    for name in names:
        for path in remove_host(opened.options.inventory, name):
            report.progress(f"{path}: {name} is taken out")
    return True


@verb
def replace(
    call: DrainInvocation,
    old: Annotated[str, typer.Argument(metavar="OLD", autocompletion=words.hosts, help="The machine to replace, dead or alive.")],
    new: Annotated[str | None, typer.Argument(
        metavar="[NEW]", autocompletion=words.hosts, help="The new host; default: a fresh machine of the same name.")] = None,
    edit_inventory: EditOption = False,
    yes: YesOption = False,
) -> None:
    """Replace a machine, dead or alive, by a fresh one. The old one is removed from etcd and the API, and the new one joins."""
    from clusterctl.commands.node.replace import carry_out, plan_replacement, plans, refuse_no_host

    policy = call.policy

    def begin(session: Session, report: Report) -> Operation[ReplacePlan]:
        hosts = session.cluster.hosts
        refuse_no_host(session.cluster, new or old, "NEW" if new else "OLD")
        named = [old] if new is not None and any(host.name == old for host in hosts) else []
        if edit_inventory:
            _refuse_edit(session, named)

        def finish(plan: ReplacePlan) -> list[str]:
            edited = edit_inventory and _edit(session, named, report)
            left = [f"take {old} out of the inventory (--edit-inventory does it)"] if named and not edited else []
            return [*left, "clusterctl status"]

        return Operation(
            dead=[old, *([new] if new else [])], connect=[host for host in hosts if host.name != old or new is None],
            plans=lambda: plans(session, plan_replacement(session, old, new), policy, report.progress), asks_once=True,
            journal="node-replace", finish=finish,
            prepare=lambda plan: partial(carry_out, session, plan, policy, report.progress))

    drive(call, "node replace", begin, Consent(yes))
