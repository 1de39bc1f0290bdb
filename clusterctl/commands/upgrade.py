"""``upgrade``: the plan for the cluster at other versions, carried out node by node. Components never learn the word upgrade."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from clusterctl.cluster import version_skew
from clusterctl.cluster.model import MINOR, Cluster, Host, Versions
from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions, minor, order
from clusterctl.commands.apply import Apply, ApplyPlan, compare
from clusterctl.commands.lock import choose_patch, locked_patch, require
from clusterctl.components.host import HOST, TRUST
from clusterctl.components.products import of
from clusterctl.components.programs import ADDON_IMAGES, ADDON_VERSIONS, PROGRAMS
from clusterctl.engine.engine import Gates
from clusterctl.errors import ClusterctlError, Refused, Stopped, raise_all
from clusterctl.etcd import snapshot
from clusterctl.health import upgrade_checks
from clusterctl.health.ready import wait_nodes
from clusterctl.kube import drain
from clusterctl.kube.client import Object, ObjectChange
from clusterctl.kube.disruption import Drain, DrainPolicy, Unavailable
from clusterctl.plan import running
from clusterctl.plan.planner import OneByOne, OperationPlan, Parallel, Plan, Rolling, Stage, StagePlan
from clusterctl.plan.stages import max_unavailable
from clusterctl.resources.base import Change
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts
from clusterctl.ssh.https import or_refused, or_stopped

OPERATION = "upgrade"
PAUSES = ("staging", "etcd", "control-plane")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeRequest:
    """The request of an operator. ``to``: of Kubernetes; none: what the inventory names, or what runs.

    ``components``: versions of other products; ``unavailable``: workers at once.
    """

    to: str | None = None
    through: tuple[str, ...] = ()
    components: Mapping[str, str] = field(default_factory=dict)
    unavailable: Unavailable | None = None
    pause_after: str | None = None
    policy: DrainPolicy = DrainPolicy()

    @property
    def alone(self) -> bool:
        """Whether products were asked for, and Kubernetes was not."""
        return bool(self.components) and self.to is None and not self.through

    def as_dict(self) -> dict[str, object]:
        unavailable = str(self.unavailable) if self.unavailable else None
        return {"to": self.to, "through": list(self.through), "components": dict(self.components), "max_unavailable": unavailable,
                "pause_after": self.pause_after, "drain": dataclasses.asdict(self.policy)}


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradePlan(OperationPlan):
    """The plan of the next upgrade, and those that follow. ``versions``: product -> (running, desired).

    ``at_once``: workers that are interrupted together.
    """

    versions: Mapping[str, tuple[str, str]]
    hops: tuple[str, ...]
    plan: ApplyPlan
    drains: tuple[Drain, ...] = ()
    snapshot: bool = False
    at_once: int = 1
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.plan)

    def as_dict(self) -> dict[str, object]:
        return {
            "versions": {name: {"from": before, "to": after} for name, (before, after) in self.versions.items()},
            "hops": list(self.hops),
            "etcd_snapshot": self.snapshot,
            "drains": [entry.as_dict() for entry in self.drains],
            **{**self.plan.as_dict(), "warnings": [*self.plan.warnings, *self.warnings]},
        }

    def fingerprint(self) -> dict[str, object]:
        """Return the part that is equal in two plans which do the same: changes by host and their target, no pods and no keys."""
        said = self.plan.as_dict()
        return {
            "versions": {name: list(pair) for name, pair in self.versions.items()},
            "hops": list(self.hops),
            "max_unavailable": self.at_once,
            "changes": [f"{stage} {host.name} {change.resource.id} {change.action} {_state_to_reach(change)}"
                        for stage, host, change in self.plan.machines.changes],
            "objects": [f"{change.action} {change.id} {_object_to_reach(change)}" for change in self.plan.objects],
            "nodes": [f"{name} {', '.join(fields)} {_short(_without_version(patch))}" for name, patch, fields in self.plan.nodes],
            "etcd_members": said["etcd_members"],
        }

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.fingerprint(), sort_keys=True).encode()).hexdigest()


def _short(value: object) -> str:
    """As much of a digest as tells different values apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _state_to_reach(change: Change) -> str:
    """A service's stamp is left out: it follows from keys, too, that are made anew for each plan."""
    return _short({name: value for name, value in change.after.items() if name != "stamp"})


def _object_to_reach(change: ObjectChange) -> str:
    """Nothing of a secret's content, not even a digest: the plan is shown around."""
    return "(secret)" if change.wanted["kind"] == "Secret" else _short(change.wanted)


def _without_version(patch: Object) -> object:
    return {**patch, "metadata": {name: value for name, value in patch["metadata"].items() if name != "resourceVersion"}}


def stages(cluster: Cluster, unavailable: int) -> tuple[Stage, ...]:
    """The order of kubernetes.io's version skew policy: etcd, API servers and their companions, then nodes, drained."""
    return (
        Stage(name="staging", components=(HOST, *of("machine"), TRUST, PROGRAMS, ADDON_IMAGES), strategy=Parallel()),
        Stage(name="etcd", components=of("etcd"), strategy=OneByOne()),
        Stage(name="control-plane", components=of("control-plane"), strategy=OneByOne(), together=True),
        Stage(name="nodes", components=(*of("prepare"), *of("nodes"), ADDON_VERSIONS),
              strategy=Rolling(unavailable), together=True),
    )


def make(session: Session, facts: Mapping[str, Facts], warnings: Sequence[str], wish: UpgradeRequest) -> UpgradePlan:
    """The plan of the next upgrade. Raises Problems of Refused with everything that forbids it; nothing is changed."""
    present = running.versions_of(facts)
    if not running.is_bootstrapped(facts):
        raise Refused("there is no cluster yet", where=session.cluster.name, code="cluster.not-bootstrapped",
                      hint="clusterctl apply")
    found = present["kubernetes"]
    ask = not wish.to and session.cluster.settings.kubernetes not in {minor(version) for version in found}
    settled = running.pin_running(choose_patch(session, ask=ask), facts)
    asked_for = wish.to
    if asked_for and MINOR.fullmatch(asked_for):
        asked_for = known_versions(locked_patch(session, asked_for, ask=True, anew=True) or asked_for).kubernetes
    to = asked_for or (max(found, key=order) if wish.alone else settled.versions.kubernetes)
    problem = version_skew.refuse_path(found, to, wish.through)
    if problem:
        hint = f"supported are {', '.join(SUPPORTED_MINORS)}; clusterctl upgrade plan --to X.Y.Z"
        raise Refused(problem, where="--to", hint=hint, code="upgrade.path")
    hops = version_skew.hops(found, to, wish.through)
    session = session.at(settled.at(_versions(settled, present, hops[0], wish)))
    require(session, facts)
    unavailable = max_unavailable(session.cluster, wish.unavailable)
    plan = compare(session, stages(session.cluster, unavailable), facts, warnings)
    drains = _drains(session, plan.machines, wish.policy)
    made = UpgradePlan(
        versions=_changed(present, session.cluster.versions), hops=hops, plan=plan, drains=drains,
        snapshot=upgrade_checks.takes_snapshot(plan.machines),
        at_once=unavailable, warnings=tuple(drain.waiting_texts(drains)),
    )
    _check(session, facts, made, kubelets=wish.pause_after is None)
    return made


def _versions(cluster: Cluster, present: Mapping[str, set[str]], kubernetes: str, wish: UpgradeRequest) -> Versions:
    """Return the versions that belong to a version of Kubernetes, unless inventory or command line name others; no downgrade.

    Where products alone were asked for, all others stay as they are.
    """
    table = running.versions_for(kubernetes, {}).model_dump()
    named = {**running.pinned(cluster), **wish.components}
    belonging = {} if wish.alone else {name: {str(version)} for name, version in table.items()}
    kept = {name: max(versions | belonging.get(name, set()), key=order) for name, versions in present.items()}
    overrides = {name: version for name, version in {**kept, **named}.items() if name != "kubernetes"}
    return running.versions_for(kubernetes, overrides)


def _changed(present: Mapping[str, set[str]], wanted: Versions) -> dict[str, tuple[str, str]]:
    after = {name: str(version) for name, version in wanted.model_dump().items()}
    return {
        name: (", ".join(sorted(versions, key=order)), after[name])
        for name, versions in sorted(present.items())
        if versions != {after[name]}
    }


def disrupted(plan: Plan) -> list[str]:
    """The nodes whose kubelet or containerd is interrupted: they are drained before."""
    names = dict.fromkeys(host.name for stage, host, change in plan.changes if stage == "nodes" and change.disruptive
                          and change.resource.id in ("service:kubelet.service", "service:containerd.service"))
    return list(names)


def _drains(session: Session, plan: Plan, policy: DrainPolicy) -> tuple[Drain, ...]:
    names = disrupted(plan)
    if not names:
        return ()
    with or_refused("the API cannot be asked for pods"):
        return drain.look(session.ready_api(), names, policy)


def _check(session: Session, facts: Mapping[str, Facts], made: UpgradePlan, *, kubelets: bool) -> None:
    raise_all(list(upgrade_checks.all_of(session, facts, made.versions, made.plan, made.drains, kubelets=kubelets)))


class Upgrade(Apply):
    """Executes an UpgradePlan. ``say`` prints progress."""

    def __init__(self, session: Session, plan: UpgradePlan, wish: UpgradeRequest, say: Callable[[str], None]) -> None:
        machines = plan.plan.machines
        pause = wish.pause_after
        if pause is not None:
            names = [stage.stage.name for stage in machines.stages]
            machines = Plan(machines.stages[: names.index(pause) + 1])
        super().__init__(session, dataclasses.replace(plan.plan, machines=machines))
        self.upgrade, self.wish, self.say = plan, wish, say
        self._drained = frozenset(disrupted(machines))

    def run(self) -> None:
        """The next upgrade, or its part up to the pause. Raises Stopped; run again, it goes on."""
        self.delivered()
        self._clean()
        self._admit()
        staging, rest = self.plan.machines.stages[:1], self.plan.machines.stages[1:]
        self.session.engine.execute(Plan(staging), self.gates())
        # The new programs are there and nothing was interrupted: they are asked whether they know their flags.
        upgrade_checks.accept_flags(self.session, self.plan.facts)
        self.session.engine.execute(Plan(rest), self.gates())
        if self.wish.pause_after is None:
            self._apply_rest()
            self._roll_out()
            self.settle_nodes()

    def gates(self) -> Gates:
        own = super().gates()
        return Gates(
            before={**own.before, "etcd": self._before_etcd, "control-plane": self._before_control_plane},
            after={**own.after, "control-plane": self._after_control_plane},
            failed={"nodes": self._failed_nodes},
        )

    def _before_etcd(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        self._snapshot()
        self.serving.before_etcd(stage, batch)

    def _before_control_plane(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        self._snapshot()
        self.serving.before_control_plane(stage, batch)

    def _snapshot(self) -> None:
        """Once, before the first thing is interrupted that holds data."""
        if not self.upgrade.snapshot:
            return
        made = snapshot.save(self.session, self.say)
        path = snapshot.folder(self.session.state) / made.file
        self.say(f"snapshot {path}: revision {made.revision}, {made.keys} keys, verified")
        self.upgrade = dataclasses.replace(self.upgrade, snapshot=False)

    def _after_control_plane(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        self.serving.after_control_plane(stage, batch)
        wanted = f"v{self.session.cluster.versions.kubernetes}"
        for host in batch:
            with or_stopped("its API server does not say its version", where=host.name, code="api.no-version"):
                found = self.session.api(host).look("/version")["gitVersion"]
            if found != wanted:
                raise Stopped(f"its API server is {found} and not {wanted}", where=host.name, code="upgrade.version-unexpected",
                              hint="clusterctl status")

    def _before_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        super()._before_nodes(stage, batch)
        names = {host.name for host in batch}
        wait_nodes(self.session, [host for host in self.session.cluster.nodes if host.name not in names], deadline=120)
        # A node that a killed run left cordoned takes pods again first: those that leave now may have no other place to go.
        self.settle_nodes()
        for host in batch:
            if host.name in self._drained:
                drain.empty(self.session.ready_api, host.name, self.wish.policy, self.say, OPERATION)

    def _after_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        versions = self.session.cluster.versions
        expected = {"kubeletVersion": f"v{versions.kubernetes}", "containerRuntimeVersion": f"containerd://{versions.containerd}"}
        wait_nodes(self.session, [host for host in batch if host.name in self._drained], deadline=90, expected=expected)
        super()._after_nodes(stage, batch)

    def _failed_nodes(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """A node that is Ready again, on what it had before, takes pods again where we alone kept them off."""
        for host in batch:
            if host.name not in self._drained:
                continue
            try:
                wait_nodes(self.session, [host], deadline=60)
                drain.give_back(self.session.ready_api, host.name, ours=True)
            except ClusterctlError as error:
                self.say(f"{host.name} stays cordoned: {error.message}")


def fingerprint_difference(then: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Return the differences between an earlier plan and today's, a line each."""
    lines = []
    for key in dict.fromkeys((*now, *then)):
        before, after = then.get(key), now.get(key)
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list):
            told = [f"no more: {entry}" for entry in before if entry not in after]
            told += [f"new: {entry}" for entry in after if entry not in before]
            lines += told or [f"{key}: the same in another order"]
        else:
            lines.append(f"{key}: {before or 'nothing'} then, {after or 'nothing'} now")
    return lines
