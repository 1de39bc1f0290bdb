"""The verb ``timeline``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli.options import InventoryOptions, StateOption, verb


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("timeline")(timeline)


@verb
def timeline(
    call: InventoryOptions,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's name; by default the newest.")] = None,
    state: StateOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write an HTML page with a bar for each change.")] = None,
) -> None:
    """Show where the time of a run went. Nothing is contacted."""
    from clusterctl.errors import InputError
    from clusterctl.inventory import load
    from clusterctl.local.storage import StateFolder, write_whole
    from clusterctl.views import timeline as operation

    cluster = load(call.sources)
    folder = StateFolder.of(cluster.base, cluster.name, state)
    found = operation.read(operation.choose(folder.path / "journal", run))
    if output is None:
        typer.echo("\n".join(operation.as_text(found)))
        return
    try:
        write_whole(output, operation.as_html(found).encode(), 0o644)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(output), code="timeline.not-written") from None
    typer.echo(f"wrote {output}", err=True)
