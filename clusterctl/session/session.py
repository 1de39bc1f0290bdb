"""A session: the cluster, its keys, the transports of its machines and an engine, from the options of a verb."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from clusterctl.artifacts.catalog import Catalog
from clusterctl.cluster.model import Cluster, Host
from clusterctl.cluster.target import Target
from clusterctl.engine import fleet
from clusterctl.engine.engine import NOTHING, Engine, Probes
from clusterctl.engine.events import Downloaded, Events
from clusterctl.engine.fleet import HostResults
from clusterctl.engine.observe import Look
from clusterctl.errors import Refused, Unreachable
from clusterctl.etcd.client import Etcd
from clusterctl.health import preflight
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import Api
from clusterctl.local.storage import StateFolder
from clusterctl.pki import Pki
from clusterctl.session.opening import Opening
from clusterctl.session.opening import Options as Options
from clusterctl.shell.facts import Facts


@dataclass(frozen=True)
class Session:
    """The connections of one run of a verb, and the target that it works for. ``close`` ends the connections."""

    target: Target
    state: StateFolder
    pki: Pki
    pki_is_new: bool
    open_catalog: Callable[[], Catalog]
    engine: Engine
    options: Options
    opening: Opening
    _etcds: dict[tuple[str, str], Etcd] = field(default_factory=dict)
    _current: list[Api] = field(default_factory=list)

    @property
    def catalog(self) -> Catalog:
        """The catalog of pinned files; a mirror is read at the first use. Raises InputError, Unreachable, IntegrityError."""
        return self.open_catalog()

    @property
    def chosen(self) -> tuple[Host, ...]:
        """The hosts that ``--limit`` leaves."""
        return self.target.chosen

    @property
    def cluster(self) -> Cluster:
        """The desired cluster."""
        return self.target.cluster

    def toward(self, target: Target) -> Session:
        """Return a session with the same connections for another target."""
        return replace(self, target=target)

    def at(self, cluster: Cluster) -> Session:
        """Return a session with the same connections for another cluster."""
        return self.toward(self.target.of(cluster))

    def reach(self, hosts: Sequence[Host]) -> HostResults[None]:
        """Connect to all hosts at the same time; return the error of each that cannot be reached."""
        begun = {host.name: self.opening.connecting.pop(host.name) for host in hosts if host.name in self.opening.connecting}
        rest = [host for host in hosts if host.name not in begun]
        begun |= fleet.begin(rest, lambda host: self.engine.transports[host.name].connect(), limit=self.options.forks)
        return fleet.collect(begun)

    def connect(self, hosts: Sequence[Host]) -> None:
        """Connect to all hosts. Raises Unreachable, AccessRefused, InputError for all of them together."""
        self.reach(hosts).or_raise()

    def connect_any(self, hosts: Sequence[Host]) -> None:
        """Connect to hosts of which one is enough. Raises Unreachable for all of them together where none can be reached."""
        reached = self.reach(hosts)
        if not reached.results:
            reached.or_raise()

    def look(self, hosts: Sequence[Host], probes: Probes = NOTHING, *, beside: Mapping[str, Facts] | None = None,
             verify: bool = False) -> tuple[Mapping[str, Look], list[str]]:
        """Observe hosts in one round trip each; return also the warnings. Raises Unreachable, Refused, for all of them together.

        ``beside``: facts of other hosts, which are checked together with theirs.
        """
        found = self.engine.look(hosts, probes, verify=verify).or_raise()
        facts = {**(beside or {}), **{name: one.facts for name, one in found.items()}}
        return found, preflight.check(self.cluster, facts, self.pki.identity)

    def api(self, host: Host) -> Api:
        """The API server of one control plane, through its SSH connection. Raises Unreachable."""
        return self.opening.api(host, self.pki)

    def etcd(self, host: Host, address: str = "127.0.0.1") -> Etcd:
        """One member's API. Raises Unreachable.

        The way there is the SSH connection of ``host``; ``address``: of another member, as it is reached from there.
        """
        found = self._etcds.get((host.name, address))
        if found is None:
            forward = self.engine.transports[host.name].forward(address, 2379)
            certificate, key = self.pki.client_certificate("etcd")
            authority = self.pki.authorities["etcd"].pem
            found = self._etcds[host.name, address] = Etcd(
                forward.port, authority=authority, certificate=certificate, key=key, why_broken=lambda: forward.error)
        return found

    def ready_api(self, *, deadline: float = 60.0) -> Api:
        """An API server that is ready: the one that was before, where it still is.

        Raises Stopped where none becomes so, and where nothing more may be done: this is what changes are made through.
        """
        self.engine.check_lock()
        if not self._current or not self._current[-1].ready():
            found: list[Api] = []

            def look() -> str:
                api = self.any_api()
                if api is None:
                    return "no API server answers /readyz"
                found.append(api)
                return ""

            wait_for(look, what="the API", deadline=deadline)
            self._current[:] = found[-1:]
        return self._current[-1]

    def any_api(self, among: Iterable[Host] | None = None) -> Api | None:
        """The first API server that is ready; None where none is."""
        asked = list(among if among is not None else self.cluster.control_planes)
        # A machine that is dead costs a time-out: those that we talk to already come first.
        for host in sorted(asked, key=lambda one: not self.engine.transports[one.name].connected):
            with contextlib.suppress(Unreachable):
                found = self.api(host)
                if found.ready():
                    return found
        return None

    def close(self) -> None:
        self.opening.close()
        # A thread that is not joined may be opening one still.
        while self._etcds:
            self._etcds.popitem()[1].close()
        for transport in self.engine.transports.values():
            transport.close()
        self.opening.login.close()


@contextlib.contextmanager
def session(options: Options, events: Events, opening: Opening | None = None) -> Iterator[Session]:
    """Load everything that a verb needs. Raises InputError; nothing is written, hosts are contacted by ``opening`` alone."""
    from clusterctl.artifacts.store import open_catalog
    from clusterctl.components.products import product_of

    def fetched(path: str, done: int, total: int | None) -> None:
        events.emit(Downloaded(path, done, total))

    way = opening or Opening(options)
    cluster, state = way.cluster, way.state
    pki = way.pki
    made = Session(
        target=Target(cluster=cluster, limit=way.options.limit),
        state=state,
        pki=pki or Pki.create(),
        pki_is_new=pki is None,
        open_catalog=cache(lambda: open_catalog(cluster.settings.artifacts, cluster.base, fetched, product_of=product_of)),
        engine=Engine(way.transports, forks=options.forks, events=events),
        options=way.options,
        opening=way,
    )
    try:
        yield made
    finally:
        made.close()


def refuse_without_keys(session: Session, marked: Iterable[str]) -> None:
    """Raise Refused where machines, ``marked``, carry a cluster whose keys are not here."""
    marked = sorted(marked)
    if session.pki_is_new and marked:
        raise Refused(
            "these machines belong to a cluster whose keys are not here",
            where=", ".join(marked),
            hint=f"restore {session.state.path} from its backup, or name it with --state",
            code="state.keys-missing",
        )
