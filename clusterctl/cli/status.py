"""``clusterctl status``."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.options import Invocation, LimitOption, verb
from clusterctl.local.text import printable

if TYPE_CHECKING:
    from clusterctl.commands.status import ClusterStatus

UNWELL = 3


class Shape(StrEnum):
    """How a status is printed."""

    text = "text"
    wide = "wide"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("status")(status)


@verb
def status(
    call: Invocation,
    output: Annotated[Shape, typer.Option("-o", "--output", help="text, wide or json.")] = Shape.text,
    limit: LimitOption = None,
) -> None:
    """Show the state of the cluster. Exits with 3 if something is wrong."""
    call.connect()
    from clusterctl.commands.status import status as look
    from clusterctl.engine.events import Events

    with call.session(Events()) as opened:
        found = look(opened)
    typer.echo(json.dumps(found.as_dict(), indent=2) if output is Shape.json else _text(found, wide=output is Shape.wide))
    if not found.healthy:
        raise typer.Exit(UNWELL)


def _text(found: ClusterStatus, *, wide: bool) -> str:
    from clusterctl.inventory.show import table

    lines = [
        f"cluster {found.name}, Kubernetes {found.kubernetes}: {'healthy' if found.healthy else 'NOT healthy'} "
        f"(API {'ready' if found.api else 'does not answer'}, {found.members} etcd members active)"
    ]
    rows = [("HOST", "ROLES", "ADDRESS", "NODE", "VERSION", "SERVICES", "DRIFT", "CERTIFICATES")]
    for host in found.hosts:
        down = [f"{name} {state}" for name, state in host.services.items() if state != "active"]
        services = ", ".join(down) or f"{len(host.services)} active"
        if wide and host.services:
            services = ", ".join(f"{name} {state}" for name, state in host.services.items())
        rows.append((host.name, ",".join(host.roles), host.address, host.node or "-", host.version or "-", host.error or services,
                     str(host.drift), f"until {host.expires[:10]}" if host.expires else "-"))
    return printable("\n".join([*lines, *table(rows), *(f"! {problem}" for problem in found.problems)]))
