"""The only seam between the program and machines: SSH, with host keys checked and every wait bounded."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import fabric
import paramiko

from clusterctl.conversation import SILENCE as SILENCE
from clusterctl.conversation import TOTAL, Conversation, Limits
from clusterctl.conversation import Cut as Cut
from clusterctl.errors import AccessRefused, InputError, Unreachable
from clusterctl.forward import Forward
from clusterctl.hostkeys import HostKey as HostKey
from clusterctl.hostkeys import Pinned, expect
from clusterctl.hostkeys import fingerprint as fingerprint
from clusterctl.model import Host, Ssh
from clusterctl.sender import Statistics
from clusterctl.shell import BOOTSTRAP, Program
from clusterctl.sockets import has_ended, hops, open_socket, ssh_options
from clusterctl.sockets import proxy as open_proxy

logging.getLogger("paramiko").setLevel(logging.CRITICAL)

class _Transport(paramiko.Transport):
    """paramiko's, with the cheapest of the strong algorithms first."""

    _preferred_ciphers = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
    _preferred_kex = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
                      "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256")


def _make_transport(sock: Any, *, disabled_algorithms: Any = None, **gss: bool) -> paramiko.Transport:
    return _Transport(sock, disabled_algorithms=disabled_algorithms)


class Transport:
    """One machine over SSH: the programs that run there and the ways into its network."""

    def __init__(self, host: Host, *, known_hosts: Path | None = None, sudo_password: Callable[[], str | None] = lambda: None,
                 passphrase: Callable[[], str | None] = lambda: None, begun: Future[socket.socket] | None = None) -> None:
        self.host, self._begun = host, begun  # A socket that is being opened straight to its sshd, for the first connection.
        self.statistics = Statistics()
        self._known_hosts = known_hosts
        self._sudo_password = sudo_password
        self._passphrase = passphrase
        self._connection: fabric.Connection | None = None
        self._forwards: dict[tuple[str, int], Forward] = {}
        self._connecting = threading.RLock()
        self._forwarding = threading.Lock()
        self._bastions: list[paramiko.SSHClient] = []
        self._refusal: AccessRefused | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.is_connected and not has_ended(self._connection.transport.sock)

    def connect(self) -> None:
        """Connect and authenticate, once. Raises Unreachable, saying why, InputError; what was refused is not tried again."""
        with self._connecting:
            if self._refusal is not None:
                raise self._refusal
            if not self.connected:
                with self._remembering():
                    self._connect()

    def _connect(self) -> None:
        self._drop()
        with self.saying_why():
            self._connection = self._open(self.host.ssh)

    @contextlib.contextmanager
    def saying_why(self) -> Iterator[None]:
        """Raises Unreachable for whatever keeps us from the machine or from a bastion before it."""
        ssh = self.host.ssh
        where = f"{self.host.name} ({ssh.user}@{ssh.address}:{ssh.port})"
        try_it = f"try: ssh -p {ssh.port} {ssh.user}@{ssh.address}"
        try:
            yield
        except paramiko.BadHostKeyException as error:
            named = error.hostname.lstrip("[").partition("]")[0]
            whom = self.host.name if named == ssh.address else named
            accept = f"clusterctl trust {whom} --fingerprint {fingerprint(error.key)}"
            expected, got = fingerprint(error.expected_key), fingerprint(error.key)
            who = "its" if named == ssh.address else f"the bastion {named}'s"
            raise AccessRefused(f"{who} host key has changed: expected {expected}, got {got}; nothing was sent to it",
                                where=where, hint=f"if the machine was reinstalled: {accept}",
                                code="ssh.host-key-changed") from None
        except paramiko.PasswordRequiredException:
            raise AccessRefused("its private key needs a passphrase", where=where, code="ssh.key-passphrase",
                                hint="set CLUSTERCTL_KEY_PASSPHRASE, or use ssh-agent") from None
        except paramiko.AuthenticationException as error:
            raise AccessRefused(f"SSH authentication failed: {error}", where=where, hint=try_it,
                                code="ssh.authentication-failed") from None
        except (OSError, EOFError, paramiko.SSHException, ValueError) as error:
            raise Unreachable(f"cannot be reached: {_reason(error)}", where=where, hint=try_it, code="ssh.unreachable") from None

    def route(self) -> Any:
        """A socket to its sshd: straight, through bastions or through a command, as inventory and ssh_config say."""
        return self._socket(self.host.ssh, *_way(self.host.ssh))

    def _open(self, ssh: Ssh) -> fabric.Connection:
        config = fabric.Config(overrides={"load_ssh_configs": False, "timeouts": {"connect": ssh.connect_timeout}})
        connection = fabric.Connection(ssh.address, user=ssh.user, port=ssh.port, config=config)
        client = connection.client
        client.set_missing_host_key_policy(Pinned(self.host.name, ssh.host_key))
        expect(client, ssh, self._known_hosts)
        self._check_key()
        try:
            self._log_in(client, ssh, self.route())
        except BaseException:
            self._drop()
            raise
        connection.transport = client.get_transport()
        return connection

    def _log_in(self, client: paramiko.SSHClient, ssh: Ssh, sock: Any) -> None:
        own, timeout = self.host.ssh, self.host.ssh.connect_timeout
        try:
            client.connect(
                hostname=ssh.address, port=ssh.port, username=ssh.user, timeout=timeout, banner_timeout=timeout,
                auth_timeout=timeout, key_filename=str(own.private_key) if own.private_key else None,
                passphrase=self._passphrase(), allow_agent=own.private_key is None, look_for_keys=own.private_key is None,
                sock=sock, transport_factory=_make_transport)
        except BaseException:
            client.close()
            sock.close()
            raise

    def _check_key(self) -> None:
        try:
            if self.host.ssh.private_key is not None:
                self.host.ssh.private_key.open().close()
        except OSError as error:
            raise InputError(f"ansible_ssh_private_key_file {self.host.ssh.private_key} cannot be read: {error.strerror}",
                             where=self.host.name, hint="nobody was contacted; correct the variable or bring the key") from None

    def _socket(self, ssh: Ssh, jump: str | None, proxy: str | None) -> Any:
        if proxy:
            return open_proxy(proxy, address=ssh.address, port=ssh.port, user=ssh.user)
        if jump:
            return self._through(jump, ssh)
        if (begun := self._begun) is not None:
            self._begun = None
            return begun.result()
        return open_socket(ssh.address, ssh.port, ssh.connect_timeout, ssh.network_namespace)

    def _through(self, jumps: str, ssh: Ssh) -> Any:
        """A channel through bastion hosts, each with its own key checked."""
        channel: Any = None
        self._check_key()
        before = hops(jumps, ssh.user)
        for one, after in zip(before, [*before[1:], ssh], strict=True):
            client = paramiko.SSHClient()
            self._bastions.append(client)
            client.set_missing_host_key_policy(Pinned(f"bastion {one.address}", one.host_key))
            expect(client, one, self._known_hosts)
            sock = channel or open_socket(one.address, one.port, ssh.connect_timeout, ssh.network_namespace)
            self._log_in(client, one, sock)
            transport = client.get_transport()
            assert transport is not None
            channel = transport.open_channel("direct-tcpip", (after.address, after.port), ("127.0.0.1", 0),
                                             timeout=ssh.connect_timeout)
        return channel

    def stream(self, program: Program, silence: float = SILENCE, total: float | None = None) -> Iterator[list[str]]:
        """Run a program; yield its records as they come. Raises Unreachable, or Cut where the outcome is unknown.

        Seconds: ``silence`` without a record, ``total`` for all of it.
        """
        self.connect()
        assert self._connection is not None
        self.statistics.trips += 1
        try:
            channel = self._connection.transport.open_session(timeout=self.host.ssh.connect_timeout)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._drop()
            raise Cut(str(error) or type(error).__name__) from None
        limits = Limits(silence, max(TOTAL, 2 * silence) if total is None else total)
        try:
            with self._remembering():
                yield from self._conversation(channel).run(BOOTSTRAP, program, limits, self.statistics)
        finally:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()

    def _conversation(self, channel: paramiko.Channel) -> Conversation:
        return Conversation(self.host, self.host.ssh, channel, sudo_password=self._sudo_password, drop=self._drop)

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Remember a refusal: it is raised again in place of another attempt."""
        try:
            yield
        except AccessRefused as error:
            self._refusal = error
            raise

    def _drop(self) -> None:
        """Forget a connection that is of no use any more, and end it and the way to it."""
        ends: list[Any] = [self._connection] if self._connection is not None else []
        ends += reversed(self._bastions)
        self._connection, self._bastions = None, []
        for end in ends:
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                end.close()

    def forward(self, address: str, port: int) -> Forward:
        """A local port whose connections come out of this machine, to ``address``:``port``. Closed with the transport.

        It outlives the SSH connection: the next one carries what comes later. Raises Unreachable.
        """
        self.connect()

        def open_channel() -> paramiko.Channel:
            try:
                self.connect()
                assert self._connection is not None
                transport: paramiko.Transport = self._connection.transport
                return transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0),
                                              timeout=self.host.ssh.connect_timeout)
            except (EOFError, paramiko.SSHException, Unreachable) as error:
                raise OSError(str(error)) from None

        with self._forwarding:
            self._forwards[address, port] = found = self._forwards.get((address, port)) or Forward(open_channel)
            return found

    def hold(self, command: str, greeting: str) -> Conversation:
        """Start a constant command whose standard input stays open, and send it one text; raises Unreachable.

        The command ends when the channel does, or the connection, or this process.
        """
        self.connect()
        assert self._connection is not None
        try:
            held = self._conversation(self._connection.transport.open_session(timeout=self.host.ssh.connect_timeout))
            with self._remembering():
                held.start(command)
            held.channel.sendall(greeting.encode())
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._drop()
            raise Unreachable(f"the connection broke: {error}", where=self.host.name, hint="run the same command again") from None
        return held

    def close(self) -> None:
        # A thread that nobody waits for may be making one still.
        while self._forwards:
            self._forwards.popitem()[1].close()
        self._drop()


def _reason(error: Exception) -> str:
    """Return an error's words, without ``[Errno 101]``."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__


def bastions(host: Host) -> Iterator[Host]:
    """The machines on the way to a host, each named by its address, so that its key can be asked for."""
    jumps = _way(host.ssh)[0]
    for index, bastion in enumerate(hops(jumps, host.ssh.user) if jumps else ()):
        before = ("-J", ",".join((jumps or "").split(",")[:index]) or "none")
        way = {**bastion.model_dump(exclude_unset=True), "host_key": None, "common_args": before}
        yield host.model_copy(update={"name": bastion.address, "ssh": host.ssh.model_copy(update=way)})


def _way(ssh: Ssh) -> tuple[str | None, str | None]:
    """(bastions, proxy command) of inventory and ssh_config, None where there are none."""
    options = ssh_options(ssh.common_args)
    jump, proxy = options.get("proxyjump"), options.get("proxycommand")
    if jump is None and proxy is None and ssh.network_namespace is None:
        try:
            looked_up = fabric.Config().base_ssh_config.lookup(ssh.address)
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise InputError(f"cannot be read: {error}", where="~/.ssh/config or /etc/ssh/ssh_config",
                             hint="correct the line that is named; ssh -G HOST says the same") from None
        jump, proxy = looked_up.get("proxyjump"), looked_up.get("proxycommand")
    return None if jump == "none" else jump, None if proxy == "none" else proxy


def offered_key(host: Host, known_hosts: Path | None = None, passphrase: Callable[[], str | None] = lambda: None) -> HostKey:
    """The host key that a machine offers; nothing of ours is sent to it. The rest is for bastions. Raises as ``connect``."""
    way = Transport(host, known_hosts=known_hosts, passphrase=passphrase)
    with way.saying_why(), contextlib.closing(way), contextlib.closing(_Transport(way.route())) as transport:
        transport.banner_timeout = host.ssh.connect_timeout
        transport.start_client(timeout=host.ssh.connect_timeout)
        return transport.get_remote_server_key()
