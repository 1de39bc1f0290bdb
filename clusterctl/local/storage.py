"""Files on this side: the state folder of a cluster, and writing whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from clusterctl.errors import ClusterctlError, InputError, Locked, Refused


def user_home() -> Path:
    """Raises InputError for a user who has none."""
    try:
        return Path.home()
    except RuntimeError:
        raise InputError("this user has no home folder", where="HOME", code="state.no-home",
                         hint="set HOME to a folder of this user") from None


def user_cache() -> Path:
    """``$CLUSTERCTL_CACHE``, else ``clusterctl`` in the user's cache. Raises InputError."""
    chosen = os.environ.get("CLUSTERCTL_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or user_home() / ".cache") / "clusterctl"


def make_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder and its missing parents with one mode, which no umask loosens. Raises OSError."""
    for one in reversed([path, *path.parents]):
        one.mkdir(mode=mode, exist_ok=True)


def cache_folder(name: str) -> Path | None:
    """Return a folder of the user's cache; None where others may write to it: its content would be run."""
    place = user_cache() / name
    with contextlib.suppress(OSError):
        make_folder(place)
        found = place.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return place
    return None


@contextlib.contextmanager
def whole(path: Path, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A stream into a file that appears whole or not at all, with its final mode from the first byte. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not (path.is_file() or path.is_dir()):
        # Root would put a file in the place of /dev/null.
        raise OSError(errno.EINVAL, "it exists and is not a regular file", str(path))
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def write_whole(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all. Raises OSError."""
    with whole(path, mode) as stream:
        stream.write(content)


def sync_folder(path: Path) -> None:
    """Make what was renamed in a folder durable."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Raises Refused where a part of a state folder cannot be made or opened."""
    try:
        yield
    except OSError as error:
        raise Refused(f"the state folder cannot be used: {error.strerror}", where=str(path),
                      hint="make it this user's own, or give another folder with --state DIR", code="state.unusable") from error


PARENT, IGNORE = ".clusterctl", b"*\n"
"""Where state folders lie, and the ``.gitignore`` of each: how they are known."""


class StateFolder:
    """``.clusterctl/CLUSTER``: CA keys, the encryption key, the journal, host keys. 0700, its files 0600."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, base: Path, cluster: str, chosen: Path | None = None) -> StateFolder:
        """The folder for a cluster: beside its inventory, or where ``--state`` says."""
        return cls(chosen if chosen is not None else base / PARENT / cluster)

    def prepare(self) -> None:
        """Make the folder, for this user alone, and keep it out of git. Raises Refused where it cannot be or is another's."""
        ignore = self.path / ".gitignore"
        with _usable(self.path):
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self._is_ours(ignore):
                raise Refused("is neither empty nor a state folder", where=str(self.path),
                              hint="give a folder that is empty or does not exist with --state DIR", code="state.foreign-folder")
            # One that others may write to, as /tmp, is not this user's to take.
            if not os.listdir(self.path) and not self.path.stat().st_mode & 0o022:
                self.path.chmod(0o700)
            if self.path.stat().st_mode & 0o077:
                raise Refused("others on this machine may read this folder", where=str(self.path),
                              code="state.readable-by-others", hint=f"chmod 700 {self.path}")
            if not ignore.exists():
                write_whole(ignore, IGNORE)

    def _is_ours(self, ignore: Path) -> bool:
        """Whether it lies where ours do, or was begun by us or by people, or comes from a backup."""
        others = [name for name in os.listdir(self.path) if name != "known_hosts" and not name.startswith(f".{ignore.name}.")]
        return (self.path.parent.name == PARENT or not others or (self.path / "pki/kubernetes.crt").exists()
                or (ignore.is_file() and ignore.read_bytes() == IGNORE))

    @property
    def identity(self) -> str:
        """Return the cluster's identity, derived from its CA; empty where there is no CA yet, or none that can be read."""
        with contextlib.suppress(ClusterctlError):
            if authority := self.read("pki/kubernetes.crt"):
                return hashlib.sha256(authority).hexdigest()[:32]
        return ""

    def read(self, name: str) -> bytes | None:
        """The content of a file in it, None where there is none. A file that others may read is refused."""
        path = self.path / name
        try:
            if path.stat().st_mode & 0o077:
                raise Refused("others on this machine may read this file", where=str(path), code="state.readable-by-others",
                              hint=f"chmod 600 {path}")
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="state.unreadable") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a file in it, 0600 from its first byte."""
        write_whole(self.path / name, content)

    def write_all(self, name: str, files: Mapping[str, bytes]) -> None:
        """Write files of a folder in it; where the folder is new, all of them appear at once or none does."""
        final, fresh = self.path / name, self.path / f".{name}.new"
        if final.is_dir():
            fresh = final
        else:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700)
        for file, content in files.items():
            write_whole(fresh / file, content)
        if fresh != final:
            os.rename(fresh, final)
            sync_folder(self.path)

    @contextlib.contextmanager
    def locked(self, operation: str) -> Iterator[None]:
        """Hold the cluster for one operation of this machine; the lock dies with the process. Raises Locked."""
        self.prepare()
        path = self.path / "lock"
        with _usable(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip() or "an unknown process"
                raise Locked(f"held by {holder}", where=str(self.path), code="lock.held",
                             hint="wait until it is done, then run it again") from None
            who = f"{getpass.getuser()}@{socket.gethostname()}"
            text = f"{who}, pid {os.getpid()}, {operation}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"
            with _usable(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, text.encode(), 0)
            yield
        finally:
            os.close(descriptor)


class Journal:
    """The journal of a run, for people: one JSON line an event, durable before the change that it announces."""

    def __init__(self, folder: StateFolder, name: str) -> None:
        self._path = folder.path / "journal" / f"{name}.jsonl"
        with _usable(self._path):
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, event: Mapping[str, object]) -> None:
        """Append an event. It holds no secret: ids, digests, counts, seconds."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **event}, default=str)
        os.write(self._descriptor, line.encode() + b"\n")
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
