"""``plan`` and ``apply``: one path. The plan that is printed is the object that is carried out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from clusterctl import planner
from clusterctl.artifacts.catalog import Artifact
from clusterctl.components import objects
from clusterctl.components.base import Context
from clusterctl.components.control_plane import CONTROL_PLANE
from clusterctl.components.etcd import ETCD
from clusterctl.components.host import HOST
from clusterctl.components.node import API_PROXY, FLANNEL, KUBE_PROXY, KUBELET, TRUST
from clusterctl.components.programs import ADDON_IMAGES, CONTAINERD, PROGRAMS, products
from clusterctl.engine import Gates
from clusterctl.errors import Stopped
from clusterctl.facts import Facts
from clusterctl.kube import Api, ApiError, Object, ObjectChange, node_ready, refuse, wait_for
from clusterctl.model import Cluster, Host
from clusterctl.operations.base import Session, refuse_other_cluster
from clusterctl.planner import OneByOne, Parallel, Plan, Rolling, Stage, StagePlan
from clusterctl.resources.base import Resource
from clusterctl.resources.program import Image, Program

READY_SECONDS = 180.0


def max_unavailable(cluster: Cluster, given: str = "") -> int:
    """How many nodes may be disrupted at once: a number, or a part of all nodes, at least one.

    ``given``: what somebody says in place of the inventory, of the same form.
    """
    text = given or cluster.settings.max_unavailable
    return max(1, len(cluster.nodes) * int(text[:-1]) // 100) if text.endswith("%") else int(text)


def stages(cluster: Cluster, formed: frozenset[str] = frozenset()) -> tuple[Stage, ...]:
    """The whole of ``apply``, in order. ``formed``: the hosts whose etcd has served; others join it one by one."""
    return (
        Stage(name="prepare", components=(HOST, TRUST, PROGRAMS, CONTAINERD), strategy=Rolling(max_unavailable(cluster))),
        Stage(name="etcd", components=(ETCD,), strategy=OneByOne() if formed else Parallel()),
        Stage(name="control-plane", components=(CONTROL_PLANE,), strategy=Rolling(1), together=True),
        Stage(
            name="nodes",
            components=(API_PROXY, KUBELET, KUBE_PROXY, FLANNEL),
            strategy=Rolling(max_unavailable(cluster)),
            together=True,
        ),
        Stage(name="images", components=(ADDON_IMAGES,)),
    )


@dataclass(frozen=True)
class ApplyPlan:
    """What apply will do: on machines, in the API, to nodes. Nothing in it: everything is as wanted."""

    machines: Plan
    objects: tuple[ObjectChange, ...]
    nodes: tuple[tuple[str, Object, tuple[str, ...]], ...]
    warnings: tuple[str, ...] = ()
    differences: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What changes within a resource, by (host, id), where somebody asked for it."""
    later: tuple[Object, ...] = ()
    """The objects of an API that did not answer: they are compared when the machines are as wanted."""

    def __bool__(self) -> bool:
        return bool(self.machines or self.objects or self.nodes or self.later)

    def as_dict(self) -> dict[str, object]:
        return {
            **self.machines.as_dict(self.differences),
            "objects": [change.as_dict() for change in self.objects],
            "nodes": [{"node": name, "fields": list(fields)} for name, _, fields in self.nodes],
            "warnings": list(self.warnings),
        }


def make_plan(session: Session, *, verify: bool = False) -> ApplyPlan:
    """Look once at every machine and at the API, and compare. Two trips to each machine; nothing is changed."""
    cluster, hosts = session.cluster, session.chosen
    for product, version in products(cluster):
        session.catalog.require(product, version)
    facts, warnings = session.facts(hosts)
    refuse_other_cluster(session, facts)
    order = stages(cluster, formed(facts))
    resources = wanted(session, order, hosts, facts)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="api") as pool:
        look = pool.submit(_look_at_api, session, facts)
        seen = session.engine.observe(hosts, resources, verify=verify).or_raise()
        objects_changed, nodes_changed, later = look.result()
    machines = planner.make(order, hosts, resources, seen)
    if later:
        warnings.append("no API server answers: what runs in the cluster is compared once one does")
    return ApplyPlan(machines, objects_changed, nodes_changed, tuple(warnings), later=later)


NodeChanges = tuple[tuple[str, Object, tuple[str, ...]], ...]


def _look_at_api(
    session: Session, facts: Mapping[str, Facts]
) -> tuple[tuple[ObjectChange, ...], NodeChanges, tuple[Object, ...]]:
    """What differs in the API, what on its nodes, and what could not be looked at. A cluster that is not born yet has nothing."""
    cluster = session.cluster
    if session.options.limit:
        return (), (), ()
    wanted_objects = _objects(session, facts)
    born = [host for host in cluster.control_planes if host.name in facts and facts[host.name]["cluster"]]
    if not born or not formed(facts):
        return tuple(ObjectChange(item, "create") for item in wanted_objects), (), ()
    api = session.any_api(born)
    if api is None:
        return (), (), tuple(wanted_objects)
    return tuple(_compare(session, api, wanted_objects)), tuple(objects.node_changes(cluster, dict(api.nodes()))), ()


def _objects(session: Session, facts: Mapping[str, Facts]) -> list[Object]:
    # CoreDNS does not start with a forward to nobody.
    forward = all(facts[host.name]["nameservers"] for host in session.cluster.nodes if host.name in facts)
    return [*objects.bindings(session.cluster), *objects.addons(session.cluster, session.pki, forward=forward)]


def _compare(session: Session, api: Api, wanted_objects: Sequence[Object]) -> list[ObjectChange]:
    try:
        return api.compare(wanted_objects, lambda item, found: objects.is_good(session.cluster, session.pki, item, found))
    except ApiError as error:
        raise refuse(error, "the API's objects cannot be read") from None


def wanted(
    session: Session, order: Sequence[Stage], hosts: Sequence[Host], facts: Mapping[str, Facts]
) -> dict[str, dict[str, tuple[Resource, ...]]]:
    """All resources of all hosts, by stage."""
    return {
        host.name: planner.wanted(
            order,
            Context(
                cluster=session.cluster,
                host=host,
                facts=facts[host.name],
                pki=session.pki,
                catalog=session.catalog,
                etcd_formed=formed(facts),
            ),
        )
        for host in hosts
    }


def formed(facts: Mapping[str, Facts]) -> frozenset[str]:
    """The hosts whose etcd has served once."""
    return frozenset(name for name, found in facts.items() if found["etcd"] == "formed")


class Apply:
    """Carries an ApplyPlan out."""

    def __init__(self, session: Session, plan: ApplyPlan) -> None:
        self.session, self.plan = session, plan
        self._bound = False

    def run(self) -> None:
        """All of it, in order. Raises Stopped; run again, it goes on."""
        self._prefetch()
        if self.session.pki_is_new:
            self.session.pki.save(self.session.state)
        self.session.engine.execute(
            self.plan.machines, Gates(before={"nodes": self._before_nodes}, after={"nodes": self._after_nodes})
        )
        self._apply([change for change in self._changes if not (self._bound and _binds(change))])
        if self.plan.nodes or self.plan.later:
            self._nodes()

    @cached_property
    def _changes(self) -> Sequence[ObjectChange]:
        """The planned changes in the API; what could not be looked at then is compared now."""
        return _compare(self.session, self.session.ready_api(), self.plan.later) if self.plan.later else self.plan.objects

    def _prefetch(self) -> None:
        """Have everything here, verified, before any machine is touched."""
        from clusterctl.artifacts.store import prefetch

        sources = {
            change.resource.source for _, _, change in self.plan.machines.changes if isinstance(change.resource, Program | Image)
        }
        prefetch(source for source in sources if isinstance(source, Artifact))

    def _before_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """kubelets and flannel come to an API that already lets them in."""
        if not self._bound:
            self._apply([change for change in self._changes if _binds(change)])
            self._bound = True

    def _after_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """A batch is done when its nodes are Ready, labelled and tainted."""
        wait_nodes(self.session, [host for host in batch if host.is_node])
        self._nodes()

    def _apply(self, changes: Sequence[ObjectChange]) -> None:
        if not changes:
            return
        started = time.monotonic()
        events = self.session.engine.events
        api = self.session.ready_api()
        events.stage_started("objects", ["the API"])
        for change in changes:
            try:
                api.apply(change.wanted)
            except ApiError as error:
                raise Stopped(
                    str(error), where=f"objects: {change.id}", hint="mend the cause, then run the same command again"
                ) from None
            events.note(f"{change.action} {change.id}")
        events.stage_ended("objects", time.monotonic() - started)

    def _nodes(self) -> None:
        """Labels and taints. Others change nodes too: a patch that came too late is made anew."""

        def patch() -> str:
            try:
                api = self.session.ready_api()
                for name, wanted_patch, fields in objects.node_changes(self.session.cluster, dict(api.nodes())):
                    api.patch_node(name, wanted_patch)
                    self.session.engine.events.note(f"node {name}: {', '.join(fields)}")
            except ApiError as error:
                if error.status not in (0, 409):
                    raise Stopped(str(error), where="labels and taints of nodes", hint="run the same command again") from None
                return str(error)
            return "True"

        if self.session.cluster.nodes:
            wait_for(patch, what="labels and taints of nodes", deadline=30)


def _binds(change: ObjectChange) -> bool:
    return str(change.wanted["apiVersion"]).startswith("rbac.")


def wait_nodes(session: Session, hosts: Sequence[Host], *, deadline: float = READY_SECONDS) -> None:
    """Until all these nodes are Ready. Raises Stopped with what was last seen of each that is not."""

    def look() -> str:
        try:
            nodes = session.ready_api(deadline=10).nodes()
        except ApiError as error:
            return str(error)
        late = {host.name: state for host in hosts if (state := node_ready(nodes.get(host.name))) != "True"}
        return "; ".join(f"{name} {state}" for name, state in late.items()) or "True"

    wait_for(look, what=f"nodes {', '.join(host.name for host in hosts)} Ready", deadline=deadline)
