"""The verbs that look at a cluster and make it as wanted."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.options import (
    AskOption,
    CommandOption,
    FdOption,
    ForksOption,
    InventoryOption,
    LimitOption,
    Output,
    OutputOption,
    StateOption,
    VerboseOption,
    YesOption,
    gather,
    make_report,
)

if TYPE_CHECKING:
    from clusterctl.operations.apply import ApplyPlan
    from clusterctl.operations.base import Options, Session
    from clusterctl.report import Report

CHANGES = 10
DiffOption = Annotated[bool, typer.Option("--diff", help="Show what changes in files, line by line.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("plan")(plan)
    app.command("apply")(apply)


def plan(
    inventory: InventoryOption,
    output: OutputOption = Output.text,
    state: StateOption = None,
    limit: LimitOption = "",
    forks: ForksOption = 20,
    verbose: VerboseOption = False,
    ask_sudo_password: AskOption = False,
    sudo_password_fd: FdOption = None,
    sudo_password_command: CommandOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash installed programs again, too.")] = False,
    diff: DiffOption = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 where there are changes.")] = False,
) -> None:
    """Show what apply would do. Nothing is changed."""
    from clusterctl.operations.apply import make_plan
    from clusterctl.operations.base import session

    options = gather(
        inventory,
        state=state,
        limit=limit,
        forks=forks,
        ask=ask_sudo_password,
        fd=sudo_password_fd,
        command=sudo_password_command,
    )
    report = make_report(output, verbose)
    with session(options, report) as opened:
        found = make_plan(opened, verify=verify)
        _show(report, opened, found, diff=diff)
    if exit_code and found:
        raise typer.Exit(CHANGES)


def apply(
    inventory: InventoryOption,
    output: OutputOption = Output.text,
    state: StateOption = None,
    limit: LimitOption = "",
    forks: ForksOption = 20,
    verbose: VerboseOption = False,
    yes: YesOption = False,
    ask_sudo_password: AskOption = False,
    sudo_password_fd: FdOption = None,
    sudo_password_command: CommandOption = None,
    verify: Annotated[bool, typer.Option("--verify", help="Hash installed programs again, too.")] = False,
    diff: DiffOption = False,
) -> None:
    """Make the machines as the inventory says: create, converge, add. Run it again whenever it stopped."""
    options = gather(
        inventory,
        state=state,
        limit=limit,
        forks=forks,
        ask=ask_sudo_password,
        fd=sudo_password_fd,
        command=sudo_password_command,
    )
    _apply(options, make_report(output, verbose), yes=yes, verify=verify, diff=diff)


def _apply(options: Options, report: Report, *, yes: bool, verify: bool, diff: bool) -> None:
    from clusterctl.operations.apply import Apply, make_plan
    from clusterctl.operations.base import session
    from clusterctl.storage import Journal

    with session(options, report) as opened, opened.state.locked("apply"):
        found = make_plan(opened, verify=verify)
        _show(report, opened, found, diff=diff)
        if found:
            _confirm(yes)
            report.journal = Journal(opened.state, f"{datetime.now(UTC):%Y%m%dT%H%M%S}-apply")
            Apply(opened, found).run()
        _summarise(report, opened, changed=bool(found))


def _show(report: Report, opened: Session, found: ApplyPlan, *, diff: bool) -> None:
    from clusterctl.operations.difference import with_differences

    for warning in found.warnings:
        report.warn(warning)
    report.plan(with_differences(opened, found) if diff else found)


def _confirm(yes: bool) -> None:
    from clusterctl.errors import Refused

    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused("nobody is there to ask", hint="say --yes to carry the plan out")
    if not typer.confirm("Carry this out?"):
        raise Refused("you said no; nothing was changed")


def _summarise(report: Report, opened: Session, *, changed: bool) -> None:
    statistics = [transport.statistics for transport in opened.engine.transports.values()]
    report.summary(
        changed=changed,
        trips=sum(entry.trips for entry in statistics),
        sent=sum(entry.sent for entry in statistics),
        next_steps=["clusterctl status", "clusterctl kubeconfig"] if changed else [],
    )
