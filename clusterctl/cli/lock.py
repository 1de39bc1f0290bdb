"""``clusterctl lock``: checksums of programs, taken from upstream on purpose and kept beside the inventory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import INVENTORY, InventoryOptions, Output, OutputOption, verb

KubernetesOption = Annotated[list[str] | None, typer.Option(
    metavar="X.Y[.Z]", autocompletion=words.versions, help="Lock for this version; may be given again.")]
UpdateOption = Annotated[list[str] | None, typer.Option(
    metavar="PRODUCT", autocompletion=words.programs, help="Take its checksums anew; may be given again.")]
ArchOption = Annotated[str, typer.Option(
    "--arch", metavar="ARCH,...", autocompletion=words.architectures, help="The machines' architectures.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    group = typer.Typer(help="Lock the checksums of programs in clusterctl.lock.", invoke_without_command=True,
                        rich_markup_mode=None)
    group.callback()(lock)
    group.command("verify")(verify)
    app.add_typer(group, name="lock")


@verb
def lock(
    call: InventoryOptions,
    context: typer.Context,
    inventory: Annotated[list[Path] | None, INVENTORY] = None,
    kubernetes: KubernetesOption = None,
    update: UpdateOption = None,
    arch: ArchOption = "amd64,arm64",
    output: OutputOption = Output.text,
) -> None:
    """Lock the checksums of programs in clusterctl.lock, as upstream publishes them."""
    if context.invoked_subcommand is not None:
        return
    from clusterctl.artifacts.lock_file import ARCHITECTURES, NAME
    from clusterctl.commands import lock as pinning
    from clusterctl.errors import InputError
    from clusterctl.inventory import load

    chosen = arch.split(",")
    if unknown := [one for one in chosen if one not in ARCHITECTURES]:
        raise InputError(f"{unknown[0]!r} is no architecture of Kubernetes' releases that clusterctl knows", where="--arch",
                         code="lock.unknown-architecture", hint=f"known: {', '.join(ARCHITECTURES)}")
    if not inventory:
        raise InputError("is missing", where="-i", code="cli.no-inventory", hint="clusterctl lock -i cluster.yaml")
    changes = pinning.lock(load(call.sources), kubernetes or (), update or (), chosen)
    if output is Output.json:
        typer.echo(json.dumps({"changes": [change.as_dict() for change in changes]}))
        return
    for change in changes:
        if change.before:
            typer.echo(f"- {change.before}  {change.path}")
        typer.echo(f"+ {change.after}  {change.path}")
    typer.echo(f"{len(changes)} checksums written to {NAME}" if changes else "every program is pinned; nothing is changed")


@verb
def verify(call: InventoryOptions) -> None:
    """Download every file of clusterctl.lock and compare it."""
    from clusterctl.commands import lock as pinning
    from clusterctl.inventory import load

    count = pinning.verify(load(call.sources), lambda path, done, total: None)
    typer.echo(f"{count} files are what clusterctl.lock says")
