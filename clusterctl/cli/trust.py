"""``clusterctl trust``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import InventoryOptions, StateOption, verb

if TYPE_CHECKING:
    from clusterctl.cluster.model import Cluster
    from clusterctl.errors import ClusterctlError
    from clusterctl.local.storage import StateFolder


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("trust")(trust)


@verb
def trust(
    call: InventoryOptions,
    host: Annotated[str | None, typer.Argument(
        metavar="[HOST]", autocompletion=words.hosts, help="A host of the inventory, or a bastion's address.")] = None,
    state: StateOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All hosts and bastions with unknown keys.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask; only in a network that you control.")] = False,
    expected: Annotated[
        str | None, typer.Option("--fingerprint", metavar="SHA256:...", help="Accept only this key, without asking.")
    ] = None,
) -> None:
    """Accept host keys. Compare them with those on the machines' consoles first."""
    from clusterctl.cli.prompts import confirm
    from clusterctl.commands import trust as operation
    from clusterctl.errors import InputError
    from clusterctl.inventory import load
    from clusterctl.local.storage import StateFolder
    from clusterctl.ssh.transport import fingerprint

    if everything == (host is not None) or (everything and expected is not None):
        raise InputError("needs one host, or --all without a host and a fingerprint", where="trust", code="trust.one-or-all")
    # No program on the way receives the passphrase, or another secret.
    passphrase = call.local(state).passphrase
    cluster = load(call.sources)
    folder = StateFolder.of(cluster.base, cluster.name, state)
    if host is None:
        _trust_all(cluster, folder, passphrase, yes=yes)
        return
    found = operation.find(cluster, host)
    if expected is not None:
        operation.refuse_malformed(expected)
    key = operation.offered(folder, found, passphrase)
    if expected is None:
        typer.echo(f"{host} offers {key.get_name()} {fingerprint(key)}")
        confirm(False, "Is it the one on its console?", f"say: clusterctl trust {host} --fingerprint {fingerprint(key)}")
    operation.accept(folder, found, key, expected)
    typer.echo(f"{host}: accepted {fingerprint(key)}")


def _trust_all(cluster: Cluster, folder: StateFolder, passphrase: Callable[[], str | None], *, yes: bool) -> None:
    """Show all unknown keys in one table and accept them after one question; before that each bastion's, which come first."""
    from clusterctl.cli.prompts import confirm
    from clusterctl.commands import trust as operation
    from clusterctl.errors import raise_all
    from clusterctl.inventory.show import table
    from clusterctl.ssh.transport import fingerprint

    errors: list[ClusterctlError] = []
    accepted = 0
    for hosts in (*([bastion] for bastion in operation.bastions_of(cluster)), cluster.hosts):
        offers, failed = operation.unknown(folder, hosts, passphrase, forks=20)
        errors += failed
        if offers:
            rows = [(one.host.name, one.host.ssh.address, one.key.get_name(), fingerprint(one.key)) for one in offers]
            typer.echo("\n".join(table((("HOST", "ADDRESS", "KIND", "FINGERPRINT"), *rows))))
            confirm(yes, "Are they those on the consoles?", "--yes accepts all, trust HOST --fingerprint SHA256:... one")
        for one in offers:
            operation.accept(folder, one.host, one.key, None)
        accepted += len(offers)
    if accepted or not errors:
        typer.echo(f"accepted {accepted} host keys" if accepted else "all host keys are known")
    raise_all(errors)
