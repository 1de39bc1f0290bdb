"""Programs on this computer itself, for a host with ``ansible_connection: local``: no SSH, the same commands."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import threading

from clusterctl.ssh.sockets import environment


class LocalChannel:
    """A command whose standard streams are used as those of a session of SSH: the part of paramiko.Channel that is needed.

    Closing it ends its standard input and output; what the command has begun it ends by itself, as on other machines.
    """

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._errors: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self.status_event = threading.Event()
        self.closed = False

    def exec_command(self, command: str) -> None:
        """Start a command of a shell. Raises OSError."""
        with self._theirs:
            end = self._theirs.fileno()
            self._process = subprocess.Popen(["sh", "-c", command], stdin=end, stdout=end, stderr=subprocess.PIPE,
                                             env=environment(), start_new_session=True)
        assert self._process.stderr is not None
        self._errors = self._process.stderr.fileno()
        threading.Thread(target=self._wait, name="local", daemon=True).start()

    def _wait(self) -> None:
        assert self._process is not None
        self._process.wait()
        self.status_event.set()

    def settimeout(self, seconds: float | None) -> None:
        self._ours.settimeout(seconds)

    def send(self, data: bytes) -> int:
        return self._ours.send(data)

    def sendall(self, data: bytes) -> None:
        self._ours.sendall(data)

    def shutdown_write(self) -> None:
        self._ours.shutdown(socket.SHUT_WR)

    def recv(self, size: int) -> bytes:
        return self._ours.recv(size)

    def recv_ready(self) -> bool:
        return bool(self._peek())

    @property
    def eof_received(self) -> bool:
        return self._peek() == b""

    def _peek(self) -> bytes | None:
        """The next byte, nothing at the end; None where there is none yet."""
        with contextlib.suppress(OSError):
            return self._ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        return b"" if self.closed else None

    def recv_stderr_ready(self) -> bool:
        return self._errors is not None and bool(select.select([self._errors], [], [], 0)[0])

    def recv_stderr(self, size: int) -> bytes:
        return os.read(self._errors, size) if self._errors is not None else b""

    def exit_status_ready(self) -> bool:
        return self.status_event.is_set()

    def recv_exit_status(self) -> int:
        """Wait for the end and return the exit code, of a signal 128 and its number."""
        self.status_event.wait()
        assert self._process is not None
        code: int = self._process.returncode
        return code if code >= 0 else 128 - code

    def close(self) -> None:
        self.closed = True
        self._ours.close()
