"""``clusterctl mirror``: all programs and images in a folder, from upstream or built from source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import ComponentOption, components_of

if TYPE_CHECKING:
    from clusterctl.mirror.mirror import Mirror
    from clusterctl.mirror.recipes import Recipe


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("mirror")(mirror)


def mirror(
    kubernetes: Annotated[list[str] | None, typer.Option(
        metavar="X.Y[.Z]", autocompletion=words.versions, help="Kubernetes version; repeatable.")] = None,
    component: ComponentOption = None,
    directory: Annotated[Path | None, typer.Option(help="The mirror's folder; $CLUSTERCTL_MIRROR names another default.")] = None,
    upstream: Annotated[bool, typer.Option(help="Download from upstream where possible, before building from source.")] = True,
    verify: Annotated[bool, typer.Option("--verify", help="Read every file, and replace those that are wrong.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List present and missing files; change nothing.")] = False,
) -> None:
    """Fill a mirror with programs and images. They are those of clusters of the given versions."""
    from clusterctl.artifacts.places import default_mirror, own_architecture
    from clusterctl.mirror.mirror import Mirror, fill

    arch = own_architecture()
    wanted = _recipes(kubernetes, component or (), arch)
    place = Mirror(directory or default_mirror())
    if show:
        return _show(place, wanted)
    filled = fill(place, wanted, arch, _say, upstream=upstream, verify=verify)
    _say(f"{place.folder}: {filled.present} files were there, {len(filled.added)} were added")
    return None


def _recipes(kubernetes: Sequence[str] | None, components: Sequence[str], arch: str) -> list[Recipe]:
    from clusterctl.cluster.versions import known_versions
    from clusterctl.errors import InputError
    from clusterctl.mirror.recipes import MIRRORED, recipes

    try:
        versions = [known_versions(version) for version in kubernetes or MIRRORED]
    except ValueError as error:
        raise InputError(str(error), where="--kubernetes", code="version.unsupported",
                         hint="for instance --kubernetes 1.36.4") from None
    versions += [known_versions(versions[0].kubernetes, **{name: version}) for name, version in components_of(components)]
    return recipes(versions, arch)


def _show(place: Mirror, wanted: Sequence[Recipe]) -> None:
    entries = place.entries()
    _say(str(place.folder))
    for output in (output for recipe in wanted for output in recipe.outputs):
        size = f"{entries[output.path]['size'] / 1e6:8.1f} MB" if place.has(output.path) else "    missing"
        _say(f"{size}  {output.path}")


def _say(line: str) -> None:
    print(line, flush=True)
