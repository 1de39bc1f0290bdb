"""The verbs of every day: status, kubeconfig, exec, image load, trust, version."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import InventoryOptions, Invocation, LimitOption, Output, OutputOption, StateOption, verb
from clusterctl.local.text import printable

if TYPE_CHECKING:
    from clusterctl.cluster.model import Cluster
    from clusterctl.commands.status import ClusterStatus
    from clusterctl.errors import ClusterctlError
    from clusterctl.local.storage import StateFolder

UNWELL = 3


class Shape(StrEnum):
    """How a status is printed."""

    text = "text"
    wide = "wide"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    app.command("status")(status)
    app.command("kubeconfig")(kubeconfig)
    app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(execute)
    app.command("trust")(trust)
    app.command("version")(version)
    image = typer.Typer(help="Images on the nodes.", no_args_is_help=True, rich_markup_mode=None)
    image.command("load")(image_load)
    # A callback keeps the verb a group while it has but one command.
    image.callback()(_images)
    app.add_typer(image, name="image")


def _images() -> None:
    """Images on the nodes."""


@verb
def status(
    call: Invocation,
    output: Annotated[Shape, typer.Option("-o", "--output", help="text, wide or json.")] = Shape.text,
    limit: LimitOption = None,
) -> None:
    """Show how the cluster is. Exits with 3 where something is not well."""
    call.connect()
    from clusterctl.commands.status import status as look
    from clusterctl.engine.engine import Events

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


@verb
def kubeconfig(
    call: InventoryOptions,
    state: StateOption = None,
    output: Annotated[
        Path | None, typer.Option("--out", "--output", metavar="FILE", help="Write it there, 0600, instead of printing it.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Put it into ~/.kube/config (or $KUBECONFIG).")] = False,
    server: Annotated[
        str | None, typer.Option("--server", metavar="NAME", help="Another name of the API, of endpoint.names.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=365, help="How long its certificate lives.")] = 1,
) -> None:
    """Print or merge an administrator's kubeconfig. Its certificate is short-lived; no machine is contacted."""
    import yaml

    from clusterctl.commands import kubeconfig as operation
    from clusterctl.engine.engine import Events
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


@verb
def execute(
    call: Invocation,
    context: typer.Context,
    hosts: Annotated[str, typer.Argument(
        metavar="HOSTS", autocompletion=words.host_patterns, help="A pattern as Ansible has them: names, groups, globs, !, &.")],
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds that the command may take on a machine.")] = 600.0,
) -> None:
    """Run a command on machines as root. Exits with the highest of their exit codes."""
    from clusterctl.commands import execute as operation
    from clusterctl.engine.engine import Events
    from clusterctl.errors import InputError
    from clusterctl.inventory.patterns import select

    if not context.args:
        raise InputError("no command was given", where="exec", hint="clusterctl exec HOSTS -- CMD", code="exec.no-command")
    command = context.args[0] if len(context.args) == 1 else shlex.join(context.args)
    with call.session(Events()) as opened:
        answers = operation.run_command(opened, select(opened.cluster, hosts, "HOSTS"), command, silence=timeout)
    for name, answer in answers.items():
        if call.output is Output.json:
            typer.echo(json.dumps({"event": "answer", "host": name, "exit_code": answer.code, "output": answer.output}))
        else:
            typer.echo(printable(f"{name}: exit code {answer.code}" + (f"\n{answer.output}" if answer.output else "")))
    raise typer.Exit(max(answer.code for answer in answers.values()))


@verb
def image_load(
    call: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What docker save or buildah wrote.")],
    limit: LimitOption = None,
) -> None:
    """Put an image archive onto all nodes. An app built with Docker then runs without a registry."""
    from clusterctl.commands import image as operation

    archive = operation.read(file)
    with call.session(call.report()) as opened:
        loaded = operation.load(opened, archive, opened.chosen)
    for name, images in loaded.items():
        as_json = json.dumps({"event": "loaded", "host": name, "images": images})
        typer.echo(as_json if call.output is Output.json else f"{name}: {images}")


@verb
def trust(
    call: InventoryOptions,
    host: Annotated[str | None, typer.Argument(
        metavar="[HOST]", autocompletion=words.hosts, help="A host of the inventory, or a bastion's address.")] = None,
    state: StateOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All hosts and bastions whose keys are not known yet.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask; only in a network that you control.")] = False,
    expected: Annotated[
        str | None, typer.Option("--fingerprint", metavar="SHA256:...", help="Accept just this key, without asking.")
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
    typer.echo(f"accepted {accepted} host keys" if accepted else "all host keys are known")
    raise_all(errors)


def version(output: OutputOption = Output.text) -> None:
    """Show the versions of clusterctl and its products."""
    from clusterctl import __version__
    from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions

    products = known_versions().model_dump()
    if output is Output.json:
        typer.echo(json.dumps({"clusterctl": __version__, "minors": list(SUPPORTED_MINORS), "versions": products}, indent=2))
    else:
        typer.echo(f"clusterctl {__version__}; Kubernetes {', '.join(SUPPORTED_MINORS)}")
        typer.echo("\n".join(f"  {name.replace('_', '-')} {number}" for name, number in products.items()))
