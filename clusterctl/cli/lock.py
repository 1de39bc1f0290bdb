"""``clusterctl lock``: checksums of programs, taken from upstream on purpose and kept beside the inventory."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import INVENTORY, InventoryOptions, Output, OutputOption, refuse_releases, verb

KubernetesOption = Annotated[list[str] | None, typer.Option(
    metavar="X.Y[.Z]", autocompletion=words.versions, help="Lock for this version; repeatable.")]
UpdateOption = Annotated[list[str] | None, typer.Option(
    metavar="PRODUCT", autocompletion=words.programs, help="Take the checksums of this product again; repeatable.")]
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
    refuse_releases("--kubernetes", kubernetes or (), minors=True)
    changes = pinning.lock(load(_given(call, context).sources), kubernetes or (), update or (), chosen)
    if output is Output.json:
        typer.echo(json.dumps({"changes": [asdict(change) for change in changes]}))
        return
    for change in changes:
        for sign, value in (("-", change.before), ("+", change.after)):
            if value:
                typer.echo(f"{sign} {value}  {change.path}")
    typer.echo(f"{len(changes)} entries changed in {NAME}" if changes else "every program is pinned; nothing is changed")


@verb
def verify(
    call: InventoryOptions,
    context: typer.Context,
    inventory: Annotated[list[Path] | None, INVENTORY] = None,
    output: OutputOption = Output.text,
) -> None:
    """Download every file of clusterctl.lock and compare it."""
    from clusterctl.commands import lock as pinning
    from clusterctl.engine.events import Downloaded
    from clusterctl.inventory import load
    from clusterctl.views.report import JsonReport
    from clusterctl.views.text import TextReport

    report = JsonReport() if output is Output.json else TextReport()
    cluster = load(_given(call, context).sources)
    count = pinning.verify(cluster, lambda path, done, total: report.emit(Downloaded(path, done, total)))
    as_json = json.dumps({"event": "verified", "files": count})
    typer.echo(as_json if output is Output.json else f"{count} files have the locked checksums and sizes")


def _given(call: InventoryOptions, context: typer.Context) -> InventoryOptions:
    """Return the options with the inventory of this verb, else of ``lock`` before it. Raises a missing option's error."""
    found = call.inventory or (context.parent.params.get("inventory") if context.parent else None)
    if not found:
        missing = next(one for one in context.command.params if one.name == "inventory")
        missing.required = True
        missing.process_value(context, None)
    return replace(call, inventory=list(found or ()))
