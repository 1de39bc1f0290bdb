"""The sockets that SSH runs over: straight, from a network namespace, or the two ends of a command."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import re
import select
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterctl.cluster.model import Ssh
from clusterctl.errors import InputError

_CLONE_NEWNET = 0x40000000
_HOP = re.compile(r"(?:(.+)@)?([^@:/\[\]\s]+)(?::([0-9]{1,5}))?")
_LEADS_ELSEWHERE = ("proxy", "include", "hostname", "port")
_SECRET = re.compile(r"CLUSTERCTL_.*(PASSWORD|PASSPHRASE|SECRET|TOKEN|KEY)")


def environment() -> dict[str, str]:
    """Return the environment for programs of the user: all variables but those with secrets."""
    return {name: value for name, value in os.environ.items() if not _SECRET.fullmatch(name)}


class _Socket(socket.socket):
    """Re-arms TCP_QUICKACK at every receive, as Linux forgets it: tens of milliseconds for each connection."""

    def recv(self, *arguments: Any) -> bytes:
        with contextlib.suppress(OSError):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().recv(*arguments)


class Command(socket.socket):
    """A command whose stdin and stdout are the other end of a socket. It ends with the socket, and is waited for."""

    def __init__(self, words: list[str]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            try:
                self._process = subprocess.Popen(words, stdin=end, stdout=end, stderr=subprocess.DEVNULL, env=environment(),
                                                 start_new_session=True)
            except OSError:
                ours.close()
                raise
        super().__init__(fileno=ours.detach())

    def close(self) -> None:
        """Close the socket and end the command; one that does not listen is killed."""
        super().close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def has_ended(sock: Any) -> bool:
    """Whether the other side has ended; a channel knows of its own end. paramiko says so to those that wait before to itself."""
    try:
        poll = select.poll()
        poll.register(sock.fileno() if isinstance(sock, socket.socket) else -1, getattr(select, "POLLRDHUP", select.POLLHUP))
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return bool(getattr(sock, "closed", True))


def proxy(command: str, *, address: str, port: int, user: str) -> Command:
    """Start a ProxyCommand. It is split into words before tokens are replaced, so that an address stays one word.

    Raises OSError, ValueError.
    """
    values = {"%h": address, "%p": str(port), "%r": user, "%%": "%"}
    return Command([re.sub("%[hpr%]", lambda found: values[found[0]], word) for word in shlex.split(command)])


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


def hops(jumps: str) -> list[Ssh]:
    """Return jump hosts as ``[USER@]HOST[:PORT],...`` names them, with the fields that are named. Raises InputError."""
    found = []
    for jump in jumps.split(","):
        match = _HOP.fullmatch(jump.strip())
        if match is None or not 1 <= int(match[3] or 22) <= 65535:
            raise InputError(f"{jump!r} is no bastion", where="ProxyJump", code="ssh.malformed-option",
                             hint="write it as [USER@]HOST[:PORT]")
        named: dict[str, Any] = {"user": match[1], "port": int(match[3]) if match[3] else None}
        found.append(Ssh(address=match[2], **{name: value for name, value in named.items() if value is not None}))
    return found


def is_straight(ssh: Ssh) -> bool:
    """Return whether a machine is certainly reached directly; otherwise ssh_config has to be read."""
    return not ssh.local and not ssh.common_args and (ssh.network_namespace is not None or not any(
        _may_name_a_way(path) for path in ("~/.ssh/config", "/etc/ssh/ssh_config", "/etc/ssh/ssh_config.d/*.conf")))


def _may_name_a_way(pattern: str) -> bool:
    """Whether such a file has proxies, other addresses or ports, or includes further files than the system's own folder."""
    for name in glob.glob(os.path.expanduser(pattern)):
        try:
            lines = [line.strip().lower() for line in Path(name).read_text(errors="replace").splitlines()]
        except OSError:
            return True
        if any(line.startswith(_LEADS_ELSEWHERE) and line != "include /etc/ssh/ssh_config.d/*.conf" for line in lines):
            return True
    return False


def _quiet(function: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        function()
