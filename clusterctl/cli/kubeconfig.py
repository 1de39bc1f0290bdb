"""``clusterctl kubeconfig``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli.options import InventoryOptions, StateOption, verb


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("kubeconfig")(kubeconfig)


@verb
def kubeconfig(
    call: InventoryOptions,
    state: StateOption = None,
    output: Annotated[
        Path | None, typer.Option("--out", "--output", metavar="FILE", help="Write it to this file (mode 0600), not to stdout.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge it into ~/.kube/config (or $KUBECONFIG).")] = False,
    server: Annotated[
        str | None, typer.Option("--server", metavar="NAME", help="Another name of the API, from endpoint.names.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=365, help="Lifetime of its certificate in days.")] = 1,
) -> None:
    """Print or merge an administrator's kubeconfig. Its certificate is short-lived; no machine is contacted."""
    import yaml

    from clusterctl.commands import kubeconfig as operation
    from clusterctl.engine.events import Events
    from clusterctl.session.session import session

    with session(call.local(state), Events()) as opened:
        made = operation.make(opened, days=days, server=server)
    if merge:
        target = operation.users_own()
        operation.merge(made, target)
        typer.echo(f"merged into {target}; its certificate ends in {days * 24} h", err=True)
    elif output is not None:
        operation.write(made, output)
        typer.echo(f"wrote {output}; its certificate ends in {days * 24} h", err=True)
    else:
        typer.echo(yaml.safe_dump(made, sort_keys=False), nl=False)
