"""Pins for the programs of a cluster: missing ones are taken from upstream once and written to the lock file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from clusterctl.artifacts.catalog import Artifact, built_in
from clusterctl.artifacts.download import Timeouts
from clusterctl.artifacts.lock_file import ARCHITECTURES, LockFile, resolve, unresolved
from clusterctl.artifacts.pins import LOCK
from clusterctl.artifacts.store import Progress, open_catalog, prefetch
from clusterctl.artifacts.upstream import Found, Upstream
from clusterctl.cluster.model import MINOR, Cluster, Versions
from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions, order
from clusterctl.components.products import releases
from clusterctl.errors import InputError, IntegrityError
from clusterctl.plan import running
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts

SOON = Upstream(Timeouts(stall=3, small=5, attempts=1))
"""Upstream, for what can be done without: it is asked once and for a short time."""


def require(session: Session) -> None:
    """Ensure that every product of the cluster is pinned; take missing pins from upstream.

    Raises:
        InputError: a pin is missing and may not be taken (``artifact.not-locked``), or upstream has no such release.
        Unreachable, IntegrityError: upstream does not answer, or answers with something else.
    """
    catalog = session.catalog
    missing = catalog.missing(releases(session.cluster))
    if not missing:
        return
    if session.options.locked:
        names = ", ".join(f"{release} {version}" for release, version in missing)
        raise InputError(f"no checksum is known of {names}, and with --locked none is taken from upstream", where=LOCK,
                         code="artifact.not-locked", hint="clusterctl lock -i INVENTORY, and commit what it writes")
    found, errors = resolve(Upstream(), [(release, version, arch) for release, version in missing for arch in ARCHITECTURES])
    if found:
        LockFile.read(session.cluster.base).add(found)
        catalog.add({one.path: one.pin for one in found}, LOCK)
        session.engine.events.progress(taken(found))
    if left := catalog.missing(missing):
        raise unresolved(left, errors)


def choose_patch(session: Session, *, ask: bool) -> Cluster:
    """Return the cluster with the patch release of the minor that the inventory names: locked, or else upstream's newest.

    The newest is locked. Where upstream is not asked (not ``ask``, ``--locked``, a mirror) or does not answer, the built-in one
    is meant.
    """
    cluster, named = session.cluster, session.cluster.settings.kubernetes
    version = locked_patch(session, named, ask=ask) if named and MINOR.fullmatch(named) else ""
    return cluster.at(known_versions(version, **cluster.settings.versions)) if version else cluster


def locked_patch(session: Session, minor: str, *, ask: bool) -> str:
    """Return the patch release that the lock file has for a minor, or else upstream's newest, which is locked; "" for neither.

    Upstream is not asked without ``ask``, with ``--locked`` and where the cluster has a mirror.
    """
    locked = LockFile.read(session.cluster.base)
    version = locked.releases.get(minor, "")
    if ask and not version and not session.options.locked and not session.cluster.settings.artifacts.mirror:
        version = SOON.newest(minor)
        if version:
            locked.lock_release(minor, version)
            session.engine.events.progress(f"Kubernetes {minor}: {version} is upstream's newest patch release, written to {LOCK}")
    return version


def taken(found: Sequence[Found]) -> str:
    """Return a line with the number of pins and the hosts that they were taken from."""
    hosts = sorted({one.source.split("/")[2] for one in found})
    return f"{len(found)} pins taken from {' and '.join(hosts)}, written to {LOCK}"


def newer_releases(facts: Mapping[str, Facts]) -> list[str]:
    """Return the newest release of each supported minor, where newer than what runs; none where upstream does not answer soon."""
    present = max(running.versions_of(facts).get("kubernetes", {"0"}), key=order)
    with ThreadPoolExecutor(max_workers=len(SUPPORTED_MINORS), thread_name_prefix="upstream") as pool:
        newest = list(pool.map(SOON.newest, SUPPORTED_MINORS))
    return [version for version in newest if version and order(version) > order(present)]


KUBERNETES = "kubernetes"
"""Stands among products for the patch release that a minor means."""


@dataclass(frozen=True, slots=True)
class LockChange:
    """One line of a lock file that was added or changed: the digest before, empty where there was none, and now."""

    path: str
    before: str
    after: str

    def as_dict(self) -> dict[str, str]:
        return {"path": self.path, "before": self.before, "after": self.after}


def lock(cluster: Cluster, kubernetes: Sequence[str], update: Sequence[str], architectures: Sequence[str]) -> list[LockChange]:
    """Lock the checksums of all products of a cluster that nothing else pins, and those of the products ``update`` anew.

    ``kubernetes``: versions to lock for; by default the cluster's. A minor is its newest patch release, which is locked, too;
    ``kubernetes`` among the products of ``update`` asks for it anew. Raises InputError, Unreachable, IntegrityError; the
    checksums that were found are locked all the same.
    """
    named = cluster.settings.kubernetes
    if not kubernetes and named and MINOR.fullmatch(named):
        kubernetes = (named,)
    clusters = [cluster.at(_versions(cluster, version, KUBERNETES in update)) for version in kubernetes] or [cluster]
    programs = dict.fromkeys(pair for one in clusters for pair in releases(one))
    unknown = sorted(set(update) - {release.name for release, _ in programs} - {KUBERNETES})
    if unknown:
        raise InputError(f"the cluster has no product {unknown[0]!r}", where="--update", code="version.unknown-product",
                         hint=f"products: {', '.join(dict.fromkeys(release.name for release, _ in programs))}")
    catalog, locked = open_catalog(cluster.settings.artifacts, cluster.base), LockFile.read(cluster.base)
    asked = [(release, version, arch) for release, version in programs for arch in architectures
             if release.name in update or release.at(version, arch) not in catalog.pins]
    found, errors = resolve(Upstream(), asked)
    before = {path: entry.pin.sha256 for path, entry in locked.entries.items()}
    fixed = built_in()
    taken = [one for one in found if one.path not in fixed or one.pin.sha256 != fixed[one.path].sha256]
    if wrong := [one for one in taken if one.path in fixed]:
        raise IntegrityError(f"upstream publishes another sha256 than the built-in one (published: {wrong[0].pin.sha256}, "
                             f"built in: {fixed[wrong[0].path].sha256})", where=wrong[0].path, code="artifact.pin-conflict",
                             hint="do not use the file; report it to the product's maintainers")
    if taken:
        locked.add(taken)
    if errors:
        known = {one.path for one in found}
        left = {(release, version) for release, version, arch in asked if release.at(version, arch) not in known}
        raise unresolved(sorted(left, key=str), errors)
    return [LockChange(one.path, before.get(one.path, ""), one.pin.sha256) for one in taken
            if before.get(one.path) != one.pin.sha256]


def _versions(cluster: Cluster, kubernetes: str, update: bool) -> Versions:
    try:
        known_versions(kubernetes)
        if MINOR.fullmatch(kubernetes):
            locked = LockFile.read(cluster.base)
            newest = locked.releases.get(kubernetes) if not update else None
            if not newest and (newest := Upstream().newest(kubernetes)):
                locked.lock_release(kubernetes, newest)
            kubernetes = newest or kubernetes
        return known_versions(kubernetes)
    except ValueError as error:
        raise InputError(str(error), where="--kubernetes", code="version.unsupported",
                         hint="for instance --kubernetes 1.36.4") from None


def verify(cluster: Cluster, progress: Progress) -> int:
    """Download every file of the lock file and compare it; return their number. Raises IntegrityError, Unreachable, Problems."""
    catalog, locked = open_catalog(cluster.settings.artifacts, cluster.base, progress), LockFile.read(cluster.base)
    prefetch(Artifact(path.rpartition("/")[2], "", "", path, entry.pin.sha256, entry.pin.size, (), catalog.fetcher,
                      upstream=entry.pin.url) for path, entry in locked.entries.items())
    return len(locked.entries)
