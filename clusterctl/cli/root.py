"""The program's own option ``--version``, and the verb ``completion``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """A shell that completes words."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("completion")(completion)


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that the script is for.")]) -> None:
    """Print a shell's completion script. To use it: source <(clusterctl completion bash)."""
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="clusterctl", complete_var="_CLUSTERCTL_COMPLETE", shell=shell.value))


def _version(wanted: bool) -> None:
    from clusterctl.cli.version import version

    if wanted:
        version()
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the same versions as `version`.")
]


def root(version: VersionOption = False) -> None:
    """Options of the program itself."""
