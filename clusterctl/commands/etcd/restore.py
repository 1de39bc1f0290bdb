"""``etcd snapshot restore``: every member starts anew from one snapshot, as a cluster of its own.

The new data is made beside the old while the cluster serves: nothing is stopped before it is there on all members. A marker on
each machine (shell/restore.sh) says how far it is; the same command continues from there, and ``--abort`` goes back while none
was started.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from clusterctl.cluster.model import Host
from clusterctl.components.etcd import DATA, peer_url
from clusterctl.engine import fleet
from clusterctl.errors import Problems, Refused, Unreachable
from clusterctl.etcd import members, room, snapshot
from clusterctl.etcd.origin import Origin
from clusterctl.plan.planner import OperationPlan
from clusterctl.session.session import Session
from clusterctl.shell import Script, functions
from clusterctl.ssh.transport import ConnectionLost

STATE = "/var/lib/clusterctl"
PREPARED, HELD, SWAPPED, STARTED, DONE = PHASES = ("prepared", "held", "swapped", "started", "done")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a machine is in a restore. ``members``: the initial cluster; ``digest``: the snapshot's sha256."""

    id: str
    phase: str
    digest: str
    members: str

    @property
    def step(self) -> int:
        return PHASES.index(self.phase) if self.phase in PHASES else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """An etcd host before a restore. ``data``: bytes below member/; ``installed``: programs, unit and certificates are there."""

    mark: Mark | None
    installed: bool
    active: bool
    data: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan(OperationPlan):
    """The plan of a restore. ``hosts``: the members; ``begun``: it continues one that did not end; ``lost``: what is lost."""

    event: ClassVar[str] = "restore-plan"
    id: str
    digest: str
    members: str
    hosts: tuple[Host, ...]
    machines: Mapping[str, Machine]
    path: Path | None = None
    source: str = ""
    lost: str = ""
    revision: int = 0
    keys: int = 0
    begun: bool = False
    leaving: tuple[Host, ...] = ()
    """Survivors of a recovery whose data is moved aside: they join anew."""
    control_planes: tuple[Host, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def token(self) -> str:
        """Derived from the restore and its snapshot: a member of another restore has another cluster id and cannot join."""
        return hashlib.sha256(f"{self.id} {self.digest} {self.members}".encode()).hexdigest()[:32]

    @property
    def kept(self) -> str:
        return f"{DATA}/before-restore-{self.id}"

    def reached(self, phase: str) -> bool:
        """Whether every member is at this phase or beyond it."""
        marks = [self.machines[host.name].mark for host in self.hosts]
        return all(mark is not None and mark.step >= PHASES.index(phase) for mark in marks)

    @property
    def finished(self) -> bool:
        """Whether only markers are left: a machine is done once the whole cluster is."""
        return any(found.mark is not None and found.mark.phase == DONE for found in self.machines.values())

    @property
    def marked(self) -> tuple[Host, ...]:
        return tuple(host for host in (*self.hosts, *self.leaving) if self.machines[host.name].mark)

    def as_dict(self) -> dict[str, object]:
        return {
            "id": self.id, "source": self.source, "revision": self.revision, "keys": self.keys, "lost": self.lost,
            "begun": self.begun, "members": [host.name for host in self.hosts],
            "leaving": [host.name for host in self.leaving],
            "control_planes": [host.name for host in self.control_planes], "moved_to": self.kept, "warnings": list(self.warnings),
        }


def make_id() -> str:
    """Return a new restore's id: the time, and something that no other restore of that second has."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def look(session: Session, hosts: Sequence[Host]) -> Mapping[str, Machine]:
    """Ask etcd hosts how far they are. Raises Unreachable."""

    def ask(host: Host) -> Machine:
        program = Script(probes=(("restore", "etcd"),), functions=functions("snapshot", "restore"))
        try:
            records = list(session.engine.transports[host.name].stream(program, silence=60))
        except ConnectionLost as error:
            raise error.unreachable(host) from None
        return read_machine(records)

    return fleet.each(hosts, ask, limit=session.options.forks).or_raise()


def read_machine(records: Sequence[Sequence[str]]) -> Machine:
    """A machine from the records of its probe."""
    said = {words[0]: words[1:] for words in records}
    mark = said.get("mark")
    return Machine(
        mark=Mark(id=mark[0], phase=mark[1], digest=mark[2], members=mark[3]) if mark and len(mark) == 4 else None,
        installed="installed" in said, active=said.get("active", [""])[:1] == ["active"],
        data=int(said["data"][0]) * 1024 if said.get("data") else 0)


def make_plan(session: Session, path: Path, *, adopt: str = "") -> RestorePlan:
    """Check the snapshot and the machines. Nothing is changed. Raises IntegrityError, InputError, Refused, Unreachable.

    ``adopt``: the uid of the other cluster whose snapshot it is, where that is wanted.
    """
    known = snapshot.inspect(session, path)
    refuse_foreign(path, known, adopt)
    hosts = session.cluster.etcd_members
    session.connect([host for host in session.cluster.hosts if host.is_etcd or host.is_control_plane])
    refuse_other_machines(session, hosts)
    machines = look(session, hosts)
    ready = tuple(host for host in hosts if machines[host.name].installed)
    if not ready:
        raise Refused("etcd is installed on none of its machines", where="etcd", code="etcd.not-installed",
                      hint="clusterctl apply makes a cluster of the machines; then restore the snapshot into it")
    digest, note = snapshot.sha256(path), snapshot.description(path)
    initial = initial_cluster(ready)
    mark = begun(machines, digest, initial)
    if mark is None:
        refuse_no_room(session, ready, path.stat().st_size)
    late = [f"{host.name}: etcd is not installed: clusterctl apply lets it join later" for host in hosts if host not in ready]
    return RestorePlan(
        id=mark.id if mark else make_id(), digest=digest, members=initial, hosts=ready, machines=machines, path=path,
        source=str(path), revision=known.revision, keys=known.keys, begun=mark is not None,
        lost=f"everything that was written after {note.get('taken') or 'the snapshot was taken'}",
        control_planes=session.cluster.control_planes, warnings=(*late, *outsiders(session)))


def refuse_foreign(path: Path, known: Origin, adopt: str) -> None:
    """Raises Refused for another cluster's snapshot unless its uid was typed."""
    if known.ours or (adopt and adopt == known.uid):
        return
    hint = f"to take it all the same: --adopt {known.uid}" if known.uid else "it cannot be restored by clusterctl"
    raise Refused(f"{snapshot.foreign(path, known)}; secrets in it cannot be decrypted here", where=str(path),
                  code="etcd.restore-foreign-snapshot", hint=hint)


def refuse_other_machines(session: Session, hosts: Sequence[Host]) -> None:
    """Raises Refused for machines of another cluster, Unreachable."""
    facts = session.engine.facts(hosts).or_raise()
    others = [name for name, found in facts.items() if found.cluster and found.cluster != session.pki.identity]
    if session.pki_is_new or others:
        raise Refused("these machines belong to another cluster", where=", ".join(others or facts),
                      code="etcd.restore-foreign-host",
                      hint=f"restore {session.state.path} from its backup, or name it with --state")


def initial_cluster(hosts: Sequence[Host]) -> str:
    return ",".join(f"{host.name}={peer_url(host)}" for host in hosts)


def begun(machines: Mapping[str, Machine], digest: str, initial: str) -> Mark | None:
    """The restore of this snapshot onto these members that did not end; None where there is none. Raises Refused."""
    marks = {name: found.mark for name, found in machines.items() if found.mark}
    for name, mark in marks.items():
        if (mark.digest, mark.members) != (digest, initial):
            raise Refused(f"another restore is not finished: {mark.id} onto {mark.members}", where=name,
                          code="etcd.restore-unfinished",
                          hint="run its command again to finish it, or: clusterctl etcd snapshot restore --abort")
    if len({mark.id for mark in marks.values()}) > 1:
        raise Refused("two restores are not finished", where=", ".join(marks), code="etcd.restore-unfinished",
                      hint="clusterctl etcd snapshot restore --abort")
    return next(iter(marks.values()), None)


def refuse_no_room(session: Session, hosts: Sequence[Host], size: int) -> None:
    """Raises Refused where a machine has no room for the file and what is restored from it."""

    def ask(host: Host) -> list[str]:
        sent, data = room.ask(session, host, STATE, DATA)
        if sent.device == data.device:
            return [data.shortage(size)]
        return [sent.shortage(size, 1.0), data.shortage(size, room.FACTOR - 1)]

    found = fleet.each(hosts, ask, limit=session.options.forks).or_raise()
    shortages = [short for name in found for short in found[name] if short]
    if shortages:
        raise room.refuse(shortages)


def outsiders(session: Session) -> list[str]:
    """Warnings for members that are not in the inventory and do not answer. Raises Refused for one that does."""
    try:
        found = members.look(session)
    except (Refused, Unreachable, Problems):
        return ["no majority of etcd answers: members that the inventory does not have must stay off, or be reset"]
    for state in found.orphans:
        if state.healthy:
            raise Refused("it serves the old data and is not in the inventory", where=f"etcd member {state.name}",
                          code="etcd.member-not-in-inventory",
                          hint=f"take it into the inventory, or out of etcd: clusterctl node remove {state.name} --offline")
    return [f"etcd member {state.name} is not in the inventory: keep its machine off, or reset it" for state in found.orphans]


def abort_plan(session: Session) -> RestorePlan | None:
    """The restore that did not end, to go back from; None where there is none. Raises Refused, Unreachable."""
    hosts = session.cluster.etcd_members
    session.connect([host for host in session.cluster.hosts if host.is_etcd or host.is_control_plane])
    refuse_other_machines(session, hosts)
    machines = look(session, hosts)
    marks = {name: found.mark for name, found in machines.items() if found.mark}
    late = [name for name, mark in marks.items() if mark.phase in (STARTED, DONE)]
    if late:
        raise Refused("restored members were started: there may be new writes", where=", ".join(late),
                      code="etcd.restore-started", hint="run the restore again to finish it")
    if not marks:
        return None
    first = next(iter(marks.values()))
    return RestorePlan(id=first.id, digest=first.digest, members=first.members,
                       hosts=tuple(host for host in hosts if host.name in marks), machines=machines,
                       control_planes=session.cluster.control_planes)
