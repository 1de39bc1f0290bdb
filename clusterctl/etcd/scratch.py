"""Verification of a snapshot: a member of its own is restored from it, where that cannot harm the members that serve."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterctl.cluster.model import Host
from clusterctl.errors import IntegrityError, Refused, Stopped, Unreachable
from clusterctl.etcd import bolt, room
from clusterctl.etcd.members import Membership, MemberState
from clusterctl.session.session import Session
from clusterctl.shell import Script, functions
from clusterctl.ssh.transport import ConnectionLost

STATE = "/var/lib/clusterctl"
"""Where programs on machines keep their files."""

SECONDS = 900
AGAIN = "take another one: clusterctl etcd snapshot save"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a snapshot is restored: a host, or this machine where it is None."""

    host: Host | None

    @property
    def name(self) -> str:
        return self.host.name if self.host else "this machine"


def choose_place(session: Session, found: Membership, size: int) -> Place:
    """Return the place for a snapshot of ``size`` bytes: a follower, this machine where it has etcdutl, then the leader.

    Raises Refused where none of them has room, before anything is sent.
    """
    shortages = []
    for place in _candidates(session, found):
        try:
            short = _room(session, place).shortage(size)
        except Unreachable as error:
            short = f"{place.name}: {error.message}"
        if not short:
            return place
        shortages.append(short)
    if shortages:
        raise room.refuse(shortages)
    raise Refused("no member of etcd answers, and this machine has no etcdutl that is new enough", where="etcd",
                  code="etcd.no-scratch", hint="clusterctl etcd members; or install etcdutl here")


def _candidates(session: Session, found: Membership) -> Iterator[Place]:
    def hosts(states: Sequence[MemberState]) -> list[Place]:
        return [Place(session.cluster.host(state.host)) for state in states if state.host and state.healthy]

    yield from hosts([state for state in found.voters if not state.leader])
    if _restores_here(found):
        yield Place(None)
    yield from hosts([state for state in found.voters if state.leader])


def _restores_here(found: Membership) -> bool:
    """Whether this machine has an etcdutl that is not older than the members."""
    program = shutil.which("etcdutl")
    if program is None:
        return False
    try:
        said = subprocess.run([program, "version"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return max((_minor(state.version) for state in found.members), default=(0, 0)) <= _minor(said)


def _minor(text: str) -> tuple[int, int]:
    version = re.search(r"(\d+)\.(\d+)\.\d+", text)
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _room(session: Session, place: Place) -> room.Room:
    if place.host is None:
        return room.here(Path(tempfile.gettempdir()))
    return room.ask(session, place.host, STATE)[0]


def restore(session: Session, place: Place, path: Path) -> tuple[int, int]:
    """Restore a snapshot into a scratch member; (revision, keys). Raises IntegrityError, Stopped."""
    return _restore_there(session, place.host, path) if place.host else _restore_here(path)


def _restore_there(session: Session, host: Host, path: Path) -> tuple[int, int]:
    program = Script(blobs={"snapshot": path}, probes=(("snapshot", "snapshot"),), functions=functions("snapshot"))
    answer: list[str] = []
    try:
        for words in session.engine.transports[host.name].stream(program, silence=SECONDS):
            if words[0] == "snapshot":
                answer = words[1:]
    except ConnectionLost as error:
        raise error.stopped(host) from None
    except Refused as error:
        raise Stopped(error.message, where=error.where, hint=error.hint, code="etcd.scratch-no-room") from None
    if answer[:1] == ["killed"]:
        raise Stopped("the scratch member was killed: too little memory to verify the snapshot", where=host.name,
                      hint="verify it where there is more, with etcdutl on this machine", code="etcd.scratch-killed")
    if answer[:1] != ["ok"]:
        said = base64.b64decode(answer[1]).decode(errors="replace").strip() if len(answer) > 1 else "no answer"
        raise _unrestorable(path, said)
    return int(answer[1]), int(answer[2])


def _restore_here(path: Path) -> tuple[int, int]:
    with tempfile.TemporaryDirectory(prefix="clusterctl-") as folder:
        command = ["nice", "-n", "19", "etcdutl", "snapshot", "restore", str(path), "--data-dir", f"{folder}/scratch"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Stopped(f"etcdutl cannot be run: {error}", where="this machine", code="etcd.etcdutl-not-run",
                          hint="run the same command again") from None
        if done.returncode:
            raise _unrestorable(path, (done.stderr or done.stdout).strip()[-1000:])
        try:
            restored = bolt.read(Path(folder, "scratch/member/snap/db"))
        except (OSError, bolt.Damaged) as error:
            raise _unrestorable(path, str(error)) from None
        return restored.revision, restored.keys


def _unrestorable(path: Path, said: str) -> IntegrityError:
    return IntegrityError(f"no member can be restored from it: {said}", where=str(path), hint=AGAIN, code="etcd.snapshot-damaged")
