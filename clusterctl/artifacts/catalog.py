"""Which file of which release is which program: paths in upstream's own layout, pinned by sha256."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from clusterctl.cluster.model import SHA256
from clusterctl.errors import InputError

if TYPE_CHECKING:
    from clusterctl.artifacts.parcel import Parcel

CATALOG = "catalog.json"
IMAGES = "images/"
"""How the path of an image's archive begins."""
UPSTREAM = "https:/"
"""Prefix of a path upstream; the first part of the path is the host."""
_UPSTREAM = "registry.k8s.io"


@dataclass(frozen=True, slots=True)
class Release:
    """A file of upstream's releases. Texts have ``{version}`` and ``{arch}`` where these stand.

    ``field``: of Versions; ``path``: below the upstream, whose host is the first part; ``members``: what is taken out of an
    archive, none where the file is the program. ``checksums``: the address of upstream's digests, with ``{path}``: one digest, or
    lines ``DIGEST  NAME`` of several files. Without such a file, ``asset``: the GitHub repository, and the pattern of the asset's
    name, which differs between releases.
    """

    name: str
    field: str
    path: str
    members: tuple[str, ...] = ()
    checksums: str = "{path}.sha256"
    asset: tuple[str, str] | None = None

    def __str__(self) -> str:
        return self.name

    def at(self, version: str, arch: str) -> str:
        """Return the path of one version for one architecture."""
        return self.path.format(version=version, arch=arch)

    def members_at(self, version: str, arch: str) -> tuple[str, ...]:
        """Return the members of that version's archive."""
        return tuple(member.format(version=version, arch=arch) for member in self.members)


@dataclass(frozen=True, slots=True)
class ContainerImage:
    """An image of registry.k8s.io, as manifests name it. A mirror may hold it as ``images/NAME-VERSION-ARCH.tar``."""

    name: str
    field: str
    pattern: str

    def reference(self, version: str, registry: str | None = None) -> str:
        """Return its reference. ``registry``: host and path in place of upstream's registry."""
        return f"{registry or _UPSTREAM}/{self.pattern.format(version=version)}"


@dataclass(frozen=True, slots=True)
class Pin:
    """The expected sha256 of a file, and its size in bytes (0 where it is not known).

    ``url``: host and path upstream, where that is not the path by which it is known here.
    """

    sha256: str
    size: int = 0
    url: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """One pinned file. ``path`` is upstream's; ``members`` the files that are taken out of an archive."""

    product: str
    version: str
    arch: str
    path: str
    sha256: str
    size: int
    members: tuple[str, ...]
    fetcher: Callable[[Artifact], Path]
    packer: Callable[[Artifact], Parcel] | None = None
    url: str | None = None
    """Where machines can fetch it: from an HTTP mirror, or from upstream. None: only this machine has it."""
    upstream: str = ""
    """Host and path upstream, where that is not ``path``."""
    at: str = ""
    """Where it is on the machine already, below /opt/clusterctl; empty: it is sent with the program that installs it."""

    @property
    def programs(self) -> Mapping[str, str]:
        """The programs in it: what each is called there -> what it is called on machines."""
        return {name: name.rsplit("/", 1)[-1] for name in self.members or (self.product,)}

    @property
    def is_packed(self) -> bool:
        """Whether its programs are sent as a parcel, and not the file itself."""
        return not self.path.startswith(IMAGES) and self.packer is not None

    def parcel(self) -> Parcel:
        """Its programs, verified, as they are sent. Raises IntegrityError, Unreachable."""
        if self.packer is None:
            raise ValueError("this catalog makes no parcels")
        return self.packer(self)

    def fetch(self) -> Path:
        """A verified copy of it on this machine. Raises IntegrityError, Unreachable."""
        return self.fetcher(self)


def image_path(name: str, version: str, arch: str) -> str:
    """Where a mirror keeps an image's archive."""
    return f"{IMAGES}{name}-{version}-{arch}.tar"


@cache
def built_in() -> Mapping[str, Pin]:
    """The pins that travel with clusterctl: upstream's own releases."""
    return read_pins(Path(__file__).with_name("catalog.json"))


def read_pins(path: Path) -> Mapping[str, Pin]:
    """The pins of a catalog file. Raises InputError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="artifact.catalog-unreadable") from error
    return parse_pins(content, str(path))


def parse_pins(content: bytes, where: str) -> Mapping[str, Pin]:
    """The pins of a catalog: ``{"path": {"sha256": ..., "size": ...}}``; more in an entry is for people. Raises InputError."""
    try:
        return {str(name): _pin(entry) for name, entry in json.loads(content).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"not a catalog: {type(error).__name__}: {error}", where=where,
                         hint="fill the mirror again: clusterctl mirror", code="artifact.catalog-malformed") from None


def _pin(entry: Mapping[str, object]) -> Pin:
    sha256, size = entry["sha256"], entry.get("size", 0)
    if not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is not a sha256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{size!r} is not a size")
    return Pin(sha256, size)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All pins that hold for a cluster, and the way to the files.

    ``base``: what comes before a path where machines fetch it: the URL of a mirror, or ``https:/`` for upstream; empty where a
    folder of this machine is the mirror.
    """

    pins: dict[str, Pin]
    fetcher: Callable[[Artifact], Path]
    base: str = ""
    packer: Callable[[Artifact], Parcel] | None = None
    sources: dict[str, str] = field(default_factory=dict)
    """Where each pin comes from that is not built in: ``the inventory``, or the mirror's folder or URL."""

    def artifact(self, release: Release, version: str, arch: str) -> Artifact:
        """A release's file. Raises InputError where nothing pins it: nothing unpinned is ever installed."""
        path = release.at(version, arch)
        pin = self.pins.get(path)
        if pin is None:
            raise InputError(f"no sha256 is known for {release} {version} ({arch})", where=path, code="artifact.not-pinned",
                             hint="clusterctl lock -i INVENTORY; or give it in the inventory: "
                                  f"cluster.artifacts.pins: {{\"{path}\": <sha256>}}")
        return Artifact(release.name, version, arch, path, pin.sha256, pin.size, release.members_at(version, arch), self.fetcher,
                        self.packer, self._url(path, pin), pin.url)

    def add(self, pins: Mapping[str, Pin], source: str) -> None:
        """Add pins of files that had none."""
        self.pins.update(pins)
        self.sources.update(dict.fromkeys(pins, source))

    def missing(self, releases: Iterable[tuple[Release, str]]) -> list[tuple[Release, str]]:
        """The releases, of these and with their versions, of which no architecture's file is pinned."""
        return [(release, version) for release, version in releases
                if not any(release.at(version, arch) in self.pins for arch in ("amd64", "arm64"))]

    def image(self, name: str, version: str, arch: str) -> Artifact | None:
        """An image's archive where the mirror has one; None: containerd pulls it from its registry."""
        path = image_path(name, version, arch)
        pin = self.pins.get(path)
        if pin is None:
            return None
        return Artifact(name, version, arch, path, pin.sha256, pin.size, (), self.fetcher, self.packer,
                        self._url(path, pin))

    def _url(self, path: str, pin: Pin) -> str | None:
        if self.base == UPSTREAM:
            return None if path.startswith(IMAGES) else f"{UPSTREAM}/{pin.url or path}"
        return f"{self.base}/{path}" if self.base else None


@dataclass(frozen=True, slots=True)
class AnyVersion(Catalog):
    """All versions of the products, and of the images of which any is pinned: for what a host has, before versions are known."""

    def artifact(self, release: Release, version: str, arch: str) -> Artifact:
        return Artifact(release.name, version, arch, "", "", 0, (), self.fetcher)

    def image(self, name: str, version: str, arch: str) -> Artifact | None:
        held = any(path.startswith(f"{IMAGES}{name}-") for path in self.pins)
        return Artifact(name, version, arch, "", "", 0, (), self.fetcher) if held else None
