"""``clusterctl explain``: what a code of an error means."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import Output, OutputOption
from clusterctl.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("explain")(explain)


def explain(
    code: Annotated[str | None, typer.Argument(
        metavar="CODE", autocompletion=words.error_codes, help="A code such as etcd.no-quorum; default: all.")] = None,
    output: OutputOption = Output.text,
) -> None:
    """Explain an error code, or list all of them."""
    from clusterctl.errors.codes import table
    from clusterctl.inventory.findings import did_you_mean

    codes = table()
    if code is not None and code not in codes:
        raise InputError(f"no error has the code {code!r}{did_you_mean(code, codes)}", where="CODE", code="cli.unknown-code",
                         hint="clusterctl explain")
    if output is Output.json:
        typer.echo(json.dumps(asdict(codes[code]) if code else {"codes": [asdict(entry) for entry in codes.values()]}))
    elif code:
        found = codes[code]
        typer.echo(f"{code} (exit code {found.exit_code})\n  cause:  {found.cause}\n  remedy: {found.remedy}")
    else:
        width = max(map(len, codes))
        typer.echo("\n".join(f"{entry.code:{width}} {entry.exit_code:3}  {entry.cause}" for entry in codes.values()))
