"""The verbs that look at a cluster and make it as wanted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.driver import Operation, SummaryOption, TimeLimitOption, drive
from clusterctl.cli.options import CHANGES, Invocation, LimitOption, LockedOption, YesOption, verb
from clusterctl.cli.prompts import Consent

if TYPE_CHECKING:
    from clusterctl.commands.apply import ApplyPlan
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

VerifyOption = Annotated[bool, typer.Option("--verify", help="Hash every installed program instead of trusting the stat cache.")]
DiffOption = Annotated[bool, typer.Option("--diff", help="Show changes of files line by line.")]


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
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 if there are changes.")] = False,
) -> None:
    """Show what apply would do. Nothing is changed."""
    call.connect()
    report = call.report()
    with call.session(report) as session:
        operation = _operation(session, report, verify=verify, diff=diff)
        [found] = operation.plans()
        _show(session, report, found)
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
    """Converge the machines to the inventory. Bootstraps the cluster and adds nodes; safe to rerun."""
    call.connect("apply")
    drive(call, "apply", partial(_operation, verify=verify, diff=diff), Consent(yes), timeout, summary)


def _operation(session: Session, report: Report, *, verify: bool, diff: bool) -> Operation[ApplyPlan]:
    from clusterctl.commands.apply import Apply, check_early, make_plan
    from clusterctl.commands.diff import with_differences
    from clusterctl.plan.stages import possible_probes

    probes = possible_probes(check_early(session))

    def plan() -> ApplyPlan:
        found = make_plan(session, probes=probes, verify=verify)
        return with_differences(session, found) if diff else found

    return Operation(
        connect=session.chosen, plans=lambda: [plan()], show=partial(_show, session, report), journal="apply",
        prepare=lambda plan: Apply(session, plan).delivered().run,
        finish=lambda plan: ["clusterctl status", "clusterctl kubeconfig"])


def _show(session: Session, report: Report, plan: ApplyPlan) -> None:
    report.inventory_notes(session.opening.notes)
    named, meant = session.cluster.settings.kubernetes, plan.target.versions.kubernetes
    if named and named != meant:
        report.progress(f"Kubernetes {named} in the inventory means {meant}")
    report.warn_of_hosts(plan.warnings, session.cluster.hosts)
    report.plan(plan)
