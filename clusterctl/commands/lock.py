"""Pins for the programs of a cluster: missing ones are taken from upstream once and written to the lock file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clusterctl.artifacts.catalog import Artifact, built_in
from clusterctl.artifacts.download import Timeouts
from clusterctl.artifacts.lock_file import ARCHITECTURES, LockFile, Wanted, resolve, unresolved
from clusterctl.artifacts.pins import LOCK, conflicts
from clusterctl.artifacts.store import Progress, open_catalog, prefetch
from clusterctl.artifacts.upstream import Found, Upstream
from clusterctl.cluster.model import MINOR, Cluster
from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions, minor, order
from clusterctl.components.products import files, product_of, releases
from clusterctl.engine.events import Warned
from clusterctl.errors import InputError, IntegrityError, Unreachable
from clusterctl.local.storage import make_folder, user_cache
from clusterctl.plan import running
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts

SOON = Upstream(Timeouts(stall=3, small=5, attempts=1))
"""Upstream, for what can be done without: it is asked once and for a short time."""


def require(session: Session, facts: Mapping[str, Facts] | None = None) -> None:
    """Ensure that every product of the cluster is pinned; take missing pins from upstream.

    The pin of one architecture is enough before ``facts`` are known; then each machine's own architecture is required, too.

    Raises:
        InputError: a pin is missing and may not be taken (``artifact.not-locked``), or upstream has no such release.
        Unreachable, IntegrityError: upstream does not answer, or answers with something else.
    """
    catalog, wanted = session.catalog, _missing(session, facts)
    if not wanted:
        return
    if session.options.locked:
        names = ", ".join(dict.fromkeys(f"{release} {version} ({arch})" for release, version, arch in wanted))
        raise InputError(f"no checksum is known of {names}, and with --locked none is taken from upstream", where=LOCK,
                         code="artifact.not-locked", hint="clusterctl lock -i INVENTORY, and commit what it writes")
    found, errors = resolve(Upstream(), wanted)
    if found:
        LockFile.read(session.cluster.base).add(found)
        catalog.add({one.path: one.pin for one in found}, LOCK)
        session.engine.events.progress(taken(found))
    if _missing(session, facts):
        raise unresolved(errors)
    for (release, version, arch), error in errors:
        if isinstance(error, IntegrityError | Unreachable):
            session.engine.events.emit(Warned(f"no checksum of {release} {version} ({arch}) was taken: {error.line}"))


def _missing(session: Session, facts: Mapping[str, Facts] | None) -> list[Wanted]:
    wanted = [(*pair, arch) for pair in session.catalog.missing(releases(session.cluster)) for arch in ARCHITECTURES]
    wanted += files(session.cluster, {name: one.arch for name, one in (facts or {}).items()})
    return [one for one in dict.fromkeys(wanted) if one[0].at(*one[1:]) not in session.catalog.pins]


def choose_patch(session: Session, *, ask: bool) -> Cluster:
    """Return the cluster with the patch release of the minor that the inventory names: locked, or else upstream's newest.

    The newest is locked. Where upstream is not asked (not ``ask``, ``--locked``, a mirror) or does not answer, the built-in one
    is meant.
    """
    cluster, named = session.cluster, session.cluster.settings.kubernetes
    version = locked_patch(session, named, ask=ask) if named and MINOR.fullmatch(named) else ""
    return cluster.at(known_versions(version, **cluster.settings.versions)) if version else cluster


def locked_patch(session: Session, minor: str, *, ask: bool, anew: bool = False) -> str:
    """Return the patch release that the lock file has for a minor, or else upstream's newest, which is locked; "" for neither.

    Upstream is not asked without ``ask``, with ``--locked`` and where the cluster has a mirror. ``anew``: it is asked, too, where
    the lock file has a patch release.
    """
    locked = LockFile.read(session.cluster.base)
    version = locked.releases.get(minor, "")
    if ask and (anew or not version) and not session.options.locked and not session.cluster.settings.artifacts.mirror:
        newest, events = SOON.newest_if_known(minor), session.engine.events
        if newest and newest != version:
            locked.add((), releases={minor: newest})
            events.progress(f"Kubernetes {minor}: {newest} is upstream's newest patch release, written to {LOCK}")
        version = newest or version
        if not newest:
            events.progress(f"Kubernetes {minor}: upstream does not say its newest patch release; "
                            f"{version or known_versions(minor).kubernetes} is used")
    return version


def taken(found: Sequence[Found]) -> str:
    """Return a line with the number of pins and the hosts that they were taken from."""
    hosts = sorted({one.source.split("/")[2] for one in found})
    return f"{len(found)} pins taken from {' and '.join(hosts)}, written to {LOCK}"


def newer_releases(session: Session, facts: Mapping[str, Facts]) -> list[str]:
    """Return each supported minor's newest release, where newer than what runs, with the ``--through`` that it requires.

    Upstream is not asked with ``--locked`` and where the cluster has a mirror.
    """
    if session.options.locked or session.cluster.settings.artifacts.mirror:
        return []
    present = max(running.versions_of(facts).get("kubernetes", {"0"}), key=order)
    with ThreadPoolExecutor(max_workers=len(SUPPORTED_MINORS), thread_name_prefix="upstream") as pool:
        newest = [version for version in pool.map(SOON.newest_if_known, SUPPORTED_MINORS) if version]
    newer = sorted((version for version in newest if order(version) > order(present)), key=order)
    other = [version for version in newer if minor(version) != minor(present)]
    through = {version: "".join(f" --through {one}" for one in other[:number]) for number, version in enumerate(other)}
    return [f"{version} (with{through[version]})" if through.get(version) else version for version in newer]


KUBERNETES = "kubernetes"
"""Stands among products for the patch release that a minor means."""


@dataclass(frozen=True, slots=True)
class LockChange:
    """One line of a lock file that was changed: the digest of a path, or the patch release of a minor; empty for none."""

    path: str
    before: str
    after: str


def lock(cluster: Cluster, kubernetes: Sequence[str], update: Sequence[str], architectures: Sequence[str]) -> list[LockChange]:
    """Lock the checksums of all products of a cluster that nothing else pins, and those of the products ``update`` anew.

    ``kubernetes``: versions to lock for; by default the cluster's. A minor is its newest patch release, which is locked, too;
    ``kubernetes`` among the products of ``update`` asks for it anew. Locked checksums of products of ``update`` that contradict
    other pins are dropped. Raises InputError, Unreachable, IntegrityError; the checksums that were found are locked all the same.
    """
    locked = LockFile.read(cluster.base)
    before = _by_name(locked)
    patches = _patches(cluster, locked, kubernetes, KUBERNETES in update)
    clusters = [cluster.at(known_versions(version)) for version in patches] or [cluster]
    programs = dict.fromkeys(pair for one in clusters for pair in releases(one))
    unknown = sorted(set(update) - {release.name for release, _ in programs} - {KUBERNETES})
    if unknown:
        raise InputError(f"the cluster has no product {unknown[0]!r}", where="--update", code="version.unknown-product",
                         hint=f"products: {', '.join(dict.fromkeys(release.name for release, _ in programs))}")
    given, fixed = cluster.settings.artifacts.pins, built_in()
    dropped = {path for path in conflicts(locked.pins, fixed, given) if product_of(path) in update}
    catalog = open_catalog(cluster.settings.artifacts, cluster.base, dropped=dropped, product_of=product_of)
    pinned = {path for path in catalog.pins if path in given or product_of(path) not in update}
    asked = [(release, version, arch) for release, version in programs for arch in architectures
             if release.at(version, arch) not in pinned]
    found, errors = resolve(Upstream(), asked)
    locked.add([one for one in found if one.path not in fixed], drop=dropped)
    for one in found:
        if one.path in fixed and one.pin.sha256 != fixed[one.path].sha256:
            raise IntegrityError(f"upstream publishes another sha256 than the built-in one (published: {one.pin.sha256}, "
                                 f"built in: {fixed[one.path].sha256})", where=one.path, code="artifact.pin-conflict",
                                 hint="do not use the file; report it to the product's maintainers")
    if errors:
        raise unresolved(errors)
    after = _by_name(locked)
    return [LockChange(name, before.get(name, ""), after.get(name, "")) for name in sorted({*before, *after})
            if before.get(name) != after.get(name)]


def _by_name(locked: LockFile) -> dict[str, str]:
    """Return all that is locked: sha256 by path, and patch releases by minor."""
    releases = {f"Kubernetes {minor}": version for minor, version in locked.releases.items()}
    return {**releases, **{path: pin.sha256 for path, pin in locked.pins.items()}}


def _patches(cluster: Cluster, locked: LockFile, kubernetes: Sequence[str], update: bool) -> list[str]:
    """Return the versions of Kubernetes to lock for, minors as their patch release, which is locked.

    Raises InputError, and Unreachable or IntegrityError where upstream is asked for the newest and does not name it.
    """
    named = cluster.settings.kubernetes
    chosen = list(kubernetes) or [named or ""]
    minors = [version for version in chosen if MINOR.fullmatch(version)]
    if update and not minors:
        raise InputError(f"{chosen[0] or 'no version'} is given, and not a minor with a newest patch release", where="--update",
                         code="lock.no-minor", hint="clusterctl lock --update kubernetes --kubernetes X.Y")
    # With a mirror, the lock file's or the built-in patch release is meant, as for plan and apply.
    asks = bool(kubernetes) or update or not cluster.settings.artifacts.mirror
    newest = {one: Upstream().newest(one) for one in minors if asks and (update or one not in locked.releases)}
    locked.add((), releases=newest)
    return [locked.releases.get(version, version) for version in chosen if kubernetes or version in minors]


def verify(cluster: Cluster, progress: Progress) -> int:
    """Download every file of the lock file anew, compare sha256 and size, and return the number of files.

    Raises InputError without a locked file, IntegrityError, Unreachable, Problems.
    """
    locked = LockFile.read(cluster.base)
    if not locked.entries:
        raise InputError("no file is locked", where=str(locked.path), code="lock.missing", hint="clusterctl lock -i INVENTORY")
    settings = cluster.settings.artifacts
    cache = cluster.base / settings.cache.expanduser() if settings.cache else user_cache()
    make_folder(cache)
    with tempfile.TemporaryDirectory(prefix="verify-", dir=cache) as folder:
        catalog = open_catalog(settings.model_copy(update={"cache": Path(folder)}), cluster.base, progress, product_of=product_of)

        def compared(artifact: Artifact) -> Path:
            copy = catalog.fetcher(artifact)
            size = copy.stat().st_size
            if copy.is_relative_to(folder):
                copy.unlink()
            if artifact.size not in (0, size):
                raise IntegrityError(f"has {size} bytes, {artifact.size} are locked", where=artifact.path,
                                     code="artifact.mismatch",
                                     hint=f"take it anew: clusterctl lock -i INVENTORY --update {product_of(artifact.path)}")
            return copy

        prefetch(Artifact(path.rpartition("/")[2], "", "", path, pin.sha256, pin.size, (), compared, upstream=pin.url)
                 for path, pin in locked.pins.items())
    return len(locked.entries)
