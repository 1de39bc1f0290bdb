"""node remove of what is gone already: done by a run before this one, or a typing error."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_os_update import cluster

from clusterctl.cluster.target import Target
from clusterctl.commands import apply
from clusterctl.commands.node import remove, replace
from clusterctl.errors import Refused
from clusterctl.etcd import members
from clusterctl.kube.disruption import DrainPolicy
from clusterctl.local.storage import StateFolder
from clusterctl.shell.facts import Facts


def toward(target: Target, state: StateFolder) -> Any:
    return SimpleNamespace(target=target, cluster=target.cluster, state=state, toward=lambda target: toward(target, state),
                           ready_api=lambda: SimpleNamespace(nodes=lambda: {"stray": {}}))


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A cluster that knows cp-1, cp-2, w-1 and w-2, and whose state folder says that the removal of w-9 was begun."""
    state = StateFolder(tmp_path / "state")
    state.prepare()
    state.write(remove.REMOVED, b"w-9")
    monkeypatch.setattr(apply, "make_plan", lambda session: apply.ApplyPlan(session.target))
    monkeypatch.setattr(members, "look", lambda *_: SimpleNamespace(of=lambda _: None))
    monkeypatch.setattr(members, "removal_problem", lambda *_: "")
    return toward(Target(cluster=cluster(2)), state)


def make(session: Any, *names: str, offline: bool = True) -> remove.RemovePlan:
    return remove.make(session, names, offline=offline, policy=DrainPolicy())


def test_one_that_was_removed_before_is_gone(session: Any) -> None:
    found = make(session, "w-9", offline=False)
    assert not found and found.as_dict()["gone"] == ["w-9"]


def test_a_name_that_nobody_ever_had_is_an_error(session: Any) -> None:
    with pytest.raises(Refused, match="neither the inventory nor the cluster has it"):
        make(session, "w-9", "w-8")


def test_what_is_there_leaves_whoever_removed_it_before(session: Any) -> None:
    session.state.write(remove.REMOVED, b"stray\nw-1")
    found = make(session, "stray", "w-1")
    assert [one.name for one in found.departures] == ["stray", "w-1"] and not found.gone
    target = found.rest.target
    assert target.leaving == {"stray", "w-1"} and [host.name for host in target.chosen] == ["cp-1", "cp-2", "w-2"]
    assert [host.name for host in session.cluster.hosts] == ["cp-1", "cp-2", "w-1", "w-2"] and not session.target.leaving


def test_it_is_written_down_before_anything_is_done(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    monkeypatch.setattr(remove, "delete_node_objects", lambda session, name, *, gone: seen.append(remove.removed(session)))
    plan = make(session, "w-1")
    operation = remove.RemoveNodes(session, plan, DrainPolicy(), lambda _: None)
    monkeypatch.setattr(operation, "_keep_out", lambda _: None)
    operation._leave(plan.departures[0])
    assert seen == [{"w-1", "w-9"}]


def test_replace_knows_a_typing_error_too(session: Any) -> None:
    session.engine = SimpleNamespace(facts=lambda hosts: SimpleNamespace(or_raise=lambda: {"cp-2": Facts(cluster="id", etcd="formed")}))
    session.pki = SimpleNamespace(identity="id")
    with pytest.raises(Refused, match="neither the inventory nor the cluster has it"):
        replace.plan_replacement(session, "w-8", "cp-2")
    found = replace.plan_replacement(session, "w-9", "cp-2")
    assert found.begun and not found.traces and not found.first
