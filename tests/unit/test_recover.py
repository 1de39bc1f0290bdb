"""Which survivor becomes the whole of etcd, and when none may."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.commands.etcd import recover
from clusterctl.commands.etcd.recover import DIGEST, Standing
from clusterctl.commands.etcd.restore import Machine, Mark
from clusterctl.errors import Refused
from clusterctl.etcd import members, room


class Host(SimpleNamespace):
    is_etcd = is_control_plane = True


HOSTS = {name: Host(name=name, address=name) for name in "abcde"}


def machine(data: int = 1, mark: Mark | None = None) -> Machine:
    return Machine(mark=mark, installed=True, active=bool(data), data=data)


def plan(monkeypatch: pytest.MonkeyPatch, alive: str, standings: dict[str, Standing] | None = None, *, majority: bool = False,
         machines: dict[str, Machine] | None = None, inventory: str = "abc") -> Any:
    def look(*_: Any) -> Any:
        if not majority:
            raise Refused("no majority", code="host.clock")

    monkeypatch.setattr(recover, "refuse_other_machines", lambda *_: None)
    monkeypatch.setattr(recover, "look", lambda session, hosts: {host.name: (machines or {}).get(host.name, machine()) for host in hosts})
    monkeypatch.setattr(members, "look", look)
    monkeypatch.setattr(recover, "standing", lambda session, host: (standings or {}).get(host.name, Standing()))
    monkeypatch.setattr(room, "ask", lambda *_: (room.Room(where="a", path="/", free=2**40, total=2**40),))
    session: Any = SimpleNamespace(cluster=SimpleNamespace(etcd_members=tuple(HOSTS[name] for name in inventory)), options=SimpleNamespace(forks=3))
    return recover.make_plan(session, [HOSTS[name] for name in alive])


def refused(monkeypatch: pytest.MonkeyPatch, alive: str, **more: Any) -> str:
    with pytest.raises(Refused) as caught:
        plan(monkeypatch, alive, **more)
    assert caught.value.exit_code == 3
    return caught.value.code


def test_one_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(monkeypatch, "b")
    assert [host.name for host in made.hosts] == ["b"] and made.members == "b=https://b:2380" and not made.leaving
    assert "a, c" in made.lost


def test_the_one_that_goes_furthest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of five."""
    for standings, best in (({"a": Standing(revision=5, index=9), "b": Standing(revision=6, index=1)}, "b"),
                            ({"a": Standing(revision=6, index=9), "b": Standing(revision=6, index=8)}, "a")):
        made = plan(monkeypatch, "ab", standings, inventory="abcde")
        assert [host.name for host in made.hosts] == [best]
        assert [host.name for host in made.leaving] == ["b" if best == "a" else "a"]


def test_refused_while_a_majority_answers_or_could(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, "a", majority=True) == "etcd.quorum-present"
    assert refused(monkeypatch, "ab") == "etcd.quorum-possible"
    assert refused(monkeypatch, "ab", machines={"a": machine(0), "b": machine(0)}) == "etcd.no-survivor"
    assert refused(monkeypatch, "") == "etcd.no-survivor"
    assert plan(monkeypatch, "ab", machines={"b": machine(0)}).hosts[0].name == "a"


def test_it_continues_with_the_member_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a majority answers: it is the recovered one."""
    mark = Mark(id="one", phase="started", digest=DIGEST, members="b=https://b:2380")
    made = plan(monkeypatch, "b", majority=True, machines={"b": machine(1, mark)})
    assert made.id == "one" and made.begun and made.hosts[0].name == "b"
    other = Mark(id="two", phase="held", digest="d", members="b=https://b:2380")
    assert refused(monkeypatch, "b", machines={"b": machine(1, other)}) == "etcd.restore-unfinished"
