"""The verbs ``inventory``, ``schema`` and ``vagrant-inventory``: what was understood, what may be written, what Vagrant made."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import InventoryOptions, verb

if TYPE_CHECKING:
    from clusterctl.cluster.model import Host
    from clusterctl.inventory.loader import Inventory


class InventoryOutput(StrEnum):
    """How an inventory is printed."""

    text = "text"
    json = "json"
    yaml = "yaml"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("inventory")(inventory)
    app.command("schema")(schema)
    app.command("vagrant-inventory")(vagrant_inventory)


@verb
def inventory(
    call: InventoryOptions,
    output: Annotated[InventoryOutput, typer.Option("-o", "--output", help="Print text, or JSON or YAML for programs.")] =
        InventoryOutput.text,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name all files and ignored variables.")] = False,
    convert: Annotated[bool, typer.Option("--convert", help="Print an inventory without other tools' variables.")] = False,
    explain: Annotated[str | None, typer.Option(
        "--explain", metavar="HOST", autocompletion=words.hosts,
        help="Print the settings of this host, and where each comes from (-o yaml).")] = None,
) -> None:
    """Show how an inventory is interpreted. Nothing is contacted."""
    from clusterctl.inventory import read, show

    found: Inventory = read(call.sources)
    if convert:
        from clusterctl.inventory.conversion import convert as converted
        from clusterctl.inventory.conversion import refuse_decrypted

        refuse_decrypted(found.decrypted)
        left = ["passwords of ansible-vault are not written"] if found.sudo_passwords or found.ssh_passwords else []
        for note in (*found.notes, *left):
            typer.echo(f"note: {note}", err=True)
        typer.echo(converted(found.cluster), nl=False)
    elif explain is not None:
        typer.echo(show.explain(found, _host(found, explain, output)))
    elif output is InventoryOutput.yaml:
        import yaml

        typer.echo(yaml.safe_dump(json.loads(json.dumps(show.as_data(found))), sort_keys=False), nl=False)
    else:
        as_json = output is InventoryOutput.json
        typer.echo(json.dumps(show.as_data(found), indent=2) if as_json else show.as_text(found, verbose=verbose))


def _host(found: Inventory, name: str, output: InventoryOutput) -> Host:
    from clusterctl.errors import InputError

    if output is not InventoryOutput.yaml:
        raise InputError("is printed as YAML", where="--explain", hint="add -o yaml", code="inventory.explain-output")
    try:
        return found.cluster.host(name)
    except KeyError:
        raise InputError(f"no host is called {name!r}", where="--explain", code="inventory.no-host",
                         hint=f"hosts: {', '.join(host.name for host in found.cluster.hosts)}") from None


def schema(
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Write it to this file.")] = None,
) -> None:
    """Print the JSON Schema of inventories, for editors."""
    from clusterctl.errors import InputError
    from clusterctl.inventory import json_schema
    from clusterctl.local.storage import write_whole

    text = json.dumps(json_schema(), indent=2)
    if output is None:
        typer.echo(text)
        return
    try:
        write_whole(output, f"{text}\n".encode(), 0o644)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(output), code="schema.not-written") from None
    typer.echo(f"wrote {output}; first line of an inventory: # yaml-language-server: $schema={output}", err=True)


def vagrant_inventory(
    ssh_config: Annotated[str, typer.Option(metavar="FILE", help="Output of `vagrant ssh-config`; - is stdin.")] = "-",
    config: Annotated[Path, typer.Option(metavar="FILE", help="The machines' configuration.")] = Path("vagrant/config.yaml"),
    facts: Annotated[Path, typer.Option(
        metavar="FOLDER", help="NAME.facts of each machine: public host key, addresses.")] = Path(".vagrant/clusterctl"),
    write: Annotated[Path | None, typer.Option(metavar="FILE", help="Write it to this file instead of printing it.")] = None,
) -> None:
    """Write an inventory of Vagrant's machines. `vagrant/apply` calls this."""
    from clusterctl.artifacts.places import filled_mirror
    from clusterctl.inventory.document import MOST_BYTES, read_bytes
    from clusterctl.inventory.vagrant import generate, write_inventory

    content = sys.stdin.buffer.read(MOST_BYTES) if ssh_config == "-" else read_bytes(Path(ssh_config))
    text = generate(content.decode("utf-8", "replace"), config, facts, filled_mirror())
    if write is None:
        typer.echo(text, nl=False)
    else:
        write_inventory(write, text)
        typer.echo(f"wrote {write}", err=True)
