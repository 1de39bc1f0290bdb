"""The network of a lab: a namespace with a bridge and no link to anywhere else, and one namespace per machine on it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from clusterctl.lab.host import LabError, in_network, run, unmount

NAMESPACES = Path("/run/netns")
PREFIX = "cctl-"
BRIDGE = "br0"
TAP = "tap0"
TABLE = "clusterctl_lab"


def namespace_of(lab: str, machine: str | None = None) -> str:
    """The name of a lab's own namespace, or of that of one of its machines."""
    return f"{PREFIX}{lab}" if machine is None else f"{PREFIX}{lab}-{machine}"


def namespaces_of(lab: str) -> list[str]:
    """Return the existing namespaces of a lab; names of labs have no hyphen, so that no other lab's match."""
    own = namespace_of(lab)
    if not NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in NAMESPACES.iterdir() if path.name == own or path.name.startswith(f"{own}-"))


def labs_with_namespaces() -> set[str]:
    """Names of the labs that have a namespace on this host."""
    if not NAMESPACES.is_dir():
        return set()
    return {path.name.split("-")[1] for path in NAMESPACES.iterdir() if path.name.startswith(PREFIX)}


def create_lab_network(lab: str, gateway: str) -> None:
    """Make the lab's namespace with its bridge; ``gateway`` is the controller's address in it."""
    namespace = namespace_of(lab)
    run(["ip", "netns", "add", namespace])
    _batch(namespace, [
        "link set lo up",
        f"link add {BRIDGE} type bridge mcast_snooping 0",
        f"addr add {gateway}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ])
    no_forwarding(namespace)


def create_machine_network(lab: str, machine: str, address: str) -> None:
    """Make a machine's namespace, with ``eth0`` on the lab's bridge."""
    namespace = namespace_of(lab, machine)
    port = f"v{address.rsplit('.', 1)[1]}"
    run(["ip", "netns", "add", namespace])
    _batch(namespace_of(lab), [
        f"link add {port} type veth peer name eth0 netns {namespace}",
        f"link set {port} master {BRIDGE} up",
    ])
    _batch(namespace, ["link set lo up", "link set eth0 up"])
    no_forwarding(namespace)


def address_machine(namespace: str, address: str, gateway: str) -> None:
    """Give a machine's namespace its address, and a default route that leads no further than the lab."""
    _batch(namespace, [f"addr add {address}/24 dev eth0", f"route add default via {gateway}"])


def add_tap(namespace: str) -> None:
    """Bridge a machine's namespace to a tap device for a virtual machine; the namespace itself has no address."""
    def no_ipv6() -> None:
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")

    if Path("/proc/sys/net/ipv6").exists():
        in_network(namespace, no_ipv6)
    _batch(namespace, [f"link add {BRIDGE} type bridge mcast_snooping 0", f"tuntap add dev {TAP} mode tap",
                       *(f"link set {port} master {BRIDGE} up" for port in ("eth0", TAP)), f"link set {BRIDGE} up"])


def remove_machine_network(lab: str, machine: str, address: str) -> None:
    """Remove a machine's namespace, and its end on the lab's bridge. Nothing may run in it any more."""
    run(["ip", "-n", namespace_of(lab), "link", "delete", f"v{address.rsplit('.', 1)[1]}"], check=False)
    run(["ip", "netns", "delete", namespace_of(lab, machine)])


def no_forwarding(namespace: str) -> None:
    """Turn forwarding off, as on a fresh machine: a new namespace takes it over from this host."""
    def write() -> None:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")

    in_network(namespace, write)


def _batch(namespace: str, commands: Iterable[str]) -> None:
    run(["ip", "-n", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")


def remove_namespaces(lab: str) -> None:
    """Remove every namespace of a lab, killing what still runs in it (save this process and its parents)."""
    names = namespaces_of(lab)
    for pid in _processes_in(names):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for name in names:
        unmount(NAMESPACES / name)
        (NAMESPACES / name).unlink(missing_ok=True)


def _processes_in(names: Iterable[str]) -> list[int]:
    inodes = set()
    for name in names:
        status = (NAMESPACES / name).stat()
        inodes.add((status.st_dev, status.st_ino))
    spared = _ancestors()
    found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _identity(entry.name) in inodes]
    return [pid for pid in found if pid not in spared]


def _identity(pid: str) -> tuple[int, int] | None:
    try:
        status = Path(f"/proc/{pid}/ns/net").stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _ancestors() -> set[int]:
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return pids


def cut(namespace: str, family: str, direction: str, peer: str | None) -> None:
    """Drop what goes ``in``, ``out`` or ``both`` ways at a machine, of everybody or of the address ``peer``."""
    lines = [
        f"add table {family} {TABLE}",
        f"add chain {family} {TABLE} in {{ type filter hook prerouting priority -400; }}",
        f"add chain {family} {TABLE} out {{ type filter hook postrouting priority 400; }}",
    ]
    if direction in ("in", "both"):
        lines.append(f"add rule {family} {TABLE} in iifname eth0 {f'ip saddr {peer} ' if peer else ''}drop")
    if direction in ("out", "both"):
        lines.append(f"add rule {family} {TABLE} out oifname eth0 {f'ip daddr {peer} ' if peer else ''}drop")
    _nft(namespace, "\n".join(lines))


def heal(namespace: str, family: str) -> None:
    """Undo every cut of a machine; nothing happens where there is none."""
    _nft(namespace, f"add table {family} {TABLE}\ndelete table {family} {TABLE}")


def is_cut(namespace: str, family: str) -> bool:
    """Whether a cut is in force."""
    return run(["nsenter", f"--net={NAMESPACES / namespace}", "nft", "list", "table", family, TABLE], check=False).returncode == 0


def _nft(namespace: str, ruleset: str) -> None:
    run(["nsenter", f"--net={NAMESPACES / namespace}", "nft", "-f", "-"], stdin=ruleset + "\n")


def banner(namespace: str, address: str, port: int, *, timeout: float = 2) -> str:
    """The first line that a server at ``address`` says, asked from inside ``namespace``. Raises :class:`OSError`."""
    def ask() -> str:
        with socket.create_connection((address, port), timeout=timeout) as connection:
            connection.settimeout(timeout)
            return connection.recv(256).decode("ascii", "replace").strip()

    return in_network(namespace, ask)


def wait_for_port(namespace: str, address: str, port: int, *, deadline: float = 20) -> None:
    """Wait until something listens at ``address``; raises :class:`LabError` after ``deadline`` seconds."""
    def connect() -> None:
        socket.create_connection((address, port), timeout=1).close()

    end = time.monotonic() + deadline
    while True:
        try:
            return in_network(namespace, connect)
        except OSError as error:
            if time.monotonic() > end:
                raise LabError(f"nothing listens on {address}:{port} after {deadline:g} s: {error}", where="lab",
                               code="lab.no-listener") from error
        time.sleep(0.05)
