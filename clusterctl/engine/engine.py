"""Looks at machines and carries plans out: one program per host and stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from clusterctl.cluster.model import Host
from clusterctl.components.products import FOOTPRINT
from clusterctl.engine import fleet
from clusterctl.engine.events import Changed, Events, Failed, Observed
from clusterctl.engine.fleet import HostResults
from clusterctl.engine.observe import Look, look
from clusterctl.errors import AccessRefused, ClusterctlError, Refused, Stopped, Unreachable
from clusterctl.plan import planner
from clusterctl.plan.planner import HostChanges, Plan, StagePlan
from clusterctl.resources.base import Change, Resource
from clusterctl.resources.service import Service
from clusterctl.shell import Blob, Call, Observation, Probe, Script, functions, step_result
from clusterctl.shell.facts import Facts
from clusterctl.ssh.transport import ConnectionLost, Transport

RECONNECTS = 3
BOOT_SECONDS = 180.0
"""How long a machine that went away may take to come back, in seconds."""


Probes = Mapping[str, Sequence[Probe]]
"""Probes to run beside the facts, by host."""
NOTHING: Probes = MappingProxyType({})
UNSEEN: Mapping[str, Look] = MappingProxyType({})

STEP_CODES = ("etcd.not-added", "etcd.member-exists")
"""Codes of errors that shell functions print in front of the cause."""

Gate = Callable[[StagePlan, Sequence[Host]], None]
"""Runs before or after a batch of a stage; raises to stop."""


def _nothing(stage: StagePlan, hosts: Sequence[Host]) -> None:
    return None


@dataclass(frozen=True)
class Gates:
    """Checks before and after each batch of a stage, by stage name."""

    before: Mapping[str, Gate] = field(default_factory=dict)
    after: Mapping[str, Gate] = field(default_factory=dict)
    failed: Mapping[str, Gate] = field(default_factory=dict)
    """Run when a batch failed, before the run stops."""


class Engine:
    """Runs programs on hosts and executes plans. ``forks``: the number of hosts at a time."""

    def __init__(self, transports: Mapping[str, Transport], *, forks: int, events: Events) -> None:
        self.transports = transports
        self.forks = forks
        self.events = events
        self.check_lock: Callable[[], None] = lambda: None
        """Called before each batch and after each broken connection; raises where nothing more may be done."""
        self.retake: Callable[[Host], None] = lambda host: None

    def look(self, hosts: Sequence[Host], probes: Probes = NOTHING, *, verify: bool = False) -> HostResults[Look]:
        """Observe hosts: their facts and ``probes``, in one round trip each. ``verify``: hash all installed programs."""

        def ask(host: Host) -> Look:
            found = look(self.transports[host.name], probes.get(host.name, ()), verify=verify)
            self.events.emit(Observed(host.name, "facts", found.seconds))
            return found

        return fleet.each(hosts, ask, limit=self.forks)

    def facts(self, hosts: Sequence[Host]) -> HostResults[Facts]:
        """Return the facts of hosts, by one round trip each."""
        looks = self.look(hosts)
        return HostResults({name: found.facts for name, found in looks.results.items()}, looks.errors)

    def observe(self, hosts: Sequence[Host], resources: Mapping[str, Mapping[str, tuple[Resource, ...]]], *, verify: bool = False,
                looks: Mapping[str, Look] = UNSEEN) -> HostResults[Observation]:
        """Observe all resources of hosts: one round trip to each host of which ``looks`` does not have all of them."""
        everything = {host.name: [one for stage in resources[host.name].values() for one in stage] for host in hosts}

        def ask(host: Host) -> Observation:
            started = time.monotonic()
            seen = self._look(host, everything[host.name], verify=verify)
            self.events.emit(Observed(host.name, f"{len(everything[host.name])} resources", time.monotonic() - started))
            return seen

        seen = {name: found.seen for name, found in looks.items()
                if name in everything and found.probes.issuperset(planner.probes(everything[name]))}
        rest = fleet.each([host for host in hosts if host.name not in seen], ask, limit=self.forks)
        return HostResults({**seen, **rest.results}, rest.errors)

    def _look(self, host: Host, resources: Sequence[Resource], *, verify: bool = False) -> Observation:
        seen = Observation()
        try:
            program = Script(probes=planner.probes(resources), verify=verify, footprint=FOOTPRINT)
            for words in self.transports[host.name].stream(program):
                seen.add(words[0], words[1:])
        except ConnectionLost as error:
            raise error.unreachable(host) from None
        return seen

    def run(self, host: Host, steps: Sequence[Call], *, silence: float = 300, more: str = "",
            blobs: Mapping[str, Blob] = MappingProxyType({})) -> list[list[str]]:
        """Run calls of the prelude on one host; the records that they print. Raises Stopped where one fails.

        ``silence``: seconds; ``more``: functions beside the prelude's; ``blobs``: files that are sent with it.
        """
        try:
            program = Script(steps=steps, functions=more, blobs=blobs)
            records = list(self.transports[host.name].stream(program, silence=silence))
        except ConnectionLost as error:
            raise error.stopped(host) from None
        for words in records:
            if words[0] == "failed":
                result = step_result(words)
                raise step_failed(result.output or f"exit code {result.code}", f"{host.name}: {steps[result.index][0]}")
        return records

    def execute(self, plan: Plan, gates: Gates) -> None:
        """Carry a plan out, stage by stage. Raises Stopped; a host that failed takes no further step."""
        for stage in plan.stages:
            if not stage.hosts:
                continue
            with self.events.stage(stage.stage.name, [part.host.name for part in stage.hosts]):
                self._execute_stage(stage, gates)

    def _execute_stage(self, stage: StagePlan, gates: Gates) -> None:
        disruptive = frozenset(part.host.name for part in stage.hosts if part.disruptive)
        parts = {part.host.name: part for part in stage.hosts}
        for batch in stage.stage.strategy.batches([part.host for part in stage.hosts], disruptive):
            self.check_lock()
            try:
                self._pass(stage, batch, [parts[host.name] for host in batch], gates)
            except ClusterctlError:
                gates.failed.get(stage.stage.name, _nothing)(stage, batch)
                raise

    def _pass(self, stage: StagePlan, batch: Sequence[Host], parts: Sequence[HostChanges], gates: Gates) -> None:
        """One batch between its gates. Machines that are not well afterwards go back to what they were."""
        name = stage.stage.name
        gates.before.get(name, _nothing)(stage, batch)
        # What comes before may take minutes: drains, others that are not well yet.
        self.check_lock()
        self._batch(name, parts)
        try:
            gates.after.get(name, _nothing)(stage, batch)
        except ClusterctlError as error:
            disrupted = [part.host for part in parts if part.disruptive]
            outcome = fleet.each(disrupted, self._roll_back, limit=self.forks)
            for host in disrupted:
                failed = outcome.errors.get(host.name)
                self.events.note(f"{host.name}: {failed.message if failed else 'what was there before runs again'}")
            if disrupted and not outcome.errors:
                names = ", ".join(host.name for host in disrupted)
                raise Stopped(f"{error.message}\n{names}: what was there before runs again", where=error.where,
                              hint=error.hint, code=error.code) from None
            raise

    def _roll_back(self, host: Host) -> None:
        self.run(host, [("roll_back", "60")], more=functions("rollback"))

    def _batch(self, stage: str, parts: Sequence[HostChanges]) -> None:
        by_name = {part.host.name: part for part in parts}
        hosts = [part.host for part in parts]
        fleet.each(hosts, lambda host: self._carry_out(stage, by_name[host.name]), limit=self.forks).or_raise()

    def _carry_out(self, stage: str, part: HostChanges) -> None:
        changes: Sequence[Change] = part.changes
        for attempt in range(RECONNECTS + 1):
            try:
                self._program(stage, part.host, changes, (*planner.restarts(changes), *part.restarts_later))
                return
            except Refused as error:
                raise Stopped(error.message, where=f"{part.host.name}: stage {stage}", hint=error.hint, code=error.code) from None
            except ConnectionLost as error:
                if attempt == RECONNECTS:
                    raise Stopped(f"the connection broke {attempt + 1} times: {error}", where=f"{part.host.name}: stage {stage}",
                                  hint="run the same command again to continue", code="run.connection-broken") from None
                self.events.note(f"{part.host.name}: the connection broke ({error}); asking what was done")
                seen = self._return(part.host, part.resources)
                self.check_lock()
                changes = planner.compare(part.resources, seen, {})
                if not changes:
                    return

    def _return(self, host: Host, resources: Sequence[Resource]) -> Observation:
        """Look again at a machine whose connection broke; its lock makes us wait until a program that runs on has ended."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            try:
                return self._look(host, resources)
            except AccessRefused as error:
                raise Stopped(error.message, where=error.where, hint=error.hint, code=error.code) from None
            except Unreachable as error:
                if time.monotonic() >= deadline:
                    raise Stopped(f"did not come back within {BOOT_SECONDS:.0f} s; last seen: {error.message}", where=host.name,
                                  hint="run the same command again to continue", code="run.host-silent") from None
                time.sleep(0.5)

    def _program(self, stage: str, host: Host, changes: Sequence[Change], units_to_restamp: Sequence[str]) -> None:
        program, owners = compile_program(changes, units_to_restamp)
        seen = Observation()
        started = time.monotonic()
        failure: tuple[Change, str] | None = None
        for words in self.transports[host.name].stream(program):
            if words[0] == "back" and failure:
                failure = (failure[0], f"{failure[1]}\n{_said_of_return(words)}")
            elif words[0] == "failed":
                result = step_result(words)
                failure = (owners[result.index], result.output or f"exit code {result.code}")
            elif words[0] == "ok":
                index, now = int(words[1]), time.monotonic()
                if index + 1 == len(owners) or owners[index + 1] is not owners[index]:
                    self.events.emit(_changed(stage, host, owners[index], now - started))
                started = now
            else:
                seen.add(words[0], words[1:])
        if failure:
            self.events.emit(_failure(stage, host, *failure))
            raise _failed(stage, host, *failure)
        self._verify(stage, host, changes, seen)

    def _verify(self, stage: str, host: Host, changes: Sequence[Change], seen: Observation) -> None:
        for change in changes:
            resource = change.resource
            left = resource.diff(resource.observed(seen))
            if left is not None:
                what = f"did not converge: still {left.reason}"
                self.events.emit(_failure(stage, host, change, what))
                raise _failed(stage, host, change, what)


def _changed(stage: str, host: Host, change: Change, seconds: float) -> Changed:
    return Changed(stage, host.name, change.resource.id, change.action, change.reason, seconds)


def _failure(stage: str, host: Host, change: Change, message: str) -> Failed:
    return Failed(stage, host.name, change.resource.id, change.action, message)


def compile_program(changes: Sequence[Change], units_to_restamp: Sequence[str]) -> tuple[Script, list[Change]]:
    """Return the program that carries changes out and observes them again, and for each of its steps the change it belongs to.

    ``units_to_restamp``: the units whose stamps are deleted before the first change: where the program ends early, the next plan
    restarts them.
    """
    saving = _save_previous(changes, units_to_restamp)
    steps: list[Call] = [*saving, *([("forget_stamps", *units_to_restamp)] if units_to_restamp else [])]
    owners: list[Change] = [*changes[:1]] * len(steps)
    blobs: dict[str, Blob] = {}
    together = _start_together(changes)
    for place, change in enumerate(changes):
        calls = list(change.resource.apply(change))
        number = place - (len(changes) - len(together))
        if number >= 0:
            begin: list[Call] = [("begin_services", *(service.unit for service in together))] if number == 0 else []
            calls = [*begin, together[number].put("await")]
        steps += calls
        owners += [change] * len(calls)
        blobs |= change.resource.payload(change)
    if saving:
        steps.append(("forget_previous",))
        owners.append(changes[-1])
    seen = planner.probes([change.resource for change in changes])
    more = functions("rollback") if saving else ""
    return Script(steps=steps, blobs=blobs, probes=seen, functions=more, footprint=FOOTPRINT), owners


def _save_previous(changes: Sequence[Change], units_to_restamp: Sequence[str]) -> list[Call]:
    """The call that keeps what is there, where something that runs is about to be interrupted."""
    running = [change.resource for change in changes if change.action == "restart"]
    units = [" ".join((resource.unit, *resource.ready)) for resource in running if type(resource) is Service]
    paths = (path for change in changes for path in change.resource.paths())
    stamps = (f"/var/lib/clusterctl/stamps/{unit}" for unit in units_to_restamp)
    return [("save_previous", "\n".join(units), *dict.fromkeys((*paths, *stamps)))] if units else []


def _said_of_return(words: Sequence[str]) -> str:
    result = step_result(["failed", "0", *words[1:]])
    if result.code == 0:
        return "what was there before runs again"
    return f"what was there before could not be put back: {result.output}"


def _start_together(changes: Sequence[Change]) -> Sequence[Service]:
    """The services that start in the last changes: they may start all at once. Empty where there are not two of them."""
    found: list[Service] = []
    for change in reversed(changes):
        if type(change.resource) is not Service or change.action != "start":
            break
        found.insert(0, change.resource)
    return found if len(found) > 1 else []


def _failed(stage: str, host: Host, change: Change, message: str) -> Stopped:
    unit = getattr(change.resource, "unit", None)
    look = f"on {host.name}: journalctl -u {unit}; then run" if unit else "fix the cause, then run"
    where = f"{host.name}: stage {stage}: {change.resource.id}"
    return step_failed(message, where, f"{look} the same command again to continue")


def step_failed(message: str, where: str, hint: str = "") -> Stopped:
    """Return the error of a step that failed. ``message``: its output, which may have a code in front of the cause."""
    for code in STEP_CODES:
        if f"{code}: " in message:
            return Stopped(message.replace(f"{code}: ", ""), where=where, hint=hint, code=code)
    return Stopped(message, where=where, hint=hint, code="run.step-failed")
