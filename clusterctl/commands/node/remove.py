"""``node remove``: machines leave a running cluster. The desired state is the cluster without them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from clusterctl.cluster.model import Cluster, Host
from clusterctl.cluster.target import Target
from clusterctl.commands import apply, reset
from clusterctl.commands.apply import Apply, ApplyPlan
from clusterctl.components.objects import removed_nodes
from clusterctl.errors import ClusterctlError, InputError, Refused, Unreachable
from clusterctl.etcd import members
from clusterctl.etcd.client import majority
from clusterctl.kube import api_objects, drain
from clusterctl.kube.client import Api
from clusterctl.kube.disruption import Drain, DrainPolicy
from clusterctl.plan.planner import OperationPlan
from clusterctl.session.session import Session
from clusterctl.ssh.https import or_refused, or_stopped

OPERATION = "node remove"
REMOVED = "removed"
"""The file of the state folder with the names of such machines: one that nothing knows any more may be no typing error."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRemoval:
    """One machine that leaves. ``host``: None where the inventory no longer has it; ``quorum``: why etcd can do without it."""

    name: str
    host: Host | None
    offline: bool
    drain: Drain | None = None
    keep_out: bool = False
    member: bool = False
    quorum: str = ""

    def as_dict(self) -> dict[str, object]:
        return {
            "node": self.name,
            "roles": sorted(self.host.roles) if self.host else [],
            "offline": self.offline,
            "drain": self.drain.as_dict() if self.drain else None,
            "etcd_member": self.member,
            "why_safe": self.quorum or "control planes and etcd members stay as they are",
            "undo": not self.offline,
            "keep_out": self.keep_out,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePlan(OperationPlan):
    """The hosts that leave, in order, and the changes on the remaining machines and in the API."""

    departures: tuple[NodeRemoval, ...]
    rest: ApplyPlan
    gone: tuple[str, ...] = ()
    """Those that a run before this one has removed."""

    def __bool__(self) -> bool:
        return bool(self.departures)

    def as_dict(self) -> dict[str, object]:
        return {**self.rest.as_dict(), "departures": [one.as_dict() for one in self.departures], "gone": list(self.gone)}


def without(target: Target, names: Sequence[str]) -> Target:
    """Return the target without these hosts. Raises Refused where the cluster could not live on."""
    rest = target.cluster.without(names)
    if not rest.control_planes:
        raise Refused("a cluster cannot do without its last control plane", where=", ".join(names),
                      hint="to end the cluster: clusterctl reset", code="node.last-control-plane")
    if not rest.etcd_members:
        raise Refused("a cluster cannot do without its last etcd member", where=", ".join(names), code="etcd.last-member",
                      hint="clusterctl reset")
    leaving = [host.name for host in target.cluster.etcd_members if host.name in names]
    if len(leaving) > 1:
        raise Refused("etcd members leave one at a time", where=", ".join(leaving), code="etcd.one-at-a-time",
                      hint=f"clusterctl node remove {leaving[0]}")
    return replace(target, cluster=rest, leaving=target.leaving | frozenset(names))


def make(session: Session, names: Sequence[str], *, offline: bool, policy: DrainPolicy, keep_out: bool = True) -> RemovePlan:
    """Return the plan, whose target is the cluster without these hosts. Raises Refused with the arithmetic.

    ``keep_out``: whether machines that are not contacted may never come back under their names.
    """
    hosts = {host.name: host for host in session.cluster.hosts if host.name in names}
    session = session.toward(without(session.target, names))
    rest = apply.make_plan(session)
    found = members.look(session)
    api = session.ready_api()
    with or_refused("the API cannot be asked for nodes and pods"):
        known = api.nodes()
        gone = [name for name in names if name in removed(session) and not (name in hosts or name in known or found.of(name))]
        departures = [
            replace(_departure(api, name, hosts.get(name), found, known=name in known, offline=offline, policy=policy),
                    keep_out=offline and keep_out)
            for name in names if name not in gone
        ]
    for one in departures:
        if one.drain is not None:
            drain.refuse_unsafe([one.drain])
    if not departures:
        rest = ApplyPlan(session.target)
    return RemovePlan(departures=tuple(departures), rest=rest, gone=tuple(gone))


def refuse_unknown(session: Session, names: Sequence[str]) -> None:
    """Raises InputError for a host that the inventory lacks and whose removal was never begun. Contacts no machine."""
    known = {host.name for host in session.cluster.hosts} | removed(session)
    for name in names:
        if name not in known:
            raise InputError(f"the inventory has no host {name!r}", where="NAME", code="inventory.no-host",
                             hint=f"put it into the inventory again, or: clusterctl node remove {name} --offline")


def removed(session: Session) -> set[str]:
    """The machines whose removal was begun ever."""
    return set((session.state.read(REMOVED) or b"").decode().split())


def _departure(api: Api, name: str, host: Host | None, found: members.Membership, *, known: bool, offline: bool,
               policy: DrainPolicy) -> NodeRemoval:
    state = found.of(name)
    if host is None and state is None and not known:
        raise Refused("neither the inventory nor the cluster has it", where=name, hint="clusterctl status", code="node.not-found")
    if host is None and not offline:
        raise Refused("the inventory does not have it, so that it cannot be reached", where=name, code="node.not-in-inventory",
                      hint=f"put it into the inventory again, or: clusterctl node remove {name} --offline")
    problem = members.removal_problem(found, name)
    if problem:
        raise Refused(problem, where=f"etcd member {name}", code="etcd.quorum-at-risk",
                      hint="clusterctl etcd members; bring the others back first")
    return NodeRemoval(
        name=name, host=host, offline=offline, member=state is not None, quorum=_arithmetic(found, state),
        drain=drain.look(api, [name], policy)[0] if known and not offline else None,
    )


def _arithmetic(found: members.Membership, state: members.MemberState | None) -> str:
    """Why etcd can do without a member, in numbers."""
    if state is None:
        return ""
    if state.member.learner:
        return "a learner has no vote in etcd"
    left = len(found.voters) - 1
    alive = found.healthy - (1 if state.healthy else 0)
    return f"of {left} etcd members that are left {alive} are healthy, and {majority(left)} must be"


class RemoveNodes:
    """Carries a RemovePlan out; every step may have been done by a run that was killed."""

    def __init__(self, session: Session, plan: RemovePlan, policy: DrainPolicy, progress: Progress) -> None:
        self.session, self.plan, self.policy, self.progress = session.toward(plan.rest.target), plan, policy, progress

    def run(self) -> None:
        """Empty them; the others forget them; they leave etcd, are undone, and their traces go. Raises Stopped."""
        rest = Apply(self.session, self.plan.rest)
        # Pods that leave need the nodes that an operation before this one left cordoned when it was killed.
        rest.settle_nodes()
        for one in self.plan.departures:
            if one.drain is not None:
                drain.empty(self.session.ready_api, one.name, self.policy, self.progress, OPERATION)
        rest.run()
        for one in self.plan.departures:
            self.session.engine.check_lock()
            self._leave(one)

    def _leave(self, one: NodeRemoval) -> None:
        self.session.state.write(REMOVED, "\n".join(sorted({*removed(self.session), one.name})).encode())
        if one.member and members.remove(self.session, one.name, self.session.cluster.etcd_members):
            self.progress(f"{one.name}: is no etcd member any more")
        if one.keep_out:
            self._keep_out(one)
        if not one.offline and one.host is not None:
            reset.undo(self.session, one.host)
            self.progress(f"{one.name}: what was installed is undone")
        delete_node_objects(self.session, one.name, gone=one.offline)
        self.progress(f"{one.name}: its Node and leases are deleted")

    def _keep_out(self, one: NodeRemoval) -> None:
        with or_stopped("cannot be kept out", where=one.name, code="node.not-kept-out"):
            api = self.session.ready_api()
            for item in removed_nodes(api_objects.removed_names(api) | {one.name}):
                api.apply(item)


def delete_node_objects(session: Session, name: str, *, gone: bool) -> None:
    """Delete a node's traces in the API. ``gone``: its machine is dead, and its pods can be started elsewhere at once."""
    api = session.ready_api()
    with or_stopped("its traces cannot be deleted", where=name, code="node.traces-left"):
        if gone:
            for pod in drain.pods_of(api, name):
                meta = pod["metadata"]
                api.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}?gracePeriodSeconds=0")
        for request in api.look("/apis/certificates.k8s.io/v1/certificatesigningrequests")["items"]:
            if request["spec"].get("username") == f"system:node:{name}":
                api.delete(f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{request['metadata']['name']}")
        api.delete_node(name)
        api.delete(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}")


def reachable(session: Session, host: Host) -> ClusterctlError | None:
    """Why a machine cannot be reached; None where it can."""
    try:
        session.engine.transports[host.name].connect()
    except Unreachable as error:
        return error
    return None


def next_steps(cluster: Cluster, plan: RemovePlan, named: Sequence[str], edited: bool) -> list[str]:
    """``named``: those that the inventory still names."""
    steps = [f"on {one.name}, should it come back: it cannot rejoin; reset it with its old inventory: "
             f"clusterctl reset --limit {one.name}" for one in plan.departures if one.offline]
    left = [name for name in named if not edited]
    if left:
        steps.append(f"take {', '.join(left)} out of the inventory, or the next apply adds it again (--edit-inventory does it)")
    return [*steps, "clusterctl status"]
