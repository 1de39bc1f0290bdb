"""``status``: how the cluster is, machine by machine. Reads alone; unreachable machines are told and do not stop it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from clusterctl import planner
from clusterctl.errors import ClusterctlError
from clusterctl.kube import ApiError, node_ready
from clusterctl.model import Host
from clusterctl.operations.apply import formed, stages, wanted
from clusterctl.operations.base import Session
from clusterctl.resources.base import Resource
from clusterctl.resources.certificate import Certificate
from clusterctl.resources.service import Service
from clusterctl.shell import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """One machine. ``services`` by unit; ``drift``: resources that differ; ``expires``: when its first certificate ends."""

    name: str
    roles: tuple[str, ...]
    address: str
    error: str = ""
    node: str = ""
    version: str = ""
    services: Mapping[str, str] = field(default_factory=dict)
    drift: int = 0
    expires: str = ""

    @property
    def healthy(self) -> bool:
        return (
            not self.error
            and not self.drift
            and self.node in ("", "Ready")
            and all(state == "active" for state in self.services.values())
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """The whole cluster. ``api``: whether an API server answers; ``members``: etcd members that answer, of how many."""

    name: str
    kubernetes: str
    api: bool
    members: str
    hosts: tuple[HostStatus, ...]

    @property
    def healthy(self) -> bool:
        return self.api and all(host.healthy for host in self.hosts)

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "healthy": self.healthy}


def status(session: Session) -> ClusterStatus:
    """Look at all machines and at the API. Two trips to each machine; nothing is changed."""
    hosts = session.chosen
    facts = session.engine.facts(hosts)
    reachable = [host for host in hosts if host.name in facts.results]
    order = stages(session.cluster, formed(facts.results))
    resources = wanted(session, order, reachable, facts.results)
    seen = session.engine.observe(reachable, resources)
    nodes, versions, api = _nodes(session, [host for host in reachable if host.is_control_plane])
    errors: dict[str, ClusterctlError] = {**facts.errors, **seen.errors}
    found = tuple(
        _unreachable(host, errors[host.name], nodes)
        if host.name in errors
        else _host(
            host,
            [resource for stage in order for resource in resources[host.name][stage.name]],
            seen.results[host.name],
            nodes,
            versions,
        )
        for host in hosts
    )
    running = sum(1 for entry in found if entry.services.get("etcd") == "active")
    return ClusterStatus(
        name=session.cluster.name,
        kubernetes=session.cluster.versions.kubernetes,
        api=api,
        members=f"{running}/{len(session.cluster.etcd_members)}",
        hosts=found,
    )


def _nodes(session: Session, among: Sequence[Host]) -> tuple[dict[str, str], dict[str, str], bool]:
    api = None if session.pki_is_new else session.any_api(among)
    if api is None:
        return {}, {}, False
    try:
        nodes = api.nodes()
    except ApiError:
        return {}, {}, False
    states = {}
    for name, node in nodes.items():
        ready = node_ready(node)
        cordoned = ", cordoned" if node["spec"].get("unschedulable") else ""
        states[name] = ("Ready" if ready == "True" else f"NotReady: {ready}") + cordoned
    return states, {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes.items()}, True


def _unreachable(host: Host, error: ClusterctlError, nodes: Mapping[str, str]) -> HostStatus:
    return HostStatus(
        name=host.name,
        roles=tuple(sorted(host.roles)),
        address=str(host.address),
        error=error.message,
        node=nodes.get(host.name, "not registered") if host.is_node else "",
    )


def _host(
    host: Host, resources: Sequence[Resource], seen: Observation, nodes: Mapping[str, str], versions: Mapping[str, str]
) -> HostStatus:
    services = {}
    ends = []
    for resource in resources:
        state = resource.parse(seen)
        if isinstance(resource, Service):
            services[resource.unit.removesuffix(".service")] = (state or {}).get("active", "absent")
        elif isinstance(resource, Certificate) and state and "ends" in state:
            ends.append(state["ends"])
    return HostStatus(
        name=host.name,
        roles=tuple(sorted(host.roles)),
        address=str(host.address),
        services=services,
        node=nodes.get(host.name, "not registered") if host.is_node else "",
        version=versions.get(host.name, ""),
        drift=len(planner.compare(resources, seen, {})),
        expires=min(ends, default=""),
    )
