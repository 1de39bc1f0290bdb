"""Restores that did not end: which one continues, which one is refused, and what is left to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.commands.etcd import restore
from clusterctl.commands.etcd.restore import Machine, Mark, RestorePlan, begun, read_machine
from clusterctl.commands.etcd.restoring import Restoring
from clusterctl.engine.events import Events
from clusterctl.errors import Refused

MEMBERS = "a=https://10.0.0.1:2380,b=https://10.0.0.2:2380"


def machine(phase: str = "", *, id: str = "one", digest: str = "d", members: str = MEMBERS) -> Machine:
    return Machine(mark=Mark(id=id, phase=phase, digest=digest, members=members) if phase else None, installed=True, active=True, data=1)


def test_records_of_a_machine() -> None:
    found = read_machine([["mark", "one", "held", "d", MEMBERS], ["installed", "yes"], ["active", "inactive"], ["data", "7"], ["end"]])
    assert found == Machine(mark=Mark(id="one", phase="held", digest="d", members=MEMBERS), installed=True, active=False, data=7168)
    assert read_machine([["active", "active"]]) == Machine(mark=None, installed=False, active=True, data=0)


def test_the_same_restore_continues() -> None:
    mark = begun({"a": machine("swapped"), "b": machine("prepared")}, "d", MEMBERS)
    assert mark is not None and mark.id == "one"
    assert begun({"a": machine(), "b": machine()}, "d", MEMBERS) is None


@pytest.mark.parametrize("other", [machine("held", digest="e"), machine("held", members="a=https://10.0.0.1:2380"), machine("held", id="two")])
def test_another_restore_is_refused(other: Machine) -> None:
    with pytest.raises(Refused) as caught:
        begun({"a": machine("held"), "b": other}, "d", MEMBERS)
    assert caught.value.code == "etcd.restore-unfinished"


def plan(a: Machine, b: Machine, **more: Any) -> RestorePlan:
    hosts: Any = tuple(SimpleNamespace(name=name, address=name) for name in "ab")
    return RestorePlan(id="one", digest="d", members=MEMBERS, hosts=hosts, machines={"a": a, "b": b}, path=Path("x"),
                       **{"control_planes": hosts, **more})


def test_a_token_belongs_to_one_restore() -> None:
    first = plan(machine(), machine())
    for change in ({"id": "two"}, {"digest": "e"}, {"members": "a"}):
        assert dataclasses.replace(first, **change).token != first.token


class Session:
    """Records which stages run on which hosts."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.options = SimpleNamespace(forks=1)
        self.cluster = SimpleNamespace(nodes=(), etcd_members=())
        events = Events()
        self.engine = SimpleNamespace(check_lock=lambda: None, events=events, run=self.run)

    def run(self, host: Any, steps: Any, **_: Any) -> None:
        self.ran.append((steps[0][0], host.name))

    def ready_api(self) -> Any:
        return SimpleNamespace(nodes=lambda: {})


ALL = ["restore_prepare", "stop_control_plane", "restore_hold", "restore_swap", "restore_start", "restore_serve", "start_control_plane",
       "restore_done", "restore_forget"]


@pytest.mark.parametrize(("a", "b", "stages"), [
    ("", "", ALL),
    ("prepared", "", ALL),  # Nothing is stopped before the data is on all of them.
    ("prepared", "prepared", ALL[1:]),
    ("swapped", "held", ALL[1:]),
    ("swapped", "swapped", ALL[4:]),
    ("started", "swapped", ALL[4:]),
    ("done", "started", ALL[7:]),
    ("done", "", ALL[7:]),  # Its marker is gone: it must not begin again.
])
def test_what_is_left_to_do(a: str, b: str, stages: list[str]) -> None:
    session: Any = Session()
    Restoring(session, plan(machine(a), machine(b))).run()
    assert list(dict.fromkeys(name for name, _ in session.ran)) == stages
    for name in stages:
        hosts = [host for stage, host in session.ran if stage == name]
        assert hosts == (["a"] if "done" in (a, b) and not b else ["a", "b"]), "a stage ends on all before the next one begins"


def test_no_way_back_once_a_member_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = tuple(SimpleNamespace(name=name, is_etcd=True, is_control_plane=True) for name in "ab")
    session: Any = SimpleNamespace(cluster=SimpleNamespace(etcd_members=hosts, hosts=hosts, control_planes=hosts), connect=lambda hosts: None)
    found = {"a": machine("swapped"), "b": machine("swapped")}
    monkeypatch.setattr(restore, "refuse_other_machines", lambda *_: None)
    monkeypatch.setattr(restore, "look", lambda *_: found)
    made = restore.abort_plan(session)
    assert made is not None and made.id == "one" and made.hosts == hosts
    found["b"] = machine("started")
    with pytest.raises(Refused) as caught:
        restore.abort_plan(session)
    assert caught.value.code == "etcd.restore-started"
    found.update(a=machine(), b=machine())
    assert restore.abort_plan(session) is None
