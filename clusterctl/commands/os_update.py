"""``os-update``: package updates and reboots, one control plane or etcd member at a time, workers in batches, each drained."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import ClassVar

from clusterctl.cluster.model import Cluster, Host
from clusterctl.commands.os_packages import Machine, look_program, read_machine
from clusterctl.engine import fleet
from clusterctl.engine.engine import BOOT_SECONDS
from clusterctl.engine.events import Observed
from clusterctl.engine.patience import run_until_done
from clusterctl.errors import ClusterctlError, InputError, Refused, raise_all
from clusterctl.kube import drain
from clusterctl.kube.client import Object
from clusterctl.kube.disruption import Drain, DrainPolicy, Unavailable
from clusterctl.plan.planner import OperationPlan
from clusterctl.plan.stages import max_unavailable
from clusterctl.session.session import Session
from clusterctl.ssh.https import or_refused

OPERATION = "os-update"
LOOK_SECONDS = 600.0
"""How long a machine may fetch its lists of packages without a word."""

YES, NO, IF_REQUIRED = "yes", "no", "if-required"


@dataclass(frozen=True, slots=True, kw_only=True)
class MachinePlan:
    """One machine: what it said, what is done to it and why.

    ``reboot``: yes, no, or if-required: if the updates turn out to ask for it. ``resumed``: it is cordoned by an os-update that
    ended early. ``safe``: why others do not suffer.
    """

    host: Host
    machine: Machine
    reboot: str
    why: str
    resumed: bool = False
    drain: Drain | None = None
    safe: str = ""

    @property
    def updates(self) -> bool:
        return bool(self.machine.updates) or self.machine.interrupted

    @property
    def disrupted(self) -> bool:
        return self.updates or self.reboot == YES

    @property
    def work(self) -> bool:
        return self.disrupted or self.resumed

    @property
    def alone(self) -> bool:
        """Whether nothing else may be disrupted meanwhile."""
        return self.host.is_control_plane or self.host.is_etcd

    def as_dict(self) -> dict[str, object]:
        return {
            "host": self.host.name,
            "work": self.work,
            "updates": [package.as_dict() for package in self.machine.updates],
            "held_back": [package.as_dict() for package in self.machine.held],
            "interrupted": self.machine.interrupted,
            "reboot": self.reboot,
            "why": self.why,
            "resumed": self.resumed,
            "drain": self.drain.as_dict() if self.drain else None,
            "safe": self.safe,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePlan(OperationPlan):
    """All machines, and those with work in batches, in order. ``operation``: the id that markers on machines have."""

    event: ClassVar[str] = "os-update-plan"
    operation: str
    machines: tuple[MachinePlan, ...]
    batches: tuple[tuple[MachinePlan, ...], ...]
    warnings: tuple[str, ...] = ()
    forgotten: Mapping[str, str] = field(default_factory=dict)
    """Nodes that another operation left cordoned when it was killed, and which."""

    def __bool__(self) -> bool:
        return bool(self.batches or self.markers or self.forgotten)

    @property
    def resumed(self) -> tuple[str, ...]:
        return tuple(part.host.name for part in self.machines if part.resumed)

    @property
    def markers(self) -> tuple[str, ...]:
        """The machines with a marker of a reboot, which goes at the end."""
        return tuple(part.host.name for part in self.machines if part.machine.marker)

    @property
    def drains(self) -> tuple[Drain, ...]:
        return tuple(part.drain for part in self.machines if part.drain)

    def as_dict(self) -> dict[str, object]:
        return {
            "operation": self.operation,
            "machines": [part.as_dict() for part in self.machines],
            "markers": list(self.markers),
            "forgotten": dict(self.forgotten),
            "batches": [[part.host.name for part in batch] for batch in self.batches],
            "warnings": list(self.warnings),
        }


def reboot_of(mode: str, machine: Machine, *, ended: bool = False) -> tuple[str, str]:
    """Whether a machine is rebooted, and why. ``mode``: auto, always, never; ``ended``: all that its marker began has ended."""
    if mode == "never":
        return NO, "; ".join(("--reboot never", *machine.reboot))
    if ended or machine.rebooted:
        operation = machine.marker.operation if machine.marker else "before"
        return NO, f"rebooted already by os-update {operation}"
    if machine.reboot:
        return YES, "; ".join(machine.reboot)
    if mode == "always":
        return YES, "--reboot always"
    if machine.updates or machine.interrupted:
        return IF_REQUIRED, "if the updates ask for it"
    return NO, "nothing asks for it"


def in_batches(machines: Iterable[MachinePlan], at_once: int) -> tuple[tuple[MachinePlan, ...], ...]:
    """Those with work: control planes and etcd members one by one, then workers ``at_once``; what was begun comes first."""
    found: list[tuple[MachinePlan, ...]] = []
    some = [part for part in machines if part.work]
    for resumed in (True, False):
        found += [(part,) for part in some if part.alone and part.resumed is resumed]
        workers = [part for part in some if not part.alone and part.resumed is resumed]
        found += [tuple(workers[start : start + at_once]) for start in range(0, len(workers), at_once)]
    return tuple(found)


def safety(cluster: Cluster, host: Host, at_once: int) -> str:
    """Return why taking this host down is safe, or what it affects."""
    words = []
    if host.is_control_plane:
        others = len(cluster.control_planes) - 1
        words.append(f"{others} other API servers must be ready" if others else
                     "it is the only control plane: the API is away while it reboots, pods run on")
    if host.is_etcd:
        voters = len(cluster.etcd_members)
        members = f"{voters} member{'s' if voters > 1 else ''}"
        words.append(f"{voters - 1} other etcd members must answer, {voters // 2 + 1} are a majority" if voters > 2 else
                     f"etcd has {members} and no majority without it: the API waits while it reboots")
    if host.is_node:
        words.append("pods leave through the eviction API, which respects their budgets")
    if not (host.is_control_plane or host.is_etcd):
        words.append(f"at most {at_once} workers at once")
    return "; ".join(words)


def look(session: Session, *, mode: str, at_once: Unavailable | None, policy: DrainPolicy, patient: frozenset[str]) -> UpdatePlan:
    """Look once at every machine and at the API. Lists of packages are fetched; nothing else is changed.

    ``patient``: machines that may be rebooting. Raises Unreachable, Refused, InputError, Stopped.
    """
    hosts = session.chosen
    if session.pki_is_new:
        raise Refused("there is no cluster of this inventory yet", where=str(session.state.path), code="cluster.not-bootstrapped",
                      hint="clusterctl apply")
    machines = fleet.each(hosts, lambda host: _look(session, host, host.name in patient), limit=session.options.forks).or_raise()
    refuse_unfit(machines, session.pki.identity)
    api = session.ready_api()
    with or_refused("the cluster's nodes and pods cannot be read"):
        nodes = api.nodes()
        made = make_plan(session.cluster, hosts, machines, nodes, mode=mode, at_once=max_unavailable(session.cluster, at_once))
        drained = [part.host.name for part in made.machines if part.disrupted and part.host.is_node]
        drains = {found.node: found for found in drain.look(api, drained, policy)}
        budgets = api.look("/apis/policy/v1/poddisruptionbudgets")["items"]
    return with_drains(made, drains, drain.hopeless(drains.values(), budgets))


def _look(session: Session, host: Host, patient: bool) -> Machine:
    deadline, started = BOOT_SECONDS if patient else 0, time.monotonic()
    records = run_until_done(session, host, lambda: look_program(refresh=True), deadline=deadline, silence=LOOK_SECONDS)
    session.engine.events.emit(Observed(host.name, "packages", time.monotonic() - started))
    return read_machine(records)


def refuse_unfit(machines: Mapping[str, Machine], identity: str) -> None:
    """Raises Problems of Refused, for all machines that cannot be updated."""
    errors: list[ClusterctlError] = []
    for name, machine in machines.items():
        if machine.cluster != identity:
            what = "belongs to another cluster" if machine.cluster else "is not in the cluster yet"
            errors.append(Refused(what, where=name, code="host.other-cluster" if machine.cluster else "host.not-joined",
                                  hint="clusterctl plan"))
        errors += [Refused(text, where=name, code="os-update.unfit",
                           hint="fix that on the machine, then run this again") for text in machine.problems]
    raise_all(errors)


def make_plan(cluster: Cluster, hosts: Sequence[Host], machines: Mapping[str, Machine], nodes: Mapping[str, Object], *,
              mode: str, at_once: int) -> UpdatePlan:
    """The plan, from what machines and the API said; the drains are still missing."""
    for host in hosts:
        if host.is_node and host.name not in nodes:
            raise InputError(f"the cluster has no node {host.name!r}", where=host.name, code="node.unknown",
                             hint="clusterctl apply")
    markers = [machine.marker for machine in machines.values() if machine.marker]
    ended = any(marker.ended for marker in markers)
    parts = []
    for host in hosts:
        machine = machines[host.name]
        reboot, why = reboot_of(mode, machine, ended=ended)
        if host.ssh.local and reboot != NO:
            reboot, why = NO, "clusterctl runs on it: reboot it by hand"
        resumed = host.is_node and drain.cordoned_for(nodes[host.name]) == OPERATION
        parts.append(MachinePlan(host=host, machine=machine, reboot=reboot, why=why, resumed=resumed,
                                 safe=safety(cluster, host, at_once)))
    new = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
    operation = max((marker.operation for marker in markers), default=new)
    warnings = tuple(f"{name}: {text}" for name, machine in machines.items() for text in machine.warnings)
    made = UpdatePlan(operation=operation, machines=tuple(parts), batches=in_batches(parts, at_once), warnings=warnings)
    return replace(made, forgotten={
        name: found for name, node in nodes.items() if (found := drain.cordoned_for(node)) and name not in made.resumed})


def with_drains(plan: UpdatePlan, drains: Mapping[str, Drain], hopeless: Sequence[str]) -> UpdatePlan:
    """The plan with what leaves which node. ``hopeless``: pods whose budgets never let them go, as texts."""
    parts = {part.host.name: replace(part, drain=drains.get(part.host.name)) for part in plan.machines}
    return replace(
        plan,
        machines=tuple(parts.values()),
        batches=tuple(tuple(parts[part.host.name] for part in batch) for batch in plan.batches),
        warnings=(*plan.warnings, *(f"{text}: the run will stop there" for text in hopeless)),
    )
