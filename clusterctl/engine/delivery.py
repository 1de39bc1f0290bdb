"""How programs and images get to machines: fetched by the machines themselves, sent over SSH, or passed on by one of them.

It happens before anything is changed: a file that is missing or wrong ends the run, and nothing of it stays on any machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby

from clusterctl.artifacts.catalog import Artifact
from clusterctl.artifacts.download import digest
from clusterctl.artifacts.store import prefetch
from clusterctl.cluster.model import Host
from clusterctl.components.access import proxy_environment
from clusterctl.engine import fleet
from clusterctl.engine.events import Downloaded
from clusterctl.errors import ClusterctlError, IntegrityError, Problems, Stopped, Unreachable
from clusterctl.plan.planner import HostChanges, Plan, StagePlan
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import INCOMING, PARCEL, Binary, Image
from clusterctl.session.session import Session
from clusterctl.shell import Script, functions
from clusterctl.ssh.transport import ConnectionLost

RELAY_PORT = 8473
"""TCP, on the relay alone, while it serves."""
SILENCE = 90.0
"""Seconds without a record. A machine that fetches reports several times a second; the digest of a large file takes seconds."""

Brought = dict[str, str]
"""Files on a machine: the artifact's sha256 -> the file's name in INCOMING."""


@dataclass(frozen=True, slots=True)
class File:
    """A file that is brought to a machine. ``artifact``: what it is the file of, or the parcel of."""

    artifact: Artifact
    name: str
    sha256: str
    url: str

    @property
    def line(self) -> str:
        return f"{self.name} {self.sha256} {self.url}"


@dataclass(slots=True)
class Fetched:
    """The files that a machine fetched. ``failure``: why it stopped before the last one."""

    brought: Brought = field(default_factory=dict)
    failure: str = ""


def needed(plan: Plan) -> dict[str, dict[str, Artifact]]:
    """Return the artifacts that a plan installs: by host, then by sha256."""
    found: dict[str, dict[str, Artifact]] = {}
    for _, host, change in plan.changes:
        resource = change.resource
        if isinstance(resource, Binary | Image) and isinstance(resource.source, Artifact) and change.action != "remove":
            found.setdefault(host.name, {})[resource.source.sha256] = resource.source
    return found


def deliver(session: Session, plan: Plan) -> Plan:
    """Bring what a plan installs as far as can be before it begins, verified; return the plan that takes it from there.

    Raises:
        IntegrityError: a file does not match its pin. Unreachable: it cannot be fetched, or a machine cannot be reached.
    """
    wanted = needed(plan)
    if not wanted:
        return plan
    delivery = Delivery(session, wanted)
    try:
        brought = delivery.run()
    except ClusterctlError:
        delivery.drop()
        raise
    return Plan(tuple(
        StagePlan(stage.stage, tuple(_taken(part, brought.get(part.host.name, {})) for part in stage.hosts))
        for stage in plan.stages))


def _taken(part: HostChanges, brought: Brought) -> HostChanges:
    """A host's part of a stage, with programs and images from the files that are on the host."""

    def take(resource: Resource) -> Resource:
        if isinstance(resource, Binary | Image) and resource.source.sha256 in brought:
            assert isinstance(resource.source, Artifact)
            return replace(resource, source=replace(resource.source, at=f"{INCOMING}/{brought[resource.source.sha256]}"))
        return resource

    return replace(part, changes=tuple(replace(change, resource=take(change.resource)) for change in part.changes),
                   resources=tuple(take(resource) for resource in part.resources))


@dataclass
class Delivery:
    """Brings artifacts to hosts. ``wanted``: by host, then by sha256."""

    session: Session
    wanted: Mapping[str, Mapping[str, Artifact]]
    touched: set[str] = field(default_factory=set)
    """The hosts that may have files already."""

    @cached_property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(self.session.cluster.host(name) for name in self.wanted)

    @cached_property
    def relay(self) -> Host | None:
        """The host that passes files on; None where there is none, or no other host needs any."""
        name = self.session.cluster.settings.artifacts.relay
        return self.session.cluster.host(name) if name and set(self.wanted) - {name} else None

    @property
    def mode(self) -> str:
        return self.session.cluster.settings.artifacts.delivery

    def run(self) -> dict[str, Brought]:
        """Return the files that are on each host; all others have verified copies here, and are sent."""
        if self.relay is not None:
            return self._through(self.relay)
        found = self._pull({host.name: _fetchable(host, self.wanted[host.name].values()) for host in self.hosts})
        self._have_here(one for name, artifacts in self.wanted.items()
                        for one in artifacts.values() if one.sha256 not in found.get(name, {}))
        return found

    def _have_here(self, artifacts: Iterable[Artifact]) -> None:
        prefetch({artifact.sha256: artifact for artifact in artifacts}.values())

    def _pull(self, files: Mapping[str, Sequence[File]]) -> dict[str, Brought]:
        """Let hosts fetch files, as far as they can. Raises IntegrityError, Unreachable, Problems."""
        if self.mode == "push" or not any(files.values()):
            return {}
        hosts = [host for host in self.hosts if files.get(host.name)]
        found = fleet.each(hosts, lambda host: self._fetch(host, files[host.name]), limit=self.session.options.forks).or_raise()
        failures = {name: one.failure for name, one in found.items() if one.failure}
        if failures and self.mode == "pull":
            errors = [Unreachable(f"cannot fetch {why}", where=name, code="artifact.not-fetched",
                                  hint="let the machines reach it, or send the files: cluster.artifacts.delivery: auto")
                      for name, why in failures.items()]
            raise Problems(errors) if len(errors) > 1 else errors[0]
        self._report(failures, "files are sent over SSH")
        return {name: one.brought for name, one in found.items()}

    def _report(self, failures: Mapping[str, str], instead: str) -> None:
        for why, names in groupby(sorted(failures, key=lambda name: failures[name]), key=lambda name: failures[name]):
            self.session.engine.events.note(f"{', '.join(names)}: cannot fetch {why}; {instead}")

    def _fetch(self, host: Host, files: Sequence[File]) -> Fetched:
        """Let one host fetch files. Raises IntegrityError, Unreachable."""
        self.touched.add(host.name)
        by_name = {file.name: file for file in files}
        found = Fetched()
        # The machine may have another proxy's environment still.
        program = Script(probes=[("delivery", file.line) for file in files], functions=functions("delivery"),
                         blobs={"proxy": proxy_environment(self.session.cluster, host)})
        events = self.session.engine.events
        for kind, *words in self._stream(host, program):
            file = by_name.get(words[0]) if words else None
            if file is None:
                continue
            if kind == "arriving":
                events.emit(Downloaded(f"{host.name}: {file.artifact.path}", int(words[1]), file.artifact.size or None))
            elif kind == "brought":
                found.brought[file.artifact.sha256] = file.name
            elif kind == "altered":
                raise IntegrityError(f"{words[1]}: expected sha256 {file.sha256}, got {words[2]} ({words[3]} bytes)",
                                     where=host.name, code="artifact.mismatch",
                                     hint="does a proxy or a login page answer in place of the server? nothing was changed")
            elif kind == "unfetched":
                found.failure = f"{words[1]}: {words[2] if len(words) > 2 else 'no reason is known'}"
        return found

    def _stream(self, host: Host, program: Script) -> Iterator[list[str]]:
        try:
            yield from self.session.engine.transports[host.name].stream(program, silence=SILENCE)
        except ConnectionLost as error:
            raise error.unreachable(host) from None

    def _steps(self, host: Host, *steps: tuple[str, ...], parcels: Sequence[Artifact] = ()) -> None:
        """Run calls of delivery.sh on a host. Raises Unreachable with what the machine printed."""
        self.touched.add(host.name)
        blobs = {_parcel_name(one): one.parcel().path if one.is_packed else one.fetch() for one in parcels}
        try:
            self.session.engine.run(host, steps, more=functions("delivery"), blobs=blobs)
        except Stopped as error:
            raise Unreachable(error.message, where=error.where, code="artifact.relay-failed",
                              hint="change or remove cluster.artifacts.relay, then run the same command again") from None

    def _through(self, relay: Host) -> dict[str, Brought]:
        """Bring all files to the relay, and let the others fetch them there."""
        artifacts = {one.sha256: one for found in self.wanted.values() for one in found.values()}
        self.session.connect([relay])
        there = self._at_relay(relay, artifacts)
        others = [host for host in self.hosts if host is not relay]
        self._steps(relay, ("serve_incoming", str(relay.address), str(RELAY_PORT)))
        try:
            files = {host.name: [there[sha256] for sha256 in self.wanted[host.name]] for host in others}
            found = fleet.each(others, lambda host: self._fetch(host, files[host.name]),
                               limit=self.session.options.forks).or_raise()
        finally:
            self._steps(relay, ("stop_serving",), ("keep_incoming", f" {' '.join(self._names(relay, there))} "))
        failures = {name: one.failure for name, one in found.items() if one.failure}
        self._report(failures, "files are sent over SSH")
        self._have_here(one for name in failures for one in self.wanted[name].values() if one.sha256 not in found[name].brought)
        own_files = {sha256: there[sha256].name for sha256 in self.wanted.get(relay.name, {})}
        return {relay.name: own_files, **{name: one.brought for name, one in found.items()}}

    def _names(self, host: Host, there: Mapping[str, File]) -> list[str]:
        return [there[sha256].name for sha256 in self.wanted.get(host.name, {})]

    def _at_relay(self, relay: Host, artifacts: Mapping[str, Artifact]) -> dict[str, File]:
        """Bring files to the relay; return each as others fetch it there, by the artifact's sha256."""
        direct = _fetchable(relay, artifacts.values())
        found = Fetched()
        if self.mode != "push" and direct:
            found = self._fetch(relay, direct)
            if found.failure and self.mode == "pull":
                raise Unreachable(f"cannot fetch {found.failure}", where=relay.name, code="artifact.not-fetched",
                                  hint="let the relay reach it, or send the files to it: cluster.artifacts.delivery: auto")
            self._report({relay.name: found.failure} if found.failure else {}, "files are sent to it over SSH")
        rest = [one for sha256, one in artifacts.items() if sha256 not in found.brought]
        self._have_here(rest)
        base = f"http://{relay.address}:{RELAY_PORT}"
        files = {sha256: replace(own(relay, artifacts[sha256]), url=f"{base}/{sha256}") for sha256 in found.brought}
        for one in rest:
            name = _parcel_name(one)
            sha256 = digest(one.parcel().path) if one.is_packed else one.sha256
            self._steps(relay, ("store_incoming", name, sha256), parcels=[one])
            files[one.sha256] = File(one, name, sha256, f"{base}/{name}")
        return files

    def drop(self) -> None:
        """Remove what was brought, as far as machines can be reached."""
        program = Script(probes=[("drop", "all")], functions=functions("delivery"))
        hosts = [host for host in self.session.cluster.hosts if host.name in self.touched]
        fleet.each(hosts, lambda host: list(self._stream(host, program)), limit=self.session.options.forks)


def own(host: Host, artifact: Artifact) -> File:
    """An artifact as the host's mirror, the cluster's or upstream has it. Without a URL where only this machine has it."""
    mirror = host.settings.mirror
    url = f"{mirror.rstrip('/')}/{artifact.path}" if mirror else artifact.url or ""
    return File(artifact, artifact.sha256, artifact.sha256, url)


def _fetchable(host: Host, artifacts: Iterable[Artifact]) -> list[File]:
    return [file for file in (own(host, one) for one in artifacts) if file.url]


def _parcel_name(artifact: Artifact) -> str:
    """The name of what is sent of an artifact."""
    return f"{artifact.sha256}{PARCEL}" if artifact.is_packed else artifact.sha256
