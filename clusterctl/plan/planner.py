"""From desired and observed state to a plan: the object that is printed, compared and executed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from clusterctl.cluster.model import Host
from clusterctl.components.base import Component, Context
from clusterctl.resources.additions import AddedFile, Command
from clusterctl.resources.base import Change, Resource, State
from clusterctl.resources.file import File
from clusterctl.resources.service import Service
from clusterctl.shell import Observation, Probe


@dataclass(frozen=True, slots=True)
class Parallel:
    """All hosts at once, as many as there are forks."""

    def batches(self, hosts: Sequence[Host], disruptive: frozenset[str]) -> Iterator[Sequence[Host]]:
        if hosts:
            yield hosts


@dataclass(frozen=True, slots=True)
class Rolling:
    """Hosts where something that runs is interrupted go ``max_unavailable`` at a time; the others first and together.

    Control planes and etcd members are interrupted one at a time, and before the workers, whatever ``max_unavailable`` says.
    """

    max_unavailable: int = 1

    def batches(self, hosts: Sequence[Host], disruptive: frozenset[str]) -> Iterator[Sequence[Host]]:
        quiet = [host for host in hosts if host.name not in disruptive]
        if quiet:
            yield quiet
        rest = [host for host in hosts if host.name in disruptive]
        yield from ([host] for host in rest if host.is_control_plane or host.is_etcd)
        workers = [host for host in rest if not (host.is_control_plane or host.is_etcd)]
        for start in range(0, len(workers), self.max_unavailable):
            yield workers[start : start + self.max_unavailable]


@dataclass(frozen=True, slots=True)
class OneByOne:
    """One host after the other, whatever is done to it; first those where nothing that runs is interrupted.

    They may be the ones that the others must wait for.
    """

    def batches(self, hosts: Sequence[Host], disruptive: frozenset[str]) -> Iterator[Sequence[Host]]:
        for host in sorted(hosts, key=lambda host: host.name in disruptive):
            yield [host]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Components that are put in place together. ``strategy``: how many hosts at a time.

    ``together``: the services of all of them come last and, where they start for the first time, all at once.
    """

    name: str
    components: tuple[Component, ...]
    strategy: Parallel | Rolling | OneByOne = field(default_factory=Parallel)
    together: bool = False


@dataclass(frozen=True, slots=True)
class HostChanges:
    """One host's part of a stage: the changes, and all resources of the stage, to look again after a cut.

    ``restarts_later``: the units that later stages restart, whose inputs this stage may change.
    """

    host: Host
    changes: tuple[Change, ...]
    resources: tuple[Resource, ...]
    restarts_later: tuple[str, ...] = ()

    @property
    def disruptive(self) -> bool:
        return any(change.disruptive for change in self.changes)


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The changes of a stage by host, in the inventory's order; hosts without changes are left out."""

    stage: Stage
    hosts: tuple[HostChanges, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be done, in order."""

    stages: tuple[StagePlan, ...]

    def __bool__(self) -> bool:
        return any(stage.hosts for stage in self.stages)

    @property
    def changes(self) -> Iterator[tuple[str, Host, Change]]:
        """(stage, host, change), in the order of execution."""
        for stage in self.stages:
            for part in stage.hosts:
                for change in part.changes:
                    yield stage.stage.name, part.host, change

    def as_dict(self, differences: Mapping[tuple[str, str], str] | None = None) -> dict[str, object]:
        """For ``-o json``. ``differences``: what changes within resources, by (host, id)."""
        texts = differences or {}
        return {"changes": [
            {"stage": stage, "host": host.name, **change.as_dict(),
             **({"diff": texts[host.name, change.resource.id]} if (host.name, change.resource.id) in texts else {})}
            for stage, host, change in self.changes]}

    def limited(self, names: frozenset[str]) -> Plan:
        """Only what concerns these hosts."""
        return Plan(tuple(
            StagePlan(stage.stage, tuple(part for part in stage.hosts if part.host.name in names)) for stage in self.stages))


class OperationPlan(Protocol):
    """The plan of an operation. It is printed as ``event``, and the same object is carried out; false: nothing to do."""

    event: ClassVar[str] = "plan"

    def as_dict(self) -> dict[str, object]: ...


Known = dict[str, tuple[State | None, Change | None, Resource]]
"""The observed state, the change and the resource, by the resource's id."""


def resources_for(stages: Sequence[Stage], context: Context) -> dict[str, tuple[Resource, ...]]:
    """One host's resources by stage. Raises ValueError for two resources of one id."""
    found: dict[str, tuple[Resource, ...]] = {}
    ids: set[str] = set()
    for stage in stages:
        components = [component for component in stage.components if component.on(context.host)]
        resources = tuple(resource for component in components for resource in component.resources(context))
        resources = tuple(
            dataclasses.replace(resource, limit=max(context.cluster.settings.timeouts.start, resource.deadline))
            if isinstance(resource, Service) else resource for resource in resources)
        if stage.together:
            resources = tuple(sorted(resources, key=_order))
        for resource in resources:
            if resource.id in ids:
                raise ValueError(f"{resource.id} is wanted twice on {context.host.name}")
            ids.add(resource.id)
        found[stage.name] = resources
    return _with_restarts(found)


def _order(resource: Resource) -> int:
    """Return where a resource comes in a stage whose services come together, after the rest of it."""
    if isinstance(resource, Command):
        return 2 if resource.hook.after else -1
    return int(isinstance(resource, Service))


def _with_restarts(found: Mapping[str, tuple[Resource, ...]]) -> dict[str, tuple[Resource, ...]]:
    """Return the same with the files of the inventory among the inputs of the services that they restart."""
    files: dict[str, tuple[str, ...]] = {}
    for resource in (one for resources in found.values() for one in resources):
        if isinstance(resource, AddedFile) and resource.restarts:
            files[resource.restarts] = (*files.get(resource.restarts, ()), resource.id)
    return {stage: tuple(
        dataclasses.replace(one, inputs=(*one.inputs, *files[one.unit])) if type(one) is Service and one.unit in files else one
        for one in resources) for stage, resources in found.items()}


def probes(resources: Iterable[Resource]) -> tuple[Probe, ...]:
    """Return the probes of all these resources, each once."""
    return tuple(dict.fromkeys(probe for resource in resources for probe in resource.probes()))


def compare(resources: Sequence[Resource], seen: Observation, known: Known) -> tuple[Change, ...]:
    """The changes that make one host's resources as wanted, in order.

    ``known`` gathers (state, change, resource) by id over the stages, so that a service finds its inputs in earlier ones.
    """
    changes = []
    for resource in resources:
        state = resource.observed(seen)
        if isinstance(resource, Service):
            resource = dataclasses.replace(resource, stamp=resource.stamp or stamp(resource, known))
            changed = [name for name in resource.inputs if name in known and _matters(known[name][1])]
            change = resource.diff(state, changed, _written(resource, known, seen))
        else:
            change = resource.diff(state)
        known[resource.id] = (state, change, resource)
        if change is not None:
            changes.append(change)
    return tuple(changes)


def _written(service: Service, known: Known, seen: Observation) -> Mapping[str, int]:
    """When the files that a service reads at its start were last written, by id, in seconds of the epoch."""
    files = (known[name][2] for name in service.inputs if name in known)
    looks = {file.id: seen.get("stat", file.path) for file in files if type(file) is File}
    return {name: int(words[3]) for name, words in looks.items() if words and len(words) > 3 and words[3].isdigit()}


def _matters(change: Change | None) -> bool:
    """Mode and owner changes, and a reinstalled identical binary, do not restart the service."""
    if change is None or change.action != "update":
        return change is not None
    if change.fields == ("files",):
        return change.before["files"].startswith("modified ")
    return not set(change.fields) <= {"mode", "owner", "certificate_mode", "key_mode"}


def restarts(changes: Iterable[Change]) -> tuple[str, ...]:
    """The units that these changes restart although their stamps say that all is well: something was changed under them.

    All other restarts are seen from the stamp, however early a run ends.
    """
    restarts = (change.resource for change in changes
                if change.action == "restart" and change.before.get("stamp") == change.after.get("stamp"))
    return tuple(resource.unit for resource in restarts if isinstance(resource, Service))


def stamp(service: Service, known: Known) -> str:
    """Return the digest of all inputs of a service, as they will be. Raises KeyError for an undeclared input."""
    digest = hashlib.sha256(repr((service.unit, service.ready)).encode())
    for name in service.inputs:
        state, change, resource = known[name]
        digest.update(f"{name}={resource.digest(state, change)}\n".encode())
    return digest.hexdigest()


def plan_host(stages: Sequence[Stage], host: Host, resources: Mapping[str, tuple[Resource, ...]],
            seen: Observation) -> dict[str, HostChanges]:
    """One host's part of each stage that changes something on it, from its resources by stage and what was seen of them."""
    known: Known = {}
    changes = {stage.name: compare(resources[stage.name], seen, known) for stage in stages}
    found: dict[str, HostChanges] = {}
    restarts_later: tuple[str, ...] = ()
    for stage in reversed(stages):
        if changes[stage.name]:
            filled = tuple(known[resource.id][2] for resource in resources[stage.name])
            found[stage.name] = HostChanges(host, changes[stage.name], filled, restarts_later)
        restarts_later = (*restarts(changes[stage.name]), *restarts_later)
    return found


def make_plan(stages: Sequence[Stage], hosts: Sequence[Host], resources: Mapping[str, Mapping[str, tuple[Resource, ...]]],
         seen: Mapping[str, Observation]) -> Plan:
    """The plan for hosts."""
    parts = [plan_host(stages, host, resources[host.name], seen[host.name]) for host in hosts]
    return Plan(tuple(StagePlan(stage, tuple(part[stage.name] for part in parts if stage.name in part)) for stage in stages))
