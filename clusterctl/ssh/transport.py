"""The only seam between the program and machines: SSH, with host keys checked and every wait bounded."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import fabric
import paramiko

from clusterctl.cluster.model import API_PORT, Host, Ssh
from clusterctl.errors import AccessRefused, ClusterctlError, Refused, Unreachable
from clusterctl.shell import BOOTSTRAP, Script
from clusterctl.ssh.conversation import SILENCE as SILENCE
from clusterctl.ssh.conversation import TOTAL, Conversation, Limits, operator
from clusterctl.ssh.conversation import ConnectionLost as ConnectionLost
from clusterctl.ssh.forward import Forward
from clusterctl.ssh.host_certificates import marked
from clusterctl.ssh.host_keys import HostKey as HostKey
from clusterctl.ssh.host_keys import fingerprint as fingerprint
from clusterctl.ssh.host_keys import prefers_certificate
from clusterctl.ssh.keys import refuse_unreadable
from clusterctl.ssh.local_channel import LocalChannel
from clusterctl.ssh.login import FORWARDING, PROHIBITED, Login, SshTransport, naming_the_cause
from clusterctl.ssh.sender import Statistics
from clusterctl.ssh.sockets import has_ended, hops
from clusterctl.ssh.ssh_config import Way, names_user, own_jump, resolve

logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class Transport:
    """One machine over SSH: the programs that run there and the ways into its network."""

    def __init__(self, host: Host, *, known_hosts: Path | None = None, sudo_password: Callable[[], str | None] = lambda: None,
                 passphrase: Callable[[], str | None] = lambda: None, begun: Future[socket.socket] | None = None,
                 login: Login | None = None, operation: str = "", api_port: int = API_PORT) -> None:
        """``begun``: a socket that is being opened straight to its sshd; ``login``: what it shares with other transports.

        ``operation``: the verb, for others that wait for its programs; ``api_port``: where a control plane's API server
        listens.
        """
        self.api_port = api_port
        self.host, self._begun, self._operation = host, begun, operation
        self.statistics = Statistics()
        self._sudo_password = sudo_password
        self._own_login = Login(known_hosts, passphrase) if login is None else None
        self._login = login or self._own_login or Login(known_hosts, passphrase)
        self._connection: fabric.Connection | None = None
        self._lock_connection: fabric.Connection | None = None
        self._held: paramiko.Channel | LocalChannel | None = None
        self._forwards: dict[tuple[str, int], Forward] = {}
        self._spare: dict[tuple[str, int], paramiko.Channel | socket.socket] = {}
        self._connecting = threading.RLock()
        self._forwarding = threading.Lock()
        self._refusal: AccessRefused | None = None
        self._failure: tuple[float, Unreachable] | None = None

    @cached_property
    def way(self) -> Way:
        """How the machine is reached, with what ssh_config adds. Raises InputError."""
        return resolve(self.host.ssh)

    @property
    def connected(self) -> bool:
        if self.host.ssh.local:
            return True
        return self._connection is not None and self._connection.is_connected and not has_ended(self._connection.transport.sock)

    def connect(self) -> None:
        """Connect and authenticate, once. Raises Unreachable, saying why, InputError; what was refused is not tried again.

        A thread that waited for the attempt of another one gets its outcome: a silent machine costs each run one timeout.
        """
        if self.host.ssh.local:
            return
        asked = time.monotonic()
        with self._connecting:
            if self._refusal is not None:
                raise self._refusal
            if self.connected:
                return
            if self._failure is not None and self._failure[0] >= asked:
                raise self._failure[1]
            self._drop()
            try:
                with self._remembering():
                    self._connection = self._open()
            except Unreachable as error:
                self._failure = time.monotonic(), error
                raise

    def _open(self) -> fabric.Connection:
        ssh = self.way.ssh
        refuse_unreadable(self.host.name, [self.host.ssh.private_key] if self.host.ssh.private_key else ())
        begun, self._begun = self._begun, None
        try:
            client = self._login.connect(self.host.name, self.way, self.host.ssh.host_key, begun)
        except Unreachable as error:
            if error.where.startswith("bastion"):
                raise type(error)(error.message, where=f"{self.host.name}, through {error.where}", hint=error.hint,
                                  code=error.code) from None
            raise
        config = fabric.Config(overrides={"load_ssh_configs": False, "timeouts": {"connect": ssh.connect_timeout}})
        connection = fabric.Connection(ssh.address, user=ssh.user, port=ssh.port, config=config)
        connection.client, connection.transport = client, client.get_transport()
        return connection

    def stream(self, program: Script, silence: float = SILENCE, total: float | None = None) -> Iterator[list[str]]:
        """Run a program; yield its records as they come. Raises Unreachable, or Cut where the outcome is unknown.

        Seconds: ``silence`` without a record, ``total`` for all of it.
        """
        self.connect()
        self.statistics.trips += 1
        try:
            channel = self._open_session()
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._drop()
            raise ConnectionLost(str(error) or type(error).__name__) from None
        limits = Limits(silence, max(TOTAL, 2 * silence) if total is None else total)
        try:
            with self._remembering():
                program = replace(program, holder=self._holder())
                yield from self._conversation(channel).run(BOOTSTRAP, program, limits, self.statistics)
        finally:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()

    def _holder(self) -> str:
        """Return what others report that wait for a program of this run."""
        return f"{operator()}, {self._operation or 'clusterctl'}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"

    def _open_session(self) -> paramiko.Channel | LocalChannel:
        """Open a session; where sshd refuses one more (MaxSessions), leave this connection to the lock and take another.

        A session that just ended may still count for a moment. Raises Unreachable, OSError, EOFError, SSHException.
        """
        if self.host.ssh.local:
            return LocalChannel()
        deadline = time.monotonic() + self.way.ssh.connect_timeout
        while True:
            self.connect()
            connection = self._connection
            assert connection is not None
            try:
                return connection.transport.open_session(timeout=self.way.ssh.connect_timeout)  # type: ignore[no-any-return]
            except paramiko.ChannelException:
                if self._leave_to_the_lock(connection):
                    continue
                if time.monotonic() >= deadline:
                    raise self._no_session() from None
                time.sleep(0.05)

    def _leave_to_the_lock(self, connection: fabric.Connection) -> bool:
        """Whether the lock's session was what keeps others off a connection, which is its own from now on."""
        with self._connecting:
            ours = connection is self._connection and self._lock_connection is None
            if ours and self._held is not None and not self._held.closed:
                self._lock_connection, self._connection = connection, None
                return True
            return False

    def _no_session(self) -> Unreachable:
        return Unreachable("sshd refuses another session on its connection (MaxSessions)", where=self.host.name,
                           hint="MaxSessions 10, which is the default, in its sshd_config", code="ssh.max-sessions")

    def _conversation(self, channel: paramiko.Channel | LocalChannel) -> Conversation:
        return Conversation(self.host, self.way.ssh, channel, sudo_password=self._sudo_password, drop=self._drop)

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Remember a refusal: it is raised again in place of another attempt."""
        try:
            yield
        except AccessRefused as error:
            self._refusal = error
            raise

    def _drop(self) -> None:
        """Forget a connection that is of no use any more, and end it. The lock's own goes on."""
        connection, self._connection = self._connection, None
        self._spare.clear()
        _close(connection)

    def forward(self, address: str, port: int) -> Forward:
        """Return a local port whose connections come out of this machine, to ``address``:``port``. Closed with the transport.

        It outlives the SSH connection: the next one carries what comes later. Raises Unreachable.
        """
        self.connect()

        def open_channel() -> paramiko.Channel | socket.socket:
            spare = self._spare.pop((address, port), None)
            if spare is not None and not (has_ended(spare) or getattr(spare, "eof_received", False)):
                return spare
            try:
                return self._direct(address, port)
            except ClusterctlError as error:
                raise OSError(error.message) from None
            except (EOFError, paramiko.SSHException) as error:
                raise OSError(str(error) or type(error).__name__) from None

        with self._forwarding:
            self._forwards[address, port] = found = self._forwards.get((address, port)) or Forward(open_channel)
            return found

    def _direct(self, address: str, port: int) -> paramiko.Channel | socket.socket:
        """Open a connection from the machine to an address. Raises Refused where sshd allows none, Unreachable, OSError."""
        if self.host.ssh.local:
            return socket.create_connection((address, port), self.host.ssh.connect_timeout)
        self.connect()
        assert self._connection is not None
        transport: paramiko.Transport = self._connection.transport
        try:
            return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=self.way.ssh.connect_timeout)
        except paramiko.ChannelException as error:
            if error.code == PROHIBITED:
                raise Refused("its sshd does not allow TCP forwarding, and the API and etcd are reached through it",
                              where=self.host.name, hint=FORWARDING, code="ssh.forwarding-disabled") from None
            raise OSError(f"{address}:{port} cannot be reached from {self.host.name}: {error.text}") from None

    def try_forwarding(self, port: int) -> Future[None]:
        """Begin to open a connection to a port of the machine itself; what becomes of it the result says: it raises Refused.

        The connection is kept for the first user of ``forward``. A port without a listener is no error.
        """
        tried: Future[None] = Future()

        def work() -> None:
            try:
                self._spare["127.0.0.1", port] = self._direct("127.0.0.1", port)
            except Refused as error:
                tried.set_exception(error)
                return
            except (OSError, EOFError, paramiko.SSHException, ClusterctlError):
                pass
            tried.set_result(None)

        threading.Thread(target=work, name="forward", daemon=True).start()
        return tried

    def open_session(self, command: str, greeting: str) -> Conversation:
        """Start a constant command whose standard input stays open, and send it one text; raises Unreachable.

        The command ends when the channel does, or the connection, or this process. Where sshd refuses one more session on the
        connection, it gets one of its own.
        """
        self.connect()
        try:
            held = self._conversation(self._session_to_hold())
            with self._remembering():
                held.start(command)
            try:
                held.channel.sendall(greeting.encode())
            except OSError:
                # A command that has ended, as a sudo that refuses, reads nothing: the caller gets the reason from its output.
                if not self.connected:
                    raise
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._drop()
            raise Unreachable(f"the connection broke: {error}", where=self.host.name, hint="run the same command again",
                              code="ssh.broken") from None
        self._held = held.channel
        return held

    def _session_to_hold(self) -> paramiko.Channel | LocalChannel:
        if self.host.ssh.local:
            return LocalChannel()
        assert self._connection is not None
        timeout = self.way.ssh.connect_timeout
        try:
            return self._connection.transport.open_session(timeout=timeout)  # type: ignore[no-any-return]
        except paramiko.ChannelException:
            own = self._open()
        with self._connecting:
            before, self._lock_connection = self._lock_connection, own
        _close(before)
        try:
            return own.transport.open_session(timeout=timeout)  # type: ignore[no-any-return]
        except paramiko.ChannelException:
            raise self._no_session() from None

    def close(self) -> None:
        # A thread that is not joined may be opening one still.
        while self._forwards:
            self._forwards.popitem()[1].close()
        self._drop()
        held, self._lock_connection = self._lock_connection, None
        _close(held)
        if self._own_login is not None:
            self._own_login.close()


def _close(connection: fabric.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            connection.close()


def bastions(host: Host) -> Iterator[Host]:
    """Yield the machines on the way to a host, each named as its ProxyJump names it, so that its key can be asked for."""
    jumps = own_jump(host.ssh)
    before: list[str] = []
    for jump, bastion in zip((jumps or "").split(","), hops(jumps) if jumps else (), strict=False):
        way = resolve(host.ssh).before
        named = {name: getattr(bastion, name) for name in bastion.model_fields_set}
        user = {} if names_user(bastion) else {"user": way[0].ssh.user}
        ssh = Ssh(**{"private_key": host.ssh.private_key, "connect_timeout": host.ssh.connect_timeout,
                     "network_namespace": host.ssh.network_namespace, "common_args": ("-J", ",".join(before)) if before else (),
                     **named, **user})
        made = host.model_copy(update={"name": bastion.address, "ssh": ssh})
        if not before:
            yield from bastions(made)
        yield made
        before.append(jump)


def offered_key(host: Host, known_hosts: Path | None = None, passphrase: Callable[[], str | None] = lambda: None) -> HostKey:
    """Return the host key that a machine offers; nothing of ours is sent to it. Raises as ``connect``."""
    way = resolve(host.ssh)
    refuse_unreadable(host.name, [host.ssh.private_key] if host.ssh.private_key else ())
    with contextlib.closing(Login(known_hosts, passphrase)) as login, naming_the_cause(host.name, way), \
            contextlib.closing(SshTransport(login.open(way))) as transport:
        marks = marked(host.name, way, known_hosts)
        transport.certified = prefers_certificate(marks, way, known_hosts)
        transport.banner_timeout = host.ssh.connect_timeout
        transport.start_client(timeout=host.ssh.connect_timeout)
        key = transport.get_remote_server_key()
        marks.refuse_revoked(key)
        return key


def is_vouched_for(host: Host, key: HostKey, known_hosts: Path | None = None) -> bool:
    """Whether an authority of known_hosts vouches for the key that a machine offers. Raises AccessRefused."""
    way = resolve(host.ssh)
    with naming_the_cause(host.name, way):
        return marked(host.name, way, known_hosts).vouch_for(key)
