"""Locks by file that vanish with the process that holds them and, in the end, from the disk."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from clusterctl.errors import Locked


class FileLock:
    """An exclusive flock on ``path``, waited for at most ``wait`` seconds; raises :class:`Locked` after that.

    The descriptor is inheritable on purpose, see :func:`clusterctl.lab.host.run`.
    """

    def __init__(self, path: Path, *, wait: float = 60) -> None:
        self.path = path
        self.wait = wait
        self._fd = -1

    def __enter__(self) -> FileLock:
        deadline = time.monotonic() + self.wait
        while not self._try():
            if time.monotonic() > deadline:
                raise Locked(f"another process has held {self.path} for {self.wait:g} s", where="lab",
                             hint="wait for the other `clusterctl lab` to end", code="lab.locked")
            time.sleep(0.05)
        return self

    def _try(self) -> bool:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # the directory was removed in between
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino != os.stat(self.path).st_ino:  # the holder before us removed the file
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            os.close(fd)
            return False
        os.set_inheritable(fd, True)
        self._fd = fd
        return True

    def remove(self) -> None:
        """Take the file off the disk while the lock is held, and its directory if nothing else is in it."""
        self.path.unlink(missing_ok=True)
        try:
            self.path.parent.rmdir()
        except OSError:
            return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)
        self._fd = -1
