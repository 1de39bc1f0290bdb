"""What machines said the last time: kept, forgotten, and held against what they say now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.facts import Facts
from clusterctl.operations.foresight import Foresight, foresee, remember

OLD = {"a": Facts(values={"hostname": "a", "time": "1.0"}), "b": Facts(values={"hostname": "b"})}


def session(*names: str, new: bool = False) -> Any:
    hosts = tuple(SimpleNamespace(name=name) for name in names)
    return SimpleNamespace(pki_is_new=new, pki=SimpleNamespace(identity="test"), chosen=hosts, cluster=SimpleNamespace(hosts=hosts, etcd_members=()))


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("CLUSTERCTL_CACHE", str(tmp_path))
    return tmp_path / "facts/test.json"


def test_kept_without_the_time_and_for_machines_of_the_inventory_alone(kept: Path) -> None:
    remember(session("a", "b"), OLD)
    assert kept.read_text() == '{"a": {"hostname": "a"}, "b": {"hostname": "b"}}' and kept.stat().st_mode & 0o777 == 0o600
    before = kept.stat().st_ino
    remember(session("a", "b"), {"a": Facts(values={"hostname": "a", "time": "2.0"})})
    assert kept.stat().st_ino == before, "nothing is written where nothing is new"
    remember(session("a"), {"a": Facts(values={"hostname": "other"})})
    assert kept.read_text() == '{"a": {"hostname": "other"}}'


def test_nothing_is_kept_of_a_cluster_that_has_no_keys_yet(kept: Path) -> None:
    remember(session("a", new=True), OLD)
    assert not kept.exists() and foresee(session("a", new=True)) is None


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"null", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_is_nothing(kept: Path, content: bytes) -> None:
    kept.parent.mkdir()
    kept.write_bytes(content)
    assert foresee(session("a")) is None
    remember(session("a"), {"a": OLD["a"]})
    assert kept.read_text() == '{"a": {"hostname": "a"}}'


def test_nobody_that_is_concerned_was_heard(kept: Path) -> None:
    remember(session("a", "b"), OLD)
    assert foresee(session("c")) is None


@pytest.mark.parametrize(("now", "holds"), [
    (OLD, True), ({**OLD, "a": Facts(values={"hostname": "a", "time": "9.0"}, skew=3)}, True), ({"a": OLD["a"]}, False),
    ({**OLD, "c": OLD["a"]}, False), ({**OLD, "b": Facts(values={"hostname": "b", "container": "lxc"})}, False)],
    ids=["the same", "later", "one less", "one more", "another word"])
def test_it_holds_only_where_all_say_the_same(now: Mapping[str, Facts], holds: bool) -> None:
    assert Foresight(session("a", "b"), OLD, (), {}).holds(now) is holds
