"""What machines said and were asked the last time: kept, forgotten, and held against what they say now."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.engine import observe
from clusterctl.errors import Locked
from clusterctl.local.storage import StateFolder
from clusterctl.session import opening as opening_module
from clusterctl.session.foresight import Foresight, foresee, remember
from clusterctl.session.opening import Opening, Options
from clusterctl.session.operator_lock import OperatorLock
from clusterctl.session.recall import Kept, recall
from clusterctl.shell.facts import Facts

OLD = {"a": Facts(values={"hostname": "a", "time": "1.0"}), "b": Facts(values={"hostname": "b"})}
PROBES: Any = {"a": (("stat", "/etc/a"), ("stat", "/etc/b"))}


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StateFolder:
    monkeypatch.setenv("CLUSTERCTL_CACHE", str(tmp_path / "cache"))
    made = StateFolder(tmp_path / "state")
    made.prepare()
    made.write_all("pki", {"kubernetes.crt": b"this cluster's"})
    return made


def kept_by(state: StateFolder) -> Path:
    [found] = (state.path.parent / "cache/facts").iterdir()
    return found


def session(state: StateFolder, *names: str, new: bool = False) -> Any:
    hosts = tuple(SimpleNamespace(name=name) for name in names)
    return SimpleNamespace(pki_is_new=new, state=state, opening=SimpleNamespace(kept=recall(state), apis={}), chosen=hosts,
                           cluster=SimpleNamespace(hosts=hosts, etcd_members=(), control_planes=()))


def test_kept_without_the_time_and_for_machines_of_the_inventory_alone(state: StateFolder) -> None:
    remember(session(state, "a", "b"), OLD, PROBES)
    path = kept_by(state)
    assert recall(state) == {"a": Kept({"hostname": "a"}, PROBES["a"]), "b": Kept({"hostname": "b"})}
    before = path.stat()
    assert before.st_mode & 0o777 == 0o600
    remember(session(state, "a", "b"), {"a": Facts(values={"hostname": "a", "time": "2.0"})}, PROBES)
    assert path.stat().st_ino == before.st_ino, "nothing is written where nothing is new"
    remember(session(state, "a"), {"a": Facts(values={"hostname": "other"})}, {})
    assert recall(state) == {"a": Kept({"hostname": "other"}, PROBES["a"])}, "who was asked for facts alone is looked at as before"


def test_another_cluster_of_that_name_has_its_own(state: StateFolder) -> None:
    remember(session(state, "a"), {"a": OLD["a"]}, {})
    state.write("pki/kubernetes.crt", b"another one's")
    assert recall(state) == {}


def test_nothing_is_kept_of_a_cluster_that_has_no_keys_yet(state: StateFolder) -> None:
    remember(session(state, "a", new=True), OLD, {})
    assert recall(state) == {} and foresee(session(state, "a", new=True)) is None
    (state.path / "pki/kubernetes.crt").unlink()
    remember(session(state, "a"), OLD, {})
    assert recall(state) == {}


ONE = {"facts": {"hostname": "a"}, "probes": {"stat": ["/a"]}, "reads": []}


@pytest.mark.parametrize("content", [
    b"", b"[", b"[]", b"null", b'{"a": 1}', b"\xff", b"[" * 100_000, json.dumps({"a": {"facts": {}}}).encode(),
    json.dumps({"a": {**ONE, "probes": {"command": ["rm -rf /"]}}}).encode(), json.dumps({"a": {**ONE, "probes": {"stat;reboot": []}}}).encode(),
    json.dumps({"a": {**ONE, "probes": [["stat", "/a"]]}}).encode(), json.dumps({"a": {**ONE, "probes": {"stat": 1}}}).encode()])
def test_what_cannot_be_read_or_would_be_run_is_nothing(state: StateFolder, content: bytes) -> None:
    remember(session(state, "a"), {"a": OLD["a"]}, {})
    path = kept_by(state)
    path.write_bytes(content)
    assert recall(state) == {} and foresee(session(state, "a")) is None
    remember(session(state, "a"), {"a": OLD["a"]}, {})
    assert recall(state) == {"a": Kept({"hostname": "a"})}


def test_nobody_that_is_concerned_was_heard(state: StateFolder) -> None:
    remember(session(state, "a", "b"), OLD, {})
    assert foresee(session(state, "c")) is None


@pytest.mark.parametrize(("now", "holds"), [
    (OLD, True), ({**OLD, "a": Facts(values={"hostname": "a", "time": "9.0"}, skew=3)}, True), ({"a": OLD["a"]}, False),
    ({**OLD, "c": OLD["a"]}, False), ({**OLD, "b": Facts(values={"hostname": "b", "container": "lxc"})}, False)],
    ids=["the same", "later", "one less", "one more", "another word"])
def test_it_holds_only_where_all_say_the_same(state: StateFolder, now: Mapping[str, Facts], holds: bool) -> None:
    assert Foresight(session(state, "a", "b"), OLD, (), {}).holds(now) is holds


class Way:
    """An opening of two machines that are pretended: what was done to them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: StateFolder, *, heard: bool = True) -> None:
        inventory = tmp_path / "inventory.yaml"
        inventory.write_text("all: {children: {control_plane: {hosts: {cp-1: {ansible_host: 192.0.2.1}}}, workers: {hosts: {w-1: {ansible_host: 192.0.2.2}}}}}")
        if heard:
            remember(session(state, "cp-1", "w-1"), {"cp-1": OLD["a"], "w-1": OLD["b"]}, {"cp-1": PROBES["a"], "w-1": PROBES["a"]})
        self.done: list[str] = []
        self.may_lock = threading.Event()
        monkeypatch.setattr(opening_module, "is_straight", lambda ssh: False)
        self.opening = Opening(Options(inventory=inventory, state=state.path))
        for name, transport in self.opening.transports.items():
            monkeypatch.setattr(transport, "connect", lambda name=name: self.done.append(f"connect {name}"))
        monkeypatch.setattr(observe, "look", lambda transport, probes, verify: self.done.append(f"look {transport.host.name} {len(probes)}"))
        monkeypatch.setattr(OperatorLock, "take", lambda lock, hosts, operation: (self.may_lock.wait(10), self.done.append(f"lock {operation}")))
        monkeypatch.setattr(OperatorLock, "release", lambda lock: self.done.append("release"))


def test_machines_are_looked_at_before_anybody_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: StateFolder) -> None:
    way = Way(monkeypatch, tmp_path, state)
    way.opening.look()
    for one in way.opening.looking.values():
        one.result(10)
    assert sorted(way.done) == ["connect cp-1", "connect w-1", "look cp-1 2", "look w-1 2"] and way.opening.adopt() is None


def test_an_operation_looks_only_once_it_holds_the_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: StateFolder) -> None:
    """What was seen before another operator ended might no longer be so."""
    way = Way(monkeypatch, tmp_path, state)
    way.opening.look("apply")
    for one in way.opening.connecting.values():
        one.result(10)
    assert sorted(way.done) == ["connect cp-1", "connect w-1"]
    way.may_lock.set()
    for one in way.opening.looking.values():
        one.result(10)
    assert way.done[2] == "lock apply" and sorted(way.done[3:]) == ["look cp-1 2", "look w-1 2"]
    with pytest.raises(Locked), state.locked("another"):
        pass
    way.opening.close()
    assert way.done[-1] == "release"
    with state.locked("another"):
        pass


@pytest.mark.parametrize("why", ["nothing is kept", "somebody else"])
def test_nobody_is_looked_at_early_where_nothing_is_kept_or_somebody_else_operates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: StateFolder,
                                                                                   why: str) -> None:
    way = Way(monkeypatch, tmp_path, state, heard=why != "nothing is kept")
    way.may_lock.set()
    if why == "somebody else":
        with state.locked("another"):
            way.opening.look("apply")
    else:
        way.opening.look("apply")
    for one in way.opening.connecting.values():
        one.result(10)
    assert sorted(way.done) == ["connect cp-1", "connect w-1"] and not way.opening.looking and way.opening.adopt() is None
