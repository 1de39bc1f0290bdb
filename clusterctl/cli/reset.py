"""The verb that takes everything away again."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

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


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("reset")(reset)


def reset(
    inventory: InventoryOption,
    output: OutputOption = Output.text,
    state: StateOption = None,
    limit: LimitOption = "",
    forks: ForksOption = 20,
    verbose: VerboseOption = False,
    yes: YesOption = False,
    confirm: Annotated[str | None, typer.Option("--confirm", metavar="NAME", help="The cluster's name, with --yes.")] = None,
    ask_sudo_password: AskOption = False,
    sudo_password_fd: FdOption = None,
    sudo_password_command: CommandOption = None,
) -> None:
    """Take away everything that clusterctl put on machines, and nothing else. Run it again whenever it stopped."""
    from clusterctl.operations.base import session
    from clusterctl.operations.reset import Reset, make_plan
    from clusterctl.storage import Journal

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
    with session(options, report) as opened, opened.state.locked("reset"):
        found = make_plan(opened)
        for warning in found.warnings:
            report.warn(warning)
        report.plan(found)
        operation = Reset(opened, found)
        if found:
            _confirm(opened.cluster.name, yes=yes, given=confirm)
            report.journal = Journal(opened.state, f"{datetime.now(UTC):%Y%m%dT%H%M%S}-reset")
            operation.run()
        statistics = [transport.statistics for transport in opened.engine.transports.values()]
        report.summary(
            changed=bool(found),
            trips=sum(entry.trips for entry in statistics),
            sent=sum(entry.sent for entry in statistics),
            next_steps=operation.next_steps() if found else [],
        )


def _confirm(name: str, *, yes: bool, given: str | None) -> None:
    """The cluster's name, typed or given together with --yes. Raises Refused."""
    from clusterctl.errors import Refused

    hint = f"clusterctl reset --yes --confirm {name}"
    if given is None and not sys.stdin.isatty():
        raise Refused("nobody is there to type the cluster's name; nothing was changed", hint=hint)
    if given is not None and not yes:
        raise Refused("--confirm goes together with --yes; nothing was changed", hint=hint)
    try:
        typed = given if given is not None else typer.prompt("Type the cluster's name to carry this out")
    except typer.Abort:
        typed = ""
    if typed != name:
        raise Refused(f"{typed!r} is not the name of this cluster; nothing was changed", hint=f"its name is {name}")
