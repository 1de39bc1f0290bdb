"""What a drain does to pods: which leave, which stay, which may not be touched, and which budgets are in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from clusterctl.errors import Problems, Refused
from clusterctl.kube import disruption, drain
from clusterctl.kube.client import CORDONED_FOR, cordoned_for
from clusterctl.kube.disruption import LOCAL_VOLUMES, DrainPolicy

MIRROR = "kubernetes.io/config.mirror"


def pod(owner: str = "ReplicaSet", *, phase: str = "Running", annotations: Mapping[str, str] | None = None, volumes: Sequence[str] = (),
        labels: Mapping[str, str] | None = None, namespace: str = "default", name: str = "p", controller: bool = True) -> dict[str, Any]:
    """``volumes``: KIND or KIND:NAME."""
    owners = [{"kind": owner, "controller": controller}] if owner else []
    listed = [{"name": entry.partition(":")[2] or entry, entry.partition(":")[0]: {}} for entry in volumes]
    return {"metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}", "annotations": annotations, "labels": labels,
                         "ownerReferences": owners}, "spec": {"volumes": listed}, "status": {"phase": phase}}


def budget(selector: object = None, *, allowed: int = 0, healthy: int = 2, expected: int = 2, namespace: str = "default") -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": "b"}, "spec": {} if selector is None else {"selector": selector},
            "status": {"disruptionsAllowed": allowed, "desiredHealthy": healthy, "expectedPods": expected}}


def node(**more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "w-1", "annotations": more.pop("annotations", None)}, "spec": more}


@pytest.mark.parametrize(("given", "expected"), [
    (pod(), "evict"),
    (pod("StatefulSet"), "evict"),
    (pod("Job"), "evict"),
    (pod(""), "evict"),
    (pod("DaemonSet"), "daemonset"),
    # An owner that is no controller, as an operator's object, brings nothing back.
    (pod("DaemonSet", controller=False), "evict"),
    (pod("Node", annotations={MIRROR: "x"}), "static"),
    (pod(phase="Succeeded"), "finished"),
    (pod("", phase="Failed"), "finished"),
    (pod("DaemonSet", phase="Failed"), "finished"),
    (pod(phase="Pending"), "evict"),
    ({"metadata": {"namespace": "x", "name": "y", "uid": "z"}, "spec": {}}, "evict"),
])
def test_kinds(given: dict[str, Any], expected: str) -> None:
    assert disruption.pod_kind(given) == expected
    found = disruption.plan_drain(node(), [given], [], DrainPolicy())
    assert bool(found.evicted) == (expected in ("evict", "finished"))


@pytest.mark.parametrize(("given", "policy", "refused"), [
    (pod(), DrainPolicy(), ""),
    (pod(""), DrainPolicy(), "no controller): --force"),
    (pod("", controller=False), DrainPolicy(force=True), ""),
    (pod("Helper", controller=False), DrainPolicy(), "--force"),
    (pod(volumes=["emptyDir:cache"]), DrainPolicy(), "emptyDir volumes (cache) would be lost: --delete-emptydir-data"),
    (pod(volumes=["emptyDir:cache"]), DrainPolicy(delete_emptydir_data=True), ""),
    (pod(volumes=["emptyDir:cache"]), DrainPolicy(force=True), "--delete-emptydir-data"),
    (pod(volumes=["emptyDir:a", "emptyDir:b"], annotations={LOCAL_VOLUMES: "a"}), DrainPolicy(), "(b)"),
    (pod(volumes=["emptyDir:a", "emptyDir:b"], annotations={LOCAL_VOLUMES: "a,b"}), DrainPolicy(), ""),
    # As people write lists.
    (pod(volumes=["emptyDir:a", "emptyDir:b"], annotations={LOCAL_VOLUMES: "a, b"}), DrainPolicy(), ""),
    (pod(volumes=["emptyDir:a"], annotations={LOCAL_VOLUMES: ""}), DrainPolicy(), "(a)"),
    (pod("", volumes=["emptyDir:a"]), DrainPolicy(delete_emptydir_data=True), "--force"),
    (pod(volumes=["configMap:c", "hostPath:h"]), DrainPolicy(), ""),
    # Neither is evicted, or nothing is lost with it: no flag is wanted.
    (pod("DaemonSet", volumes=["emptyDir:a"]), DrainPolicy(), ""),
    (pod("", annotations={MIRROR: "x"}), DrainPolicy(), ""),
    (pod("", phase="Succeeded", volumes=["emptyDir:a"]), DrainPolicy(), ""),
])
def test_refusals(given: dict[str, Any], policy: DrainPolicy, refused: str) -> None:
    found = disruption.plan_drain(node(), [given], [], policy)
    said = "".join(one.refused for one in found.pods)
    assert refused in said and bool(refused) == bool(said), said
    if refused:
        with pytest.raises(Refused, match="pod default/p: "):
            drain.refuse_unsafe([found])
        with pytest.raises(Problems):
            drain.refuse_unsafe([found, found])
    else:
        drain.refuse_unsafe([found])


def test_a_host_path_is_told() -> None:
    found = disruption.plan_drain(node(), [pod(volumes=["hostPath:h"]), pod("DaemonSet", volumes=["hostPath:h"])], [], DrainPolicy())
    assert [bool(one.warning) for one in found.pods] == [True, False]
    assert found.as_dict()["warnings"] == ["default/p: uses a hostPath volume, whose data stays on the machine"]


def expression(operator: str, *values: str, key: str = "tier") -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}


WEB = {"app": "web", "tier": "front"}


@pytest.mark.parametrize(("selector", "labels", "selects"), [
    # An empty selector is about all pods of its namespace in policy/v1, none at all about nobody.
    ({}, {}, True),
    ({}, WEB, True),
    (None, WEB, False),
    ({"matchLabels": {"app": "web"}}, WEB, True),
    ({"matchLabels": {"app": "web", "tier": "back"}}, WEB, False),
    ({"matchLabels": {"app": "web"}}, None, False),
    ({"matchLabels": None, "matchExpressions": None}, WEB, True),
    (expression("In", "front", "back"), WEB, True),
    (expression("In", "back"), WEB, False),
    (expression("In", "front"), {}, False),
    (expression("NotIn", "back"), WEB, True),
    (expression("NotIn", "front"), WEB, False),
    # A label that is not there is in no list.
    (expression("NotIn", "front"), {}, True),
    (expression("Exists"), WEB, True),
    (expression("Exists"), {}, False),
    (expression("DoesNotExist"), WEB, False),
    (expression("DoesNotExist"), {}, True),
    ({"matchLabels": {"app": "web"}, **expression("In", "back")}, WEB, False),
    ({"matchExpressions": [*expression("Exists")["matchExpressions"], *expression("NotIn", "web", key="app")["matchExpressions"]]}, WEB, False),
])
def test_selectors(selector: object, labels: dict[str, str] | None, selects: bool) -> None:
    assert disruption.selects(budget(selector), pod(labels=labels)) is selects
    assert not disruption.selects(budget(selector, namespace="other"), pod(labels=labels))


@pytest.mark.parametrize(("status", "allowed", "never"), [
    ({"disruptionsAllowed": 1, "desiredHealthy": 1, "expectedPods": 2}, 1, False),
    # One pod is not well just now: it will be.
    ({"disruptionsAllowed": 0, "desiredHealthy": 1, "expectedPods": 2}, 0, False),
    ({"disruptionsAllowed": 0, "desiredHealthy": 2, "expectedPods": 2}, 0, True),
    ({"disruptionsAllowed": 0, "desiredHealthy": 3, "expectedPods": 2}, 0, True),
    # No pods: nothing is held back.
    ({"disruptionsAllowed": 0, "desiredHealthy": 0, "expectedPods": 0}, 0, False),
    ({}, 0, False),
])
def test_what_budgets_allow(status: dict[str, int], allowed: int, never: bool) -> None:
    given = {**budget({}), "status": status}
    assert (disruption.allowed_disruptions(given), disruption.never_allows(given)) == (allowed, never)


def test_budgets_in_the_way() -> None:
    pods = [pod(name="a", labels=WEB), pod(name="b"), pod("DaemonSet", name="c", labels=WEB), pod(name="d", labels=WEB, phase="Succeeded")]
    selector = {"matchLabels": {"app": "web"}}
    found = disruption.plan_drain(node(), pods, [budget(selector)], DrainPolicy())
    assert [one.id for one in found.blocked] == ["default/a"]
    assert drain.waiting_texts([found]) == [
        "w-1: pod default/a could not be evicted now: PodDisruptionBudget default/b allows no disruption"]
    assert drain.hopeless([found], [budget(selector)]) == ["w-1: pod default/a: PodDisruptionBudget default/b never allows a disruption"]
    # One that allows none for the moment only is waited for, and one that allows one is in nobody's way.
    assert not drain.hopeless([found], [budget(selector, healthy=1)])
    assert not disruption.plan_drain(node(), pods, [budget(selector, allowed=1)], DrainPolicy()).blocked
    assert found.as_dict() == {
        "node": "w-1", "evict": ["default/a", "default/b", "default/d"], "stay": ["default/c"], "refused": [], "warnings": [],
        "blocked": [{"pod": "default/a", "budgets": ["default/b"]}], "cordoned_by_hand": False}


@pytest.mark.parametrize(("given", "by_hand", "operation"), [
    (node(), False, ""),
    (node(unschedulable=True), True, ""),
    (node(unschedulable=True, annotations={CORDONED_FOR: "upgrade"}), False, "upgrade"),
    # Somebody uncordoned what we had cordoned: it is nobody's any more.
    (node(annotations={CORDONED_FOR: "upgrade"}), False, ""),
])
def test_whose_cordon_it_is(given: dict[str, Any], by_hand: bool, operation: str) -> None:
    assert disruption.plan_drain(given, [], [], DrainPolicy()).by_hand is by_hand
    assert cordoned_for(given) == operation
