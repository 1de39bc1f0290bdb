"""Snapshots of etcd: saved on this side, each with what it is a snapshot of, and proven by a restore into a scratch member."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusterctl.errors import InputError, IntegrityError, Refused, Stopped
from clusterctl.etcd import ApiError
from clusterctl.model import Host
from clusterctl.operations import members
from clusterctl.operations.base import Session
from clusterctl.shell import Program, functions
from clusterctl.storage import StateFolder, sync_folder
from clusterctl.transport import Cut

FOLDER = "snapshots"
DIGEST = 32
"""Bytes of the sha256 that etcd puts behind the database."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a snapshot is of. ``size`` in bytes; ``revision`` and ``keys``: what the scratch member said; ``taken``: ISO 8601."""

    file: str
    taken: str
    cluster: str
    cluster_id: str
    authority: str
    identity: str
    etcd: str
    size: int
    sha256: str
    revision: int = 0
    keys: int = 0


def folder(state: StateFolder) -> Path:
    """Where a cluster's snapshots lie."""
    return state.path / FOLDER


def save(session: Session, say: Say) -> Snapshot:
    """Take one from the leader, prove it, keep it with its description. Raises Refused, Stopped, IntegrityError."""
    found = members.look(session)
    source = next((state for state in found.members if state.leader and state.host), None) or next(
        (state for state in found.voters if state.healthy and state.host), None)
    if source is None:
        raise Refused("no member of the inventory is well", where="etcd", hint="clusterctl etcd members")
    host = session.cluster.host(source.host)
    place = folder(session.state)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = datetime.now(UTC)
    path = place / f"{taken:%Y%m%dT%H%M%S.%f}Z.db"
    partial = path.with_suffix(".partial")
    _tidy(place)
    digest = _receive(session, host, partial)
    say(f"{host.name}: {partial.stat().st_size / 2**20:.1f} MiB of etcd's data are here; restoring them into a scratch member")
    revision, keys = prove(session, host, partial)
    made = Snapshot(
        file=path.name, taken=taken.isoformat(timespec="seconds"), cluster=session.cluster.name, cluster_id=found.cluster_id,
        authority=session.pki.authorities["etcd"].fingerprint, identity=session.pki.identity, etcd=source.version,
        size=partial.stat().st_size, sha256=digest, revision=revision, keys=keys)
    # The description comes first: a snapshot that nothing describes could be of any cluster.
    session.state.write(f"{FOLDER}/{path.stem}.json", json.dumps(asdict(made), indent=1).encode())
    os.rename(partial, path)
    sync_folder(place)
    return made


def _tidy(place: Path) -> None:
    """What runs that were killed left: parts of snapshots, and descriptions of some that never were."""
    for left in (*place.glob("*.partial"), *place.glob(".*.json.*")):
        left.unlink()
    for described in place.glob("*.json"):
        if not described.with_suffix(".db").exists():
            described.unlink()


def _receive(session: Session, host: Host, path: Path) -> str:
    """Stream the database into a file; its sha256."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for piece in session.etcd(host).snapshot():
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except (ApiError, OSError) as error:
        path.unlink(missing_ok=True)
        raise Stopped(f"the snapshot broke off: {error}", where=host.name, hint="run the same command again") from None
    check_digest(path)
    return digest.hexdigest()


def check_digest(path: Path) -> None:
    """Raises IntegrityError unless the file ends with the sha256 of what is before it, InputError where it cannot be read."""
    try:
        left = path.stat().st_size - DIGEST
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while left > 0 and (piece := file.read(min(left, 2**20))):
                digest.update(piece)
                left -= len(piece)
            rest = file.read()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if rest != digest.digest():
        raise IntegrityError("is not a whole snapshot: its sha256 does not match its content", where=str(path),
                             hint="take another one: clusterctl etcd snapshot save")


def prove(session: Session, host: Host, path: Path) -> tuple[int, int]:
    """Restore a snapshot into a scratch member on a machine that runs etcd; (revision, keys). Raises IntegrityError, Stopped."""
    program = Program(blobs={"snapshot": path}, probes=(("snapshot", "snapshot"),), functions=functions("snapshot"))
    answer: list[str] = []
    try:
        for words in session.engine.transports[host.name].stream(program, silence=300):
            if words[0] == "snapshot":
                answer = words[1:]
    except Cut as error:
        raise Stopped(f"the connection broke: {error}", where=host.name, hint="run the same command again") from None
    if answer[:1] != ["ok"]:
        said = base64.b64decode(answer[1]).decode(errors="replace").strip() if len(answer) > 1 else "no answer"
        raise IntegrityError(f"no member can be restored from it: {said}", where=str(path),
                             hint="take another one: clusterctl etcd snapshot save")
    return int(answer[1]), int(answer[2])


def saved(state: StateFolder) -> list[Snapshot]:
    """All snapshots that are kept, the oldest first. Raises InputError for a description that cannot be read."""
    found = []
    for path in sorted(folder(state).glob("*.json")):
        if not path.with_suffix(".db").exists():
            continue
        try:
            found.append(Snapshot(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"is not the description of a snapshot: {error}", where=str(path)) from None
    return found


def verify(session: Session, path: Path, say: Say) -> dict[str, Any]:
    """Prove a file, and say whether it is of this cluster. Raises IntegrityError, Refused."""
    check_digest(path)
    described = path.with_suffix(".json")
    note = json.loads(described.read_text()) if described.exists() else {}
    if note and note.get("identity") != session.pki.identity:
        raise Refused(f"is a snapshot of another cluster ({note.get('cluster')}, {note.get('taken')})", where=str(path),
                      hint="name a snapshot of this cluster: clusterctl etcd snapshot list")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if note and note.get("sha256") != digest:
        raise IntegrityError("is not the file that its description is about", where=str(path),
                             hint="take another one: clusterctl etcd snapshot save")
    found = members.look(session)
    host = next(session.cluster.host(state.host) for state in found.members if state.host and state.healthy)
    say(f"restoring it into a scratch member on {host.name}")
    revision, keys = prove(session, host, path)
    return {"file": str(path), "sha256": digest, "revision": revision, "keys": keys, "of_this_cluster": bool(note)}
