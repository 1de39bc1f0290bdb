"""What people gave, and the way to the machines that it names: loaded before all the rest, which takes as long as to connect."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from clusterctl import fleet
from clusterctl.errors import InputError
from clusterctl.inventory import load
from clusterctl.model import Cluster, Host
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

    def connect(self) -> None:
        """Begin to connect to the chosen machines; a session waits for it, and says who cannot be reached."""
        hosts = self.options.chosen(self.cluster)
        self.connecting = fleet.begin(hosts, lambda host: self.transports[host.name].connect(), limit=self.options.forks)
