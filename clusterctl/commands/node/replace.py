"""``node replace``: a machine gives way to another one, of the same name or of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from clusterctl.cluster.model import Cluster, Host
from clusterctl.commands.apply import Apply, ApplyPlan, make_plan
from clusterctl.commands.node import remove
from clusterctl.commands.node.remove import RemoveNodes, RemovePlan
from clusterctl.errors import InputError, Refused, Stopped
from clusterctl.etcd import members
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import ApiError, node_problem
from clusterctl.kube.disruption import DrainPolicy
from clusterctl.plan.planner import OperationPlan
from clusterctl.session.session import Session

SILENCE_SECONDS = 75.0
"""How long a node may count as Ready after its death: node-monitor-grace-period is 50 s, and the controller looks every 5."""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """The host that leaves and its successor. ``first``: the new one joins before the old one, which is well, leaves.

    ``traces``: whether anything of the old one is left in etcd or in the API. ``begun``: whether the new one, of another name, is
    in the cluster already, or on its way into it. ``rejoin``: only the data of its etcd member is gone; the machine stays a node.
    """

    old: str
    new: str
    first: bool
    traces: bool
    begun: bool = False
    rejoin: bool = False


def refuse_no_host(cluster: Cluster, name: str, where: str) -> None:
    """Raises InputError for a machine that is to come in and that the inventory lacks. Contacts no machine."""
    if all(host.name != name for host in cluster.hosts):
        raise InputError(f"the inventory has no host {name!r}", where=where, code="inventory.no-host",
                         hint="put the machine that comes in into the inventory")


def plan_replacement(session: Session, old: str, new: str | None) -> Replacement:
    """Look at both machines, at etcd and the API. Raises InputError, Refused, Unreachable."""
    hosts = {host.name: host for host in session.cluster.hosts}
    name = new or old
    refuse_no_host(session.cluster, name, "NEW" if new else "OLD")
    others = [host for host in session.cluster.etcd_members if host.name not in (old, name)]
    if not others:
        raise Refused("the only etcd member cannot be replaced: its data is nowhere else", where=old, code="etcd.last-member",
                      hint="add a member (clusterctl apply), then replace this one; or where its data is gone: "
                           "clusterctl etcd snapshot restore FILE")
    state = members.look(session, others).of(old)
    known = old in session.ready_api().nodes()
    if old not in hosts and state is None and not known and old not in remove.removed(session):
        raise Refused("neither the inventory nor the cluster has it", where=old, hint="clusterctl status", code="node.not-found")
    reached = name != old and old in hosts and remove.reachable(session, hosts[old]) is None
    if name != old and not reached:
        confirm_dead(session, others, old)
    facts = session.engine.facts([hosts[name]]).or_raise()[name]
    if facts.cluster not in ("", session.pki.identity):
        raise Refused("it belongs to another cluster", where=name, code="host.other-cluster",
                      hint="reset it with the inventory and the keys of that one")
    if name == old:
        # A machine that is marked is the one that was begun before, unless etcd's data was lost under it.
        lost = state is not None and state.member.started and hosts[old].is_etcd and facts.etcd in ("", "lost")
        if lost and facts.etcd == "lost":
            return Replacement(old=old, new=old, first=False, traces=False, rejoin=True)
        return Replacement(old=old, new=old, first=False, traces=lost or (not facts.cluster and (state is not None or known)))
    begun = bool(facts.cluster)
    return Replacement(old=old, new=name, first=reached and _serves(session, hosts[old], begun),
                       traces=state is not None or known, begun=begun)


def confirm_dead(session: Session, others: Sequence[Host], name: str) -> None:
    """Wait until a machine that SSH does not reach is silent in etcd and the API, too. Raises Refused where it is alive."""

    def heard() -> str:
        state = members.look(session, others).of(name)
        if state is not None and state.healthy and not state.member.learner:
            return "its etcd member answers"
        try:
            return "" if node_problem(session.ready_api().nodes().get(name)) else "its node is Ready"
        except ApiError as error:
            return str(error)

    try:
        wait_for(heard, what=name, deadline=SILENCE_SECONDS)
    except Stopped as error:
        raise Refused(f"SSH does not reach it, and it is not dead: {error.message.rpartition('last seen: ')[2]}", where=name,
                      hint=f"make it reachable; or, to do without it: clusterctl node remove {name} --offline",
                      code="node.alive") from None


def _serves(session: Session, host: Host, begun: bool) -> bool:
    """Whether a machine has what it had: one that was reinstalled has nothing to hand over.

    ``begun``: the new one is in already, so that one that is bare has handed over, and was undone by a run that was killed then.
    """
    mark = session.engine.facts([host]).or_raise()[host.name].cluster
    return mark == session.pki.identity or (begun and not mark)


def staying(whole: Cluster, found: Replacement) -> Cluster:
    """The cluster that an old machine, which is gone, is taken out of: a new one that was begun before would be missed in it."""
    return whole.without({found.old} if found.begun else {found.old, found.new})


@dataclass(frozen=True, slots=True)
class RejoinPlan(OperationPlan):
    """The etcd member of a machine is removed: its data is gone, and it joins anew."""

    event: ClassVar[str] = "progress"
    name: str

    def as_dict(self) -> dict[str, object]:
        return {"text": f"{self.name}: its etcd member is removed and joins anew as a learner: its data is gone"}


ReplacePlan = RejoinPlan | RemovePlan | ApplyPlan


def plans(session: Session, found: Replacement, policy: DrainPolicy, progress: Progress) -> Iterator[ReplacePlan]:
    """Yield the plans of a replacement; each must be carried out before the next one is made. Raises Refused, Stopped.

    The old machine leaves and the new one joins; the other way round while the old one is healthy.
    """
    whole = session.cluster
    if found.rejoin:
        yield RejoinPlan(found.old)
        yield make_plan(session)
        return
    if found.first:
        yield make_plan(session)
        if found.traces:
            yield remove.make(session, [found.old], offline=False, policy=policy)
        return
    if found.traces:
        yield remove.make(session.at(staying(whole, found)), [found.old], offline=True, policy=policy,
                          keep_out=found.new != found.old)
    joining = make_plan(session if found.new == found.old else session.at(whole.without([found.old])))
    yield joining
    if not found.traces and not joining:
        progress(f"{found.new} is in the place of {found.old} already; nothing to do")


def carry_out(session: Session, plan: ReplacePlan, policy: DrainPolicy, progress: Progress) -> None:
    """Carry out one of the plans. Raises Refused, Stopped."""
    if isinstance(plan, ApplyPlan):
        Apply(session, plan).run()
    elif isinstance(plan, RemovePlan):
        RemoveNodes(session, plan, policy, progress).run()
    else:
        session.engine.check_lock()
        members.remove(session, plan.name, session.cluster.etcd_members)
