"""The verbs that look at a cluster and make it as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.options import Invocation, LimitOption, LockedOption, YesOption, verb
from clusterctl.cli.steps import SummaryOption, TimeLimitOption, begin_journal, begun, confirm, limits, summarise

if TYPE_CHECKING:
    from clusterctl.commands.apply import ApplyPlan
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

CHANGES = 10
VerifyOption = Annotated[bool, typer.Option("--verify", help="Believe no earlier look, and hash installed programs again.")]
DiffOption = Annotated[bool, typer.Option("--diff", help="Show what changes in files, line by line.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("plan")(plan)
    app.command("apply")(apply)


@verb
def plan(
    call: Invocation,
    limit: LimitOption = None,
    locked: LockedOption = False,
    verify: VerifyOption = False,
    diff: DiffOption = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 where there are changes.")] = False,
) -> None:
    """Show what apply would do. Nothing is changed."""
    call.look(verify=verify)
    report = call.report()
    with call.session(report) as opened:
        from clusterctl.commands.apply import make_plan

        found = make_plan(opened, verify=verify)
        _show(report, opened, found, diff=diff)
    if exit_code and found:
        raise typer.Exit(CHANGES)


@verb
def apply(
    call: Invocation,
    limit: LimitOption = None,
    locked: LockedOption = False,
    yes: YesOption = False,
    verify: VerifyOption = False,
    diff: DiffOption = False,
    timeout: TimeLimitOption = None,
    summary: SummaryOption = None,
) -> None:
    """Make the machines as the inventory says. Creates, converges and adds nodes; run it again whenever it stopped."""
    call.look("apply", verify=verify)
    report = call.report()
    with limits(report, "apply", timeout, summary), call.session(report) as opened:
        from clusterctl.commands.apply import Apply, make_plan, refuse_early
        from clusterctl.session.foresight import foresee
        from clusterctl.session.operator_lock import locked as operator_lock

        refuse_early(opened)
        guess = foresee(opened)
        with operator_lock(opened, "apply", connect=opened.chosen):
            found = make_plan(opened, verify=verify, foresight=guess)
            _show(report, opened, found, diff=diff)
            if found:
                confirm(yes)
                begin_journal(report, opened, "apply")
                operation = Apply(opened, found)
                operation.deliver()
                with begun():
                    operation.run()
            summarise(report, opened, changed=bool(found), next_steps=["clusterctl status", "clusterctl kubeconfig"])


def _show(report: Report, opened: Session, found: ApplyPlan, *, diff: bool) -> None:
    from clusterctl.commands.diff import with_differences

    report.inventory_notes(opened.opening.notes)
    named, meant = opened.cluster.settings.kubernetes, opened.cluster.versions.kubernetes
    if named and named != meant:
        report.progress(f"Kubernetes {named} in the inventory means {meant}")
    report.warn_of_hosts(found.warnings, opened.cluster.hosts)
    report.plan(with_differences(opened, found) if diff else found)


