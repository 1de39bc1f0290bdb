"""The verb that takes everything away again."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl.cli.options import Invocation, LimitOption, YesOption, verb
from clusterctl.cli.steps import begin_journal, begun, confirm_name, refuse_unconfirmed, summarise


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
    """Remove everything that clusterctl put on machines. Nothing else is removed; run it again whenever it stopped."""
    from clusterctl.commands.reset import Reset, make_plan
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened:
        refuse_unconfirmed("reset", opened.cluster.name, yes=yes, given=confirm)
        with locked(opened, "reset", connect=opened.chosen):
            found = make_plan(opened)
            for warning in found.warnings:
                report.warn(warning)
            report.plan(found)
            operation = Reset(opened, found)
            if found:
                confirm_name("reset", opened.cluster.name, yes=yes)
                begin_journal(report, opened, "reset")
                with begun():
                    operation.run()
            summarise(report, opened, changed=bool(found), next_steps=operation.next_steps())
