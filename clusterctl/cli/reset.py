"""The verb that takes everything away again."""

from __future__ import annotations

from typing import Annotated

import typer

from clusterctl.cli.options import Invocation, LimitOption, YesOption, verb
from clusterctl.cli.steps import ask, begin_journal, begun, summarise
from clusterctl.errors import InputError, Refused


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
    """Take away everything that clusterctl put on machines, and nothing else. Run it again whenever it stopped."""
    from clusterctl.operations.lock import locked
    from clusterctl.operations.reset import Reset, make_plan

    report = call.report()
    with call.session(report) as opened:
        _refuse_options(opened.cluster.name, yes=yes, given=confirm)
        with locked(opened, "reset", connect=opened.chosen):
            found = make_plan(opened)
            for warning in found.warnings:
                report.warn(warning)
            report.plan(found)
            operation = Reset(opened, found)
            if found:
                if not yes:
                    _confirm(opened.cluster.name)
                begin_journal(report, opened, "reset")
                with begun():
                    operation.run()
            summarise(report, opened, changed=bool(found), next_steps=operation.next_steps())


def _refuse_options(name: str, *, yes: bool, given: str | None) -> None:
    """Raises InputError unless --yes comes with --confirm and the cluster's name, or neither is given."""
    if yes != (given is not None) or (given is not None and given != name):
        why = ("--confirm requires --yes" if not yes else "--yes requires --confirm with the cluster's name" if given is None
               else f"{given!r} is not the name of this cluster")
        raise InputError(f"{why}; nothing was changed", where="--confirm", code="reset.not-confirmed",
                         hint=f"clusterctl reset --yes --confirm {name}")


def _confirm(name: str) -> None:
    """Ask for the cluster's name. Raises Refused."""
    typed = ask("Type the cluster's name to carry this out", f"clusterctl reset --yes --confirm {name}")
    if typed != name:
        raise Refused(f"{typed!r} is not the name of this cluster; nothing was changed", hint=f"its name is {name}")
