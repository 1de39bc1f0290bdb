"""etcd's members: what they are and how they are, and what may be done to them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from clusterctl.cluster.model import Host
from clusterctl.components.etcd import peer_url
from clusterctl.engine import fleet
from clusterctl.engine.fleet import HostResults
from clusterctl.errors import Refused, Stopped, Unreachable
from clusterctl.etcd.client import ApiError, EndpointStatus, Etcd, Member, refuse_removal
from clusterctl.health import checks
from clusterctl.health.wait import wait_for
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts
from clusterctl.ssh.https import or_stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """One member. ``host``: the inventory's, empty where it has none; ``error``: why it does not answer. Sizes in bytes.

    ``alarms``: what it has raised, as ``NOSPACE``: it answers, and keeps its vote.
    """

    member: Member
    host: str
    leader: bool = False
    version: str = ""
    size: int = 0
    in_use: int = 0
    error: str = ""
    alarms: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.member.name or self.host or "(never started)"

    @property
    def healthy(self) -> bool:
        return not self.error

    def as_dict(self) -> dict[str, object]:
        own = asdict(self)
        del own["member"]
        return {"id": self.member.hexadecimal, "name": self.name, "learner": self.member.learner,
                "peer_urls": list(self.member.peer_urls), **own, "healthy": self.healthy}


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """All members, as a majority knows them. ``cluster_id`` hexadecimal."""

    cluster_id: str
    members: tuple[MemberState, ...]

    @property
    def voters(self) -> tuple[MemberState, ...]:
        return tuple(state for state in self.members if not state.member.learner)

    @property
    def healthy(self) -> int:
        """Healthy voters."""
        return sum(state.healthy for state in self.voters)

    @property
    def orphans(self) -> tuple[MemberState, ...]:
        """Members of no machine of the inventory."""
        return tuple(state for state in self.members if not state.host)

    def of(self, name: str) -> MemberState | None:
        """The member of a host, or the one that calls itself so."""
        return next((state for state in self.members if name in (state.host, state.member.name)), None)


def look(session: Session, hosts: Sequence[Host] | None = None) -> Membership:
    """Ask the members of these hosts (all of the inventory's by default). Raises Refused where no majority answers."""
    asked = tuple(hosts if hosts is not None else session.cluster.etcd_members)

    def ask(host: Host, again: bool = True) -> tuple[EndpointStatus, tuple[Member, ...]]:
        try:
            member = session.etcd(host)
            status = member.status()
            # A learner knows the list, but may not answer for the majority.
            return status, () if status.learner else member.members()
        except ApiError as error:
            if again and not error.status and not session.engine.transports[host.name].connected:
                return ask(host, again=False)  # The way to it broke, of which the member knows nothing.
            raise Unreachable(f"its etcd does not answer: {error}", where=host.name, code="etcd.no-answer") from None

    found = fleet.each(asked, ask, limit=session.options.forks)
    voters = [host for host in asked if host.name in found.results and found.results[host.name][1]]
    if not voters:
        lines = "; ".join(f"{name}: {error.message}" for name, error in found.errors.items())
        raise Refused(f"no majority of etcd's members answers: {lines}", where="etcd", code="etcd.no-quorum",
                      hint="bring its machines back; nothing is changed without a majority of etcd's members")
    status, members = found.results[voters[0].name]
    return Membership(
        cluster_id=f"{int(status.cluster_id):x}",
        members=tuple(_state(session, voters[0], member, found) for member in members),
    )


def _state(session: Session, way: Host, member: Member,
           found: HostResults[tuple[EndpointStatus, tuple[Member, ...]]]) -> MemberState:
    for name, (status, _) in found.results.items():
        if status.member_id == member.id:
            return _answered(member, name, status)
    host = next((host.name for host in session.cluster.etcd_members if peer_url(host) in member.peer_urls), "")
    if not member.started:
        return MemberState(member=member, host=host, error="has never started")
    if host in found.errors:
        return MemberState(member=member, host=host, error=found.errors[host].message)
    return _stranger(session, way, member, host)


def _answered(member: Member, host: str, status: EndpointStatus) -> MemberState:
    return MemberState(member=member, host=host, leader=status.leader == member.id, version=status.version, size=status.size,
                       in_use=status.in_use, error="; ".join(status.errors), alarms=status.alarms)


def _stranger(session: Session, way: Host, member: Member, host: str) -> MemberState:
    """A member that was not asked itself: it is, out of one that answers."""
    for url in member.peer_urls:
        try:
            status = session.etcd(way, urlsplit(url).hostname or "").status()
        except (ApiError, Unreachable):
            continue
        if status.member_id == member.id:
            return _answered(member, host, status)
    return MemberState(member=member, host=host, error="does not answer")


def refuse_unhealthy(found: Membership, *, bearing: str = "") -> None:
    """Raises Refused, with a line for each, unless all members are healthy voters of the inventory.

    ``bearing``: an alarm that is no reason.
    """
    alarms = [f"{state.name} has raised {alarm}" for state in found.members for alarm in state.alarms if alarm != bearing]
    bad = [f"{state.name}: {state.error}" for state in found.members if not state.healthy]
    bad += [f"{state.name} is a learner still" for state in found.members if state.member.learner and state.healthy]
    bad += [f"{state.name} is not in the inventory" for state in found.orphans if state.healthy and not state.member.learner]
    if bad or alarms:
        raise Refused("; ".join(bad + alarms), where="etcd", code="etcd.unhealthy",
                      hint="clusterctl etcd members; bring it back, or node replace NAME" if bad else "clusterctl etcd defrag")


def stray_members(found: Membership, leaving: frozenset[str] = frozenset()) -> tuple[MemberState, ...]:
    """Members of no machine of the inventory that ``apply`` cleans away: they are learners, or have never started.

    ``leaving``: hosts whose members another operation removes.

    Raises Refused for one that votes and has served: only an explicit verb takes such a one out, as silence is not death.
    """
    found_orphans = tuple(state for state in found.orphans if state.member.name not in leaving)
    for state in found_orphans:
        if state.member.started and not state.member.learner:
            raise Refused(f"it votes and {state.error or 'is well'}, and the inventory has no machine for it",
                          where=f"etcd member {state.name}", hint=removal_hint(state), code="etcd.orphaned-member")
    return found_orphans


def removal_hint(state: MemberState) -> str:
    """Return the hint for an orphaned voter: only a machine that is reached can be reset."""
    leave = f"clusterctl node remove {state.name}"
    if state.healthy:
        return f"put the machine back into the inventory, then: {leave}"
    return f"bring its machine back, or where it is dead: {leave} --offline"


def refuse_lost(hosts: Sequence[Host], facts: Mapping[str, Facts], found: Membership | None) -> None:
    """Raise Refused for etcd members that have served and whose data is gone.

    ``hosts``: the ones to be changed; ``facts``: of all that answered; ``found``: None where no majority answers.
    A host whose member was removed is no member any more: it may join anew.
    """
    empty = [host.name for host in hosts if host.is_etcd and host.name in facts and facts[host.name].etcd in ("", "lost")]
    for name in empty:
        state = found.of(name) if found else None
        if state is not None and state.member.started:
            raise _lost(name, f"clusterctl node replace {name}")
    if found is None:
        serving = any(entry.etcd == "formed" for entry in facts.values())
        names = [name for name in empty if facts[name].etcd == "lost"]
        # Kubelets are started after etcd has served: where one was, an etcd that is nowhere has lost its data.
        if not names and not serving and any("kubelet" in entry.served for entry in facts.values()):
            names = empty
        if names:
            raise _lost(", ".join(names), "bring the other members back, then: clusterctl node replace NAME" if serving else
                        "clusterctl etcd snapshot restore FILE; or to begin anew without the data: clusterctl reset")


def _lost(where: str, hint: str) -> Refused:
    return Refused("its etcd member has served and its data is gone (/var/lib/etcd not mounted, or the machine reinstalled?)",
                   where=where, hint=hint, code="etcd.data-lost")


def clean(session: Session, stray: MemberState, hosts: Sequence[Host]) -> None:
    """Take out a member of no machine. Raises Refused where a majority would be lost, Stopped."""
    found = look(session, hosts)
    state = next((other for other in found.members if other.member.id == stray.member.id), None)
    if state is None:
        return
    problem = "" if state.member.learner else refuse_removal(len(found.voters), found.healthy, target_healthy=state.healthy)
    if problem:
        raise Refused(problem, where=f"etcd member {state.name}", hint="clusterctl etcd members", code="etcd.quorum-at-risk")
    way = next(session.cluster.host(other.host) for other in found.voters if other.host and other.healthy)
    with or_stopped("cannot be removed", where=f"etcd member {state.name}", code="etcd.member-not-removed"):
        session.etcd(way).remove(state.member.id)


def removal_problem(found: Membership, name: str) -> str:
    """Why a host's member may not be removed, with the arithmetic; empty where it may or where it has none."""
    state = found.of(name)
    if state is None or state.member.learner:
        return ""
    return refuse_removal(len(found.voters), found.healthy, target_healthy=state.healthy)


def remove(session: Session, name: str, hosts: Sequence[Host]) -> bool:
    """Take a host's member out through the members of ``hosts``; False where it has none. Raises Refused, Stopped.

    A leader hands its leadership on before.
    """
    found = look(session, hosts)
    state = found.of(name)
    if state is None:
        return False
    problem = removal_problem(found, name)
    if problem:
        raise Refused(problem, where=f"etcd member {name}", hint="clusterctl etcd members", code="etcd.quorum-at-risk")
    others = [host for host in hosts if host.name != name and (other := found.of(host.name)) is not None and other.healthy]
    if not others:
        raise Refused("no other member answers", where=f"etcd member {name}", code="etcd.no-other-member",
                      hint="clusterctl etcd members")
    if state.leader:
        _hand_on(session, state, found, others)
    try:
        session.etcd(others[0]).remove(state.member.id)
    except ApiError as error:
        if "not found" not in str(error):
            raise Stopped(f"cannot be removed: {error}", where=f"etcd member {name}", code="etcd.member-not-removed",
                          hint="run the same command again") from None
    return True


def _hand_on(session: Session, leader: MemberState, found: Membership, others: Sequence[Host]) -> None:
    heir = found.of(others[0].name)
    assert heir is not None
    address = next((urlsplit(url).hostname for url in leader.member.peer_urls), None) or ""
    # A leader that cannot be asked any more is removed all the same, and the others choose another one.
    with contextlib.suppress(ApiError):
        session.etcd(others[0], address).lead(heir.member.id)

    def led() -> str:
        try:
            now = session.etcd(others[0]).status().leader
        except ApiError as error:
            return str(error)
        return "" if now not in ("0", leader.member.id) else f"the leader is still {leader.name}"

    with contextlib.suppress(Stopped):
        wait_for(led, what="another leader of etcd", deadline=5)


def defragment(session: Session, hosts: Sequence[Host]) -> dict[str, tuple[int, int]]:
    """Defragment one member after the other, the leader last; (size before, after) in bytes by host. Raises Refused, Stopped.

    A member serves nothing meanwhile: a leader transfers leadership first.
    """
    found = look(session)
    refuse_unhealthy(found, bearing="NOSPACE")
    order = sorted(hosts, key=lambda host: bool((state := found.of(host.name)) and state.leader))
    sizes = {}
    for host in order:
        member: Etcd = session.etcd(host)
        with or_stopped("not defragmented", where=host.name, code="etcd.not-defragmented"):
            _transfer_leadership(session, host, found)
            before = member.status().size
            member.defragment()
            sizes[host.name] = (before, member.status().size)
        checks.await_passing(session, "etcd", session.cluster.etcd_members, deadline=60)
    with contextlib.suppress(ApiError):
        if order and "NOSPACE" in session.etcd(order[0]).alarms():
            session.etcd(order[0]).disarm()
    return sizes


def _transfer_leadership(session: Session, host: Host, found: Membership) -> None:
    """Make another voter the leader where this host's member is; a single member keeps it. Raises ApiError."""
    status = session.etcd(host).status()
    heir = next((state for state in found.voters if state.member.id != status.member_id and state.healthy), None)
    if status.leader == status.member_id and heir is not None:
        session.etcd(host).lead(heir.member.id)
