"""Which objects leave the API, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from clusterctl.components.objects import INVENTORY
from clusterctl.kube import pruning
from clusterctl.kube.client import Object, ObjectChange, object_id


def item(version: str, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}}


class Store:
    """Objects by kind and name, with their labels, as far as ``stale`` and ``merged`` read them."""

    def __init__(self, record: Object, *there: tuple[Object, dict[str, str]]) -> None:
        self.found = {object_id(record): record}
        self.found |= {object_id(one): {**one, "metadata": {**one["metadata"], "labels": labels}} for one, labels in there}

    def get(self, one: Object) -> Object | None:
        return self.found.get(object_id(one))


def removals(store: Store, *wanted: Object) -> list[str]:
    return [change.id for change in pruning.stale(store, "lab", wanted)]  # type: ignore[arg-type]


OURS = {INVENTORY: "lab"}
MAP = item("v1", "ConfigMap", "a", "default")


@pytest.mark.parametrize(("there", "wanted", "expected"), [
    pytest.param([(MAP, OURS)], [], ["ConfigMap default/a"], id="left"),
    pytest.param([(MAP, OURS)], [MAP], [], id="wanted"),
    pytest.param([(MAP, OURS)], [item("v1", "ConfigMap", "a")], [], id="namespace not spelt out"),
    pytest.param([(item("autoscaling/v1", "HorizontalPodAutoscaler", "a"), OURS)],
                 [item("autoscaling/v2", "HorizontalPodAutoscaler", "a")], [], id="another version of its group"),
    pytest.param([(MAP, {INVENTORY: "another"})], [], [], id="of another inventory"),
    pytest.param([(MAP, {})], [], [], id="taken over"),
    pytest.param([(MAP, {"app.kubernetes.io/managed-by": "clusterctl"})], [], ["ConfigMap default/a"], id="an addon of ours"),
    pytest.param([(item("v1", "Namespace", "kube-system"), OURS)], [], [], id="a namespace of Kubernetes"),
    pytest.param([(item("v1", "Namespace", "mine"), OURS)], [], ["Namespace mine"], id="a namespace"),
    pytest.param([], [], [], id="gone"),
])
def test_what_is_removed(there: list[tuple[Object, dict[str, str]]], wanted: list[Object], expected: list[str]) -> None:
    record = pruning.record([MAP, *(one for one, _ in there)])
    assert removals(Store(record, *there), *wanted) == expected


@pytest.mark.parametrize("data", [None, {}, {"objects": None}, {"objects": "x\nv1 ConfigMap\n\n"}, {"other": "v1 ConfigMap a"}])
def test_a_record_that_others_broke_removes_nothing(data: object) -> None:
    assert removals(Store({**pruning.RECORD, "data": data}, (MAP, OURS))) == []


def test_between_two_applies_the_record_lists_both() -> None:
    new, old = item("v1", "ConfigMap", "new"), item("v1", "ConfigMap", "old")
    merged = pruning.merged(Store(pruning.record([old])), pruning.record([new]))  # type: ignore[arg-type]
    assert pruning.recorded(merged) == [new, old]


def test_removals_go_in_the_reverse_order() -> None:
    kinds = ("Namespace", "CustomResourceDefinition", "ServiceAccount", "Deployment", "ConfigMap")
    changes = [ObjectChange(item("v1", kind, "a"), "remove") for kind in kinds]
    ordered = sorted(changes, key=lambda change: pruning.remove_order(change.wanted))
    assert [change.wanted["kind"] for change in ordered] == [
        "ConfigMap", "Deployment", "ServiceAccount", "CustomResourceDefinition", "Namespace"]
