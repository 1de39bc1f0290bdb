"""``etcd recover``: quorum is lost for good, and one surviving member becomes the whole cluster.

Its data is not the database file alone: a copy of its data folder is started once with ``--force-new-cluster``, on loopback, so
that entries that only the write-ahead log has are applied. What comes out is restored like a snapshot: with a cluster id of its
own, so that a member that was given up cannot join, and with a higher revision. The old data stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.cluster.model import Host
from clusterctl.commands.etcd.restore import Machine, RestorePlan, initial_cluster, look, make_id, refuse_other_machines
from clusterctl.components.etcd import DATA
from clusterctl.engine import fleet
from clusterctl.errors import Problems, Refused, Unreachable
from clusterctl.etcd import members, room
from clusterctl.etcd.client import ApiError, majority
from clusterctl.session.session import Session
from clusterctl.shell import Script, functions
from clusterctl.ssh.transport import ConnectionLost

DIGEST = "recovered"
"""Stands in the marker where a restore has the snapshot's digest."""

COPIES = 3.0
"""The data is copied, replayed and restored: so many times its size is needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a member's data goes. ``index``: of its log, 0 where it is stopped."""

    revision: int = 0
    index: int = 0


def reachable(session: Session, hosts: Sequence[Host]) -> tuple[Host, ...]:
    """The hosts that SSH reaches."""
    found = fleet.each(hosts, lambda host: session.engine.transports[host.name].connect(), limit=session.options.forks)
    return tuple(host for host in hosts if host.name in found.results)


def make_plan(session: Session, alive: Sequence[Host]) -> RestorePlan:
    """Choose the member that goes furthest. Nothing is changed. Raises Refused, Unreachable.

    ``alive``: the control planes and etcd hosts that SSH reaches.
    """
    hosts = [host for host in alive if host.is_etcd]
    if not hosts:
        raise Refused("no machine of etcd can be reached", where="etcd", code="etcd.no-survivor",
                      hint="restore a snapshot onto other machines: clusterctl apply, then etcd snapshot restore")
    refuse_other_machines(session, hosts)
    machines = look(session, hosts)
    marks = [found.mark for found in machines.values() if found.mark]
    if any(mark.digest != DIGEST for mark in marks) or len({mark.id for mark in marks}) > 1:
        raise Refused("a restore is not finished", where=", ".join(machines), code="etcd.restore-unfinished",
                      hint="run its command again, or: clusterctl etcd snapshot restore --abort")
    if marks:
        chosen = next(host for host in hosts if marks[0].members == initial_cluster([host]))
        return _plan(session, chosen, hosts, alive, machines, made=marks[0].id)
    _refuse_majority(session, hosts, machines)
    chosen = _best(session, [host for host in hosts if machines[host.name].data])
    _refuse_no_room(session, chosen, machines[chosen.name].data)
    return _plan(session, chosen, hosts, alive, machines)


def _plan(session: Session, chosen: Host, hosts: Sequence[Host], alive: Sequence[Host], machines: Mapping[str, Machine],
          made: str = "") -> RestorePlan:
    lost = ", ".join(host.name for host in session.cluster.etcd_members if host not in hosts)
    return RestorePlan(
        id=made or make_id(), digest=DIGEST, members=initial_cluster([chosen]), hosts=(chosen,), machines=machines,
        begun=bool(made), source=f"the data of {chosen.name}",
        control_planes=tuple(host for host in alive if host.is_control_plane),
        leaving=tuple(host for host in hosts if host is not chosen),
        lost=f"writes that only members that do not answer have ({lost or 'none'}), and the last ones before they failed where "
             f"{chosen.name} was not told any more that they were committed",
        warnings=(f"{lost}: keep these machines off until they are reinstalled or reset",) if lost else ())


def _refuse_majority(session: Session, hosts: Sequence[Host], machines: Mapping[str, Machine]) -> None:
    """Raises Refused while a majority answers, or could: members that are merely stopped lose nothing when they are started."""
    try:
        members.look(session, hosts)
    except (Refused, Unreachable, Problems):
        pass
    else:
        raise Refused("a majority of etcd's members answers: there is nothing to recover from", where="etcd",
                      code="etcd.quorum-present", hint="clusterctl etcd members; a dead member: clusterctl node replace NAME")
    with_data, all_members = [host for host in hosts if machines[host.name].data], session.cluster.etcd_members
    if not with_data:
        raise Refused("no machine that can be reached has data of etcd", where="etcd", code="etcd.no-survivor",
                      hint="restore a snapshot: clusterctl apply, then etcd snapshot restore")
    if len(all_members) > 1 and len(with_data) >= majority(len(all_members)):
        raise Refused(f"{len(with_data)} of {len(all_members)} members have their data: they can have a majority again",
                      where=", ".join(host.name for host in with_data), code="etcd.quorum-possible",
                      hint="start them: clusterctl apply; take members whose data is lost out of the inventory first")


def _best(session: Session, hosts: Sequence[Host]) -> Host:
    """The host whose member goes furthest: by the revision that it applied, then by its log. Raises Unreachable."""
    found = fleet.each(hosts, lambda host: standing(session, host), limit=session.options.forks).or_raise()
    return max(hosts, key=lambda host: (found[host.name].revision, found[host.name].index))


def standing(session: Session, host: Host) -> Standing:
    """Ask a member, or read the database of one that does not answer. Raises Unreachable."""
    try:
        status = session.etcd(host).status()
        return Standing(revision=status.revision, index=status.raft_index)
    except (ApiError, Unreachable):
        pass  # It is stopped, or not yet serving.
    program = Script(probes=(("revision", "etcd"),), functions=functions("snapshot", "restore"))
    try:
        records = list(session.engine.transports[host.name].stream(program, silence=300))
    except ConnectionLost as error:
        raise error.unreachable(host) from None
    return Standing(revision=next((int(words[1]) for words in records if words[0] == "revision" and words[1:] and words[1]), 0))


def _refuse_no_room(session: Session, host: Host, size: int) -> None:
    short = room.ask(session, host, DATA)[0].shortage(size, COPIES)
    if short:
        raise room.refuse([short])
