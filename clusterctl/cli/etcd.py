"""The verbs about etcd: members, defrag, snapshots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from clusterctl.cli.driver import begin_journal
from clusterctl.cli.options import InventoryOptions, Invocation, LimitOption, Output, OutputOption, StateOption, verb
from clusterctl.cli.restore import recover, restore


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    etcd = typer.Typer(help="etcd's members and snapshots.", no_args_is_help=True, rich_markup_mode=None)
    etcd.command("members")(members)
    etcd.command("defrag")(defrag)
    etcd.command("recover")(recover)
    snapshot = typer.Typer(help="Snapshots of etcd.", no_args_is_help=True, rich_markup_mode=None)
    snapshot.command("save")(save)
    snapshot.command("list")(list_saved)
    snapshot.command("verify")(verify)
    snapshot.command("restore")(restore)
    etcd.add_typer(snapshot, name="snapshot")
    app.add_typer(etcd, name="etcd")


@verb
def members(call: Invocation) -> None:
    """Show etcd's members. Exits with 3 if one is unhealthy."""
    from clusterctl.engine.events import Events
    from clusterctl.etcd import members as operation
    from clusterctl.inventory.show import table

    with call.session(Events()) as opened:
        found = operation.look(opened)
    if call.output is Output.json:
        listed = [state.as_dict() for state in found.members]
        typer.echo(json.dumps({"cluster_id": found.cluster_id, "members": listed}, indent=2))
    else:
        rows = [("ID", "NAME", "ROLE", "VERSION", "SIZE", "IN USE", "STATE")]
        for state in found.members:
            role = "learner" if state.member.learner else "leader" if state.leader else "voter"
            where = "" if state.host else ", of no machine of the inventory"
            size, used = (f"{number / 2**20:.1f} MiB" if number else "-" for number in (state.size, state.in_use))
            rows.append((state.member.hexadecimal, state.name, role, state.version or "-", size, used,
                         (state.error or ", ".join(state.alarms) or "healthy") + where))
        typer.echo("\n".join(table(rows)))
    if not all(state.healthy and state.host and not state.alarms for state in found.members):
        raise typer.Exit(3)


@verb
def defrag(call: Invocation, limit: LimitOption = None) -> None:
    """Defragment etcd's databases. One member at a time, the leader last."""
    from clusterctl.etcd import members as operation
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened, locked(opened, "etcd defrag"):
        chosen = [host for host in opened.cluster.etcd_members if host in opened.chosen]
        for name, (before, after) in operation.defragment(opened, chosen).items():
            report.progress(f"{name}: {before / 2**20:.1f} MiB -> {after / 2**20:.1f} MiB")


@verb
def save(call: Invocation) -> None:
    """Save and verify a snapshot of etcd. It is kept beside the cluster's keys; a scratch member verifies it."""
    from dataclasses import asdict

    from clusterctl.etcd import snapshot as operation
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with call.session(report) as opened, locked(opened, "etcd snapshot save"):
        begin_journal(report, opened, "snapshot")
        made = operation.save(opened, report.progress)
        path = operation.folder(opened.state) / made.file
    if call.output is Output.json:
        typer.echo(json.dumps({"event": "snapshot", **asdict(made), "path": str(path)}))
    else:
        typer.echo(f"{path}: {made.size / 2**20:.1f} MiB, revision {made.revision}, {made.keys} keys, verified")
        typer.echo("  next: copy it elsewhere together with the state folder: without its keys it cannot be read")


@verb
def list_saved(call: InventoryOptions, output: OutputOption = Output.text, state: StateOption = None) -> None:
    """List the saved snapshots. No machine is contacted."""
    from dataclasses import asdict

    from clusterctl.engine.events import Events
    from clusterctl.etcd import snapshot as operation
    from clusterctl.session.session import session

    with session(call.local(state), Events()) as opened:
        found = operation.saved(opened.state)
        place = operation.folder(opened.state)
    if output is Output.json:
        typer.echo(json.dumps([asdict(entry) for entry in found], indent=2))
        return
    for entry in found:
        typer.echo(f"{place / entry.file}  {entry.size / 2**20:.1f} MiB  revision {entry.revision}  etcd {entry.etcd}")
    if not found:
        typer.echo(f"none in {place}")


@verb
def verify(call: Invocation, file: Annotated[Path, typer.Argument(metavar="FILE", help="A snapshot.")]) -> None:
    """Verify a snapshot. Checks its digest, its cluster, and a restore into a scratch member."""
    from clusterctl.etcd import snapshot as operation

    report = call.report()
    with call.session(report) as opened:
        found = operation.verify(opened, file, report.progress)
    if call.output is Output.json:
        typer.echo(json.dumps({"event": "verified", **found}))
    else:
        typer.echo(f"{file}: whole, of this cluster, revision {found['revision']}, {found['keys']} keys")
