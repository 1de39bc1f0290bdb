"""Who must be well before somebody else is interrupted, also where only some machines are looked at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from test_os_update import cluster

from clusterctl.engine.fleet import HostResults
from clusterctl.errors import Stopped
from clusterctl.health import checks, gates, wait
from clusterctl.shell.facts import Facts, parse_facts
from clusterctl.ssh.https import ApiError

SERVES = parse_facts({"etcd": "formed", "running": "../kube-apiserver/1.36.4/kube-apiserver"})
NOTHING_YET = parse_facts({"etcd": "", "running": ""})
CLUSTER = cluster(3)
STAGE: Any = SimpleNamespace(hosts=[SimpleNamespace(host=host, disruptive=True) for host in CLUSTER.control_planes])


def serving(monkeypatch: pytest.MonkeyPatch, *down: str, **fleet: Facts) -> gates.ClusterGates:
    """``down``: whose etcd and API server do not answer; ``fleet``: by name, with _ for -."""
    monkeypatch.setattr(gates, "OTHERS_SECONDS", 0)

    def answers(name: str) -> None:
        if name in down:
            raise ApiError(0, "connection refused")

    session: Any = SimpleNamespace(
        cluster=CLUSTER, etcd=lambda host: SimpleNamespace(answers=lambda: answers(host.name)),
        api=lambda host: SimpleNamespace(ready=lambda: host.name not in down))
    made = gates.ClusterGates(session, {name.replace("_", "-"): facts for name, facts in fleet.items()})
    made.start_seconds = 0
    return made


@pytest.mark.parametrize(("down", "fleet", "passes"), [
    ((), {"cp_1": SERVES, "cp_2": SERVES, "cp_3": SERVES}, True),
    (("cp-1",), {"cp_1": SERVES, "cp_2": SERVES, "cp_3": SERVES}, False),
    # With --limit, or as it cannot be reached, cp-1 was not looked at: it may serve, and must.
    (("cp-1",), {"cp_2": SERVES, "cp_3": SERVES}, False),
    (("cp-1",), {"cp_2": SERVES}, False),
    ((), {"cp_2": SERVES}, True),
    (("cp-1",), {"cp_1": NOTHING_YET, "cp_2": SERVES, "cp_3": SERVES}, True),
    # Who is down itself is mended, whoever else is.
    (("cp-1", "cp-2"), {"cp_1": SERVES, "cp_2": SERVES, "cp_3": SERVES}, True),
], ids=["all", "down", "down-and-unseen", "unseen", "limited", "not-yet", "own"])
def test_who_is_interrupted_while_others_are_down(monkeypatch: pytest.MonkeyPatch, down: tuple[str, ...], fleet: dict[str, Facts], passes: bool) -> None:
    for gate in ("before_etcd", "before_control_plane"):
        found = serving(monkeypatch, *down, **fleet)
        if passes:
            getattr(found, gate)(STAGE, [CLUSTER.host("cp-2")])
        else:
            with pytest.raises(Stopped, match="cp-1"):
                getattr(found, gate)(STAGE, [CLUSTER.host("cp-2")])


def test_members_that_are_all_down_are_mended_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is well before a majority is; an API server that had no etcd is not waited for, as it may lack more."""
    everybody = {"cp_1": SERVES, "cp_2": SERVES, "cp_3": SERVES}
    found = serving(monkeypatch, "cp-1", "cp-2", "cp-3", **everybody)
    found.before_etcd(STAGE, CLUSTER.control_planes)
    with pytest.raises(Stopped, match="etcd on cp-1, cp-2, cp-3"):
        found.after_etcd(STAGE, CLUSTER.control_planes)
    monkeypatch.setitem(checks.CONTROL_PLANE, "etcd", (lambda session, host: "", lambda cluster: cluster.etcd_members))  # type: ignore[arg-type]
    found.after_etcd(STAGE, CLUSTER.control_planes)


def test_members_that_serve_are_never_interrupted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    found = serving(monkeypatch, "cp-1", cp_1=SERVES, cp_2=SERVES, cp_3=SERVES)
    with pytest.raises(Stopped, match="a majority answers again"):
        found.before_etcd(STAGE, CLUSTER.control_planes)


@pytest.mark.parametrize(("renewed", "running", "ends"), [
    # The leases are renewed, and the programs that ran before run again.
    (["1", "1", "2"], ["", "kube-scheduler"], ""),
    # A lease that is not renewed, or a program that does not run again, ends the wait at its deadline; the run continues.
    (["1"], ["kube-scheduler"], "the lease is not renewed"),
    (["1", "2"], [""], "kube-scheduler does not run"),
], ids=["again", "no-leader", "gone"])
def test_leaders_after_a_member_was_away(monkeypatch: pytest.MonkeyPatch, renewed: list[str], running: list[str], ends: str) -> None:
    """The last entry of ``renewed`` and ``running`` repeats."""
    fleet = {"cp_1": SERVES, "cp_2": SERVES, "cp_3": parse_facts({
        "etcd": "formed", "running": "../kube-apiserver/1.36.4/kube-apiserver ../kube-scheduler/1.36.4/kube-scheduler"})}
    found = serving(monkeypatch, **fleet)
    monkeypatch.setattr(gates, "LEADER_SECONDS", 0.5)
    monkeypatch.setattr(wait, "PAUSE", 0.01)
    seen: list[str] = []

    def noted(look: Callable[[], str], *, what: str, deadline: float) -> None:
        def looked() -> str:
            seen.append(look())
            return seen[-1]

        wait.wait_for(looked, what=what, deadline=deadline)

    def of(answers: list[str]) -> str:
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def facts(hosts: Sequence[Any]) -> HostResults[Facts]:
        programs = f"../kube-apiserver/1.36.4/kube-apiserver ../{of(running)}/1.36.4/x"
        return HostResults({host.name: parse_facts({"running": programs}) for host in hosts}, {})

    leases = lambda path: {"items": [{"metadata": {"name": "kube-scheduler"}, "spec": {"renewTime": of(renewed)}}]}  # noqa: E731
    session: Any = found.session
    session.ready_api = lambda: SimpleNamespace(look=leases)
    session.engine = SimpleNamespace(facts=facts)
    monkeypatch.setattr(gates, "wait_for", noted)
    found.before_etcd(STAGE, [CLUSTER.host("cp-3")])
    found.after_etcd(STAGE, [CLUSTER.host("cp-3")])
    assert ends in seen[-1] and bool(seen[-1]) is bool(ends), seen
    assert not renewed[1:], "each was asked for"
