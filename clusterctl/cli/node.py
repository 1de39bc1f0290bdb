"""The verbs about single machines: drain, cordon, uncordon, remove, replace."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import Invocation, YesOption, draining_verb, verb
from clusterctl.cli.steps import begin_journal, begun, confirm, summarise

if TYPE_CHECKING:
    from clusterctl.kube.client import Api
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


@draining_verb
def drain(call: Invocation, names: NamesArgument, yes: YesOption = False) -> None:
    """Cordon nodes and evict their pods. PodDisruptionBudgets are always respected."""
    from clusterctl.kube import drain as operation
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened:
        chosen = nodes_of(opened, names)
        with locked(opened, "node drain"):
            drains = operation.look(opened.ready_api(), chosen, call.policy)
            report.drains(drains)
            operation.refuse_unsafe(drains)
            confirm(yes)
            begin_journal(report, opened, "drain")
            with begun():
                # Pods that leave need the nodes that an operation before this one left cordoned when it was killed.
                operation.recover(opened.ready_api, report.progress, keep=chosen)
                for name in chosen:
                    operation.empty(opened.ready_api, name, call.policy, report.progress)
            summarise(report, opened, changed=True, next_steps=[f"clusterctl node uncordon {' '.join(chosen)}"])


@verb
def cordon(call: Invocation, names: NamesArgument) -> None:
    """Let no new pod come to nodes; those that are there stay."""
    from clusterctl.kube import drain as operation

    report = call.report()
    with call.session(report) as opened:
        chosen = nodes_of(opened, names)
        api = serving_api(opened)
        for name in chosen:
            done = operation.cordon(api, name)
            report.progress(f"{name}: {'cordoned' if done else 'is cordoned already'}")


@verb
def uncordon(call: Invocation, names: NamesArgument) -> None:
    """Let pods come to nodes again."""
    from clusterctl.kube import drain as operation

    report = call.report()
    with call.session(report) as opened:
        chosen = nodes_of(opened, names)
        api = serving_api(opened)
        for name in chosen:
            done = operation.uncordon(api, name, ours=False)
            report.progress(f"{name}: {'uncordoned' if done else 'is not cordoned'}")


EditOption = Annotated[bool, typer.Option("--edit-inventory", help="Take its lines out of the inventory file, comments kept.")]


@draining_verb
def remove(
    call: Invocation,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=words.hosts, help="Machines that leave.")],
    offline: Annotated[bool, typer.Option("--offline", help="It is dead, and cannot rejoin.")] = False,
    edit_inventory: EditOption = False,
    yes: YesOption = False,
) -> None:
    """Take machines out of the cluster.

    Drains them, removes their etcd members, undoes what was installed and deletes their nodes; any but the last control plane.
    """
    from clusterctl.commands.node.remove import RemoveNodes, make, next_steps, refuse_unknown
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened:
        whole, chosen = opened.cluster, list(dict.fromkeys(names))
        named = [host.name for host in whole.hosts if host.name in chosen]
        if not offline:
            refuse_unknown(opened, chosen)
        if edit_inventory:
            _refuse_edit(opened, named)
        asked = [host for host in whole.hosts if not offline or host.name not in chosen]
        with locked(opened, "node remove", dead=chosen if offline else (), connect=asked):
            found = make(opened, chosen, offline=offline, policy=call.policy)
            report.removal(found)
            if found:
                confirm(yes)
                begin_journal(report, opened, "node-remove")
                with begun():
                    RemoveNodes(opened, found, call.policy, report.progress).run()
        edited = edit_inventory and _edit(opened, named, report)
        summarise(report, opened, changed=bool(found), next_steps=next_steps(whole, found, named, edited))


def _refuse_edit(opened: Session, names: Sequence[str]) -> None:
    """What cannot be edited is told before a machine is touched. Raises Refused."""
    from clusterctl.inventory.edit import without_host

    for name in names:
        without_host(opened.options.inventory, name)


def _edit(opened: Session, names: Sequence[str], report: Report) -> bool:
    from clusterctl.inventory.edit import remove_host

    for name in names:
        for path in remove_host(opened.options.inventory, name):
            report.progress(f"{path}: {name} is taken out")
    return True


@draining_verb
def replace(
    call: Invocation,
    old: Annotated[str, typer.Argument(metavar="OLD", autocompletion=words.hosts, help="The machine that goes, dead or alive.")],
    new: Annotated[str | None, typer.Argument(
        metavar="[NEW]", autocompletion=words.hosts, help="Who comes; else a fresh machine of its name.")] = None,
    edit_inventory: EditOption = False,
    yes: YesOption = False,
) -> None:
    """Replace a machine, dead or alive, by a fresh one. The old one leaves etcd and the API, and the new one joins."""
    from clusterctl.commands.node.replace import plan_replacement, refuse_no_host
    from clusterctl.commands.node.replace import replace as operate
    from clusterctl.errors import ClusterctlError
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened:
        whole = opened.cluster
        refuse_no_host(whole, new or old, "NEW" if new else "OLD")
        named = [old] if new is not None and any(host.name == old for host in whole.hosts) else []
        if edit_inventory:
            _refuse_edit(opened, named)
        asked = [host for host in whole.hosts if host.name != old or new is None]
        with locked(opened, "node replace", dead=[old, *([new] if new else [])], connect=asked):
            found = plan_replacement(opened, old, new)
            begin_journal(report, opened, "node-replace")
            agreed: list[str] = []

            def ask() -> None:
                confirm(yes)
                agreed.append(old)

            try:
                operate(opened, found, call.policy, show=report.removal, ask=ask, say=report.progress)
            except (ClusterctlError, OSError):
                with begun() if agreed else nullcontext():
                    raise
        edited = edit_inventory and _edit(opened, named, report)
        left = [f"take {old} out of the inventory (--edit-inventory does it)"] if named and not edited else []
        summarise(report, opened, changed=bool(agreed), next_steps=[*left, "clusterctl status"])
