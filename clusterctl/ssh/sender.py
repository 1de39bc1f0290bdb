"""A program on its way to a machine: sent while its records are read."""

from __future__ import annotations

import contextlib
import threading
import time

import paramiko

from clusterctl.errors import ClusterctlError, Stopped
from clusterctl.shell import Script
from clusterctl.ssh.local_channel import LocalChannel


class Statistics:
    """The cost of a connection: programs run, bytes sent and received."""

    def __init__(self) -> None:
        self.trips = 0
        self.sent = 0
        self.received = 0


class Sender(threading.Thread):
    """Sends a program while its records are read.

    ``moved``: when the machine last took bytes; ``sent``: how many it took; ``error``: why it cannot be sent.
    """

    def __init__(self, channel: paramiko.Channel | LocalChannel, program: Script, statistics: Statistics) -> None:
        super().__init__(daemon=True)
        self._channel, self._program, self._statistics = channel, program, statistics
        self.moved = time.monotonic()
        self.sent = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            for piece in self._program.chunks():
                self._send(piece)
            self._channel.shutdown_write()
        except _Broken:
            pass
        except Exception as error:
            # Nothing of ours may wait for the rest of a program that will never come.
            self.error = error if isinstance(error, ClusterctlError) else Stopped(f"the program cannot be sent: {error}",
                                                                                  code="program.not-sent")
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                self._channel.close()

    def _send(self, piece: bytes) -> None:
        while piece:
            try:
                count = self._channel.send(piece)
            except TimeoutError:
                # The reader's: it alone decides when a machine counts as dead, and closes the channel then.
                continue
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise _Broken from error
            if count == 0:
                raise _Broken
            piece = piece[count:]
            self.moved = time.monotonic()
            self.sent += count
            self._statistics.sent += count


class _Broken(Exception):
    """The connection broke while a program was sent; its reader says so."""
