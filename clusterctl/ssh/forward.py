"""A local port whose connections come out elsewhere."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

BROKEN = (OSError, EOFError)
"""The exceptions of a socket that has ended, and of a channel whose connection has ended."""


class Forward:
    """A listening socket on 127.0.0.1; each connection goes through a channel of its own. ``port`` is where it listens.

    ``error``: why the last connection got no channel; empty where it got one.

    A channel is what ``open_channel`` gives: like a socket. It raises OSError where there is none to be had.
    """

    def __init__(self, open_channel: Callable[[], Any]) -> None:
        self._open_channel = open_channel
        self.error = ""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="forward", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pipe, args=(connection,), name="forward", daemon=True).start()

    def _pipe(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with connection, contextlib.suppress(*BROKEN), contextlib.closing(self._opened()) as channel:
            # One thread for each direction: one that waits to write must not keep the other from reading.
            back = threading.Thread(target=_copy, args=(channel, connection, channel, connection), name="forward", daemon=True)
            back.start()
            _copy(connection, channel, channel, connection)
            back.join()

    def _opened(self) -> Any:
        """Open a channel; its error is known before the end of the local connection is. Raises OSError."""
        try:
            channel = self._open_channel()
        except OSError as error:
            self.error = str(error)
            raise
        self.error = ""
        return channel

    def close(self) -> None:
        """Listen no more; connections that are open end with what they go through."""
        # Closing alone does not wake a thread in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _copy(source: Any, sink: Any, channel: Any, connection: socket.socket) -> None:
    """Copy until the end, and pass the end on, while the other direction goes on. What breaks one direction ends both."""
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except BROKEN:
        with contextlib.suppress(*BROKEN):
            channel.close()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
