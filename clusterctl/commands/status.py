"""``status``: the state of the cluster, machine by machine. Read-only; unreachable machines are reported and do not stop it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from clusterctl.cluster.model import Host
from clusterctl.errors import ClusterctlError, Refused
from clusterctl.etcd import members
from clusterctl.health import api_health
from clusterctl.kube.client import ApiError, Object, cordoned_for, node_problem
from clusterctl.plan import planner, running
from clusterctl.plan.stages import formed, possible_probes, resources_by_host, stages
from clusterctl.resources.base import Resource
from clusterctl.resources.certificate import Certificate
from clusterctl.resources.etcd_member import data_state
from clusterctl.resources.service import Service
from clusterctl.session.session import Session
from clusterctl.shell import Observation
from clusterctl.shell.facts import Facts


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
    problems: tuple[str, ...] = ()
    """Problems of the cluster as a whole: orphaned members, orphaned nodes, an interrupted upgrade."""

    @property
    def healthy(self) -> bool:
        return self.api and not self.problems and all(host.healthy for host in self.hosts)

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "healthy": self.healthy}


def status(session: Session) -> ClusterStatus:
    """Observe all machines, in one round trip each, and the API. Nothing is changed, and nothing is taken from a cache."""
    hosts = session.chosen
    looks = session.engine.look(hosts, possible_probes(session), verify=True)
    reachable = [host for host in hosts if host.name in looks.results]
    # What runs is asked of all members, also where only some machines are to be shown.
    beside = session.engine.facts([host for host in session.cluster.etcd_members if host not in hosts])
    facts = {name: found.facts for name, found in looks.results.items()}
    fleet = {**beside.results, **facts}
    session = session.at(running.pin_running(session.cluster, fleet))
    order = stages(session.cluster, formed(fleet))
    resources = resources_by_host(session, order, reachable, fleet)
    seen = session.engine.observe(reachable, resources, looks=looks.results, verify=True)
    nodes, api = _nodes(session, [host for host in session.cluster.control_planes if host.name in fleet])
    versions = {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes.items()}
    states = {name: _state(node) for name, node in nodes.items()}
    errors: dict[str, ClusterctlError] = {**looks.errors, **seen.errors}
    found = tuple(
        _unreachable(host, errors[host.name], states)
        if host.name in errors
        else _host(
            host,
            [resource for stage in order for resource in resources[host.name][stage.name]],
            seen.results[host.name],
            states,
            versions,
        )
        for host in hosts
    )
    serving = sum(1 for entry in found if entry.services.get("etcd") == "active")
    return ClusterStatus(
        name=session.cluster.name,
        kubernetes=session.cluster.versions.kubernetes,
        api=api,
        members=f"{serving}/{len(session.cluster.etcd_members)}",
        hosts=found,
        problems=tuple(_problems(session, facts, nodes)),
    )


def _problems(session: Session, facts: Mapping[str, Facts], nodes: Mapping[str, Object]) -> Iterator[str]:
    """Problems that no single machine shows."""
    lost = [name for name, found in facts.items() if found.etcd == "lost"]
    for name in lost:
        others = len(session.cluster.etcd_members) > len(lost)
        yield (f"etcd member {name} has served and its data is gone: "
               f"clusterctl {f'node replace {name}' if others else 'etcd snapshot restore FILE'}")
    for one in running.skewed(session.cluster, facts):
        yield f"{one.host} runs {one.product} {one.running}, and {one.wanted} is wanted: clusterctl upgrade plan"
    for name in sorted(set(nodes) - {host.name for host in session.cluster.nodes}):
        yield f"node {name} is not in the inventory: clusterctl node remove {name} --offline"
    for name, node in nodes.items():
        if cordoned_for(node):
            yield f"node {name} is cordoned for {cordoned_for(node)}, which did not end: run that again, or clusterctl apply"
    if not session.pki_is_new and not session.target.limit:
        yield from api_health.problems(session, facts)
        yield from _strays(session, [host for host in session.cluster.etcd_members if host.name in formed(facts)])


def _strays(session: Session, asked: Sequence[Host]) -> Iterator[str]:
    if not asked:
        return
    try:
        membership = members.look(session, asked)
    except Refused as error:
        yield error.message
        return
    for state in membership.members:
        for alarm in state.alarms:
            yield f"etcd member {state.name} has raised {alarm}: clusterctl etcd {'defrag' if alarm == 'NOSPACE' else 'members'}"
        if not state.host:
            votes = state.member.started and not state.member.learner
            yield (f"etcd member {state.name} is of no machine of the inventory ({state.error or 'it is well'}): "
                   f"{members.removal_hint(state) if votes else 'clusterctl apply'}")
        elif state.member.learner:
            yield f"etcd member {state.name} is still a learner: clusterctl apply"


def _nodes(session: Session, among: Sequence[Host]) -> tuple[dict[str, Object], bool]:
    """All nodes, and whether an API server answers."""
    api = None if session.pki_is_new else session.any_api(among)
    if api is None:
        return {}, False
    try:
        return api.nodes(), True
    except ApiError:
        return {}, False


def _state(node: Object) -> str:
    problem = node_problem(node)
    cordoned = ", cordoned" if node["spec"].get("unschedulable") else ""
    return (f"NotReady: {problem}" if problem else "Ready") + cordoned


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
        state = resource.observed(seen)
        if type(resource) is Service:
            services[resource.unit.removesuffix(".service")] = (state or {}).get("active", "absent")
            if resource.unit == "etcd.service" and data_state(seen, host.name) == "lost":
                services["etcd"] = "lost"
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
