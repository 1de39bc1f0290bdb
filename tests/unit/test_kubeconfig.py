"""The administrator's kubeconfig in a file: nothing that is there is lost, and what cannot be written is said."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterctl.commands import kubeconfig
from clusterctl.errors import InputError, Locked

OURS: dict[str, Any] = {
    "apiVersion": "v1", "kind": "Config", "current-context": "prod", "preferences": {},
    "clusters": [{"name": "prod", "cluster": {"server": "https://new"}}], "users": [{"name": "prod-admin", "user": {}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "prod-admin"}}]}


def test_merging_keeps_the_rest_behind_a_link(tmp_path: Path) -> None:
    other = {"name": "other", "cluster": {"server": "https://other"}}
    (tmp_path / "real").write_text(yaml.safe_dump({
        "clusters": [other, {"name": "prod", "cluster": {"server": "https://old"}}, {"name": ["odd"]}], "users": None, "mine": 1}))
    link = tmp_path / "config"
    link.symlink_to("real")
    kubeconfig.merge(OURS, link)
    found = yaml.safe_load((tmp_path / "real").read_text())
    assert found["clusters"] == [other, {"name": ["odd"]}, *OURS["clusters"]]
    assert (found["users"], found["mine"], found["current-context"]) == (OURS["users"], 1, "prod")
    assert link.is_symlink() and (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    kubeconfig.write(OURS, link)
    assert link.is_symlink() and yaml.safe_load((tmp_path / "real").read_text()) == OURS


def test_merging_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    kubeconfig.merge(OURS, tmp_path / ".kube" / "config")
    assert yaml.safe_load((tmp_path / ".kube" / "config").read_text()) == OURS
    assert [path.name for path in (tmp_path / ".kube").iterdir()] == ["config"], "the lock goes"


@pytest.mark.parametrize(("content", "words"), [
    ("clusters: [foo]", "its clusters are no list of mappings"), ("clusters: 5", "its clusters are no list"),
    ("users: {a: b}", "its users are no list"), ("[]", "it is no mapping"), ("0", "it is no mapping"), ("a: [", "is no kubeconfig"),
    ("[" * 5000, "is no kubeconfig"), ("a: 2024-13-45", "is no kubeconfig"), ("a: \udcff", "is no kubeconfig")])
def test_what_is_no_kubeconfig_stays_as_it_is(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "config"
    before = content.encode("utf-8", "surrogateescape")
    path.write_bytes(before)
    with pytest.raises(InputError, match=words) as raised:
        kubeconfig.merge(OURS, path)
    assert raised.value.where == str(path) and raised.value.hint
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["folder", "", "pipe", "made/up/config", "file/config", "x" * 300, "x" * 300 + "/config"])
def test_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as raised:
        kubeconfig.write(OURS, Path(place))
    assert raised.value.where == str(Path(place)) and raised.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "pipe"] and (tmp_path / "pipe").is_fifo()
    if place != "made/up/config":
        with pytest.raises(InputError):
            kubeconfig.merge(OURS, Path(place))


def test_whoever_else_writes_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "config.lock"
    lock.touch()
    threading.Timer(0.3, lock.unlink).start()
    kubeconfig.merge(OURS, tmp_path / "config")
    lock.touch()
    monkeypatch.setattr(kubeconfig, "PATIENCE", 0.0)
    with pytest.raises(Locked) as raised:
        kubeconfig.merge({**OURS, "current-context": "x"}, tmp_path / "config")
    assert raised.value.where == str(lock) and f"rm {lock}" in raised.value.hint and lock.exists()
    assert yaml.safe_load((tmp_path / "config").read_text()) == OURS


def test_which_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/a/b:/c")
    assert kubeconfig.users_own() == Path("/a/b")
    monkeypatch.setenv("KUBECONFIG", "")
    monkeypatch.setenv("HOME", "/home/me")
    assert kubeconfig.users_own() == Path("/home/me/.kube/config")
