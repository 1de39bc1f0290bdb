"""The verb ``init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli.options import PasswordOptions, verb
from clusterctl.inventory.sources import Sources


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("init")(init)


HostsArgument = Annotated[list[str], typer.Argument(metavar="HOST...", help="[USER@]ADDRESS[:PORT], or a name of ssh_config.")]
ControlPlanesOption = Annotated[
    int | None, typer.Option("--control-planes", metavar="N", help="Default: 3 of 4 or more machines, else 1.")]
FileOption = Annotated[Path, typer.Option("--output", metavar="FILE", help="Write the inventory to this file; - is stdout.")]
YesOption = Annotated[
    bool, typer.Option("--yes", help="Accept unknown host keys without asking; only in a network that you control.")]


@verb
def init(
    call: PasswordOptions,
    hosts: HostsArgument,
    control_planes: ControlPlanesOption = None,
    output: FileOption = Path("cluster.yaml"),
    yes: YesOption = False,
) -> None:
    """Inspect machines and write an inventory of them. Nothing on them is changed."""
    from clusterctl.cli.prompts import confirm
    from clusterctl.commands import init as operation
    from clusterctl.errors import InputError
    from clusterctl.inventory.show import table
    from clusterctl.local.storage import write_whole
    from clusterctl.ssh.transport import fingerprint

    to_file = str(output) != "-"
    if to_file and output.exists():
        raise InputError("is there already", where=str(output), code="init.file-exists", hint="name another file: --output FILE")
    named = operation.parse(hosts)
    count = operation.control_plane_count(len(named), control_planes)
    given = call.gather(Sources.of(output))
    keys = operation.offers(named)
    rows = [(host.name, host.ssh.address, keys[host.name].get_name(), fingerprint(keys[host.name])) for host in named
            if not operation.is_known(host, keys[host.name])]
    if rows:
        typer.echo("\n".join(table((("HOST", "ADDRESS", "KIND", "FINGERPRINT"), *rows))), err=True)
        confirm(yes, "Are they those on the consoles?", "--yes accepts them")
    text = operation.propose(operation.observe(named, keys, given), count)
    if not to_file:
        typer.echo(text, nl=False)
        return
    try:
        write_whole(output, text.encode(), 0o644)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(output), code="init.not-written") from None
    workers = len(named) - count
    typer.echo(f"wrote {output}: {count} control plane{'s' if count > 1 else ''}, {workers} worker{'' if workers == 1 else 's'}; "
               f"next: clusterctl plan -i {output}")
