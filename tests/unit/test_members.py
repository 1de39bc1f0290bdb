"""etcd's members: who may leave, with the arithmetic, and who is nobody's."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.cluster.model import Host, Ssh
from clusterctl.errors import Refused
from clusterctl.etcd import members
from clusterctl.etcd.client import Etcd, Member, majority, read_members, refuse_removal
from clusterctl.etcd.members import Membership, MemberState, refuse_lost, refuse_unhealthy, removal_problem, stray_members
from clusterctl.health import checks
from clusterctl.shell.facts import parse_facts

ENTRIES: list[Any] = [
    {"ID": "9372538179322589801", "name": "cp-1", "peerURLs": ["https://10.0.0.1:2380"], "clientURLs": ["https://10.0.0.1:2379"]},
    {"ID": "2", "peerURLs": ["https://10.0.0.2:2380"], "isLearner": True},
    {"ID": "3", "name": "cp-3", "peerURLs": ["https://10.0.0.3:2380"]},
]


def test_members_as_etcd_writes_them() -> None:
    first, second, third = read_members(ENTRIES)
    assert (first.hexadecimal, first.name, first.started, first.learner) == ("8211f1d0f64f3269", "cp-1", True, False)
    assert (second.name, second.started, second.learner) == ("", False, True)
    # One of the cluster's birth has a name before it has started.
    assert (third.name, third.started) == ("cp-3", False)
    assert read_members(None) == read_members([]) == read_members(["x", 1]) == ()


REMOVALS = [
    # voters, healthy, the one that goes is well -> may go
    (1, 1, True, False), (1, 0, False, False),
    (2, 2, True, True), (2, 1, False, False), (2, 1, True, False), (2, 0, False, False),
    # Two of three are left: one of them is dead, or it is the dead one that goes.
    (3, 3, True, True), (3, 2, True, False), (3, 2, False, True), (3, 1, True, False), (3, 1, False, False), (3, 0, False, False),
    (4, 4, True, True), (4, 3, True, True), (4, 3, False, True), (4, 2, True, False), (4, 2, False, False), (4, 1, True, False), (4, 1, False, False), (4, 0, False, False),
    (5, 5, True, True), (5, 4, True, True), (5, 4, False, True), (5, 3, True, False), (5, 3, False, True), (5, 2, True, False),
    (5, 2, False, False), (5, 1, True, False), (5, 1, False, False), (5, 0, False, False),
]


@pytest.mark.parametrize(("voters", "healthy", "well", "allowed"), REMOVALS)
def test_who_may_be_removed(voters: int, healthy: int, well: bool, allowed: bool) -> None:
    problem = refuse_removal(voters, healthy, target_healthy=well)
    assert (not problem) is allowed, problem
    if allowed:
        # A majority agrees to it, and those that are left have one of their own.
        assert healthy >= majority(voters) and healthy - well >= majority(voters - 1)


def test_the_table_is_whole() -> None:
    possible = {(n, healthy, well) for n in range(1, 6) for healthy in range(n + 1) for well in (True, False)
                if (healthy if well else n - healthy)}
    assert {row[:3] for row in REMOVALS} == possible


@pytest.mark.parametrize(("voters", "healthy", "well", "words"), [
    (1, 1, True, "it is the only etcd member"),
    (3, 1, True, "1 of 3 etcd members are healthy and 2 must be to agree to anything"),
    (3, 2, True, "of the 2 etcd members that are left 1 would be healthy, and 2 must be"),
])
def test_the_arithmetic_is_told(voters: int, healthy: int, well: bool, words: str) -> None:
    assert refuse_removal(voters, healthy, target_healthy=well) == words


def state(name: str, *, host: str | None = None, error: str = "", learner: bool = False, started: bool = True) -> MemberState:
    number = str(sum(map(ord, name)) if name else 7)
    urls = ("https://10.0.0.1:2379",) if started else ()
    member = Member(id=number, name=name, peer_urls=("https://10.0.0.1:2380",), client_urls=urls, learner=learner)
    return MemberState(member=member, host=name if host is None else host, error=error)


def membership(*states: MemberState) -> Membership:
    return Membership(cluster_id="abc", members=states)


A, B, C = state("a"), state("b"), state("c")
DEAD_B, DEAD_C = state("b", error="does not answer"), state("c", error="does not answer")
LEARNER = state("d", learner=True)


@pytest.mark.parametrize(("found", "name", "words"), [
    (membership(A, B, C), "a", ""),
    (membership(A, B, DEAD_C), "c", ""),
    (membership(A, B, DEAD_C), "a", "of the 2 etcd members that are left 1 would be healthy"),
    (membership(A, DEAD_B, DEAD_C), "c", "1 of 3"),
    (membership(A), "a", "only etcd member"),
    # A learner has no vote: it is neither counted nor missed.
    (membership(A, LEARNER), "d", ""),
    (membership(A, LEARNER), "a", "only etcd member"),
    (membership(A, B, C), "w-1", ""),
])
def test_why_a_hosts_member_may_not_go(found: Membership, name: str, words: str) -> None:
    problem = removal_problem(found, name)
    assert words in problem and bool(words) == bool(problem)


FORGOTTEN = state("", host="", error="has never started", learner=True, started=False)
NOBODYS_DEAD, NOBODYS_LEARNER, NOBODYS_VOTER = state("x", host="", error="does not answer"), state("y", host="", learner=True), state("z", host="")


def test_strays() -> None:
    assert stray_members(membership(A, B, C)) == ()
    assert stray_members(membership(A, DEAD_B)) == (), "a machine of the inventory is no stray, however dead"
    assert stray_members(membership(A, FORGOTTEN, NOBODYS_LEARNER)) == (FORGOTTEN, NOBODYS_LEARNER)
    assert stray_members(membership(A, NOBODYS_DEAD), frozenset({"x"})) == ()
    assert FORGOTTEN.name == "(never started)"


def test_one_that_votes_and_is_well_is_nobodys_to_clean() -> None:
    with pytest.raises(Refused, match="votes and is well") as error:
        stray_members(membership(A, NOBODYS_VOTER))
    assert error.value.hint.endswith("clusterctl node remove z")
    with pytest.raises(Refused, match="votes and does not answer") as error:
        stray_members(membership(A, NOBODYS_DEAD))
    assert error.value.hint.endswith("clusterctl node remove x --offline"), "one that is silent may be well all the same"
    assert stray_members(membership(A, NOBODYS_VOTER), frozenset({"z"})) == (), "the one that is just leaving is not meant"


def host(name: str, roles: tuple[str, ...]) -> Host:
    return Host(name=name, address="192.0.2.1", roles=frozenset(roles), ssh=Ssh(address=name))  # type: ignore[arg-type]


UNSTARTED_B = state("b", error="has never started", started=False)


@pytest.mark.parametrize(("found", "states", "refused", "verb"), [
    # The members, what the data folders of the hosts hold, the hosts that are named, the verb that mends them.
    ((A, B), {"a": "formed", "b": "formed", "c": ""}, "", ""),
    ((A, UNSTARTED_B), {"a": "formed", "b": ""}, "", ""),
    ((A, DEAD_B), {"a": "formed", "b": "", "c": ""}, "b", "node replace b"),
    ((A, DEAD_B), {"a": "formed", "b": "lost"}, "b", "node replace b"),
    ((A, C), {"a": "formed", "b": "lost", "c": "formed"}, "", ""),  # Its member was removed: it joins anew.
    (None, {"a": "formed", "b": "lost"}, "b", "node replace NAME"),
    (None, {"a": "lost"}, "a", "etcd snapshot restore"),
    (None, {"a": "lost", "b": "lost"}, "a, b", "etcd snapshot restore"),
    (None, {"a": "", "w": "node"}, "a", "etcd snapshot restore"),
    (None, {"a": "formed", "w": "node"}, "", ""),
    (None, {"a": "begun", "b": ""}, "", ""),
    (None, {"a": "", "b": ""}, "", ""),
])
def test_lost_data_of_etcd_is_refused(found: tuple[MemberState, ...] | None, states: dict[str, str], refused: str, verb: str) -> None:
    hosts = [host(name, ("worker",) if state == "node" else ("control_plane", "etcd")) for name, state in states.items()]
    facts = {name: parse_facts({"etcd": "" if state == "node" else state, "served": "kubelet.service" if state == "node" else ""})
             for name, state in states.items()}
    if not refused:
        refuse_lost(hosts, facts, membership(*found) if found else None)
        return
    with pytest.raises(Refused) as error:
        refuse_lost(hosts, facts, membership(*found) if found else None)
    assert (error.value.where, error.value.code) == (refused, "etcd.data-lost")
    assert f"clusterctl {verb}" in error.value.hint


def test_all_must_be_well_before_much_is_done() -> None:
    refuse_unhealthy(membership(A, B, C))
    with pytest.raises(Refused) as error:
        refuse_unhealthy(membership(A, DEAD_B, LEARNER, NOBODYS_VOTER))
    assert error.value.message == "b: does not answer; d is a learner still; z is not in the inventory"
    with pytest.raises(Refused) as error:
        refuse_unhealthy(membership(A, NOBODYS_DEAD))
    assert error.value.message == "x: does not answer", "named once"


def test_an_alarm_is_no_death() -> None:
    """A database that is full refuses writes: its member answers, counts, and is what defrag is for."""
    full = replace(B, alarms=("NOSPACE",))
    found = membership(A, full, C)
    assert found.healthy == 3 and removal_problem(found, "a") == ""
    refuse_unhealthy(found, bearing="NOSPACE")
    with pytest.raises(Refused, match="^etcd: b has raised NOSPACE") as error:
        refuse_unhealthy(found)
    assert error.value.hint == "clusterctl etcd defrag"
    with pytest.raises(Refused, match="b has raised CORRUPT"):
        refuse_unhealthy(membership(A, replace(B, alarms=("CORRUPT",)), C), bearing="NOSPACE")


def test_alarms_as_etcd_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member lists those of all among its errors."""
    said = {"header": {"member_id": "7"}, "errors": ["memberID:7 alarm:NOSPACE ", "memberID:8 alarm:CORRUPT ", "etcdserver: no leader"]}
    monkeypatch.setattr(Etcd, "_ask", lambda *_, **__: said)
    status = Etcd.__new__(Etcd).status()
    assert (status.alarms, status.errors) == (("NOSPACE",), ("etcdserver: no leader",))


def test_counts() -> None:
    found = membership(A, DEAD_B, LEARNER, NOBODYS_DEAD)
    assert (len(found.voters), found.healthy) == (3, 1)
    assert found.orphans == (NOBODYS_DEAD,)
    assert found.of("a") is A and found.of("nobody") is None
    assert found.of("x") is NOBODYS_DEAD, "by its own name, where no host has it"
    described = FORGOTTEN.as_dict()
    assert (described["id"], described["healthy"], described["learner"]) == ("7", False, True)


class Fake:
    """A member whose leadership can be transferred; ``log``: what all of them were asked."""

    def __init__(self, name: str, log: list[str], leader: list[str]) -> None:
        self.name, self.log, self.leader = name, log, leader

    def status(self) -> Any:
        return SimpleNamespace(member_id=self.name, leader=self.leader[0], size=1)

    def lead(self, member: str) -> None:
        assert self.leader[0] == self.name, "only the leader can transfer leadership"
        self.log.append(f"lead {member}")
        self.leader[0] = member

    def defragment(self) -> None:
        self.log.append(f"defragment {self.name}" + (" as leader" if self.leader[0] == self.name else ""))

    def alarms(self) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize(("names", "log"), [
    ("abc", ["defragment b", "defragment c", "lead b", "defragment a"]),
    ("a", ["defragment a as leader"]),
])
def test_a_leader_transfers_leadership_before_it_is_defragmented(monkeypatch: pytest.MonkeyPatch, names: str, log: list[str]) -> None:
    asked: list[str] = []
    leader = ["a"]
    fakes = {name: Fake(name, asked, leader) for name in names}
    hosts: Any = [SimpleNamespace(name=name) for name in names]
    found = membership(*(MemberState(member=Member(id=name, name=name, peer_urls=(), client_urls=("x",)), host=name, leader=name == "a") for name in names))
    monkeypatch.setattr(members, "look", lambda session: found)
    monkeypatch.setattr(checks, "await_passing", lambda session, name, hosts, deadline: None)
    session: Any = SimpleNamespace(etcd=lambda host: fakes[host.name], cluster=SimpleNamespace(etcd_members=hosts))
    members.defragment(session, hosts)
    assert asked == log
