"""Where a snapshot may be restored beside a member that serves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.errors import Refused
from clusterctl.etcd import room, scratch
from clusterctl.etcd.client import Member
from clusterctl.etcd.members import Membership, MemberState
from clusterctl.etcd.room import MIB, Room
from clusterctl.health import upgrade_checks
from clusterctl.plan.planner import Plan

GIB = 1024 * MIB


@pytest.mark.parametrize(("size", "free", "total", "allowed"), [
    (10 * MIB, 3 * GIB, 4 * GIB, True),
    (10 * MIB, 2 * GIB, 4 * GIB, False),  # 2 GiB must be left,
    (1 * GIB, 22 * GIB, 100 * GIB, False),  # and a fifth of it,
    (1 * GIB, 23 * GIB, 100 * GIB, True),
    (8 * GIB, 20 * GIB, 10 * GIB, True),  # beside 2.2 times the snapshot.
    (8 * GIB, 19 * GIB, 10 * GIB, False),
    (80 * MIB, 64 * MIB, 64 * MIB, False),
])
def test_room(size: int, free: int, total: int, allowed: bool) -> None:
    short = Room(where="cp-1", path="/var/lib", free=free, total=total).shortage(size)
    assert (not short) is allowed
    if short:
        assert "cp-1" in short and "/var/lib" in short and f"{free // MIB} MiB" in short


def membership(*names: str, leader: str, version: str = "3.6.14") -> Membership:
    members = [MemberState(member=Member(id=str(ord(name[0])), name=name, peer_urls=(), client_urls=("x",)), host=name, leader=name == leader,
                           version=version, size=MIB) for name in names]
    return Membership(cluster_id="1", members=tuple(members))


def session() -> Any:
    return SimpleNamespace(cluster=SimpleNamespace(host=lambda name: SimpleNamespace(name=name)))


def choose(monkeypatch: pytest.MonkeyPatch, found: Membership, full: tuple[str, ...] = (), *, etcdutl: bool = False, size: int = MIB) -> str:
    def ask(_: object, host: Any, *paths: str) -> tuple[Room, ...]:
        return tuple(Room(where=host.name, path=path, free=0 if host.name in full else 90 * GIB, total=100 * GIB) for path in paths)

    monkeypatch.setattr(room, "ask", ask)
    monkeypatch.setattr(room, "here", lambda path: Room(where="this machine", path=str(path), free=0 if "here" in full else 90 * GIB, total=100 * GIB))
    monkeypatch.setattr(scratch, "_restores_here", lambda found: etcdutl)
    return scratch.choose_place(session(), found, size).name


def test_a_follower_comes_before_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    three = membership("a", "b", "c", leader="a")
    assert choose(monkeypatch, three) == "b"
    assert choose(monkeypatch, three, ("b",)) == "c"
    assert choose(monkeypatch, three, ("b", "c"), etcdutl=True) == "this machine"
    assert choose(monkeypatch, three, ("b", "c")) == "a"
    assert choose(monkeypatch, membership("a", leader="a")) == "a"
    assert choose(monkeypatch, membership("a", leader="a"), etcdutl=True) == "this machine"


def test_no_room_anywhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Refused) as caught:
        choose(monkeypatch, membership("a", "b", leader="a"), ("a", "b", "here"), etcdutl=True)
    assert caught.value.code == "etcd.snapshot-no-room"
    assert all(name in caught.value.message for name in ("a:", "b:", "this machine:"))


def test_nobody_answers_and_no_etcdutl_here(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = Membership(cluster_id="", members=())
    assert choose(monkeypatch, nothing, etcdutl=True) == "this machine"
    with pytest.raises(Refused) as caught:
        choose(monkeypatch, nothing)
    assert caught.value.code == "etcd.no-scratch"


def test_an_upgrade_without_interruption_needs_no_room() -> None:
    assert list(upgrade_checks.snapshot_room(session(), Plan(()))) == []
