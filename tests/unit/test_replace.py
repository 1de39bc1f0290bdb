"""node replace by a machine of another name: who leaves what, wherever the run before was killed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from test_os_update import cluster

from clusterctl.commands.node import remove, replace
from clusterctl.errors import Refused, Unreachable
from clusterctl.etcd import members
from clusterctl.shell.facts import Facts

OURS = "identity"


def decide(monkeypatch: pytest.MonkeyPatch, *, old: str | None, new: str, known: bool = True, member: bool = False,
           lives: str = "") -> replace.Replacement:
    """``old``, ``new``: the marks on the machines; None: it cannot be reached. ``lives``: what of the old one does, node or etcd."""
    node = {"status": {"conditions": [{"type": "Ready", "status": "True" if lives == "node" else "Unknown"}]}}
    marks = {"cp-1": old, "cp-3": new}
    answer = lambda hosts: SimpleNamespace(or_raise=lambda: {host.name: Facts(cluster=marks[host.name]) for host in hosts})  # noqa: E731
    session: Any = SimpleNamespace(
        cluster=cluster(3), pki=SimpleNamespace(identity=OURS), engine=SimpleNamespace(facts=answer),
        ready_api=lambda: SimpleNamespace(nodes=lambda: {"cp-1": node} if known else {}))
    state = SimpleNamespace(healthy=lives == "etcd", member=SimpleNamespace(learner=False))
    monkeypatch.setattr(members, "look", lambda *_: SimpleNamespace(of=lambda name: state if member else None))
    monkeypatch.setattr(replace, "SILENCE_SECONDS", 0)
    monkeypatch.setattr(remove, "reachable", lambda _, host: Unreachable("gone", code="ssh.unreachable") if marks[host.name] is None else None)
    return replace.plan_replacement(session, "cp-1", "cp-3")


@pytest.mark.parametrize(
    ("old", "new", "known", "member", "first", "traces", "left"),
    [
        (OURS, "", True, True, True, True, None),
        (OURS, OURS, True, True, True, True, None),
        (OURS, OURS, True, False, True, True, None),
        # Undone by a run that was killed then: its Node alone is left, and the new one is in.
        ("", OURS, True, False, True, True, None),
        ("", OURS, False, False, True, False, None),
        # Dead: it goes before the new one comes, which the cluster does not know yet.
        (None, "", True, True, False, True, {"cp-2"}),
        (None, OURS, True, True, False, True, {"cp-2", "cp-3"}),
        (None, OURS, False, False, False, False, None),
        # Reinstalled before anything was begun.
        ("", "", True, True, False, True, {"cp-2"}),
    ],
)
def test_who_goes_first(monkeypatch: pytest.MonkeyPatch, old: str | None, new: str, known: bool, member: bool, first: bool, traces: bool,
                        left: set[str] | None) -> None:
    found = decide(monkeypatch, old=old, new=new, known=known, member=member)
    assert (found.first, found.traces) == (first, traces)
    if left is not None:
        assert {host.name for host in replace.staying(cluster(3), found).control_planes} == left


@pytest.mark.parametrize(("lives", "said"), [("etcd", "its etcd member answers"), ("node", "its node is Ready")])
def test_out_of_reach_is_not_dead(monkeypatch: pytest.MonkeyPatch, lives: str, said: str) -> None:
    """Its pods would run twice, and it would be kept out for ever."""
    with pytest.raises(Refused, match=f"it is not dead: {said}") as error:
        decide(monkeypatch, old=None, new="", member=True, lives=lives)
    assert error.value.hint.endswith("clusterctl node remove cp-1 --offline")
