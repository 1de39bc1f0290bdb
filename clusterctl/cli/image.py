"""``clusterctl image load``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli.options import Invocation, LimitOption, Output, verb


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    image = typer.Typer(help="Images on the nodes.", no_args_is_help=True, rich_markup_mode=None)
    image.command("load")(image_load)
    # A callback keeps the verb a group while it has but one command.
    image.callback()(_images)
    app.add_typer(image, name="image")


def _images() -> None:
    """Images on the nodes."""


@verb
def image_load(
    call: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What docker save or buildah wrote.")],
    limit: LimitOption = None,
) -> None:
    """Import an image archive on all nodes. An app built with Docker then runs without a registry."""
    from clusterctl.commands import image as operation

    archive = operation.read(file)
    with call.session(call.report()) as opened:
        loaded = operation.load(opened, archive, opened.chosen)
    for name, images in loaded.items():
        as_json = json.dumps({"event": "loaded", "host": name, "images": images})
        typer.echo(as_json if call.output is Output.json else f"{name}: {images}")
