"""``clusterctl exec``."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import Invocation, Output, verb
from clusterctl.local.text import printable


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(execute)


@verb
def execute(
    call: Invocation,
    context: typer.Context,
    hosts: Annotated[str, typer.Argument(
        metavar="HOSTS", autocompletion=words.host_patterns, help="Pattern as in Ansible: names, groups, globs, !, &.")],
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds the command may take on each machine.")] = 600.0,
) -> None:
    """Run a command on machines as root. Exits with the highest of their exit codes."""
    from clusterctl.commands import execute as operation
    from clusterctl.engine.events import Events
    from clusterctl.errors import InputError
    from clusterctl.inventory.patterns import select

    if not context.args:
        raise InputError("no command was given", where="exec", hint="clusterctl exec HOSTS -- CMD", code="exec.no-command")
    command = context.args[0] if len(context.args) == 1 else shlex.join(context.args)
    with call.session(Events()) as opened:
        answers = operation.run_command(opened, select(opened.cluster, hosts, "HOSTS"), command, silence=timeout)
    for name, answer in answers.items():
        if call.output is Output.json:
            typer.echo(json.dumps({"event": "answer", "host": name, "exit_code": answer.code, "output": answer.output}))
        else:
            typer.echo(printable(f"{name}: exit code {answer.code}" + (f"\n{answer.output}" if answer.output else "")))
    raise typer.Exit(max(answer.code for answer in answers.values()))
