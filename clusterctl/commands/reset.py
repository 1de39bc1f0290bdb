"""``reset``: remove everything that clusterctl put on machines, and nothing else. The printed plan is carried out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clusterctl.cluster.model import Cluster, Host
from clusterctl.engine import fleet
from clusterctl.engine.engine import Gates
from clusterctl.errors import Refused, Stopped, raise_all
from clusterctl.plan import planner
from clusterctl.plan.planner import OperationPlan, Plan, Stage
from clusterctl.resources.footprint import KINDS, Leftovers
from clusterctl.session.session import Session, refuse_without_keys
from clusterctl.shell import Observation
from clusterctl.ssh.https import or_refused, or_stopped

RESET = Stage(name="reset", components=())

WHOLE = "the whole cluster ends: no machine that stays needs this one"
WORKER = "a worker: control planes and etcd stay; what a controller runs here starts on other nodes"


@dataclass(frozen=True)
class ResetPlan(OperationPlan):
    """The plan of a reset. ``clean``: machines without leftovers; ``nodes``: Node objects that go;
    ``safe``: by host, why no other host is affected."""

    machines: Plan
    clean: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    safe: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.machines or self.nodes)

    def as_dict(self) -> dict[str, object]:
        return {
            **self.machines.as_dict(),
            "objects": [{"object": f"Node {name}", "action": "remove", "fields": []} for name in self.nodes],
            "nodes": [],
            "clean": list(self.clean),
            "safe": dict(self.safe),
            "warnings": list(self.warnings),
        }


def survivors(cluster: Cluster, chosen: Sequence[Host]) -> tuple[Host, ...]:
    """The control planes and etcd members that are not chosen: with any of them the cluster lives on."""
    return tuple(host for host in cluster.hosts if (host.is_control_plane or host.is_etcd) and host not in chosen)


def refuse_members(cluster: Cluster, chosen: Sequence[Host]) -> None:
    """A member of a cluster that lives on must leave it in order, which a reset does not see to."""
    members = [host for host in chosen if host.is_control_plane or host.is_etcd]
    staying = survivors(cluster, chosen)
    if members and staying:
        names = ", ".join(host.name for host in members)
        raise Refused(
            f"control planes and etcd members are not reset while others of the cluster stay ({staying[0].name})",
            where=names,
            hint=f"clusterctl node remove {members[0].name}, or reset the whole cluster",
            code="reset.cluster-stays",
        )


def refuse_orphans(session: Session) -> list[str]:
    """Warnings for machines that a cluster that ends leaves behind. Raises Refused for those that could be reset with it."""
    left = [host for host in session.cluster.hosts if host not in session.chosen]
    if not left or survivors(session.cluster, session.chosen):
        return []
    answered = fleet.each(left, lambda host: session.engine.transports[host.name].connect(), limit=session.options.forks)
    if answered.results:
        raise Refused(
            "the last control planes are not reset while other machines of the cluster stay",
            where=", ".join(answered.results),
            hint=f"add them to --limit; to take one machine out of the cluster: clusterctl node remove {left[0].name}",
            code="reset.cluster-stays",
        )
    return [f"{host.name} is left out and keeps what it has; later: clusterctl reset --limit {host.name}" for host in left]


def make_plan(session: Session) -> ResetPlan:
    """Look once at every chosen machine and, where the cluster lives on, at its API. Nothing is changed.

    Raises Unreachable for all machines together, Refused where something is not ours to reset.
    """
    cluster, hosts = session.cluster, session.chosen
    refuse_members(cluster, hosts)
    machines, seen = look(session, hosts)
    staying = survivors(cluster, hosts)
    warnings = refuse_orphans(session) + [line for host in hosts for line in _warnings(host, seen[host.name])]
    nodes, unanswered = _nodes(session, staying, hosts)
    busy = {host.name for _, host, _ in machines.changes}
    return ResetPlan(
        machines,
        clean=tuple(host.name for host in hosts if host.name not in busy),
        nodes=nodes,
        safe={host.name: WORKER if staying else WHOLE for host in hosts if host.name in busy},
        warnings=(*warnings, *unanswered),
    )


def look(session: Session, hosts: Sequence[Host]) -> tuple[Plan, Mapping[str, Observation]]:
    """Return the plan that removes the leftovers of clusterctl from hosts, and the observations. One round trip to each.

    Raises Unreachable and Refused.
    """
    pods = str(session.cluster.network.pods)
    remains = tuple(Leftovers(kind=kind, pods=pods) for kind in KINDS)
    resources = {host.name: {RESET.name: remains} for host in hosts}
    seen = session.engine.observe(hosts, resources).or_raise()
    _refuse_others(session, seen)
    return planner.make_plan((RESET,), hosts, resources, seen), seen


def _identity(seen: Observation) -> tuple[str, bool] | None:
    """The cluster that a machine belongs to, and whether it recorded what was there before; None for a machine of none."""
    lines = seen.get("remains", "mark")
    if not lines:
        return None
    identity, _, record = lines[0].partition("\t")
    return identity, bool(record)


def _refuse_others(session: Session, seen: Mapping[str, Observation]) -> None:
    marks = {name: mark for name, one in seen.items() if (mark := _identity(one)) is not None}
    refuse_without_keys(session, marks)
    errors = [
        Refused("it belongs to another cluster", where=name, code="host.other-cluster",
                hint="reset it with the inventory and the keys of that one")
        for name, (identity, _) in sorted(marks.items())
        if identity != session.pki.identity
    ]
    raise_all(errors)


def _warnings(host: Host, seen: Observation) -> Iterator[str]:
    mark = _identity(seen)
    if mark is not None and not mark[1]:
        yield f"{host.name}: it has no record of what was there before: packages and kernel settings stay as they are"
    for line in seen.get("remains", "kept") or ():
        package, _, why = line.partition("\t")
        yield f"{host.name}: package {package} stays: {why}"


def _nodes(session: Session, staying: Sequence[Host], hosts: Sequence[Host]) -> tuple[tuple[str, ...], list[str]]:
    """The Node objects of these hosts, asked of those that stay; a warning where none answers."""
    if session.pki_is_new or not staying:
        return (), []
    api = session.any_api(host for host in staying if host.is_control_plane)
    if api is None:
        names = " ".join(host.name for host in hosts)
        return (), [f"no API server answers: Node objects stay; later: kubectl delete node {names}"]
    with or_refused("the API's nodes cannot be read"):
        known = api.nodes()
    return tuple(host.name for host in hosts if host.name in known), []


class Reset:
    """Carries a ResetPlan out."""

    def __init__(self, session: Session, plan: ResetPlan) -> None:
        self.session, self.plan = session, plan

    def run(self) -> None:
        """All machines at once, then their Node objects, which a kubelet that runs would make again. Raises Stopped."""
        self.session.engine.execute(self.plan.machines, Gates())
        if self.plan.nodes:
            self._delete_nodes()

    def _delete_nodes(self) -> None:
        staying = survivors(self.session.cluster, self.session.chosen)
        api = self.session.any_api(host for host in staying if host.is_control_plane)
        hint = "run the same command again to continue"
        if api is None:
            raise Stopped("no API server answers any more", where=f"Node {', '.join(self.plan.nodes)}", code="api.unreachable",
                          hint=hint)
        events = self.session.engine.events
        with events.stage("nodes", self.plan.nodes):
            for name in self.plan.nodes:
                with or_stopped("cannot be deleted", where=f"Node {name}", code="node.not-deleted", hint=hint):
                    api.delete_node(name)
                events.note(f"remove Node {name}")


def next_steps(session: Session) -> list[str]:
    """Return what the operator does after a reset."""
    cluster, chosen = session.cluster, session.chosen
    if survivors(cluster, chosen):
        names = ", ".join(host.name for host in chosen)
        return [f"take {names} out of the inventory, or let clusterctl apply make it a node again"]
    return [
        f"the keys of {cluster.name} are still in {session.state.path}; they are of no more use but for another apply",
        "clusterctl apply makes the machines a cluster again",
    ]


def undo(session: Session, host: Host) -> None:
    """Remove everything of clusterctl from one host, whatever its role; nothing where it is clean. No confirmation.

    The cluster must not need it any more, and its Node object is the caller's. Raises Unreachable, Refused, Stopped.
    """
    plan, _ = look(session, [host])
    session.engine.execute(plan, Gates())
