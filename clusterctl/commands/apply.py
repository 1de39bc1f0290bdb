"""``plan`` and ``apply``: one path. The plan that is printed is the object that is carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from clusterctl.cluster.model import Host
from clusterctl.cluster.target import Target
from clusterctl.commands.lock import choose_patch, require
from clusterctl.components import objects
from clusterctl.components.kernel import replaced_settings
from clusterctl.engine import hooks
from clusterctl.engine.engine import NOTHING, UNSEEN, Gates, Probes
from clusterctl.engine.observe import Look
from clusterctl.errors import InputError, Refused, Stopped
from clusterctl.etcd import members
from clusterctl.etcd.members import Membership, MemberState
from clusterctl.health import reachability
from clusterctl.health.gates import ClusterGates
from clusterctl.health.ports import Pair
from clusterctl.health.ready import wait_nodes
from clusterctl.health.wait import wait_for
from clusterctl.inventory.rules import even_members
from clusterctl.kube import api_objects, api_write
from clusterctl.kube.client import CORDONED_FOR, ApiError, Object, ObjectChange, object_id
from clusterctl.plan import planner, running
from clusterctl.plan.planner import Parallel, Plan, Stage, StagePlan
from clusterctl.plan.stages import foreign_pins, formed, possible_probes, resources_by_host, stages
from clusterctl.resources.etcd_member import EtcdLearner
from clusterctl.session.session import Session, refuse_without_keys
from clusterctl.shell.facts import Facts


@dataclass(frozen=True)
class ApplyPlan(planner.OperationPlan):
    """The plan of apply: changes of machines, API objects and nodes."""

    target: Target
    machines: Plan = Plan(())
    objects: tuple[ObjectChange, ...] = ()
    nodes: api_objects.NodeChanges = ()
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Facts] = field(default_factory=dict)
    differences: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Differences within resources, by (host, id), for ``--diff``."""
    strays: tuple[MemberState, ...] = ()
    """etcd members of no machine, which are taken out first."""
    later: tuple[Object, ...] = ()
    """The objects of an API that did not answer: they are compared when the machines are as wanted."""
    pins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The programs and images whose pin is not built in, by the source of the pin."""
    closed: tuple[Pair, ...] = ()
    """Connections that cannot be made yet, which cluster.firewall opens."""

    def __bool__(self) -> bool:
        return bool(self.machines or self.objects or self.nodes or self.strays or self.later)

    def as_dict(self) -> dict[str, object]:
        return {
            **self.machines.as_dict(self.differences),
            "objects": [change.as_dict() for change in self.objects],
            "nodes": [{"node": name, "fields": list(fields)} for name, _, fields in self.nodes],
            "etcd_members": [
                {"member": state.name, "action": "remove", "reason": state.error or "a learner"} for state in self.strays
            ],
            "pins": [{"source": source, "files": list(files)} for source, files in self.pins.items()],
            "warnings": list(self.warnings),
        }


def make_plan(session: Session, *, probes: Probes | None = None, verify: bool = False) -> ApplyPlan:
    """Observe each machine once, etcd and the API, and compare. Nothing is changed.

    ``probes``: those of ``possible_probes``, where they are known. The plan's target has the versions that run, where the
    inventory names none.
    """
    session = check_early(session)
    looks, facts, warnings = observe(session, possible_probes(session) if probes is None else probes, verify=verify)
    why, _ = even_members(len(session.cluster.etcd_members))
    warnings += [*([why] if why else []), *replaced_settings(session.chosen)]
    session = session.at(running.pin_running(session.cluster, facts))
    running.refuse_skewed(session.cluster, facts)
    require(session, facts)
    found = compare(session, stages(session.cluster, formed(facts)), facts, warnings, looks=looks, verify=verify)
    closed, told = reachability.check(session, facts, found.machines)
    return replace(found, closed=closed, warnings=(*found.warnings, *told))


def check_early(session: Session) -> Session:
    """Check what needs no host, and return the session for the patch release that the inventory's minor means.

    Raises:
        InputError: a pin is missing, or a new cluster has an even number of etcd members.
    """
    session = session.at(choose_patch(session, ask=session.pki_is_new))
    if session.pki_is_new or "kubernetes" in running.pinned(session.cluster):
        require(session)
    why, what = even_members(len(session.cluster.etcd_members))
    if why and session.pki_is_new:
        raise InputError(why, where=str(session.options.inventory), hint=what, code="inventory.even-etcd-members")
    return session


def gather(session: Session) -> tuple[Mapping[str, Facts], list[str]]:
    """Return facts and warnings, as ``observe`` has them."""
    return observe(session, NOTHING)[1:]


def observe(session: Session, probes: Probes, *,
            verify: bool = False) -> tuple[Mapping[str, Look], Mapping[str, Facts], list[str]]:
    """Observe the chosen hosts in one round trip each; return what was seen of them, facts, and warnings.

    Facts are also those of all other etcd members and control planes that answer: they know whether there is a cluster, which
    versions it runs, and which members serve. Raises Unreachable, Refused.
    """
    hosts = session.chosen
    session.connect(hosts)
    serving = [host for host in session.cluster.hosts if host.is_etcd or host.is_control_plane]
    others = session.engine.facts([host for host in serving if host not in hosts] if not session.pki_is_new else [])
    if not running.is_bootstrapped(others.results) and any(session.cluster.host(name).is_etcd for name in others.errors):
        # Without any member that has served, a new one would take itself for the first.
        others.or_raise()
    looks, warnings = session.look(hosts, probes, beside=others.results, verify=verify)
    facts = {**others.results, **{name: found.facts for name, found in looks.items()}}
    refuse_without_keys(session, [name for name, found in facts.items() if found.cluster])
    return looks, facts, warnings


def compare(session: Session, order: Sequence[Stage], facts: Mapping[str, Facts], warnings: Sequence[str], *,
            looks: Mapping[str, Look] = UNSEEN, verify: bool = False) -> ApplyPlan:
    """The plan that makes the chosen hosts, etcd and the API as the session's target wants them, stage by stage.

    ``looks``: what was seen of hosts together with their facts.
    """
    hosts = session.chosen
    pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="api")
    try:
        api, etcd = pool.submit(api_objects.look, session, facts), pool.submit(_look_at_etcd, session, facts)
        resources = resources_by_host(session, order, hosts, facts)
        seen = session.engine.observe(hosts, resources, looks=looks, verify=verify).or_raise()
        found, membership = api.result(), etcd.result()
    finally:
        # An interrupt does not wait for the answers of the API and etcd.
        pool.shutdown(wait=False, cancel_futures=True)
    if isinstance(membership, Refused):
        # No member serves that could be interrupted, and none becomes healthy before a majority is.
        order = [replace(stage, strategy=Parallel()) if stage.name == "etcd" else stage for stage in order]
    machines = planner.make_plan(order, hosts, resources, seen)
    told = [*warnings, *found.warnings]
    strays: tuple[MemberState, ...] = ()
    if isinstance(membership, Membership):
        members.refuse_lost(hosts, facts, membership)
        strays = () if session.target.limit else members.stray_members(membership, session.target.leaving)
    else:
        members.refuse_lost(hosts, facts, None)
    if isinstance(membership, Refused):
        if not any(stage == "etcd" for stage, _, _ in machines.changes):
            raise membership
        if any(isinstance(change.resource, EtcdLearner) for _, _, change in machines.changes):
            raise Refused(f"no new member joins while no majority of the members answers: {membership.message}", where="etcd",
                          hint="bring the members back: clusterctl etcd members; then run this again", code="etcd.no-quorum")
        told.append(membership.message)
    return ApplyPlan(session.target, machines, found.objects, found.nodes, tuple(told), facts=facts, strays=strays,
                     later=found.later, pins=foreign_pins(resources, session.catalog.sources))


def _look_at_etcd(session: Session, facts: Mapping[str, Facts]) -> Membership | Refused | None:
    """Return its members, or why they cannot be read; None where there are none yet or no etcd host is chosen."""
    if not any(host.is_etcd for host in session.chosen):
        return None
    hosts = [host for host in session.cluster.etcd_members if host.name in formed(facts)]
    if not hosts:
        return None
    try:
        return members.look(session, hosts)
    except Refused as error:
        return error


class Apply:
    """Carries an ApplyPlan out."""

    def __init__(self, session: Session, plan: ApplyPlan) -> None:
        self.session, self.plan = session.toward(plan.target), plan
        self.serving = ClusterGates(self.session, plan.facts)
        self._bound = self._delivered = self._brought = False
        self._rolls: list[ObjectChange] = []

    def gates(self) -> Gates:
        """Return the gates around each batch."""
        serving = self.serving
        return Gates(
            before={**hooks.gates(self.session), "etcd": serving.before_etcd, "control-plane": serving.before_control_plane,
                    "nodes": self._before_nodes},
            after={"prepare": reachability.gate(self.session, self.plan.facts, self.plan.closed), "etcd": serving.after_etcd,
                   "control-plane": serving.after_control_plane, "nodes": self._after_nodes},
        )

    def run(self) -> None:
        """All of it, in order. Raises Stopped; run again, it goes on."""
        self.delivered()
        if self.session.pki_is_new:
            self.session.pki.save(self.session.state)
        if self.plan.nodes:
            # What a killed run left cordoned takes pods again, whatever comes of the rest.
            self.settle_nodes()
        self._clean()
        self._admit()
        self.session.engine.execute(self.plan.machines, self.gates())
        self._apply_rest()
        self._roll_out()
        if self.plan.nodes or self.plan.later:
            self.settle_nodes()

    def _clean(self) -> None:
        """Members of no machine go before others are asked to join."""
        for stray in self.plan.strays:
            members.clean(self.session, stray, self.serving.members)
            self.session.engine.events.note(f"etcd member {stray.name} is taken out")

    def _admit(self) -> None:
        """Machines that were kept out and come in again are let in before they ask."""
        api_write.apply(self.session, [change for change in self.plan.objects if self.admits(change)])

    @cached_property
    def _changes(self) -> Sequence[ObjectChange]:
        """The planned changes in the API; what could not be looked at then is compared now.

        Only removals that the plan shows are carried out: others are left to the next run, for which the record keeps them.
        """
        if not self.plan.later:
            return self.plan.objects
        found = api_objects.compare_objects(self.session, self.session.ready_api(), self.plan.later)
        return [change for change in found if change.action != "remove"]

    def delivered(self) -> Self:
        """Bring files to the machines, verified, before anything is changed; ``run`` does it where it was not done."""
        from clusterctl.engine.delivery import deliver

        if not self._delivered:
            self.plan = replace(self.plan, machines=deliver(self.session, self.plan.machines))
            self._delivered = True
        return self

    @staticmethod
    def admits(change: ObjectChange) -> bool:
        """Whether an object says which machines are kept out."""
        return bool(change.wanted["metadata"]["name"] == objects.REMOVED_NODES)

    @cached_property
    def _bindings(self) -> frozenset[str]:
        return frozenset(object_id(item) for item in objects.bindings(self.session.cluster))

    def binds(self, change: ObjectChange) -> bool:
        """Return whether an object of ours grants or limits what the cluster's own programs may do."""
        return change.id in self._bindings

    def _before_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """kubelets and flannel come to an API that already lets them in."""
        if not self._bound:
            api_write.apply(self.session, [change for change in self._changes if self.binds(change)])
            self._bound = True

    def _after_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """A batch is done when its nodes are Ready, labelled and tainted.

        Without a CNI of ours, the one of ``addons.manifests`` is applied before the nodes can be Ready; where there is none,
        nodes need only be registered.
        """
        settings = self.session.cluster.settings
        if settings.network.cni == "none":
            self._apply_rest()
        limit = self.session.cluster.settings.timeouts.start
        wait_nodes(self.session, [host for host in batch if host.is_node], deadline=limit,
                   network=settings.network.cni != "none" or bool(settings.addons.manifests))
        self.settle_nodes()

    def _apply_rest(self) -> None:
        """Apply the objects that are neither bindings nor about removed nodes, once."""
        if not self._brought:
            self._brought = True
            rest = [change for change in self._changes if not ((self._bound and self.binds(change)) or self.admits(change))]
            api_write.bring(self.session, rest, narrow=not self.plan.later)
            self._rolls = [change for change in rest if api_write.awaited(change)]

    def _roll_out(self) -> None:
        """Wait for workloads, where there is a CNI that lets their pods run."""
        settings = self.session.cluster.settings
        if settings.network.cni != "none" or settings.addons.manifests:
            api_write.roll_out(self.session, self._rolls)

    def settle_nodes(self) -> None:
        """Labels, taints, and no cordon of an operation that ended early.

        Others change nodes too: a patch that came too late is made anew.
        """

        events = self.session.engine.events

        def patch() -> str:
            try:
                api = self.session.ready_api()
                for name, wanted_patch, fields in objects.node_changes(self.session.cluster, dict(api.nodes())):
                    api.patch_node(name, wanted_patch)
                    uncordoned = CORDONED_FOR in wanted_patch["metadata"].get("annotations", {})
                    (events.progress if uncordoned else events.note)(f"node {name}: {', '.join(fields)}")
            except ApiError as error:
                if error.status not in (0, 409):
                    raise Stopped(str(error), where="labels and taints of nodes", code="api.write-failed",
                                  hint="run the same command again") from None
                return str(error)
            return ""

        if self.session.cluster.nodes:
            wait_for(patch, what="labels and taints of nodes", deadline=30)
