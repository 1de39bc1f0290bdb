"""``clusterctl version``."""

from __future__ import annotations

import json

import typer

from clusterctl.cli.options import Output, OutputOption


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("version")(version)


def version(output: OutputOption = Output.text) -> None:
    """Show the versions of clusterctl and its products."""
    from clusterctl import __version__
    from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions

    products = known_versions().model_dump()
    if output is Output.json:
        typer.echo(json.dumps({"clusterctl": __version__, "minors": list(SUPPORTED_MINORS), "versions": products}, indent=2))
    else:
        typer.echo(f"clusterctl {__version__}; Kubernetes {', '.join(SUPPORTED_MINORS)}")
        typer.echo("\n".join(f"  {name.replace('_', '-')} {number}" for name, number in products.items()))
