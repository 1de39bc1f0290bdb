"""The cache's folder, and records in it under a key that is kept elsewhere: a record written by others is not believed."""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import stat
from pathlib import Path

from clusterctl.errors import InputError, Refused
from clusterctl.local.storage import make_folder, user_home, write_whole

FOLDERS = ("artifacts", "artifacts/sha256", "parcels", "verified", "catalogs")
"""The folders of a cache."""


def refuse_writable(cache: Path) -> None:
    """Raises Refused for a cache that other users may write to: programs are sent from it to machines as root."""
    for place in (cache, *(cache / name for name in FOLDERS)):
        try:
            found = place.stat()
        except OSError:  # What cannot be looked at cannot be used either: that is reported when it is needed.
            continue
        if found.st_uid not in (os.geteuid(), 0):
            raise Refused(f"belongs to another user (uid {found.st_uid}), who may replace programs in it", where=str(place),
                          code="artifact.cache-writable", hint=f"chown -R {os.geteuid()} {cache}; or set cluster.artifacts.cache")
        if found.st_mode & 0o022:
            raise Refused(f"other users may write to the cache (mode {stat.S_IMODE(found.st_mode):04o})", where=str(place),
                          code="artifact.cache-writable", hint=f"chmod -R go-w {cache}")


def unusable(cache: Path, error: OSError) -> Refused:
    """The refusal for a cache that cannot be read or written."""
    return Refused(f"the cache cannot be used: {error.strerror or error}", where=str(cache), code="artifact.cache-unusable",
                   hint="name a folder that can be written: cluster.artifacts.cache")


def seal(kind: str, content: bytes) -> bytes:
    """Return the MAC of a record, in hexadecimal. ``kind`` separates records of one kind from those of another."""
    return hmac.new(_key(_key_file()), kind.encode() + b"\0" + content, hashlib.sha256).hexdigest().encode()


def is_sealed(kind: str, content: bytes, mac: bytes) -> bool:
    """Whether a MAC is that of a record."""
    return hmac.compare_digest(seal(kind, content), mac)


def _key_file() -> Path | None:
    """``cache.key`` in the user's state folder; None for a user without a home."""
    try:
        state = os.environ.get("XDG_STATE_HOME") or user_home() / ".local/state"
    except InputError:
        return None
    return Path(state) / "clusterctl" / "cache.key"


@functools.cache
def _key(path: Path | None) -> bytes:
    """Return this user's key; make a new one in place of a key that others may have read or written.

    Where no key can be kept, each process has its own: records then last no longer than the process.
    """
    try:
        return _read_key(path) or _new_key(path) if path else os.urandom(32)
    except OSError:
        return os.urandom(32)


def _read_key(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        content = stream.read(33) if ours else b""
    return content if len(content) == 32 else None


def _new_key(path: Path) -> bytes:
    make_folder(path.parent)
    write_whole(path, os.urandom(32))
    # Another process may have made one at the same time: the last one holds.
    return _read_key(path) or os.urandom(32)
