"""The verbs that replace etcd's data."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.driver import Operation, drive
from clusterctl.cli.options import Invocation, YesOption, verb
from clusterctl.cli.prompts import Consent
from clusterctl.errors import InputError

if TYPE_CHECKING:
    from clusterctl.commands.etcd.restore import RestorePlan
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

ConfirmOption = Annotated[str | None, typer.Option("--confirm", metavar="NAME", help="The cluster's name, with --yes.")]

AdoptOption = Annotated[
    str, typer.Option("--adopt", metavar="UID", help="Accept the snapshot of another cluster, by the uid of its kube-system.")
]
AbortOption = Annotated[
    bool, typer.Option("--abort", help="Abort a restore that was interrupted before any member was started.")
]


@verb
def restore(
    call: Invocation,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="A snapshot.")] = None,
    yes: YesOption = False,
    confirm: ConfirmOption = None,
    adopt: AdoptOption = "",
    abort: AbortOption = False,
) -> None:
    """Restore etcd from a snapshot. On all members of the inventory; safe to rerun."""
    if (file is None) is not abort:
        raise InputError("give either a snapshot or --abort", where="FILE", code="etcd.restore-input",
                         hint="clusterctl etcd snapshot list")
    begin = partial(_restore, file=file, adopt=adopt) if file is not None else _abort
    drive(call, "etcd snapshot restore", begin, Consent(yes, f"etcd snapshot restore {file or '--abort'}", confirm))


def _restore(session: Session, report: Report, *, file: Path, adopt: str) -> Operation[RestorePlan]:
    from clusterctl.commands.etcd.restore import make_plan
    from clusterctl.commands.etcd.restoring import Restoring

    return Operation(
        plans=lambda: [make_plan(session, file, adopt=adopt)], journal="restore",
        prepare=lambda plan: Restoring(session, plan).run, finish=lambda plan: [
            "clusterctl apply: what joined or changed after the snapshot was taken is put right",
            f"the old data is in {plan.kept} on each member; delete it when it is of no more use"])


def _abort(session: Session, report: Report) -> Operation[RestorePlan]:
    from clusterctl.commands.etcd.restore import abort_plan
    from clusterctl.commands.etcd.restoring import Restoring

    def plans() -> Iterator[RestorePlan]:
        found = abort_plan(session)
        if found is None:
            report.progress("no restore is begun: nothing to do")
        else:
            yield found

    return Operation(plans=plans, show=lambda plan: None, journal="restore-abort",
                     prepare=lambda plan: Restoring(session, plan).abort)


@verb
def recover(call: Invocation, yes: YesOption = False, confirm: ConfirmOption = None) -> None:
    """Recover etcd from a lost quorum. One surviving member becomes the cluster; safe to rerun."""
    drive(call, "etcd recover", _recover, Consent(yes, "etcd recover", confirm))


def _recover(session: Session, report: Report) -> Operation[RestorePlan]:
    from clusterctl.commands.etcd.recover import make_plan, reachable
    from clusterctl.commands.etcd.restoring import Restoring

    alive = reachable(session, [host for host in session.cluster.hosts if host.is_etcd or host.is_control_plane])
    return Operation(
        dead=[host.name for host in session.cluster.control_planes if host not in alive],
        plans=lambda: [make_plan(session, alive)], journal="recover",
        prepare=lambda plan: Restoring(session, plan).run, finish=lambda plan: [
            "reinstall the lost machines, or take them out of the inventory; then clusterctl apply lets the rest join",
            f"the old data is in {plan.kept} on {', '.join(host.name for host in (*plan.hosts, *plan.leaving))}"])
