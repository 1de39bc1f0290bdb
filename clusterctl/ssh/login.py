"""Logging in over SSH: to a machine or to a bastion, with host keys checked and what goes wrong named."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import paramiko

from clusterctl.errors import AccessRefused, ClusterctlError, Unreachable
from clusterctl.ssh.host_certificates import marked
from clusterctl.ssh.host_keys import Pinned, expect, fingerprint, prefers_certificate
from clusterctl.ssh.keys import Keys
from clusterctl.ssh.sockets import has_ended, open_socket
from clusterctl.ssh.sockets import proxy as open_proxy
from clusterctl.ssh.ssh_config import Way

log = logging.getLogger("clusterctl.ssh")

PAUSES = (0.3, 0.8, 2.0)
"""Seconds before a first connection that was reset is tried again; half as much more by chance, so that not all come at once."""

BASTION = "bastion "
"""Prefix of the names of bastions."""

PROHIBITED = 1
"""SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1): sshd does not allow it; 2 is a connection that failed."""

FORWARDING = "AllowTcpForwarding local in its sshd_config, also in Match blocks; no DisableForwarding; a PermitOpen that names it"


class SshTransport(paramiko.Transport):
    """paramiko's, with the cheapest of the strong algorithms first."""

    _preferred_ciphers = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
    _preferred_kex = ("curve25519-sha256@libssh.org", "ecdh-sha2-nistp256", "ecdh-sha2-nistp384", "ecdh-sha2-nistp521",
                      "diffie-hellman-group16-sha512", "diffie-hellman-group14-sha256")
    certified = False

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        """Kinds of host keys; where an authority may vouch for the machine, certificates first."""
        kinds = super().preferred_keys
        return tuple(sorted(kinds, key=lambda kind: "-cert-" not in kind) if self.certified else kinds)


def _make_transport(sock: Any, *, certified: bool, disabled_algorithms: Any = None, **gss: bool) -> paramiko.Transport:
    made = SshTransport(sock, disabled_algorithms=disabled_algorithms)
    made.certified = certified
    return made


@contextlib.contextmanager
def naming_the_cause(name: str, way: Way) -> Iterator[None]:
    """Raises AccessRefused or Unreachable for what keeps us from a machine. ``name``: as the inventory or a ProxyJump has it."""
    where, ssh = f"{name} ({way.name})", way.ssh
    try_it = f"try: ssh -p {ssh.port} {ssh.user}@{ssh.address}"
    try:
        yield
    except paramiko.BadHostKeyException as error:
        accept = f"clusterctl trust {name.removeprefix('bastion ')} --fingerprint {fingerprint(error.key)}"
        expected, got = fingerprint(error.expected_key), fingerprint(error.key)
        raise AccessRefused(f"its host key has changed: expected {expected}, got {got}; nothing was sent to it",
                            where=where, hint=f"if the machine was reinstalled: {accept}", code="ssh.host-key-changed") from None
    except paramiko.PasswordRequiredException as error:
        raise AccessRefused(f"its private key needs a passphrase: {error}", where=where, code="ssh.key-passphrase",
                            hint="set CLUSTERCTL_KEY_PASSPHRASE, or give the key to ssh-agent: ssh-add FILE") from None
    except paramiko.AuthenticationException as error:
        raise AccessRefused(f"SSH authentication failed: {error}", where=where, hint=try_it,
                            code="ssh.authentication-failed") from None
    except AccessRefused as error:
        error.where = error.where or where
        raise
    except (OSError, EOFError, paramiko.SSHException, ValueError) as error:
        raise Unreachable(f"cannot be reached: {reason(error)}", where=where, hint=try_it, code="ssh.unreachable") from None


def reason(error: Exception) -> str:
    """Return an error's words, without ``[Errno 101]``."""
    said = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    # paramiko reports a missing first line of sshd in two ways; which one is a race of its threads.
    return "no SSH banner received" if said in ("No existing session", "Error reading SSH protocol banner") else said


class Login:
    """Logs in to machines and to the bastions before them. A connection to a bastion is shared by all machines behind it."""

    def __init__(self, known_hosts: Path | None, passphrase: Callable[[], str | None],
                 password: Callable[[], str | None] = lambda: None,
                 own: Mapping[str, Callable[[], str | None]] = MappingProxyType({})) -> None:
        """``password``: of the machines; bastions are not given it. ``own``: those of machines by name, where it gives none."""
        self._known_hosts, self._passphrase, self._password = known_hosts, passphrase, password
        self._own = own
        self._bastions: dict[tuple[tuple[Way, ...], str | None], Future[paramiko.SSHClient]] = {}
        self._changing = threading.Lock()

    def connect(self, name: str, way: Way, pin: str | None, begun: Future[Any] | None = None) -> paramiko.SSHClient:
        """Log in. ``begun``: a socket that is being opened to its sshd. Raises AccessRefused, Unreachable, InputError."""
        with naming_the_cause(name, way):
            return self._retry(name, way, pin, begun)

    def _retry(self, name: str, way: Way, pin: str | None, begun: Future[Any] | None) -> paramiko.SSHClient:
        """Log in; again where sshd drops the connection before its banner, as it does under load (MaxStartups)."""
        deadline = time.monotonic() + way.ssh.connect_timeout
        log.debug("%s: connecting to %s; key files: %s; jump hosts: %s; command: %s", name, way.name,
                  ", ".join(map(str, way.keys)) or "none named, so those of ssh-agent and ~/.ssh",
                  ", ".join(one.name for one in way.before) or "none", way.proxy or "none")
        for pause in (*PAUSES, None):
            client = paramiko.SSHClient()
            marks = marked(name, way, self._known_hosts)
            client.set_missing_host_key_policy(Pinned(name, pin, marks))
            expect(client, way, self._known_hosts, marks)
            sock: Any = None
            try:
                sock = begun.result() if begun is not None else self.open(way)
                self._log_in(client, name, way, sock, certified=prefers_certificate(marks, way, self._known_hosts))
                return client
            except BaseException as error:
                before_banner = _is_reset(client, sock, error)
                client.close()
                if sock is not None:
                    sock.close()
                log.debug("%s: %s: %s", name, way.name, error)
                # A command may have logged in somewhere itself, and must not be refused again.
                if pause is None or way.proxy or not before_banner or time.monotonic() + pause >= deadline:
                    raise
            begun = None
            time.sleep(pause * random.uniform(1, 1.5))
        raise AssertionError("unreachable")

    def _log_in(self, client: paramiko.SSHClient, name: str, way: Way, sock: Any, *, certified: bool) -> None:
        ssh, timeout = way.ssh, way.ssh.connect_timeout
        def none() -> (str | None):
            return None
        own = self._own.get(name, none)
        password = none if name.startswith(BASTION) else lambda: self._password() or own()
        keys: Any = Keys(name, ssh.user, way.keys, self._passphrase, way.certificates, password)
        client.connect(hostname=ssh.address, port=ssh.port, username=ssh.user, timeout=timeout, banner_timeout=timeout,
                       auth_timeout=timeout, sock=sock, auth_strategy=keys,
                       transport_factory=partial(_make_transport, certified=certified))

    def open(self, way: Way) -> Any:
        """Open a socket to a machine's sshd: straight, through bastions or through a command. Raises OSError, SSHException."""
        if way.before:
            return self._channel(way)
        ssh = way.ssh
        if way.proxy:
            return open_proxy(way.proxy, address=ssh.address, port=ssh.port, user=ssh.user)
        return open_socket(ssh.address, ssh.port, ssh.connect_timeout, ssh.network_namespace)

    def _channel(self, way: Way) -> paramiko.Channel:
        last = way.before[-1]
        target = (way.ssh.address, way.ssh.port)
        for again in (True, False):
            transport = self._bastion(way).get_transport()
            try:
                if transport is None:
                    raise EOFError
                return transport.open_channel("direct-tcpip", target, ("127.0.0.1", 0), timeout=way.ssh.connect_timeout)
            except paramiko.ChannelException as error:
                if error.code == PROHIBITED:
                    raise AccessRefused("its sshd does not allow TCP forwarding", where=f"bastion {last.name}",
                                        hint=FORWARDING, code="ssh.jump-forwarding-disabled") from None
                raise OSError(f"bastion {last.name} cannot connect to it: {error.text}") from None
            except (OSError, EOFError, paramiko.SSHException):
                # The connection to the bastion may have ended unnoticed since it was last used.
                if not again or (transport is not None and transport.is_active()):
                    raise
        raise AssertionError("unreachable")

    def _bastion(self, way: Way) -> paramiko.SSHClient:
        """Return the one connection to the last bastion of a way. A refusal is not tried again. Raises as ``connect``."""
        *before, last = way.before
        chain = replace(last, before=tuple(before), proxy=way.proxy)
        key = (way.before, way.proxy)
        with self._changing:
            found = self._bastions.get(key)
            mine = found is None or (found.done() and not _is_usable(found))
            if mine:
                found = self._bastions[key] = Future()
        assert found is not None
        if mine:
            try:
                found.set_result(self.connect(f"{BASTION}{last.ssh.address}", chain, last.ssh.host_key))
            except BaseException as error:
                found.set_exception(error)
        return found.result()

    def close(self) -> None:
        """End the connections to bastions, the farthest first."""
        with self._changing:
            ends = sorted(self._bastions.items(), key=lambda item: -len(item[0][0]))
            self._bastions = {}
        for _, found in ends:
            if found.done() and found.exception() is None:
                with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                    found.result().close()


def _is_reset(client: paramiko.SSHClient, sock: Any, error: BaseException) -> bool:
    """Whether a connection ended before sshd's banner had come, so that nothing of ours was judged yet."""
    if isinstance(error, ClusterctlError | paramiko.AuthenticationException | paramiko.BadHostKeyException):
        return False
    if sock is None:
        return isinstance(error, ConnectionResetError)
    transport = client.get_transport()
    return isinstance(error, OSError | EOFError | paramiko.SSHException) and not (transport and transport.remote_version)


def _is_usable(found: Future[paramiko.SSHClient]) -> bool:
    """Whether a bastion's connection lives, or was refused for good."""
    error = found.exception()
    if error is not None:
        return isinstance(error, AccessRefused)
    transport = found.result().get_transport()
    return transport is not None and transport.is_active() and not has_ended(transport.sock)
