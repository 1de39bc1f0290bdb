"""The verb that takes everything away again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.driver import Operation, drive
from clusterctl.cli.options import Invocation, LimitOption, YesOption, verb
from clusterctl.cli.prompts import Consent

if TYPE_CHECKING:
    from clusterctl.commands.reset import ResetPlan
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("reset")(reset)


@verb
def reset(
    call: Invocation,
    limit: LimitOption = None,
    yes: YesOption = False,
    confirm: Annotated[str | None, typer.Option("--confirm", metavar="NAME", help="The cluster's name, with --yes.")] = None,
) -> None:
    """Remove clusterctl from machines. Everything that it put there is removed, and nothing else; safe to rerun."""
    from clusterctl.commands.reset import Reset, make_plan, next_steps

    def begin(session: Session, report: Report) -> Operation[ResetPlan]:
        def show(plan: ResetPlan) -> None:
            for warning in plan.warnings:
                report.warn(warning)
            report.plan(plan)

        return Operation(connect=session.chosen, plans=lambda: [make_plan(session)], show=show, journal="reset",
                         prepare=lambda plan: Reset(session, plan).run, finish=lambda plan: next_steps(session))

    drive(call, "reset", begin, Consent(yes, "reset", confirm))
