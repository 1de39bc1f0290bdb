"""Cordon, drain, uncordon: through the eviction API, so that PodDisruptionBudgets are always respected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from clusterctl.errors import InputError, Problems, Refused, Stopped
from clusterctl.kube import disruption
from clusterctl.kube.client import CORDONED_FOR, Api, ApiError, Object
from clusterctl.kube.client import cordoned_for as cordoned_for
from clusterctl.kube.disruption import Drain, DrainPolicy, Pod
from clusterctl.plan.planner import OperationPlan
from clusterctl.ssh.https import or_stopped

FIRST_WAIT, LONGEST_WAIT = 0.5, 5.0
"""Seconds between two attempts to evict a pod that its budget protects."""

Apis = Callable[[], Api]
"""Gives an API server that is ready; raises Stopped."""


@dataclass(frozen=True, slots=True)
class DrainPlan(OperationPlan):
    """The plan of a drain of several nodes."""

    event: ClassVar[str] = "drain-plan"
    drains: tuple[Drain, ...]

    def as_dict(self) -> dict[str, object]:
        return {"drains": [drain.as_dict() for drain in self.drains]}


def look(api: Api, names: Iterable[str], policy: DrainPolicy) -> tuple[Drain, ...]:
    """Plan the drain of nodes. Raises ApiError, and InputError for a node that the cluster does not have."""
    nodes = api.nodes()
    budgets = api.look("/apis/policy/v1/poddisruptionbudgets")["items"]
    found = []
    for name in names:
        if name not in nodes:
            raise InputError(f"the cluster has no node {name!r}", hint=f"it has {', '.join(sorted(nodes))}", code="node.unknown")
        found.append(disruption.plan_drain(nodes[name], pods_of(api, name), budgets, policy))
    return tuple(found)


def pods_of(api: Api, node: str) -> list[Object]:
    """The pods of one node. Raises ApiError."""
    return list(api.look(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{node}")["items"])


def refuse_unsafe(drains: Iterable[Drain]) -> None:
    """Raises Problems of Refused, one for each node, that list pods which may not be evicted without a flag of their own."""
    refused = [
        Refused("; ".join(f"pod {pod.id}: {pod.refused}" for pod in drain.refused), where=f"drain of {drain.node}",
                hint="say the flag, or move these pods yourself", code="drain.refused")
        for drain in drains
        if drain.refused
    ]
    if refused:
        raise refused[0] if len(refused) == 1 else Problems(refused)


def cordon(api: Api, name: str, operation: str = "") -> bool:
    """Let no new pod come to a node; False where that is so already. ``operation`` marks it as ours until it ends.

    Without one a person wants it so: a mark that is there goes, or the operation that left it would lift the cordon.
    """
    node = api.nodes().get(name)
    if node is None or (node["spec"].get("unschedulable") and (operation or not cordoned_for(node))):
        return False
    api.patch_node(name, {"spec": {"unschedulable": True}, "metadata": {"annotations": {CORDONED_FOR: operation or None}}})
    return True


def uncordon(api: Api, name: str, *, ours: bool) -> bool:
    """Let pods come to a node again; False where nothing was to be done. ``ours``: only where we cordoned it for an operation."""
    node = api.nodes().get(name)
    if node is None or not node["spec"].get("unschedulable") or (ours and not cordoned_for(node)):
        return False
    api.patch_node(name, {"spec": {"unschedulable": None}, "metadata": {"annotations": {CORDONED_FOR: None}}})
    return True


def recover(apis: Apis, note: Callable[[str], None], keep: Iterable[str] = ()) -> None:
    """Uncordon nodes that a killed operation left cordoned: the holder of the lock knows that the operation is dead.

    ``keep``: nodes that stay cordoned. Raises Stopped.
    """
    with or_stopped("nodes that are cordoned still cannot be uncordoned", code="node.not-uncordoned"):
        api = apis()
        for name, node in api.nodes().items():
            if (operation := cordoned_for(node)) and name not in keep and uncordon(api, name, ours=True):
                note(f"{name}: uncordoned: {operation}, which did not end, had cordoned it")


@dataclass
class _Waiting:
    """A pod whose eviction is refused for now: since when, when it is tried again, and what the API said."""

    since: float
    again: float
    pause: float
    said: str


@dataclass
class Eviction:
    """Empties one node. ``note`` receives a line for each step."""

    apis: Apis
    node: str
    policy: DrainPolicy
    note: Callable[[str], None]
    _waiting: dict[str, _Waiting] = field(default_factory=dict)
    _evicted: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Until no pod is left that a drain evicts. Raises Stopped: which pods, their budgets, how long they waited."""
        ends = time.monotonic() + self.policy.timeout
        last = ""
        while True:
            try:
                left = self._round()
            except ApiError as error:
                # The API server that answered until now may be on its way down: another is asked.
                left, last = None, str(error)
            if left is not None and not left:
                return
            if time.monotonic() >= ends:
                raise Stopped(self._late(left or (), last), where=f"drain of {self.node}", code="drain.timeout",
                              hint="look at the budgets (kubectl get pdb -A), then run the same command again")
            time.sleep(0.25)

    def _round(self) -> tuple[Pod, ...]:
        api = self.apis()
        found = pods_of(api, self.node)
        budgets = api.look("/apis/policy/v1/poddisruptionbudgets")["items"] if self._waiting else ()
        drain = disruption.plan_drain(api.nodes()[self.node], found, budgets, self.policy)
        leaving = {pod["metadata"]["uid"] for pod in found if pod["metadata"].get("deletionTimestamp")}
        refuse_unsafe([drain])
        for pod in drain.evicted:
            if pod.uid not in leaving and time.monotonic() >= self._next(pod):
                self._evict(api, pod)
        return drain.evicted

    def _next(self, pod: Pod) -> float:
        return self._waiting[pod.uid].again if pod.uid in self._waiting else 0.0

    def _evict(self, api: Api, pod: Pod) -> None:
        options: dict[str, Any] = {"preconditions": {"uid": pod.uid}}
        if self.policy.grace_period is not None:
            options["gracePeriodSeconds"] = self.policy.grace_period
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": pod.namespace, "name": pod.name},
                "deleteOptions": options}
        try:
            api.call("POST", f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction", body)
        except ApiError as error:
            if error.status in (404, 409):
                return
            if error.status != 429:
                raise
            self._wait(pod, str(error))
            return
        if pod.uid not in self._evicted:
            self._evicted.add(pod.uid)
            self.note(f"{self.node}: evicted {pod.id}")

    def _wait(self, pod: Pod, said: str) -> None:
        now = time.monotonic()
        before = self._waiting.get(pod.uid)
        pause = min(LONGEST_WAIT, before.pause * 2) if before else FIRST_WAIT
        self._waiting[pod.uid] = _Waiting(before.since if before else now, now + pause, pause, said)
        if before is None:
            self.note(f"{self.node}: {pod.id} waits for its budget: {said}")

    def _late(self, left: Sequence[Pod], last: str) -> str:
        words = []
        for pod in left:
            waiting = self._waiting.get(pod.uid)
            if waiting is None:
                words.append(f"pod {pod.id} has not ended yet")
            else:
                budgets = f" of PodDisruptionBudget {', '.join(pod.budgets)}" if pod.budgets else ""
                words.append(f"pod {pod.id} has waited {time.monotonic() - waiting.since:.0f} s because{budgets}: {waiting.said}")
        return f"not empty within {self.policy.timeout:.0f} s: " + ("; ".join(words) or last or "the API did not answer")


def empty(apis: Apis, node: str, policy: DrainPolicy, note: Callable[[str], None], operation: str = "") -> None:
    """Cordon a node and drain it. A drain that fails takes its own cordon back. Raises Stopped, Refused.

    ``operation``: what it is done for, so that the node is uncordoned when that ends; none: a person wants it empty.
    """
    with or_stopped("cannot be cordoned", where=f"drain of {node}", code="node.not-cordoned"):
        cordoned = cordon(apis(), node, operation)
    try:
        Eviction(apis, node, policy, note).run()
    except Exception:
        # For an operation also where a run before this one, that was killed, had cordoned it.
        if cordoned or operation:
            give_back(apis, node, ours=bool(operation))
        raise


def carry_out(apis: Apis, plan: DrainPlan, policy: DrainPolicy, note: Callable[[str], None]) -> None:
    """Drain the nodes of a plan. Raises Stopped, Refused."""
    names = [drain.node for drain in plan.drains]
    # Evicted pods need the nodes that a killed operation left cordoned.
    recover(apis, note, keep=names)
    for name in names:
        empty(apis, name, policy, note)


def give_back(apis: Apis, node: str, *, ours: bool = False) -> None:
    """Uncordon a node. Raises Stopped."""
    with or_stopped("cannot be uncordoned", where=node, code="node.not-uncordoned", hint=f"clusterctl node uncordon {node}"):
        uncordon(apis(), node, ours=ours)


def waiting_texts(drains: Iterable[Drain]) -> list[str]:
    """Return what would block a drain, before it begins."""
    return [
        f"{drain.node}: pod {pod.id} could not be evicted now: PodDisruptionBudget {', '.join(pod.budgets)} allows no disruption"
        for drain in drains
        for pod in drain.blocked
    ]


def hopeless(drains: Iterable[Drain], budgets: Sequence[Object]) -> list[str]:
    """Pods whose budgets never let them go, however healthy all pods are."""
    never = {disruption.budget_name(budget) for budget in budgets if disruption.never_allows(budget)}
    return [
        f"{drain.node}: pod {pod.id}: PodDisruptionBudget {', '.join(sorted(never & set(pod.budgets)))} never allows a disruption"
        for drain in drains
        for pod in drain.blocked
        if never & set(pod.budgets)
    ]
