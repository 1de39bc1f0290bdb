"""``clusterctl lab``: real machines on this one Linux host, to try everything out on."""

from __future__ import annotations

import json
import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.errors import InputError

if TYPE_CHECKING:
    from clusterctl.lab import Lab

app = typer.Typer(help="Throw-away machines on this host, as root.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="The lab's name: lower-case letters and digits.")]
MachineName = Annotated[str, typer.Argument(metavar="MACHINE", help="A machine of the lab, as cp-1.")]


class Direction(StrEnum):
    """Ways of a machine's traffic."""

    BOTH = "both"
    IN = "in"
    OUT = "out"


class Driver(StrEnum):
    """Drivers of a lab."""

    NSPAWN = "nspawn"
    QEMU = "qemu"


class Role(StrEnum):
    """Roles of a lab's machine."""

    CONTROL_PLANE = "control_plane"
    ETCD = "etcd"
    WORKER = "worker"


def parse_size(text: str) -> int:
    """Bytes of a size as ``512M`` or ``4G`` (powers of 1024); raises :class:`InputError`."""
    match = re.fullmatch(r"(\d+)([KMGT]?)(?:iB?|B)?", text.strip(), re.IGNORECASE)
    if not match:
        raise InputError(f"{text!r} is not a size", where="--memory", hint="write it as 512M or 4G", code="lab.memory")
    return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


def _open(name: str) -> Lab:
    from clusterctl.lab import Lab

    return Lab.open(name)


def _say(message: str) -> None:
    print(message, flush=True)


def _mirror() -> dict[str, object]:
    """The settings that name this host's mirror, where it has one: machines of a lab reach nothing else."""
    from clusterctl.artifacts.places import filled_mirror

    place = filled_mirror()
    return {"artifacts": {"mirror": str(place)}} if place else {}


def _shape(inventory: Path, settings: dict[str, object]) -> tuple[int, int, int, dict[str, object]]:
    """(machines, control planes, machines for etcd alone, settings) of an inventory. Raises InputError."""
    from clusterctl.inventory import load

    cluster = load(inventory)
    alone = sum(not host.is_node for host in cluster.hosts)
    wanted = cluster.settings.model_dump(mode="json", exclude_unset=True)
    return len(cluster.hosts), len(cluster.control_planes), alone, {**settings, **wanted}


@app.command()
def up(
    name: Name = "lab",
    driver: Annotated[Driver, typer.Option(help="Containers of systemd-nspawn, or virtual machines of QEMU.")] = Driver.NSPAWN,
    base: Annotated[str, typer.Option(metavar="BASE", help="Debian bookworm, trixie or bullseye, or dnf.")] = "bookworm",
    machines: Annotated[int, typer.Option(help="Number of machines in all.")] = 3,
    control_planes: Annotated[int, typer.Option(help="Number of control planes among them.")] = 1,
    etcd: Annotated[int, typer.Option(help="Number of machines with etcd only; with 0, etcd runs on the control planes.")] = 0,
    memory: Annotated[str, typer.Option(help="Of each machine, as 4G: a container's limit (by default none), "
                                             "a virtual machine's size (by default 2G).")] = "",
    user: Annotated[str, typer.Option(help="User of the inventory: root, or admin with sudo.")] = "root",
    sudo_password: Annotated[bool, typer.Option("--sudo-password", help="sudo asks admin for a (generated) password.")] = False,
    inventory: Annotated[Path | None, typer.Option(help="Write the inventory to this file, too.")] = None,
    like: Annotated[Path | None, typer.Option(help="Start as many machines as this inventory has, with its settings.")] = None,
) -> None:
    """Start a lab and write its inventory."""
    from clusterctl.lab import Lab, LabSpec

    settings = _mirror()
    if like is not None:
        machines, control_planes, etcd, settings = _shape(like, settings)
    spec = LabSpec(name=name, machines=machines, control_planes=control_planes, etcd=etcd, user=user, cluster=settings,
                   memory=parse_size(memory) if memory else None, sudo_password=sudo_password,
                   driver=driver.value, base=base)
    lab = Lab.up(spec, inventory=inventory, progress=_say)
    if sudo_password:
        _say(f"the sudo password of admin is in {lab.sudo_password_file}")
    _say(f"the inventory is {inventory or lab.inventory}")


@app.command()
def add(
    name: Name = "lab",
    count: Annotated[int, typer.Option(help="Number of machines.")] = 1,
    role: Annotated[Role, typer.Option(help="Role of the machines.")] = Role.WORKER,
) -> None:
    """Start more machines in a lab and rewrite its inventory."""
    lab = _open(name)
    lab.add(count, role.value, progress=_say)
    _say(f"the inventory is {lab.inventory}")


@app.command()
def down(
    name: Name = "lab",
    everything: Annotated[bool, typer.Option("--all", help="Remove every lab of this host.")] = False,
) -> None:
    """Remove a lab with its machines and their data. Safe to rerun."""
    from clusterctl.lab import labs_on_host, remove_lab

    for one in labs_on_host() if everything else [name]:
        _say(f"{one}: removed" if remove_lab(one) else f"{one}: nothing to remove")


@app.command("list")
def list_labs(output: Annotated[str, typer.Option("-o", "--output", help="text or json")] = "text") -> None:
    """Show labs, their machines, addresses and states."""
    from clusterctl.lab import labs_on_host
    from clusterctl.lab.host import check_host

    check_host()
    rows = [row for name in labs_on_host() for row in _rows(name)]
    if output == "json":
        return _say(json.dumps(rows, indent=1))
    if output != "text":
        raise InputError(f"there is no output {output!r}", where="--output", hint="text or json", code="cli.output-format")
    for row in rows:
        _say(f"{row['lab']:<16} {row['machine']:<10} {row['address']:<15} {row['role']:<14} {row['state']}")
    return None


def _rows(name: str) -> list[dict[str, str]]:
    try:
        lab = _open(name)
    except InputError:
        return [{"lab": name, "machine": "-", "address": "-", "role": "-", "state": "half made: lab down removes it"}]
    return [{"lab": name, "machine": one.name, "address": one.address, "role": one.role, "state": lab.status(one.name)}
            for one in lab.machines.values()]


@app.command()
def shell(
    machine: MachineName,
    command: Annotated[list[str] | None, typer.Argument(help="A command instead of a session, after --.")] = None,
    name: Name = "lab",
    user: Annotated[str, typer.Option(help="root or admin; by default as in the inventory.")] = "",
) -> None:
    """Log in to a machine with ssh."""
    argv = [*_open(name).ssh_command(machine, user=user), *(command or [])]
    os.execvp(argv[0], argv)


@app.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def execute(command: Annotated[list[str], typer.Argument(metavar="CMD...", help="What to run.")], name: Name = "lab") -> None:
    """Run a command of this host in the lab's network. For instance kubectl or curl."""
    from clusterctl.lab.host import enter_network

    enter_network(_open(name).namespace)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise InputError(f"{command[0]} cannot be run: {error.strerror}", where="lab exec", code="lab.command-not-run") from error


@app.command()
def start(machine: MachineName, name: Name = "lab") -> None:
    """Start a machine that is down and wait for it."""
    _open(name).start(machine)


@app.command()
def reboot(machine: MachineName, name: Name = "lab") -> None:
    """Reboot a machine and wait until it is up again."""
    _open(name).reboot(machine)


@app.command()
def reinstall(machine: MachineName, name: Name = "lab") -> None:
    """Give a machine a new disk and a new host key. Its name and address stay."""
    _open(name).reinstall(machine, progress=_say)


@app.command()
def kill(machine: MachineName, name: Name = "lab") -> None:
    """Power a machine off; it is down until `lab start`."""
    _open(name).kill(machine)


@app.command()
def freeze(machine: MachineName, name: Name = "lab") -> None:
    """Freeze a machine. It answers pings and nothing else."""
    _open(name).freeze(machine)


@app.command()
def thaw(machine: MachineName, name: Name = "lab") -> None:
    """Resume a frozen machine."""
    _open(name).thaw(machine)


@app.command()
def cut(
    machine: MachineName,
    name: Name = "lab",
    direction: Annotated[Direction, typer.Option(help="Direction of the traffic, seen from the machine.")] = Direction.BOTH,
    peer: Annotated[str | None, typer.Option("--from", help="Only traffic from and to this machine (or: controller).")] = None,
) -> None:
    """Stop a machine's traffic."""
    _open(name).cut(machine, direction.value, peer=peer)


@app.command()
def heal(machine: MachineName, name: Name = "lab") -> None:
    """Restore a machine's traffic."""
    _open(name).heal(machine)
