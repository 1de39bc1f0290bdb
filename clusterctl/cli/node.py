"""The verbs about single nodes: drain, cordon, uncordon."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.options import Invocation, YesOption, verb
from clusterctl.cli.steps import begin_journal, confirm, summarise

if TYPE_CHECKING:
    from clusterctl.disruption import Policy
    from clusterctl.operations.base import Session

NamesArgument = Annotated[list[str], typer.Argument(metavar="NAME...", help="Nodes of the inventory.")]
TimeoutOption = Annotated[float, typer.Option("--drain-timeout", min=1, help="Seconds that each node's drain may take.")]
GraceOption = Annotated[
    int | None, typer.Option("--grace-period", min=0, help="Seconds that pods get to end; by default what each asks for.")
]
EmptyDirOption = Annotated[
    bool, typer.Option("--delete-emptydir-data", help="Evict pods with emptyDir volumes, too: their data is lost.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Evict pods without a controller, too: nothing starts them again.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    node = typer.Typer(help="Single nodes.", no_args_is_help=True, rich_markup_mode=None)
    node.command("drain")(drain)
    node.command("cordon")(cordon)
    node.command("uncordon")(uncordon)
    app.add_typer(node, name="node")


def policy_of(timeout: float, grace_period: int | None, delete_emptydir_data: bool, force: bool) -> Policy:
    """The options of a drain as operations know them."""
    from clusterctl.disruption import Policy

    return Policy(timeout=timeout, grace_period=grace_period, delete_emptydir_data=delete_emptydir_data, force=force)


def nodes_of(opened: Session, names: Sequence[str]) -> list[str]:
    """The names, each once. Raises InputError for one that is no node of the inventory."""
    from clusterctl.errors import InputError

    known = [host.name for host in opened.cluster.nodes]
    for name in names:
        if name not in known:
            raise InputError(f"the inventory has no node {name!r}", where="NAME", hint=f"it has {', '.join(known)}")
    return list(dict.fromkeys(names))


@verb
def drain(
    call: Invocation,
    names: NamesArgument,
    yes: YesOption = False,
    drain_timeout: TimeoutOption = 300,
    grace_period: GraceOption = None,
    delete_emptydir_data: EmptyDirOption = False,
    force: ForceOption = False,
) -> None:
    """Let no new pod come to nodes and evict those that are there; PodDisruptionBudgets are always respected."""
    from clusterctl.operations import drain as operation
    from clusterctl.operations.lock import locked

    policy = policy_of(drain_timeout, grace_period, delete_emptydir_data, force)
    report = call.report()
    with call.session(report) as opened, locked(opened, "node drain"):
        chosen = nodes_of(opened, names)
        drains = operation.look(opened.ready_api(), chosen, policy)
        report.drains(drains)
        operation.refuse_unsafe(drains)
        confirm(yes)
        begin_journal(report, opened, "drain")
        for name in chosen:
            operation.empty(opened.ready_api, name, policy, report.progress)
        summarise(report, opened, changed=True, next_steps=[f"clusterctl node uncordon {' '.join(chosen)}"])


@verb
def cordon(call: Invocation, names: NamesArgument) -> None:
    """Let no new pod come to nodes; those that are there stay."""
    from clusterctl.operations import drain as operation

    report = call.report()
    with call.session(report) as opened:
        for name in nodes_of(opened, names):
            done = operation.cordon(opened.ready_api(), name)
            report.progress(f"{name}: {'cordoned' if done else 'is cordoned already'}")


@verb
def uncordon(call: Invocation, names: NamesArgument) -> None:
    """Let pods come to nodes again."""
    from clusterctl.operations import drain as operation

    report = call.report()
    with call.session(report) as opened:
        for name in nodes_of(opened, names):
            done = operation.uncordon(opened.ready_api(), name, ours=False)
            report.progress(f"{name}: {'uncordoned' if done else 'is not cordoned'}")
