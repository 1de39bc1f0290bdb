"""What is wanted of the API's objects, against what it shows."""

from __future__ import annotations

import time

import pytest

from clusterctl.errors import Stopped
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import differences, node_problem, not_rolled_out, object_id


@pytest.mark.parametrize(("wanted", "found", "expected"), [
    ({}, {}, []),
    ({"a": 1}, {"a": 1, "status": {"x": 1}}, []),
    ({"a": 1}, {"a": 2}, ["a"]),
    ({"a": 1}, {}, ["a"]),
    ({"a": {"b": {"c": "x"}}}, {"a": {"b": {"c": "y"}}}, ["a.b.c"]),
    ({"a": {"b": 1}}, {"a": None}, ["a"]),
    ({"a": {}}, {}, []),
    ({"a": None}, {}, []),
    ({"a": ""}, {}, []),
    ({"a": []}, {}, []),
    ({"a": False}, {}, ["a"]),
    ({"a": [1, 2]}, {"a": [1, 2]}, []),
    ({"a": [1, 2]}, {"a": [2, 1]}, ["a[0]", "a[1]"]),
    ({"a": [1, 2]}, {"a": [1]}, ["a"]),
    ({"a": [{"name": "x", "image": "1"}]}, {"a": [{"name": "x", "image": "2", "pull": "Always"}]}, ["a[0].image"]),
    ({"a": "1"}, {"a": 1}, ["a"]),
    # What somebody lets others do beyond what is ours is a difference; what a controller aggregates is not.
    ({"subjects": [{"name": "a"}]}, {"subjects": [{"name": "a"}, {"name": "mallory"}]}, ["subjects"]),
    ({"rules": [{"verbs": ["get"]}]}, {"rules": [{"verbs": ["get"]}, {"verbs": ["*"]}]}, ["rules"]),
    ({"rules": []}, {"rules": [{"verbs": ["get"]}]}, []),
    ({"spec": {"rules": [1]}}, {"spec": {"rules": [1, 2]}}, []),
    ("x", "x", []),
])
def test_differences(wanted: object, found: object, expected: list[str]) -> None:
    assert differences(wanted, found) == expected


@pytest.mark.parametrize(("item", "expected"), [
    ({"kind": "Node", "metadata": {"name": "n"}}, "Node n"),
    ({"kind": "Service", "metadata": {"name": "dns", "namespace": "kube-system"}}, "Service kube-system/dns"),
    ({"kind": "Service", "metadata": {"name": "dns", "namespace": ""}}, "Service dns"),
])
def test_object_id(item: dict[str, object], expected: str) -> None:
    assert object_id(item) == expected


def ready(status: str) -> dict[str, object]:
    return {"status": {"conditions": [{"type": "Other", "status": "True"}, {"type": "Ready", "status": status, "reason": "Why", "message": "so"}]}}


@pytest.mark.parametrize(("node", "expected"), [
    (None, "is not registered"), ({"status": {}}, "has no condition Ready"), (ready("True"), ""), (ready("False"), "False (Why: so)"),
    (ready("Unknown"), "Unknown (Why: so)")])
def test_node_problem(node: dict[str, object] | None, expected: str) -> None:
    assert node_problem(node) == expected


def test_wait_for_tells_what_it_saw_last() -> None:
    answers = iter(["no", ""])
    wait_for(lambda: next(answers), what="x", deadline=5)
    started = time.monotonic()
    with pytest.raises(Stopped, match="x: not within 0 s; last seen: not yet"):
        wait_for(lambda: "not yet", what="x", deadline=0.2)
    assert time.monotonic() - started < 2


def rolling(generation: int, updated: int, available: int, replicas: int, observed: int = 2) -> dict[str, object]:
    return {"metadata": {"generation": generation}, "spec": {"replicas": 2}, "status": {
        "observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available, "replicas": replicas}}


@pytest.mark.parametrize(("deployment", "expected"), [
    (None, "is gone"),
    (rolling(2, 2, 2, 2), ""),
    (rolling(3, 2, 2, 2), "has not been seen by its controller"),
    (rolling(2, 1, 2, 3), "1 of 2 pods are new, 2 of 3 available"),
    (rolling(2, 2, 1, 2), "2 of 2 pods are new, 1 of 2 available"),
    ({"metadata": {"generation": 1}, "spec": {}}, "has not been seen by its controller"),
])
def test_a_roll_out(deployment: dict[str, object] | None, expected: str) -> None:
    assert not_rolled_out(deployment) == expected
