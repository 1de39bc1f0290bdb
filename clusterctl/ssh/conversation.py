"""One command on one machine: how it becomes root, what it reports, and why it ended. Every wait and every buffer has a limit."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import paramiko

from clusterctl.cluster.model import Host, Ssh
from clusterctl.errors import AccessRefused, ClusterctlError, Refused, Stopped, Unreachable
from clusterctl.local.text import printable
from clusterctl.shell import Malformed, Records, Script
from clusterctl.ssh.local_channel import LocalChannel
from clusterctl.ssh.sender import Sender, Statistics

log = logging.getLogger("clusterctl.ssh")

SILENCE = 900.0
"""Seconds without a record after which a program counts as hung; no step may take longer without one."""

TOTAL, SLOWEST = 7200.0, 16384
"""Seconds that a program may take as a whole, and one more for so many bytes that it was sent."""

LONGEST_LINE, LARGEST = 1 << 20, 256 << 20
"""Bytes: of one line, and of all that one program prints."""

_PROMPT, _IS_ROOT = "clusterctl-asks-for-the-sudo-password:", "clusterctl-is-root"


def operator() -> str:
    """Return the name of this process, as the holder of a lock: user, machine and pid."""
    return f"{getpass.getuser()}@{socket.gethostname()}, pid {os.getpid()}"


class ConnectionLost(Exception):
    """The connection broke while a program ran: its outcome is unknown, and it may still be running."""

    def unreachable(self, host: Host) -> Unreachable:
        """Return the error of a program that changes nothing."""
        return Unreachable(f"the connection broke: {self}", where=host.name, code="ssh.broken", hint="run the same command again")

    def stopped(self, host: Host) -> Stopped:
        """Return the error of a program that may have changed the machine."""
        return Stopped(f"the connection broke: {self}", where=host.name, code="run.connection-broken",
                       hint="run the same command again")


class _Flood(Exception):
    """A machine printed more than any program of ours does."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: ``silence`` without a record, ``total`` for the whole program."""

    silence: float = SILENCE
    total: float = TOTAL


class Conversation:
    """A command in a session channel. ``ssh``: how the machine was reached; ``drop``: ends a connection that is of no use."""

    def __init__(self, host: Host, ssh: Ssh, channel: paramiko.Channel | LocalChannel, *, sudo_password: Callable[[], str | None],
                 drop: Callable[[], None] = lambda: None) -> None:
        self.host, self.ssh, self.channel = host, ssh, channel
        self._sudo_password, self._drop = sudo_password, drop
        self._where = f"{host.name} ({ssh.user})"
        self._heard = time.monotonic()
        self._holder = ""

    def start(self, command: str) -> None:
        """Start a constant command as root. Raises AccessRefused, Unreachable."""
        password = self._sudo_password() if self.ssh.become else None
        if not self.ssh.become:
            self._execute(f"exec sh -c {shlex.quote(command)}")
        elif password is None:
            self._execute(f"exec sudo -n -- sh -c {shlex.quote(command)}")
        else:
            # The program follows only once sudo took the password, or a wrong one would be retried with the program's bytes.
            self._execute(f"exec sudo -S -k -p {_PROMPT} -- sh -c {shlex.quote(f'echo {_IS_ROOT}; {command}')}")
            self._authorise(password)

    def _execute(self, command: str) -> None:
        # paramiko waits for the answer without an end; closing the channel is what wakes it.
        timer = threading.Timer(self.ssh.connect_timeout, self.channel.close)
        timer.start()
        try:
            self.channel.exec_command(command)
        finally:
            timer.cancel()

    def _authorise(self, password: str) -> None:
        """Give sudo its password, once. Raises AccessRefused with sudo's message."""
        out, err = self._await()
        asked = _IS_ROOT.encode() not in out and _PROMPT.encode() in err
        if asked:
            self.channel.sendall(password.encode() + b"\n")
            out, err = self._await()
        if _IS_ROOT.encode() not in out:
            with contextlib.suppress(OSError):
                self.channel.shutdown_write()
            said = " ".join(err.decode(errors="replace").replace(_PROMPT, "").split())
            refused = asked and _PROMPT.encode() in err
            what = "sudo refuses the password" if refused else "sudo cannot be used"
            raise AccessRefused(f"{what}: {said}" if said else what, where=self._where,
                                hint="give the right one: CLUSTERCTL_SUDO_PASSWORD or --ask-sudo-password",
                                code="sudo.password-refused" if refused else "sudo.unusable")

    def _await(self) -> tuple[bytes, bytes]:
        """Read until sudo starts the command, asks or ends; return stdout and stderr. Raises Unreachable at a deadline."""
        deadline = time.monotonic() + self.ssh.connect_timeout
        out = err = b""
        while _IS_ROOT.encode() not in out and _PROMPT.encode() not in err:
            if time.monotonic() > deadline or len(out) + len(err) > LONGEST_LINE:
                raise Unreachable(f"sudo did not answer within {self.ssh.connect_timeout:.0f} s", where=self.host.name,
                                  hint=f"on the machine, as {self.ssh.user}, try: sudo -k true", code="sudo.no-answer")
            if self.channel.recv_ready():
                out += self.channel.recv(4096)
            elif self.channel.recv_stderr_ready():
                err += self.channel.recv_stderr(4096)
            elif self.channel.exit_status_ready():
                break
            else:
                self.channel.status_event.wait(0.01)
        return out, err

    def run(self, command: str, program: Script, limits: Limits, statistics: Statistics) -> Iterator[list[str]]:
        """Send a program to the command that receives it; yield its records. Raises Unreachable, Cut, ClusterctlError."""
        sender = Sender(self.channel, program, statistics)
        try:
            self.start(command)
            sender.start()
            yield from self._records(sender, program, limits, statistics)
        except TimeoutError as error:
            self._drop()
            raise Unreachable(str(error), where=self.host.name, code="ssh.no-output",
                              hint="look at the machine's console; then run the same command again") from None
        except (_Flood, Malformed) as error:
            self._drop()
            raise Unreachable(str(error), where=self.host.name, code="ssh.unreadable-output",
                              hint=f"look at what runs for {self.ssh.user} at login and at ForceCommand in sshd_config") from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            self._drop()
            raise ConnectionLost(str(error) or type(error).__name__) from None

    def _records(self, sender: Sender, program: Script, limits: Limits, statistics: Statistics) -> Iterator[list[str]]:
        started, ended, records = False, False, Records(program.nonce)
        for line in self._lines(sender, limits, statistics):
            words = records.read(line)
            started = started or records.begun
            if records.is_record:
                self._heard = time.monotonic()
            if words is None:
                continue
            if words[0] == "end":
                return
            if words[0] == "waiting":
                self._holder = printable(" ".join(words[1:])) or "a program that only looks at it"
                log.warning("%s: waiting for another clusterctl program on it: %s", self.host.name, self._holder)
                continue
            if words[0] in ("ok", "failed") and int(words[1]) >= len(program.steps):
                raise Malformed(f"a record of step {words[1]}, and the program has {len(program.steps)}")
            yield words
            ended = words[0] in ("failed", "back")
            # What the caller did with the record took time of its own.
            self._heard = time.monotonic()
        if not ended:
            raise sender.error or self.exit_reason(started)

    def _lines(self, sender: Sender, limits: Limits, statistics: Statistics) -> Iterator[str]:
        """Yield whole lines as they come. Raises TimeoutError where the machine neither reports nor takes bytes, _Flood."""
        rest, received, begun = b"", 0, time.monotonic()
        self._heard = begun
        self.channel.settimeout(min(limits.silence, 1.0))
        while True:
            piece: bytes | None = None
            with contextlib.suppress(TimeoutError):
                piece = self.channel.recv(65536)
            now = time.monotonic()
            if now - max(self._heard, sender.moved) >= limits.silence:
                raise TimeoutError(f"no output for {limits.silence:.0f} s")
            if now - begun >= limits.total + sender.sent / SLOWEST:
                raise TimeoutError(f"did not end within {limits.total:.0f} s")
            if piece is None:
                continue
            if not piece:
                return
            received += len(piece)
            statistics.received += len(piece)
            *lines, rest = (rest + piece).split(b"\n")
            if received > LARGEST or max(map(len, (*lines, rest))) > LONGEST_LINE:
                raise _Flood(f"prints a line longer than {LONGEST_LINE >> 20} MiB, or more than {LARGEST >> 20} MiB")
            for line in lines:
                yield line.decode(errors="replace")

    def exit_reason(self, started: bool) -> Exception:
        """Return why a command ended before its time."""
        # The exit code comes after the end of the output, with a packet of its own.
        self.channel.status_event.wait(5)
        code = self.channel.recv_exit_status() if self.channel.exit_status_ready() else -1
        complaint = b""
        with contextlib.suppress(OSError):
            complaint = self.channel.recv_stderr(2000) if self.channel.recv_stderr_ready() else b""
        text = complaint.decode(errors="replace").strip()
        known = self._known_end(code, text, started)
        if known is None:
            self._drop()
            return ConnectionLost(f"the program ended with code {code}" if code > 0 else text or "the connection was closed")
        return known

    def _known_end(self, code: int, text: str, started: bool) -> ClusterctlError | None:
        if code == 75:
            return Unreachable(f"another clusterctl program still runs on it after 120 s: {self._holder or 'unknown'}",
                               where=self._where, hint="wait, then run this again", code="program.locked")
        if started or code <= 0 or code >= 128:
            return None
        if self.ssh.become and (code == 127 or (code == 1 and "sudo" in text)):
            return AccessRefused(
                f"sudo cannot be used: {text.splitlines()[-1] if text else 'no message'}", where=self._where,
                hint="give a password (CLUSTERCTL_SUDO_PASSWORD or --ask-sudo-password) or allow sudo without one",
                code="sudo.unusable")
        if code in (73, 74):
            return Refused(f"cannot write to /var/lib/clusterctl: {text or f'exit code {code}'}", where=self._where,
                           hint="is there space left, and may it be written?", code="program.no-space")
        return Unreachable(f"the program could not be started (exit code {code}): {text or 'no message'}", where=self._where,
                           hint=f"try: ssh -p {self.ssh.port} {self.ssh.user}@{self.ssh.address}", code="program.not-started")
