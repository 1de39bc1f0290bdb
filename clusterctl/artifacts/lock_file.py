"""``clusterctl.lock``: checksums from upstream, stored beside the inventory and under its version control."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from clusterctl.artifacts.catalog import Pin, Release
from clusterctl.artifacts.upstream import REACH, Found, Upstream
from clusterctl.cluster.model import SHA256, VERSION
from clusterctl.cluster.versions import minor
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Problems, Unreachable, raise_all
from clusterctl.inventory.document import Node, parse, python_node
from clusterctl.inventory.findings import Diagnostics, Place, did_you_mean
from clusterctl.local.storage import write_whole

NAME = "clusterctl.lock"
HEADER = b"# Checksums of this cluster's programs, as upstream publishes them. Written by clusterctl; commit it.\n"
AT_ONCE = 8
"""Requests to upstream at a time."""
ARCHITECTURES = ("amd64", "arm64")
ADDRESS = re.compile(r"[a-z0-9.-]+/(?!/)[!-~]+")
RESTORE = "restore it from version control, or remove it: clusterctl lock makes it again"

Wanted = tuple[Release, str, str]
"""Product, version, architecture."""
Failure = tuple[Wanted, ClusterctlError]


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
        """Return the lock file of a folder, empty where there is none. Raises InputError, or Problems with all that is wrong."""
        path = folder / NAME
        findings = Diagnostics()
        try:
            root = parse(path.read_bytes(), str(path), findings)
            found = _lock_file(root or python_node({}, Place(str(path)), "", Place(str(path))), path, findings)
            findings.raise_problems()
        except FileNotFoundError:
            return cls(path)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="lock.unreadable") from None
        except (InputError, Problems) as error:
            raise_all([InputError(one.message, where=one.where, code="lock.unreadable", hint=RESTORE)
                       for one in (error.errors if isinstance(error, Problems) else (error,))])
        return found

    @property
    def pins(self) -> Mapping[str, Pin]:
        return {path: entry.pin for path, entry in self.entries.items()}

    def add(self, found: Iterable[Found], *, drop: Iterable[str] = (), releases: Mapping[str, str] | None = None) -> None:
        """Change the file atomically: add checksums, drop those of paths, lock minors of Kubernetes to patch releases.

        The file is read again under a lock, as another run may have changed it; an entry with an equal pin keeps its day. Raises
        InputError, and IntegrityError where two files would have one checksum.
        """
        today, target = f"{datetime.now(UTC):%Y-%m-%d}", Path(os.path.realpath(self.path))
        with _exclusive(target.parent):
            now = LockFile.read(self.path.parent)
            self.releases = {**now.releases, **(releases or {})}
            self.entries = {path: entry for path, entry in now.entries.items() if path not in set(drop)}
            owners = {entry.pin.sha256: path for path, entry in self.entries.items()}
            for one in found:
                if (owner := owners.setdefault(one.pin.sha256, one.path)) != one.path:
                    raise IntegrityError(f"upstream publishes one sha256 for two files, the other is {owner}", where=one.path,
                                         code="artifact.pin-conflict", hint="does a proxy answer in place of the server?")
                known = self.entries.get(one.path)
                if known is None or known.pin != replace(one.pin, size=one.pin.size or known.pin.size):
                    self.entries[one.path] = Entry(one.pin, one.source, today)
            if self != now:
                self._write(target)

    def _write(self, target: Path) -> None:
        releases = {"kubernetes": dict(sorted(self.releases.items()))} if self.releases else {}
        files = {path: self.entries[path].as_dict() for path in sorted(self.entries)}
        try:
            content = yaml.safe_dump({**releases, "files": files}, sort_keys=False, width=1000)
            write_whole(target, HEADER + content.encode(), 0o644)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror}", where=str(self.path), code="lock.unwritable",
                             hint="let this user write to the inventory's folder") from None


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Exclude other runs from changing a lock file. Without effect on a file system that cannot lock a folder, as NFS."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            held.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _lock_file(root: Node, path: Path, findings: Diagnostics) -> LockFile:
    parts = _entries_of(root, findings, ("kubernetes", "files"))
    if "files" not in parts:
        findings.refuse(root.place, "has no mapping files")
    releases = _entries_of(parts["kubernetes"], findings) if "kubernetes" in parts else {}
    for release, node in releases.items():
        if not VERSION.fullmatch(node.written) or minor(node.written) != release:
            findings.refuse(node.place, f"{node.written!r} is no patch release of {release!r}")
    files = _entries_of(parts["files"], findings) if "files" in parts else {}
    entries = {name: _entry(name, node, findings) for name, node in files.items()}
    owners: dict[str, str] = {}
    for name, entry in entries.items():
        if (owner := owners.setdefault(entry.pin.sha256, name)) != name and entry.pin.sha256:
            findings.refuse(files[name].key, f"{name} has the sha256 of {owner}: two files with one content are not locked")
    return LockFile(path, entries, {release: node.written for release, node in releases.items()})


def _entries_of(node: Node, findings: Diagnostics, known: Sequence[str] = ()) -> Mapping[str, Node]:
    """Return the entries of a mapping, none of any other value; ``known``: the keys that it may have."""
    if not isinstance(node.value, dict):
        findings.refuse(node.place, f"{node.path or 'the document'} is {node.kind}, not a mapping")
        return {}
    for name, inner in node.value.items():
        if known and name not in known:
            findings.refuse(inner.key, f"{inner.path}: unknown key{did_you_mean(name, known)}")
    return node.value


def _entry(path: str, node: Node, findings: Diagnostics) -> Entry:
    found = _entries_of(node, findings, ("sha256", "size", "url", "from", "taken"))
    texts = {name: inner.written for name, inner in found.items()}
    sha256, size = texts.get("sha256", ""), found["size"].value if "size" in found else 0
    if not ADDRESS.fullmatch(path):
        findings.refuse(node.key, f"{path!r} is no path upstream: HOST/PATH, without https://")
    if isinstance(node.value, dict) and not SHA256.fullmatch(sha256):
        findings.refuse(found["sha256"].place if "sha256" in found else node.key,
                        f"{path}: sha256 is {sha256!r}, not 64 hexadecimal digits in lower case")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        findings.refuse(found["size"].place, f"{path}: size is {found['size'].shown}, not a number of bytes")
        size = 0
    if "url" in found and not ADDRESS.fullmatch(texts["url"]):
        findings.refuse(found["url"].place, f"{path}: url is {texts['url']!r}, not HOST/PATH without https://")
    return Entry(Pin(sha256, size, texts.get("url", "")), texts.get("from", ""), texts.get("taken", ""))


def resolve(upstream: Upstream, wanted: Sequence[Wanted]) -> tuple[list[Found], list[Failure]]:
    """Request checksums from upstream, several at a time; return the checksums and the errors."""

    def ask(one: Wanted) -> Found | Failure:
        try:
            return upstream.find(*one)
        except ClusterctlError as error:
            return one, error

    pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="upstream")
    try:
        answers = list(pool.map(ask, wanted))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return ([answer for answer in answers if isinstance(answer, Found)],
            [answer for answer in answers if not isinstance(answer, Found)])


def unresolved(failures: Sequence[Failure]) -> ClusterctlError:
    """Return one error for all checksums that are missing: of each product, version and cause one line."""
    causes: dict[tuple[str, ...], list[Failure]] = {}
    for (release, version, arch), error in failures:
        text = error.message.replace(str(release), ""), error.hint
        cause = (release.field, version, *text) if error.code == "artifact.not-released" else (str(error),)
        causes.setdefault(cause, []).append(((release, version, arch), error))
    if wrong := [_together(alike) for alike in causes.values() if not isinstance(alike[0][1], Unreachable)]:
        return wrong[0] if len(wrong) == 1 else Problems(wrong)
    names = ", ".join(dict.fromkeys(f"{release} {version}" for (release, version, _), _ in failures))
    errors = [error for _, error in failures]
    reasons = "; ".join(dict.fromkeys(f"{error.where.split('/')[2]}: {error.message}" for error in errors))
    first = next((error for error in errors if error.code != "artifact.upstream-unreachable"), errors[0])
    return Unreachable(f"no checksum is known of {names}, and upstream cannot be asked ({reasons})", where=NAME,
                       hint=first.hint or REACH, code=first.code)


def _together(alike: Sequence[Failure]) -> ClusterctlError:
    """Return one error for failures of one product, version and cause: the first, with the names of all programs."""
    (release, _, _), first = alike[0]
    names = ", ".join(dict.fromkeys(str(one) for (one, _, _), _ in alike))
    return type(first)(first.message.replace(str(release), names), where=first.where, hint=first.hint, code=first.code)
