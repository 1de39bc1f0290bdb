"""Free space for a restore of etcd's data beside a member that serves."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from clusterctl.cluster.model import Host
from clusterctl.errors import Refused
from clusterctl.session.session import Session
from clusterctl.shell import Script, functions
from clusterctl.ssh.transport import ConnectionLost

FACTOR = 2.2
"""A snapshot and what is restored from it, with the write-ahead log, take so many times its size."""

LEFT, SHARE = 2 * 2**30, 0.2
"""Free space to keep: bytes, and a share of the file system. A live etcd exits at once where no space is left."""

MIB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A file system as an unprivileged process sees it, in bytes. ``where``: the host; ``device`` tells file systems apart."""

    where: str
    path: str
    free: int
    total: int
    device: str = ""

    def shortage(self, size: int, factor: float = FACTOR) -> str:
        """Return why data of ``size`` bytes may not be restored here; empty where it may."""
        needed = int(size * factor) + max(LEFT, int(self.total * SHARE))
        if self.free >= needed:
            return ""
        return f"{self.where}: {self.path}: {self.free // MIB} MiB are free, {-(-needed // MIB)} MiB are needed"


def refuse(shortages: list[str]) -> Refused:
    """The error for places that all have too little room."""
    return Refused("no room to restore a snapshot: " + "; ".join(shortages), where="etcd", code="etcd.snapshot-no-room",
                   hint="free some, compact and defragment etcd (clusterctl etcd defrag), or run where etcdutl is installed")


def here(path: Path) -> Room:
    """The file system of a folder on this side."""
    found = shutil.disk_usage(path)
    return Room(where="this machine", path=str(path), free=found.free, total=found.used + found.free)


def ask(session: Session, host: Host, *paths: str) -> tuple[Room, ...]:
    """The file systems of paths on a host; for one that is not there, of the folder that it would be in.

    Raises Unreachable, Stopped.
    """
    program = Script(probes=[("room", path) for path in paths], functions=functions("snapshot"))
    try:
        records = list(session.engine.transports[host.name].stream(program, silence=60))
    except ConnectionLost as error:
        raise error.stopped(host) from None
    return tuple(Room(where=host.name, path=words[1], free=int(words[2]), total=int(words[3]), device=words[4])
                 for words in records if words[0] == "room")
