"""Snapshots of etcd: saved on this side, each with its description, and verified by a restore into a scratch member."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusterctl.cluster.model import Host
from clusterctl.errors import InputError, IntegrityError, Refused, Stopped, Unreachable
from clusterctl.etcd import members, origin, scratch
from clusterctl.etcd.client import ApiError
from clusterctl.etcd.members import Membership, MemberState
from clusterctl.etcd.scratch import AGAIN, Place
from clusterctl.local.storage import StateFolder, sync_folder
from clusterctl.session.session import Session

FOLDER = "snapshots"
DIGEST = 32
"""Bytes of the sha256 that etcd puts behind the database."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The description of a snapshot. ``size`` in bytes; ``revision`` and ``keys``: of the scratch member; ``taken``: ISO 8601.

    ``uid``: of the namespace kube-system.
    """

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
    uid: str = ""


def folder(state: StateFolder) -> Path:
    """Where a cluster's snapshots lie."""
    return state.path / FOLDER


def save(session: Session, progress: Progress) -> Snapshot:
    """Take a snapshot from the leader, verify it, keep it with its description. Raises Refused, Stopped, IntegrityError."""
    found = members.look(session)
    source, where = _source(found), choose_place(session, found)
    host = session.cluster.host(source.host)
    place = folder(session.state)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = datetime.now(UTC)
    path = place / f"{taken:%Y%m%dT%H%M%S.%f}Z.db"
    partial = path.with_suffix(".partial")
    _tidy(place)
    digest = _receive(session, host, partial)
    known = origin.identify(partial, session.pki)
    progress(f"{host.name}: {partial.stat().st_size / 2**20:.1f} MiB of etcd's data are here; restoring them on {where.name}")
    revision, keys = scratch.restore(session, where, partial)
    made = Snapshot(
        file=path.name, taken=taken.isoformat(timespec="seconds"), cluster=session.cluster.name, cluster_id=found.cluster_id,
        authority=session.pki.authorities["etcd"].fingerprint, identity=session.pki.identity, etcd=source.version,
        size=partial.stat().st_size, sha256=digest, revision=revision, keys=keys, uid=known.uid)
    # The description comes first: a snapshot that nothing describes could be of any cluster.
    session.state.write(f"{FOLDER}/{path.stem}.json", json.dumps(asdict(made), indent=1).encode())
    os.rename(partial, path)
    sync_folder(place)
    return made


def _source(found: Membership) -> MemberState:
    """The leader, or another healthy voter of the inventory. Raises Refused."""
    source = next((state for state in found.members if state.leader and state.host), None) or next(
        (state for state in found.voters if state.healthy and state.host), None)
    if source is None:
        raise Refused("no member of the inventory is well", where="etcd", code="etcd.no-healthy-member",
                      hint="clusterctl etcd members")
    return source


def choose_place(session: Session, found: Membership, size: int | None = None) -> Place:
    """Return where a snapshot is verified: one of ``size`` bytes, by default of the members' database.

    Raises Refused where no machine has room.
    """
    expected = size if size is not None else max((state.size for state in found.members), default=0)
    return scratch.choose_place(session, found, expected)


def _tidy(place: Path) -> None:
    """Remove files of interrupted runs: parts of snapshots, and descriptions without a snapshot."""
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
        raise Stopped(f"the snapshot broke off: {error}", where=host.name, code="etcd.snapshot-broken-off",
                      hint="run the same command again") from None
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
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="etcd.snapshot-unreadable") from None
    if rest != digest.digest():
        raise IntegrityError("is not a whole snapshot: its sha256 does not match its content", where=str(path), hint=AGAIN,
                             code="etcd.snapshot-damaged")


def saved(state: StateFolder) -> list[Snapshot]:
    """All snapshots that are kept, the oldest first. Raises InputError for a description that cannot be read."""
    found = []
    for path in sorted(folder(state).glob("*.json")):
        if not path.with_suffix(".db").exists():
            continue
        try:
            found.append(Snapshot(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"is not the description of a snapshot: {error}", where=str(path),
                             code="etcd.snapshot-description") from None
    return found


def verify(session: Session, path: Path, progress: Progress) -> dict[str, Any]:
    """Verify a file: that it is whole, of this cluster, and that a member can be restored from it.

    Raises IntegrityError, Refused.
    """
    known = inspect(session, path)
    if not known.ours:
        raise IntegrityError(foreign(path, known), where=str(path), code="etcd.snapshot-foreign",
                             hint="name a snapshot of this cluster: clusterctl etcd snapshot list")
    try:
        found = members.look(session)
    except (Refused, Unreachable):
        found = Membership(cluster_id="", members=())  # It can be verified on this machine.
    where = choose_place(session, found, path.stat().st_size)
    progress(f"restoring it into a scratch member on {where.name}")
    revision, keys = scratch.restore(session, where, path)
    return {"file": str(path), "sha256": sha256(path), "revision": revision, "keys": keys, "uid": known.uid}


def inspect(session: Session, path: Path) -> origin.Origin:
    """Read a file on this side: its digest, its pages, its description. Raises IntegrityError, InputError."""
    check_digest(path)
    known = origin.identify(path, session.pki)
    note = description(path)
    if note and note.get("sha256") != sha256(path):
        raise IntegrityError("is not the file that its description is about", where=str(path), hint=AGAIN,
                             code="etcd.snapshot-damaged")
    return known


def foreign(path: Path, known: origin.Origin) -> str:
    """Progress which other cluster a snapshot is of, and what shows it."""
    note = description(path)
    described = f" ({note.get('cluster')}, {note.get('taken')})" if note.get("cluster") else ""
    return f"is a snapshot of another cluster{described}: {known.why}"


def description(path: Path) -> dict[str, Any]:
    """Return the description beside a snapshot; empty where there is none. Raises InputError."""
    described = path.with_suffix(".json")
    try:
        note = json.loads(described.read_text()) if described.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"is not the description of a snapshot: {error}", where=str(described),
                         code="etcd.snapshot-description") from None
    return note if isinstance(note, dict) else {}


def sha256(path: Path) -> str:
    """The sha256 of a whole file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
