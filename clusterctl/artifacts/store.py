"""Verified copies on this machine: from the cache, the mirror or upstream, in this order."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from clusterctl.artifacts import cache
from clusterctl.artifacts.catalog import CATALOG, UPSTREAM, Artifact, Catalog, Pin, built_in, parse_pins
from clusterctl.artifacts.download import NotFound, Timeouts, TransferInterrupted, digest, obtain, read_small
from clusterctl.artifacts.lock_file import LockFile
from clusterctl.artifacts.pins import MirrorCatalog, is_own_folder, merge
from clusterctl.cluster.model import ArtifactSettings
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Unreachable, raise_all
from clusterctl.local.storage import make_folder, user_cache, write_whole

if TYPE_CHECKING:
    from clusterctl.artifacts.parcel import Parcel

Progress = Callable[[str, int, int | None], None]
"""Told of a download: the artifact's path, the bytes that are there and, where it is known, how many there will be."""


def _silent(path: str, done: int, total: int | None) -> None:
    """Discard progress."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where a mirror is: a folder or the URL that its paths follow."""

    folder: Path | None = None
    url: str = ""

    @classmethod
    def parse(cls, text: str, base: Path) -> Location:
        """The mirror that an inventory names; a relative folder starts at ``base``. Raises InputError."""
        if "://" in text:
            return cls(url=text.rstrip("/"))
        folder = base / Path(text).expanduser()
        try:
            os.stat(f"{folder}/.")
        except OSError as error:
            raise InputError(f"cannot be used: {error.strerror}", where=f"cluster.artifacts.mirror: {folder}",
                             hint=f"fill one: clusterctl mirror --directory {folder}", code="artifact.mirror-unusable") from None
        return cls(folder=folder)


@dataclass(frozen=True, slots=True)
class Store:
    """The cache of this machine in front of a mirror and upstream."""

    cache: Path
    mirror: Location | None = None
    progress: Progress = _silent
    patience: Timeouts = field(default_factory=Timeouts)
    upstream: str = UPSTREAM

    def fetch(self, artifact: Artifact) -> Path:
        """A verified copy: in the mirror's own folder, or in the cache. Raises IntegrityError, Unreachable."""
        cached = self.cache / "artifacts" / "sha256" / artifact.sha256
        cache.refuse_writable(self.cache)
        try:
            return self._local(artifact, cached) or self._downloaded(artifact, cached)
        except OSError as error:
            raise cache.unusable(self.cache, error) from error

    def parcel(self, artifact: Artifact) -> Parcel:
        """The programs of a verified copy, packed for sending. Raises what ``fetch`` raises."""
        from clusterctl.artifacts.parcel import Parcel, write_parcel

        source = self.fetch(artifact)
        identity = hashlib.sha256("\0".join((artifact.sha256, *artifact.programs)).encode()).hexdigest()
        target = self.cache / "parcels" / f"{identity}.tar.zst"
        try:
            make_folder(target.parent)
            with _claimed(target.with_suffix(".part")):
                sums = self._sums(target)
                if sums is None:
                    sums = write_parcel(source, target, artifact.programs, archive=bool(artifact.members))
                    note = digest(target).encode() + b"\n" + sums
                    write_whole(_note(target), cache.seal(f"parcel {identity}", note) + b"\n" + note)
        except OSError as error:
            raise cache.unusable(self.cache, error) from error
        return Parcel(target, sums)

    def _sums(self, parcel: Path) -> bytes | None:
        """Return the sums of a parcel that this user's clusterctl wrote and that has not changed since, else None."""
        try:
            mac, _, note = _note(parcel).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        if not cache.is_sealed(f"parcel {parcel.name.split('.')[0]}", note, mac):
            return None
        sha256, _, sums = note.partition(b"\n")
        return sums if self.is_verified(parcel, sha256.decode()) else None

    def _local(self, artifact: Artifact, cached: Path) -> Path | None:
        """The copy that is on this machine. A file in the mirror that is wrong is an error, not a reason to look elsewhere."""
        if self.is_verified(cached, artifact.sha256):
            return cached
        with contextlib.suppress(FileNotFoundError):
            cached.unlink()
        if self.mirror is None or self.mirror.folder is None:
            return None
        place = self.mirror.folder / artifact.path
        if not place.is_file():
            return None
        if self.is_verified(place, artifact.sha256):
            return place
        raise IntegrityError(f"expected sha256 {artifact.sha256}, got {digest(place)}", where=str(place),
                             hint="remove the file and fill the mirror again: clusterctl mirror", code="artifact.mismatch")

    def is_verified(self, path: Path, sha256: str) -> bool:
        """Whether a file has this digest; one that has not changed since is not read again."""
        stamp = self.cache / "verified" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
        try:
            before = _identity(path, sha256)
            with contextlib.suppress(OSError):
                if cache.is_sealed("verified", before, stamp.read_bytes()):
                    return True
            if digest(path) != sha256 or _identity(path, sha256) != before:
                return False
        except FileNotFoundError:
            return False
        make_folder(stamp.parent)
        write_whole(stamp, cache.seal("verified", before))
        return True

    def _downloaded(self, artifact: Artifact, cached: Path) -> Path:
        """Download into the cache; others that want the same file wait for this."""
        make_folder(cached.parent)
        with _claimed(cached.with_name(f"{artifact.sha256}.part")) as part:
            if self.is_verified(cached, artifact.sha256):
                return cached
            self._obtain_from_any(artifact, part)
            with part.open("rb") as stream:
                os.fsync(stream.fileno())
            os.replace(part, cached)
        self.is_verified(cached, artifact.sha256)
        return cached

    def _sources(self, artifact: Artifact) -> list[str]:
        found = [f"{self.mirror.url}/{artifact.path}"] if self.mirror and self.mirror.url else []
        return found if artifact.path.startswith("images/") else [*found, f"{self.upstream}/{artifact.upstream or artifact.path}"]

    def _obtain_from_any(self, artifact: Artifact, part: Path) -> None:
        """Ask each source in turn; the first that gave a wrong file is asked once more, after the others."""
        sources = self._sources(artifact)
        errors: list[ClusterctlError] = []
        while sources:
            source = sources.pop(0)
            try:
                return obtain(source, part, Pin(artifact.sha256, artifact.size), self.patience,
                              lambda done, total: self.progress(artifact.path, done, total))
            except IntegrityError as error:
                if not any(isinstance(known, IntegrityError) for known in errors):
                    sources.append(source)
                errors.append(error)
            except (NotFound, TransferInterrupted) as error:
                errors.append(error)
        raise _combined(artifact, errors)


def _combined(artifact: Artifact, errors: Sequence[ClusterctlError]) -> ClusterctlError:
    """One error of all that sources said; that a file was wrong outweighs that others could not be reached."""
    reasons = "; ".join(dict.fromkeys(f"{error.where}: {error.message}" for error in errors)) or "no source has it"
    for error in errors:
        if isinstance(error, IntegrityError):
            return IntegrityError(reasons, where=artifact.path, hint=error.hint, code="artifact.mismatch")
    return Unreachable(f"not available: {reasons}", where=artifact.path, code="artifact.unavailable",
                       hint="check the network, or name a mirror that has it: cluster.artifacts.mirror")


def _note(parcel: Path) -> Path:
    """Where the digests of a parcel are noted: its own, then those of its programs."""
    return parcel.with_suffix(".sums")


def _identity(path: Path, sha256: str) -> bytes:
    """Return a value that changes with the file."""
    found = path.stat()
    return json.dumps([str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, sha256]).encode()


@contextlib.contextmanager
def _claimed(part: Path) -> Iterator[Path]:
    """Have an unfinished file for oneself. An empty one goes away again; its lock is that of the file itself."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(descriptor, part):
                continue
            try:
                yield part
            finally:
                if _is_at(descriptor, part) and os.fstat(descriptor).st_size == 0:
                    part.unlink()
            return
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def prefetch(artifacts: Iterable[Artifact], limit: int = 4) -> None:
    """Have verified copies of all of these here, before any machine is touched. Raises the errors of all of them together."""
    def attempt(artifact: Artifact) -> ClusterctlError | None:
        try:
            if artifact.is_packed:
                artifact.parcel()
            else:
                artifact.fetch()
        except ClusterctlError as error:
            return error
        return None

    wanted = {artifact.sha256: artifact for artifact in artifacts}
    pool = ThreadPoolExecutor(max_workers=max(1, limit), thread_name_prefix="artifact")
    try:
        errors = [error for error in pool.map(attempt, wanted.values()) if error is not None]
    finally:
        # After an interrupt downloads are not awaited: the next run resumes them.
        pool.shutdown(wait=False, cancel_futures=True)
    raise_all(sorted(errors, key=lambda error: -error.exit_code))


def open_catalog(settings: ArtifactSettings, base: Path, progress: Progress | None = None, *,
                 patience: Timeouts | None = None, dropped: Collection[str] = (),
                 product_of: Callable[[str], str] | None = None) -> Catalog:
    """Return the catalog of a cluster: the built-in pins, and those that the inventory, the lock file and the mirror add.

    ``base``: the inventory's folder; ``dropped``: locked paths to leave out. Raises InputError, Unreachable, IntegrityError.
    """
    mirror = Location.parse(settings.mirror, base) if settings.mirror else None
    place = base / settings.cache.expanduser() if settings.cache else user_cache()
    cache.refuse_writable(place)
    store = Store(place, mirror, progress or _silent, patience or Timeouts())
    given = {path: Pin(sha256) for path, sha256 in settings.pins.items()}
    pin = given.pop(CATALOG, None)
    locked = {path: pin for path, pin in LockFile.read(base).pins.items() if path not in dropped}
    pins, sources = merge(built_in(), given, locked, _mirror_catalog(store, pin), product_of)
    return Catalog(pins, store.fetch, mirror.url if mirror else UPSTREAM, store.parcel, sources)


def _mirror_catalog(store: Store, pin: Pin | None) -> MirrorCatalog:
    """The mirror's pins of its own files. ``pin``: the inventory's pin of the catalog itself; plain HTTP requires it."""
    if store.mirror is None:
        return MirrorCatalog()
    source, folder = store.mirror.url or str(store.mirror.folder), store.mirror.folder
    where = f"{source}/{CATALOG}"
    content = _read_catalog(store, where)
    sha256 = hashlib.sha256(content or b"").hexdigest()
    if pin is not None and sha256 != pin.sha256:
        raise IntegrityError(f"expected sha256 {pin.sha256}, got {sha256}", where=where, code="artifact.catalog-changed",
                             hint=f"find out what changed it, or give its new sha256 in cluster.artifacts.pins[{CATALOG!r}]")
    if content is None:
        return MirrorCatalog(source)
    if pin is None and folder is None and not source.lower().startswith("https://"):
        raise InputError("a catalog that comes over plain HTTP is used only where the inventory pins it", where=where,
                         code="artifact.catalog-not-pinned",
                         hint=f"use https, or review the catalog and pin it: cluster.artifacts.pins: {{\"{CATALOG}\": {sha256}}}")
    return MirrorCatalog(source, parse_pins(content, where), pin is not None or (folder is not None and is_own_folder(folder)))


def _read_catalog(store: Store, where: str) -> bytes | None:
    """The mirror's catalog; where the mirror does not answer, the one that it had before."""
    if store.mirror is not None and store.mirror.folder is not None:
        try:
            return (store.mirror.folder / CATALOG).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=where, code="artifact.catalog-unreadable",
                             hint="let this user read the mirror") from None
    kept = store.cache / "catalogs" / hashlib.sha256(where.encode()).hexdigest()
    try:
        content = read_small(where, 16 << 20, store.patience)
    except NotFound:
        return None
    except TransferInterrupted as error:
        with contextlib.suppress(OSError):
            return kept.read_bytes()
        raise Unreachable(f"the mirror {error.message}", where=where,
                          hint="check cluster.artifacts.mirror and the network", code="artifact.mirror-unreachable") from error
    with contextlib.suppress(OSError):
        make_folder(kept.parent)
        write_whole(kept, content)
    return content
