"""``clusterctl.lock``: checksums from upstream, stored beside the inventory and under its version control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from clusterctl.artifacts.catalog import Pin, Release
from clusterctl.artifacts.upstream import REACH, Found, Upstream
from clusterctl.cluster.model import SHA256, VERSION
from clusterctl.cluster.versions import minor
from clusterctl.errors import ClusterctlError, InputError, Problems, Unreachable
from clusterctl.local.storage import write_whole

NAME = "clusterctl.lock"
HEADER = b"# Checksums of this cluster's programs, as upstream publishes them. Written by clusterctl; commit it.\n"
AT_ONCE = 8
"""Requests to upstream at a time."""
ARCHITECTURES = ("amd64", "arm64")

Wanted = tuple[Release, str, str]
"""Product, version, architecture."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A locked checksum: where it came from, and on which day (ISO 8601)."""

    pin: Pin
    source: str
    taken: str

    def as_dict(self) -> dict[str, object]:
        size = {"size": self.pin.size} if self.pin.size else {}
        url = {"url": self.pin.url} if self.pin.url else {}
        return {"sha256": self.pin.sha256, **size, **url, "from": self.source, "taken": self.taken}


@dataclass(slots=True)
class LockFile:
    """The locked checksums by path, and the patch release that each minor of Kubernetes was locked to."""

    path: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    releases: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> LockFile:
        """Return the lock file of a folder, empty where there is none. Raises InputError."""
        path = folder / NAME
        try:
            content = yaml.safe_load(path.read_bytes())
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="lock.unreadable") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
            raise _unreadable(place, getattr(error, "problem", None) or "no YAML") from None
        return cls(path, _entries(content, str(path)), _releases(content, str(path)))

    @property
    def pins(self) -> Mapping[str, Pin]:
        return {path: entry.pin for path, entry in self.entries.items()}

    def add(self, found: Iterable[Found]) -> None:
        """Add checksums and write the file atomically. Raises InputError."""
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        self.entries |= {one.path: Entry(one.pin, one.source, today) for one in found}
        self._write()

    def lock_release(self, minor: str, version: str) -> None:
        """Lock a minor of Kubernetes to a patch release. Raises InputError."""
        self.releases[minor] = version
        self._write()

    def _write(self) -> None:
        releases = {"kubernetes": dict(sorted(self.releases.items()))} if self.releases else {}
        files = {path: self.entries[path].as_dict() for path in sorted(self.entries)}
        try:
            content = yaml.safe_dump({**releases, "files": files}, sort_keys=False, width=1000)
            write_whole(self.path, HEADER + content.encode(), 0o644)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", where=str(self.path), code="lock.unwritable",
                             hint="let this user write to the inventory's folder") from None


def _unreadable(where: str, why: str) -> InputError:
    return InputError(why, where=where, code="lock.unreadable",
                      hint="restore it from version control, or remove it: clusterctl lock makes it again")


def _entries(content: Any, where: str) -> dict[str, Entry]:
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict):
        raise _unreadable(where, "has no mapping files")
    return {str(path): _entry(entry, f"{where}: {path}") for path, entry in files.items()}


def _releases(content: Any, where: str) -> dict[str, str]:
    found = content.get("kubernetes", {})
    if not isinstance(found, dict):
        raise _unreadable(where, "kubernetes is not a mapping")
    for release, version in found.items():
        texts = isinstance(release, str) and isinstance(version, str)
        if not texts or not VERSION.fullmatch(version) or minor(version) != release:
            raise _unreadable(where, f"{version!r} is no patch release of {release!r}")
    return found


def _entry(entry: Any, where: str) -> Entry:
    if not isinstance(entry, dict):
        raise _unreadable(where, "is not a mapping")
    sha256, size = entry.get("sha256"), entry.get("size", 0)
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise _unreadable(where, f"sha256 is {sha256!r}, not 64 hexadecimal digits")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise _unreadable(where, f"size is {size!r}, not a number of bytes")
    return Entry(Pin(sha256, size, str(entry.get("url", ""))), str(entry.get("from", "")), str(entry.get("taken", "")))


def resolve(upstream: Upstream, wanted: Sequence[Wanted]) -> tuple[list[Found], list[ClusterctlError]]:
    """Request checksums from upstream, several at a time; return the checksums and the errors."""

    def ask(one: Wanted) -> Found | ClusterctlError:
        try:
            return upstream.find(*one)
        except ClusterctlError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="upstream")
    try:
        answers = list(pool.map(ask, wanted))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return ([answer for answer in answers if isinstance(answer, Found)],
            [answer for answer in answers if isinstance(answer, ClusterctlError)])


def unresolved(missing: Iterable[tuple[Release, str]], errors: Sequence[ClusterctlError]) -> ClusterctlError:
    """Return one error for all checksums that are missing."""
    wrong = list({str(error): error for error in errors if not isinstance(error, Unreachable)}.values())
    if wrong:
        return wrong[0] if len(wrong) == 1 else Problems(wrong)
    names = ", ".join(f"{release} {version}" for release, version in missing)
    reasons = "; ".join(dict.fromkeys(f"{error.where.split('/')[2]}: {error.message}" for error in errors))
    limited = next((error for error in errors if error.code == "artifact.rate-limited"), None)
    return Unreachable(f"no checksum is known of {names}, and upstream cannot be asked ({reasons})", where=NAME,
                       hint=limited.hint if limited else REACH,
                       code="artifact.rate-limited" if limited else "artifact.upstream-unreachable")
