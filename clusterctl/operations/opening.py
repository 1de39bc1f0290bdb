"""What people gave, and the way to the machines that it names: loaded before all the rest, which takes as long as to connect."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from clusterctl import fleet
from clusterctl.errors import InputError, Locked
from clusterctl.inventory import load
from clusterctl.look import Look, look
from clusterctl.model import Cluster, Host
from clusterctl.operations.lock import OperatorLock
from clusterctl.operations.recall import Kept, recall
from clusterctl.storage import StateFolder
from clusterctl.transport import Transport


@dataclass(frozen=True, kw_only=True)
class Options:
    """What people gave on the command line. ``forks``: machines at a time."""

    inventory: Path
    state: Path | None = None
    forks: int = 20
    limit: tuple[str, ...] = ()
    sudo_password: Callable[[], str | None] = lambda: None
    passphrase: Callable[[], str | None] = lambda: None

    def chosen(self, cluster: Cluster) -> tuple[Host, ...]:
        """The hosts that ``--limit`` leaves."""
        return tuple(host for host in cluster.hosts if not self.limit or host.name in self.limit)


@dataclass(frozen=True)
class Begun:
    """A lock that is being taken while nobody waits for it yet. ``local``: this machine's own part of it."""

    local: ExitStack
    lock: OperatorLock
    taken: Future[None]


class Opening:
    """The cluster of an inventory, its state folder and a transport to each machine. Raises InputError; nothing is contacted."""

    def __init__(self, options: Options) -> None:
        self.cluster = load(options.inventory)
        known = {host.name for host in self.cluster.hosts}
        if unknown := [name for name in options.limit if name not in known]:
            raise InputError(f"the inventory has no host {unknown[0]!r}", where="--limit",
                             hint=f"it has {', '.join(host.name for host in self.cluster.hosts)}")
        self.options = options
        self.state = StateFolder.of(self.cluster.base, self.cluster.name, options.state)
        self.transports = {
            host.name: Transport(host, known_hosts=self.state.path / "known_hosts", sudo_password=options.sudo_password,
                                 passphrase=options.passphrase)
            for host in self.cluster.hosts}
        self.connecting: dict[str, Future[None]] = {}
        self.looking: dict[str, Future[Look]] = {}
        self._begun: Begun | None = None

    @cached_property
    def kept(self) -> dict[str, Kept]:
        """What machines said and what was looked at the last time, by host."""
        return recall(self.state)

    def connect(self) -> None:
        """Begin to connect to the chosen machines; a session waits for it, and says who cannot be reached."""
        hosts = self.options.chosen(self.cluster)
        self.connecting = fleet.begin(hosts, lambda host: self.transports[host.name].connect(), limit=self.options.forks)

    def look(self, operation: str = "", *, verify: bool = False) -> None:
        """Begin to connect, and to look at what was looked at the last time; where ``operation`` is named, once its lock is held.

        Where nothing is kept, and where another operator of this machine is found, it connects alone.
        """
        self.connect()
        hosts = [host for host in self.options.chosen(self.cluster) if host.name in self.kept and self.kept[host.name].probes]
        if not hosts or (operation and not self._begin(operation)):
            return
        connecting, begun = dict(self.connecting), self._begun

        def ask(host: Host) -> Look:
            connecting[host.name].result()
            if begun is not None:
                begun.taken.result()
            return look(self.transports[host.name], self.kept[host.name].probes, verify=verify)

        self.looking = fleet.begin(hosts, ask, limit=self.options.forks)

    def _begin(self, operation: str) -> bool:
        """Begin to take the lock; False where somebody else here has it: who asks for it next says so."""
        local = ExitStack()
        try:
            local.enter_context(self.state.locked(operation))
        except Locked:
            return False
        lock = OperatorLock(self.transports)
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lock")
        self._begun = Begun(local, lock, pool.submit(lock.take, self.cluster.control_planes, operation))
        pool.shutdown(wait=False)
        return True

    def adopt(self) -> Begun | None:
        """The lock that is being taken; whoever adopts it releases it."""
        begun, self._begun = self._begun, None
        return begun

    def close(self) -> None:
        """Release a lock that nobody adopted."""
        if begun := self.adopt():
            begun.lock.release()
            begun.local.close()
