"""``clusterctl mirror``: all programs and images in a folder, from upstream or built from source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mirror")(mirror)


def mirror(
    kubernetes: Annotated[list[str] | None, typer.Option("--kubernetes", help="A version of Kubernetes; may be given again.")] = None,
    directory: Annotated[Path | None, typer.Option("--directory", help="The mirror's folder.")] = None,
    show: Annotated[bool, typer.Option("--list", help="Show what is there and what is missing, and change nothing.")] = False,
) -> None:
    """Fill a mirror with all that clusters of these versions need."""
    from clusterctl.artifacts.mirror import Mirror, fill
    from clusterctl.artifacts.places import default_mirror, own_architecture
    from clusterctl.artifacts.recipes import recipes
    from clusterctl.versions import known_versions

    arch = own_architecture()
    wanted = recipes([known_versions(version) for version in kubernetes or ["1.36.4", "1.37.2", "1.35.8"]], arch)
    place = Mirror(directory or default_mirror())
    fill(place, wanted, arch, lambda line: print(line, flush=True))
