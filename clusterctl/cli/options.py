"""Options that several verbs share, and what they mean together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.inventory import InventoryOption, Output, OutputOption

if TYPE_CHECKING:
    from clusterctl.operations.base import Options
    from clusterctl.report import Report

StateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="Where the cluster's keys are; default: .clusterctl/NAME beside the inventory."),
]
LimitOption = Annotated[str, typer.Option("--limit", metavar="HOST,...", help="Only these hosts.")]
ForksOption = Annotated[int, typer.Option("--forks", min=1, max=500, help="How many machines at a time.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Tell more.")]
YesOption = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
AskOption = Annotated[
    bool, typer.Option("--ask-sudo-password", help="Ask for the sudo password. Scripts: CLUSTERCTL_SUDO_PASSWORD.")
]
FdOption = Annotated[
    int | None, typer.Option("--sudo-password-fd", metavar="N", help="Read the sudo password from this file descriptor.")
]
CommandOption = Annotated[
    str | None, typer.Option("--sudo-password-command", metavar="CMD", help="A command that prints the sudo password.")
]

__all__ = [
    "AskOption",
    "CommandOption",
    "FdOption",
    "ForksOption",
    "InventoryOption",
    "LimitOption",
    "Output",
    "OutputOption",
    "StateOption",
    "VerboseOption",
    "YesOption",
    "gather",
    "make_report",
]


def gather(
    inventory: Path,
    *,
    state: Path | None = None,
    limit: str = "",
    forks: int = 20,
    ask: bool = False,
    fd: int | None = None,
    command: str | None = None,
) -> Options:
    """The options as operations know them. Secrets are asked for when they are first needed, once."""
    from clusterctl import secrets
    from clusterctl.operations.base import Options

    password = secrets.sudo_password(secrets.Source(fd=fd, command=command, ask=ask))
    passphrase = secrets.key_passphrase(secrets.Source())
    return Options(
        inventory=inventory,
        state=state,
        forks=forks,
        limit=tuple(name for name in limit.split(",") if name),
        sudo_password=_reveal(password),
        passphrase=_reveal(passphrase),
    )


def _reveal(secret: object) -> Callable[[], str | None]:
    from clusterctl.secrets import Secret

    return lambda: secret.reveal() if isinstance(secret, Secret) else None


def make_report(output: Output, verbose: bool) -> Report:
    """The report for an output format."""
    from clusterctl.report import JsonReport, TextReport

    return JsonReport(verbose=verbose) if output is Output.json else TextReport(verbose=verbose)
