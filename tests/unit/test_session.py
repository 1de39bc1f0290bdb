"""What a verb opens, and what of it only those ask for that need it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clusterctl.commands.apply import check_early
from clusterctl.engine.events import Events
from clusterctl.errors import Locked, Unreachable
from clusterctl.local.storage import StateFolder
from clusterctl.session import opening as opening_module
from clusterctl.session.opening import Opening, Options
from clusterctl.session.operator_lock import OperatorLock
from clusterctl.session.session import session


def options(folder: Path, mirror: str) -> Options:
    (folder / "i.yaml").write_text(f"all: {{vars: {{cluster: {{artifacts: {{mirror: '{mirror}'}}}}}}}}\ncontrol_plane: {{hosts: {{a: {{ip: 192.0.2.1}}}}}}\n")
    return Options(inventory=folder / "i.yaml", state=folder / "state")


def test_a_mirror_that_is_down_hinders_only_who_needs_it(tmp_path: Path) -> None:
    with session(options(tmp_path, "http://127.0.0.1:9"), Events()) as opened:
        assert opened.cluster.hosts
        with pytest.raises(Unreachable, match="the mirror cannot be reached"):
            check_early(opened)


def test_the_mirror_is_asked_once(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps({}))
    with session(options(tmp_path, "."), Events()) as opened:
        assert replace(opened).catalog is opened.catalog is opened.catalog


class Beginning:
    """An opening of two machines that are pretended: what was done to them, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        inventory = tmp_path / "inventory.yaml"
        inventory.write_text("all: {children: {control_plane: {hosts: {cp-1: {ansible_host: 192.0.2.1}}}, workers: {hosts: {w-1: {ansible_host: 192.0.2.2}}}}}")
        self.done: list[str] = []
        self.state = StateFolder(tmp_path / "state")
        self.state.prepare()
        monkeypatch.setattr(opening_module, "is_straight", lambda ssh: False)
        self.opening = Opening(Options(inventory=inventory, state=self.state.path))
        for name, transport in self.opening.transports.items():
            monkeypatch.setattr(transport, "connect", lambda name=name: self.done.append(f"connect {name}"))
        monkeypatch.setattr(OperatorLock, "take", lambda lock, hosts, operation: self.done.append(f"lock {operation}"))
        monkeypatch.setattr(OperatorLock, "release", lambda lock: self.done.append("release"))

    def connect(self, operation: str) -> None:
        self.opening.connect(operation)
        for one in self.opening.connecting.values():
            one.result(10)


def test_a_lock_that_was_begun_is_released_where_the_run_ends_early(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = Beginning(monkeypatch, tmp_path)
    made.connect("apply")
    with pytest.raises(Locked), made.state.locked("another"):
        pass
    made.opening.close()
    assert sorted(made.done[:-1]) == ["connect cp-1", "connect w-1", "lock apply"] and made.done[-1] == "release"
    with made.state.locked("another"):
        pass


def test_no_lock_is_begun_while_another_operation_of_this_controller_holds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = Beginning(monkeypatch, tmp_path)
    with made.state.locked("another"):
        made.connect("apply")
    assert sorted(made.done) == ["connect cp-1", "connect w-1"] and made.opening.adopt() is None
