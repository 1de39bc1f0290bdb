"""The verbs that replace etcd's data."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.options import Invocation, YesOption, verb
from clusterctl.cli.steps import begin_journal, begun, confirm_name, refuse_unconfirmed, summarise
from clusterctl.errors import InputError

if TYPE_CHECKING:
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

ConfirmOption = Annotated[str | None, typer.Option("--confirm", metavar="NAME", help="The cluster's name, with --yes.")]

AdoptOption = Annotated[
    str, typer.Option("--adopt", metavar="UID", help="Take another cluster's snapshot: the uid of its namespace kube-system.")
]
AbortOption = Annotated[
    bool, typer.Option("--abort", help="Go back from a restore that was interrupted before any member was started.")
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
    """Restore etcd from a snapshot, on all members of the inventory. Run it again whenever it stopped."""
    from clusterctl.commands.etcd.restore import make_plan
    from clusterctl.commands.etcd.restoring import Restoring
    from clusterctl.session.operator_lock import locked

    if (file is None) is not abort:
        raise InputError("give either a snapshot or --abort", where="FILE", code="etcd.restore-input",
                         hint="clusterctl etcd snapshot list")
    report = call.report()
    with ExitStack() as stack:
        opened = stack.enter_context(call.session(report))
        command = "etcd snapshot restore --abort" if file is None else f"etcd snapshot restore {file}"
        refuse_unconfirmed(command, opened.cluster.name, yes=yes, given=confirm)
        stack.enter_context(locked(opened, "etcd snapshot restore"))
        if file is None:
            _abort(report, opened, yes=yes)
            return
        found = make_plan(opened, file, adopt=adopt)
        report.restore(found)
        confirm_name(f"etcd snapshot restore {file}", opened.cluster.name, yes=yes)
        begin_journal(report, opened, "restore")
        with begun():
            Restoring(opened, found).run()
        summarise(report, opened, changed=True, next_steps=[
            "clusterctl apply: what joined or changed after the snapshot was taken is put right",
            f"the old data is in {found.kept} on each member; delete it when it is of no more use"])


@verb
def recover(call: Invocation, yes: YesOption = False, confirm: ConfirmOption = None) -> None:
    """Bring etcd back where quorum is lost for good. One surviving member becomes the whole; run it again whenever it stopped."""
    from clusterctl.commands.etcd.recover import make_plan, reachable
    from clusterctl.commands.etcd.restoring import Restoring
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened:
        refuse_unconfirmed("etcd recover", opened.cluster.name, yes=yes, given=confirm)
        alive = reachable(opened, [host for host in opened.cluster.hosts if host.is_etcd or host.is_control_plane])
        dead = [host.name for host in opened.cluster.control_planes if host not in alive]
        with locked(opened, "etcd recover", dead=dead):
            found = make_plan(opened, alive)
            report.restore(found)
            confirm_name("etcd recover", opened.cluster.name, yes=yes)
            begin_journal(report, opened, "recover")
            with begun():
                Restoring(opened, found).run()
            summarise(report, opened, changed=True, next_steps=[
                "reinstall the lost machines, or take them out of the inventory; then clusterctl apply lets the rest join",
                f"the old data is in {found.kept} on {', '.join(host.name for host in (*found.hosts, *found.leaving))}"])


def _abort(report: Report, opened: Session, *, yes: bool) -> None:
    from clusterctl.commands.etcd.restore import abort_plan
    from clusterctl.commands.etcd.restoring import Restoring

    found = abort_plan(opened)
    if found is None:
        report.progress("no restore is begun: nothing to do")
        return
    confirm_name("etcd snapshot restore --abort", opened.cluster.name, yes=yes)
    begin_journal(report, opened, "restore-abort")
    with begun():
        Restoring(opened, found).abort()
    summarise(report, opened, changed=True, next_steps=["clusterctl status"])
