"""The only seam between the program and machines: SSH, with host keys checked and every wait bounded."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import logging
import selectors
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fabric
import paramiko

from clusterctl.errors import InputError, Unreachable
from clusterctl.model import Host, Ssh
from clusterctl.shell import BOOTSTRAP, Program, read_record

logging.getLogger("paramiko").setLevel(logging.CRITICAL)

SILENCE = 900.0
"""Seconds without a record after which a program counts as hung; no step may take longer without one."""

_CLONE_NEWNET = 0x40000000
_PROMPT = "clusterctl-asks-for-the-sudo-password:"


class Cut(Exception):
    """The connection broke while a program ran: its outcome is unknown, and it may still be running."""


class _Transport(paramiko.Transport):
    """paramiko's, with the cheapest of the strong algorithms first."""

    _preferred_ciphers = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
    _preferred_kex = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
                      "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256")


def _make_transport(sock: Any, *, gss_kex: bool = False, gss_deleg_creds: bool = True, disabled_algorithms: Any = None) -> paramiko.Transport:
    return _Transport(sock, disabled_algorithms=disabled_algorithms)


class _Socket(socket.socket):
    """Re-arms TCP_QUICKACK at every receive, as Linux forgets it: tens of milliseconds for each connection."""

    def recv(self, *arguments: Any) -> bytes:
        with contextlib.suppress(OSError):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().recv(*arguments)


def fingerprint(key: paramiko.PKey) -> str:
    """``SHA256:...`` as ssh-keygen -l prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")


class _Pinned(paramiko.MissingHostKeyPolicy):
    """Accepts just the key that the inventory or our own known_hosts names; before any authentication byte."""

    def __init__(self, name: str, pin: str | None) -> None:
        self.name, self.pin = name, pin

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        pin = self.pin
        offered = {fingerprint(key), f"{key.get_name()} {key.get_base64()}"}
        if pin is not None and " ".join(pin.split()[:2]) in offered:
            return
        what = "is not known" if pin is None else f"has changed (pinned {_short(pin)})"
        raise Unreachable(
            f"its host key {fingerprint(key)} {what}; nothing was sent to it", where=self.name,
            hint=f"compare with 'ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub' on its console, then: clusterctl trust "
                 f"{self.name} --fingerprint {fingerprint(key)}")


def _short(pin: str) -> str:
    words = pin.split()
    if len(words) < 2:
        return pin
    digest = hashlib.sha256(base64.b64decode(words[1] + "==", validate=False)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def open_socket(address: str, port: int, timeout: float, namespace: str | None = None) -> socket.socket:
    """A connected TCP socket, with small delays, opened from a network namespace where one is named. Raises OSError."""
    made: list[_Socket] = []
    family, kind, protocol, _, target = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]

    def make() -> None:
        if namespace is not None:
            with open(f"/run/netns/{namespace}") as handle:
                if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
                    return
        made.append(_Socket(family, kind, protocol))

    if namespace is None:
        make()
    else:
        # A namespace belongs to a thread; a socket keeps the one that it was made in.
        thread = threading.Thread(target=_quiet, args=(make,))
        thread.start()
        thread.join()
    if not made:
        raise OSError(f"network namespace {namespace} cannot be entered (is the lab up? are you root?)")
    made[0].settimeout(timeout)
    made[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        made[0].connect(target)
    except OSError:
        made[0].close()
        raise
    return made[0]


def _quiet(function: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        function()


class Statistics:
    """What a connection cost: programs run, bytes sent and received."""

    def __init__(self) -> None:
        self.trips = 0
        self.sent = 0
        self.received = 0


class Transport:
    """One machine over SSH: the programs that run there and the ways into its network."""

    def __init__(self, host: Host, *, known_hosts: Path | None = None, sudo_password: Callable[[], str | None] = lambda: None,
                 passphrase: Callable[[], str | None] = lambda: None) -> None:
        self.host = host
        self.statistics = Statistics()
        self._known_hosts = known_hosts
        self._sudo_password = sudo_password
        self._passphrase = passphrase
        self._connection: fabric.Connection | None = None
        self._forwards: list[Forward] = []

    def connect(self) -> None:
        """Connect and authenticate, once. Raises Unreachable, saying why."""
        if self._connection is not None and self._connection.is_connected:
            return
        ssh = self.host.ssh
        where = f"{self.host.name} ({ssh.user}@{ssh.address}:{ssh.port})"
        try:
            self._connection = self._open(ssh)
        except Unreachable:
            raise
        except paramiko.BadHostKeyException as error:
            raise Unreachable(f"its host key has changed: expected {fingerprint(error.expected_key)}, got {fingerprint(error.key)}; "
                              "nothing was sent to it", where=where,
                              hint=f"if the machine was reinstalled: clusterctl trust {self.host.name} --fingerprint {fingerprint(error.key)}") from None
        except paramiko.PasswordRequiredException:
            raise Unreachable("its private key needs a passphrase", where=where, hint="set CLUSTERCTL_KEY_PASSPHRASE, or use ssh-agent") from None
        except paramiko.AuthenticationException as error:
            raise Unreachable(f"it does not let us in: {error}", where=where,
                              hint=f"try: ssh -p {ssh.port} {ssh.user}@{ssh.address}") from None
        except (OSError, EOFError, paramiko.SSHException, ValueError) as error:
            raise Unreachable(f"cannot be reached: {error or type(error).__name__}", where=where,
                              hint=f"try: ssh -p {ssh.port} {ssh.user}@{ssh.address}") from None

    def route(self) -> Any:
        """A socket to its sshd: straight, through bastions or through a command, as inventory and ssh_config say."""
        ssh = self.host.ssh
        options = ssh_options(ssh.common_args)
        jump, proxy = options.get("proxyjump"), options.get("proxycommand")
        if jump is None and proxy is None and ssh.network_namespace is None:
            looked_up = fabric.Config().base_ssh_config.lookup(ssh.address)
            jump, proxy = looked_up.get("proxyjump"), looked_up.get("proxycommand")
        return self._socket(ssh, None if jump == "none" else jump, None if proxy == "none" else proxy)

    def _open(self, ssh: Ssh) -> fabric.Connection:
        config = fabric.Config(overrides={"load_ssh_configs": False, "timeouts": {"connect": ssh.connect_timeout}})
        connection = fabric.Connection(ssh.address, user=ssh.user, port=ssh.port, config=config, connect_timeout=ssh.connect_timeout)
        client = connection.client
        client.set_missing_host_key_policy(_Pinned(self.host.name, ssh.host_key))
        if ssh.host_key is None:
            self._load_known(client)
        client.connect(
            hostname=ssh.address, port=ssh.port, username=ssh.user, timeout=ssh.connect_timeout, banner_timeout=ssh.connect_timeout,
            auth_timeout=ssh.connect_timeout, key_filename=str(ssh.private_key) if ssh.private_key else None,
            passphrase=self._passphrase(), allow_agent=ssh.private_key is None, look_for_keys=ssh.private_key is None,
            sock=self.route(), transport_factory=_make_transport)
        connection.transport = client.get_transport()
        return connection

    def _load_known(self, client: paramiko.SSHClient) -> None:
        for path in (self._known_hosts, Path("~/.ssh/known_hosts").expanduser()):
            if path is not None and path.exists():
                client.load_host_keys(str(path)) if path == self._known_hosts else client.load_system_host_keys(str(path))

    def _socket(self, ssh: Ssh, jump: str | None, proxy: str | None) -> Any:
        if proxy:
            words = proxy.replace("%h", ssh.address).replace("%p", str(ssh.port)).replace("%r", ssh.user)
            return paramiko.ProxyCommand(words)
        if jump:
            return self._through(jump, ssh)
        return open_socket(ssh.address, ssh.port, ssh.connect_timeout, ssh.network_namespace)

    def _through(self, jumps: str, ssh: Ssh) -> Any:
        """A channel through bastion hosts, each with its own key checked."""
        channel: Any = None
        hops = [_hop(jump, ssh) for jump in jumps.split(",")]
        for hop, (address, port) in zip(hops, [*((after.address, after.port) for after in hops[1:]), (ssh.address, ssh.port)], strict=True):
            client = paramiko.SSHClient()
            client.set_missing_host_key_policy(_Pinned(f"bastion {hop.address}", hop.host_key))
            self._load_known(client)
            sock = channel or open_socket(hop.address, hop.port, ssh.connect_timeout, ssh.network_namespace)
            client.connect(hostname=hop.address, port=hop.port, username=hop.user, sock=sock, timeout=ssh.connect_timeout,
                           key_filename=str(ssh.private_key) if ssh.private_key else None, passphrase=self._passphrase(),
                           auth_timeout=ssh.connect_timeout, transport_factory=_make_transport)
            transport = client.get_transport()
            assert transport is not None
            channel = transport.open_channel("direct-tcpip", (address, port), ("127.0.0.1", 0), timeout=ssh.connect_timeout)
            # The channel lives only as long as its client does.
            channel.clusterctl_client = client
        return channel

    def stream(self, program: Program, silence: float = SILENCE) -> Iterator[list[str]]:
        """Run a program; yields its records as they come. Raises Unreachable, or Cut where the outcome is unknown."""
        self.connect()
        assert self._connection is not None
        self.statistics.trips += 1
        try:
            channel = self._connection.transport.open_session(timeout=self.host.ssh.connect_timeout)
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._connection = None
            raise Cut(str(error) or type(error).__name__) from None
        with contextlib.closing(channel):
            yield from self._converse(channel, program, silence)

    def _converse(self, channel: paramiko.Channel, program: Program, silence: float) -> Iterator[list[str]]:
        try:
            self._start(channel)
            sender = threading.Thread(target=self._send, args=(channel, program), daemon=True)
            sender.start()
            ended = False
            for line in self._lines(channel, silence):
                words = read_record(line, program.nonce)
                if words is None:
                    continue
                if words[0] == "end":
                    ended = True
                    break
                yield words
                ended = words[0] == "failed"
            if not ended:
                raise self._unfinished(channel)
        except TimeoutError:
            raise Unreachable(f"gave no sign of life for {silence:.0f} s", where=self.host.name,
                              hint="look at the machine's console; then run the same command again") from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._connection = None
            raise Cut(str(error) or type(error).__name__) from None

    def _start(self, channel: paramiko.Channel) -> None:
        if not self.host.ssh.become:
            channel.exec_command(f"exec sh -c {shlex.quote(BOOTSTRAP)}")
            return
        password = self._sudo_password()
        if password is None:
            channel.exec_command(f"exec sudo -n -- sh -c {shlex.quote(BOOTSTRAP)}")
            return
        # The program follows only once sudo took the password, or a wrong one would be retried with the program's bytes.
        channel.exec_command(f"exec sudo -S -k -p {_PROMPT} -- sh -c {shlex.quote('echo go; ' + BOOTSTRAP)}")
        seen, asked = self._await(channel, lambda out, err: b"go\n" in out or err.count(_PROMPT.encode()) > 0), False
        if b"go\n" not in seen:
            channel.sendall(password.encode() + b"\n")
            asked = True
            seen = self._await(channel, lambda out, err: b"go\n" in out or err.count(_PROMPT.encode()) > 0)
        if b"go\n" not in seen:
            channel.shutdown_write()
            what = "sudo refuses the password" if asked else "sudo refuses"
            raise Unreachable(what, where=f"{self.host.name} ({self.host.ssh.user})",
                              hint="give the right one: CLUSTERCTL_SUDO_PASSWORD or --ask-sudo-password")

    def _await(self, channel: paramiko.Channel, until: Callable[[bytes, bytes], bool]) -> bytes:
        """Read both streams until a condition holds or the command ends; what came on stdout. Raises TimeoutError."""
        deadline = time.monotonic() + self.host.ssh.connect_timeout
        out = err = b""
        while not until(out, err):
            if channel.recv_ready():
                out += channel.recv(4096)
            elif channel.recv_stderr_ready():
                err += channel.recv_stderr(4096)
            elif channel.exit_status_ready():
                break
            elif time.monotonic() > deadline:
                raise TimeoutError
            else:
                channel.status_event.wait(0.01)
        return out

    def _send(self, channel: paramiko.Channel, program: Program) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.settimeout(None)
            for piece in program.chunks():
                channel.sendall(piece)
                self.statistics.sent += len(piece)
            channel.shutdown_write()

    def _lines(self, channel: paramiko.Channel, silence: float) -> Iterator[str]:
        rest = b""
        channel.settimeout(silence)
        while piece := channel.recv(65536):
            self.statistics.received += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                yield line.decode(errors="replace")

    def _unfinished(self, channel: paramiko.Channel) -> Exception:
        channel.settimeout(5)
        code = channel.recv_exit_status() if channel.exit_status_ready() else -1
        complaint = b""
        with contextlib.suppress(OSError):
            complaint = channel.recv_stderr(2000) if channel.recv_stderr_ready() else b""
        text = complaint.decode(errors="replace").strip()
        where = f"{self.host.name} ({self.host.ssh.user})"
        if code == 75:
            return Unreachable("another clusterctl program still runs on it after 120 s", where=where, hint="wait, then run this again")
        if code == 1 and "sudo" in text:
            return Unreachable(f"sudo refuses: {text.splitlines()[-1]}", where=where,
                               hint="give a password (CLUSTERCTL_SUDO_PASSWORD or --ask-sudo-password) or allow sudo without one")
        if code > 0:
            return Unreachable(f"the program could not be started (exit code {code}): {text or 'no message'}", where=where,
                               hint="is there space left in /var/lib/clusterctl?")
        self._connection = None
        return Cut(text or "the connection was closed")

    def forward(self, address: str, port: int) -> Forward:
        """A local port whose connections come out of this machine, to ``address``:``port``. Closed with the transport."""
        self.connect()
        assert self._connection is not None
        forward = Forward(self._connection.transport, address, port)
        self._forwards.append(forward)
        return forward

    def close(self) -> None:
        for forward in self._forwards:
            forward.close()
        self._forwards.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def offered_key(host: Host) -> paramiko.PKey:
    """The host key that a machine offers, without authenticating. Raises OSError, paramiko.SSHException."""
    ssh = host.ssh
    with contextlib.closing(_Transport(Transport(host).route(), disabled_algorithms=None)) as transport:
        transport.banner_timeout = ssh.connect_timeout
        transport.start_client(timeout=ssh.connect_timeout)
        return transport.get_remote_server_key()


def _hop(jump: str, ssh: Ssh) -> Ssh:
    """A bastion as ``[USER@]HOST[:PORT]`` names it; its key must be in known_hosts."""
    user, _, rest = jump.strip().rpartition("@")
    address, _, port = rest.partition(":")
    return Ssh(address=address, port=int(port or 22), user=user or ssh.user)


def ssh_options(words: tuple[str, ...]) -> dict[str, str]:
    """What ``ansible_ssh_common_args`` asks for: ProxyJump (-J, -o) and ProxyCommand. Raises InputError for anything else."""
    found: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("-J", "-o") and rest:
            value = rest.pop(0)
        elif word[:2] in ("-J", "-o") and len(word) > 2:
            word, value = word[:2], word[2:]
        else:
            raise InputError(f"ansible_ssh_common_args: {word!r} is not supported; supported are -J HOST and -o ProxyJump/ProxyCommand=...")
        name, _, setting = ("ProxyJump", "", value) if word == "-J" else value.replace(" ", "=", 1).partition("=") \
            if "=" not in value else value.partition("=")
        found[name.strip().lower()] = setting.strip()
    return found


class Forward:
    """A listening socket on 127.0.0.1 whose connections go through an SSH connection. ``port`` is where it listens."""

    def __init__(self, transport: paramiko.Transport, address: str, port: int) -> None:
        self._transport, self._target = transport, (address, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pipe, args=(connection,), daemon=True).start()

    def _pipe(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel = self._transport.open_channel("direct-tcpip", self._target, ("127.0.0.1", 0), timeout=10)
            with contextlib.closing(channel), selectors.DefaultSelector() as selector:
                selector.register(connection, selectors.EVENT_READ, channel)
                selector.register(channel, selectors.EVENT_READ, connection)
                while True:
                    for key, _ in selector.select():
                        source: Any = key.fileobj
                        if not (piece := source.recv(65536)):
                            return
                        key.data.sendall(piece)

    def close(self) -> None:
        # Closing alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

