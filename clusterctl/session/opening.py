"""Options of a run, and the connections that begin at once: to load the rest of the program takes as long as to connect.

Nothing heavy is loaded here before the first bytes are on their way.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from clusterctl.cluster.model import Cluster, Host
from clusterctl.engine import fleet
from clusterctl.errors import Locked
from clusterctl.inventory import read
from clusterctl.inventory.patterns import select
from clusterctl.local.storage import StateFolder
from clusterctl.ssh.sockets import is_straight, open_socket

if TYPE_CHECKING:
    from clusterctl.inventory.sources import Sources
    from clusterctl.kube.client import Api
    from clusterctl.pki import Pki
    from clusterctl.session.operator_lock import OperatorLock
    from clusterctl.ssh.login import Login
    from clusterctl.ssh.transport import Transport


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of the command line.

    ``forks``: machines at a time; ``limit``: host patterns, which an opening resolves to names; ``locked``: take no checksum
    from upstream; ``operation``: the verb.
    """

    inventory: Path | Sources
    state: Path | None = None
    forks: int = 20
    limit: tuple[str, ...] = ()
    locked: bool = False
    operation: str = ""
    sudo_password: Callable[[], str | None] = lambda: None
    passphrase: Callable[[], str | None] = lambda: None
    ssh_password: Callable[[], str | None] = lambda: None

    def chosen(self, cluster: Cluster) -> tuple[Host, ...]:
        """The hosts that ``--limit`` leaves."""
        return tuple(host for host in cluster.hosts if not self.limit or host.name in self.limit)


@dataclass(frozen=True)
class Begun:
    """A lock that is being taken in the background. ``local``: the part of it on this computer."""

    local: ExitStack
    lock: OperatorLock
    taken: Future[None]


class Opening:
    """The cluster of an inventory, its state folder and a transport to each machine. Raises InputError; nothing is contacted."""

    def __init__(self, options: Options) -> None:
        found = read(options.inventory)
        self.cluster, self.notes = found.cluster, found.notes
        self._sudo_passwords, self._ssh_passwords = found.sudo_passwords, found.ssh_passwords
        if options.limit:
            names = (host.name for host in select(self.cluster, ",".join(options.limit), "--limit"))
            options = replace(options, limit=tuple(names))
        self.options = options
        self.state = StateFolder.of(self.cluster.base, self.cluster.name, options.state)
        self._sockets: dict[str, Future[socket.socket]] = {}
        self.connecting: dict[str, Future[None]] = {}
        self._begun: Begun | None = None
        self.apis: dict[str, Api] = {}
        self._making = threading.Lock()

    @cached_property
    def pki(self) -> Pki | None:
        """The cluster's keys; None where it has none yet. Raises InputError, Refused."""
        from clusterctl.pki import Pki

        return Pki.load(self.state)

    def api(self, host: Host, pki: Pki) -> Api:
        """The API server of one control plane, through its SSH connection. Raises Unreachable."""
        from clusterctl.kube.client import Api

        forward = self.transports[host.name].forward("127.0.0.1", self.cluster.api_port)
        with self._making:
            found = self.apis.get(host.name)
            if found is None:
                certificate, key = pki.client_certificate("kubernetes")
                authority = pki.authorities["kubernetes"].pem
                found = self.apis[host.name] = Api(
                    forward.port, authority=authority, certificate=certificate, key=key, why_broken=lambda: forward.error)
            return found

    @cached_property
    def transports(self) -> dict[str, Transport]:
        """The way to each machine."""
        from clusterctl.ssh.transport import Transport

        options, login = self.options, self.login
        return {host.name: Transport(host, login=login, sudo_password=self._sudo_password(host.name), operation=options.operation,
                                     api_port=self.cluster.api_port, begun=self._sockets.pop(host.name, None))
                for host in self.cluster.hosts}

    def _sudo_password(self, name: str) -> Callable[[], str | None]:
        """The password that was given to this program, else the host's own in the inventory."""
        own = self._sudo_passwords.get(name)
        return lambda: self.options.sudo_password() or (own.reveal() if own else None)

    @cached_property
    def login(self) -> Login:
        """The login of this run, with one connection to each bastion for all machines behind it."""
        from clusterctl.ssh.login import Login

        return Login(self.state.path / "known_hosts", self.options.passphrase, self.options.ssh_password,
                     {name: secret.reveal for name, secret in self._ssh_passwords.items()})

    def connect(self, operation: str = "") -> None:
        """Begin to connect to the chosen machines and, where an operation is named, to take its lock.

        A session waits for it, and reports the hosts that cannot be reached.
        """
        hosts, forks = self.options.chosen(self.cluster), self.options.forks

        def open_straight(host: Host) -> socket.socket:
            return open_socket(host.ssh.address, host.ssh.port, host.ssh.connect_timeout, host.ssh.network_namespace)

        # Each sshd gets ready for us while the library that speaks with it is loaded.
        self._sockets = fleet.begin([host for host in hosts[:forks] if is_straight(host.ssh)], open_straight, limit=forks)
        transports = self.transports
        self.connecting = fleet.begin(hosts, lambda host: transports[host.name].connect(), limit=forks)
        if operation:
            self._begin(operation)

    def _begin(self, operation: str) -> None:
        """Begin to take the lock. Where another operation of this controller holds it, the session reports that."""
        from clusterctl.session.operator_lock import OperatorLock

        local = ExitStack()
        try:
            local.enter_context(self.state.locked(operation))
        except Locked:
            return
        lock = OperatorLock(self.transports)
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lock")
        self._begun = Begun(local, lock, pool.submit(lock.take, self.cluster.control_planes, operation))
        pool.shutdown(wait=False)

    def adopt(self) -> Begun | None:
        """Return the lock that is being taken. The caller releases it."""
        begun, self._begun = self._begun, None
        return begun

    def close(self) -> None:
        """Close connections, and release a lock that was not adopted."""
        # A thread that is not joined may be opening one still.
        while self.apis:
            self.apis.popitem()[1].close()
        if begun := self.adopt():
            begun.lock.release()
            begun.local.close()
