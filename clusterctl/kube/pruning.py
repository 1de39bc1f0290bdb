"""Prune API objects that leave the inventory: a ConfigMap records the applied objects, and the plan removes the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

from clusterctl.components.objects import INVENTORY, MANAGED_LABELS
from clusterctl.errors import Stopped
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import MANAGED_BY, MANAGER, Api, ApiError, Object, ObjectChange, apply_order, object_id

RECORD: Object = {"apiVersion": "v1", "kind": "ConfigMap",
                  "metadata": {"name": "clusterctl-objects", "namespace": "kube-system", "labels": MANAGED_LABELS}}
"""The ConfigMap that lists the applied objects, without its data."""
REMOVE_SECONDS = 120.0
"""Deadline for the deletion of one group of objects: a Namespace waits for its pods."""
_KEPT = frozenset({"default", "kube-node-lease", "kube-public", "kube-system"})
"""Namespaces of Kubernetes itself (k8s.io/api/core/v1 and kube-apiserver's system namespaces): a manifest may name them."""
_WITH = {"Namespace": "with everything in it", "CustomResourceDefinition": "with all objects of its kind"}


def record(items: Iterable[Object]) -> Object:
    """Return the record that lists these objects."""
    lines = sorted({f"{item['apiVersion']} {object_id(item)}" for item in items})
    return {**RECORD, "data": {"objects": "\n".join(lines)}}


def recorded(found: Object | None) -> list[Object]:
    """Return apiVersion, kind and name of the objects that a record lists; a line that cannot be read is left out."""
    lines = str(((found or {}).get("data") or {}).get("objects", "")).splitlines()
    return [_named(*words) for line in lines if len(words := line.split(" ")) == 3]


def _named(version: str, kind: str, place: str) -> Object:
    namespace, _, name = place.rpartition("/")
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **({"namespace": namespace} if namespace else {})}}


def is_record(item: Object) -> bool:
    return object_id(item) == object_id(RECORD)


def stale(api: Api, inventory: str, wanted: Iterable[Object]) -> Iterator[ObjectChange]:
    """Yield a removal for each recorded object that left the inventory and still has our label. Raises ApiError.

    ``inventory``: the label's value on objects from manifests. An object without the label belongs to another manager and stays.
    """
    stay = {_identity(item) for item in wanted}
    for item in recorded(api.get(RECORD)):
        if _identity(item) in stay or (item["kind"] == "Namespace" and item["metadata"]["name"] in _KEPT):
            continue
        labels = ((api.get(item) or {}).get("metadata") or {}).get("labels") or {}
        if labels.get(INVENTORY) == inventory or labels.get(MANAGED_BY) == MANAGER:
            more = _WITH.get(item["kind"])
            yield ObjectChange(item, "remove", (more,) if more else ())


def _identity(item: Object) -> tuple[str, str, str, str]:
    """Group, kind, namespace and name: the same object may be written in another version of its group."""
    meta = item["metadata"]
    return str(item["apiVersion"]).rpartition("/")[0], item["kind"], meta.get("namespace") or "default", meta["name"]


def merged(api: Api, item: Object) -> Object:
    """Return the union of a record and the stored one: an apply may be killed between two objects. Raises ApiError."""
    return record([*recorded(api.get(RECORD)), *recorded(item)])


def remove_order(item: Object) -> tuple[int, bool]:
    """Return the position of an object in a removal: controllers go after the objects that they finalize."""
    return -apply_order(item), item["kind"] in ("Deployment", "DaemonSet", "StatefulSet")


def remove(api: Api, changes: Sequence[ObjectChange], note: Callable[[str], None]) -> None:
    """Delete objects in the reverse of the apply order, each group after the previous one is gone.

    Raises ApiError, and Stopped for objects that remain after two minutes.
    """
    for _, group in groupby(sorted(changes, key=lambda one: remove_order(one.wanted)), key=lambda one: remove_order(one.wanted)):
        leaving = list(group)
        for change in leaving:
            # Deleting a CustomResourceDefinition deletes its objects.
            if api.get(change.wanted) is not None:
                api.delete(api.path(change.wanted))
            note(f"remove {change.id}")
        _wait_gone(api, leaving)


def _wait_gone(api: Api, changes: Sequence[ObjectChange]) -> None:
    def left() -> str:
        try:
            there = [(change, found) for change in changes if (found := api.get(change.wanted)) is not None]
        except ApiError as error:
            return str(error)
        return "; ".join(f"{change.id} has the finalizers {', '.join(found['metadata'].get('finalizers') or ['of its content'])}"
                         for change, found in there)

    try:
        wait_for(left, what="deletion of objects", deadline=REMOVE_SECONDS)
    except Stopped as error:
        raise Stopped(error.message, code="objects.not-removed",
                      hint="kubectl get OBJECT -o yaml shows who has to finalize it; then run the same command again") from None
