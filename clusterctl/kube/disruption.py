"""Plans of drains: the pods that leave a node, that stay, and that must not be evicted. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from clusterctl.errors import InputError
from clusterctl.kube.client import CORDONED_FOR, Object

LOCAL_VOLUMES = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
"""The field's annotation for pods whose emptyDir volumes hold nothing that matters: the volumes' names, with commas between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPolicy:
    """How far a drain may go. ``timeout`` in seconds for each node; ``grace_period`` in seconds, None: each pod's own."""

    timeout: float = 300.0
    grace_period: int | None = None
    delete_emptydir_data: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Unavailable:
    """How many workers may be disrupted at once: a number, or a percentage of all nodes."""

    number: int
    percent: bool = False

    @classmethod
    def parse(cls, text: str) -> Unavailable:
        """Parse a value of ``--max-unavailable``, such as 2 or 25%. Raises InputError."""
        if not re.fullmatch("[1-9][0-9]{0,5}%?", text):
            raise InputError(f"{text!r} is neither a number nor a percentage", where="--max-unavailable",
                             code="cli.max-unavailable", hint="2, or 25%")
        return cls(int(text.removesuffix("%")), text.endswith("%"))

    def of(self, nodes: int) -> int:
        """Return the number in a cluster of so many nodes, at least 1."""
        return max(1, nodes * self.number // 100) if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number}{'%' if self.percent else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of a node. ``kind``: evict, daemonset, static, finished; ``refused``: why it may not be evicted."""

    namespace: str
    name: str
    uid: str
    kind: str
    refused: str = ""
    warning: str = ""
    budgets: tuple[str, ...] = ()
    """PodDisruptionBudgets that select it and allow no disruption now."""

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The plan of one node's drain. ``by_hand``: an operator cordoned it before; it stays cordoned afterwards."""

    node: str
    pods: tuple[Pod, ...]
    by_hand: bool = False

    @property
    def evicted(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.pods if pod.kind in ("evict", "finished"))

    @property
    def refused(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.evicted if pod.refused)

    @property
    def blocked(self) -> tuple[Pod, ...]:
        return tuple(pod for pod in self.evicted if pod.budgets)

    def as_dict(self) -> dict[str, object]:
        return {
            "node": self.node,
            "evict": [pod.id for pod in self.evicted],
            "stay": [pod.id for pod in self.pods if pod not in self.evicted],
            "refused": [{"pod": pod.id, "why": pod.refused} for pod in self.refused],
            "blocked": [{"pod": pod.id, "budgets": list(pod.budgets)} for pod in self.blocked],
            "warnings": [f"{pod.id}: {pod.warning}" for pod in self.evicted if pod.warning],
            "cordoned_by_hand": self.by_hand,
        }


def plan_drain(node: Object, pods: Iterable[Object], budgets: Sequence[Object], policy: DrainPolicy) -> Drain:
    """Plan the drain of a node from the node, its pods and all PodDisruptionBudgets."""
    meta = node["metadata"]
    by_hand = bool(node["spec"].get("unschedulable")) and CORDONED_FOR not in (meta.get("annotations") or {})
    return Drain(node=meta["name"], pods=tuple(_pod(pod, budgets, policy) for pod in pods), by_hand=by_hand)


def _pod(pod: Object, budgets: Sequence[Object], policy: DrainPolicy) -> Pod:
    meta = pod["metadata"]
    kind = pod_kind(pod)
    evict = kind == "evict"
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        kind=kind,
        refused=_refusal(pod, policy) if evict else "",
        warning="uses a hostPath volume, whose data stays on the machine" if evict and _volumes(pod, "hostPath") else "",
        budgets=tuple(budget_name(budget) for budget in budgets
                      if evict and selects(budget, pod) and not allowed_disruptions(budget)),
    )


def pod_kind(pod: Object) -> str:
    """Whether a drain evicts a pod (evict, finished), or leaves it (daemonset: comes back at once; static: not the API's)."""
    meta = pod["metadata"]
    if "kubernetes.io/config.mirror" in (meta.get("annotations") or {}):
        return "static"
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return "finished"
    return "daemonset" if _controller(pod) == "DaemonSet" else "evict"


def _controller(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((str(owner["kind"]) for owner in owners if owner.get("controller")), "")


def _volumes(pod: Object, kind: str) -> list[str]:
    return [volume["name"] for volume in pod["spec"].get("volumes") or () if kind in volume]


def _refusal(pod: Object, policy: DrainPolicy) -> str:
    if not _controller(pod) and not policy.force:
        return "nothing would start it again elsewhere (no controller): --force"
    safe = [name.strip() for name in str((pod["metadata"].get("annotations") or {}).get(LOCAL_VOLUMES, "")).split(",")]
    lost = [name for name in _volumes(pod, "emptyDir") if name not in safe]
    if lost and not policy.delete_emptydir_data:
        return f"the data of its emptyDir volumes ({', '.join(lost)}) would be lost: --delete-emptydir-data"
    return ""


def budget_name(budget: Object) -> str:
    return f"{budget['metadata']['namespace']}/{budget['metadata']['name']}"


def allowed_disruptions(budget: Object) -> int:
    """How many pods of a budget may go now."""
    return int(budget.get("status", {}).get("disruptionsAllowed", 0))


def never_allows(budget: Object) -> bool:
    """Whether a budget allows no disruption even when all of its pods are healthy."""
    status = budget.get("status", {})
    return int(status.get("desiredHealthy", 0)) >= int(status.get("expectedPods", 0)) > 0


def selects(budget: Object, pod: Object) -> bool:
    """Whether a PodDisruptionBudget (policy/v1) is about a pod: an empty selector is about all of its namespace."""
    if budget["metadata"]["namespace"] != pod["metadata"]["namespace"]:
        return False
    selector = budget["spec"].get("selector")
    if selector is None:
        return False
    labels = pod["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        _matches(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    return {
        "In": labels.get(key) in values,
        "NotIn": labels.get(key) not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[expression["operator"]]
