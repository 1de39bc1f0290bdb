"""Programs from upstream's releases, and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clusterctl.resources.base import Change, Resource, State
from clusterctl.shell import Blob, Call, Observation, Probe

ROOT = "/opt/clusterctl"
INCOMING = f"{ROOT}/.incoming"
"""Where files are on a machine that were brought to it before its programs are installed."""
PARCEL = ".parcel"
"""How the name of a parcel ends there; other files have the name of their sha256."""


class Parcel(Protocol):
    """The programs of an artifact as they are sent, and their digests as sha256sum prints them."""

    @property
    def path(self) -> Path: ...

    @property
    def sums(self) -> bytes: ...


class Source(Protocol):
    """A pinned artifact: its sha256, and a way to a verified copy of it on this machine."""

    @property
    def sha256(self) -> str: ...

    def fetch(self) -> Path: ...

    def parcel(self) -> Parcel: ...

    @property
    def at(self) -> str:
        """Where it is on the machine already; empty: it is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(Resource):
    """One version of one product, in /opt/clusterctl/NAME/VERSION. ``members``: paths in the archive; none: the file itself."""

    name: str
    version: str
    source: Source
    members: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        return f"{ROOT}/{self.name}/{self.version}"

    @property
    def id(self) -> str:
        return f"program:{self.name}-{self.version}"

    def desired(self) -> State:
        return {"source": self.source.sha256, "files": "intact"}

    def probes(self) -> Sequence[Probe]:
        # All versions: which of them runs follows from the machine's facts.
        return (("program", f"{ROOT}/{self.name}"),)

    def observed(self, seen: Observation) -> State | None:
        words = seen.get("program", self.folder)
        return {"source": words[1], "files": words[0]} if words else None

    def apply(self, change: Change) -> Sequence[Call]:
        at, sha256 = self.source.at, self.source.sha256
        kind = "parcel" if not at or at.endswith(PARCEL) else "archive" if self.members else "program"
        return (("put_program", self.folder, sha256, kind, at or sha256, *(self.members or (self.name,))),)

    def payload(self, change: Change) -> Mapping[str, Blob]:
        at, sha256 = self.source.at, self.source.sha256
        if at and not at.endswith(PARCEL):
            return {}
        parcel = self.source.parcel()
        sums = {f"{sha256}.sums": parcel.sums}
        return sums if at else {sha256: parcel.path, **sums}


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Resource):
    """A container image in containerd's store, from an OCI or docker archive."""

    reference: str
    source: Source

    @property
    def id(self) -> str:
        return f"image:{self.reference}"

    def desired(self) -> State:
        return {"reference": self.reference}

    def probes(self) -> Sequence[Probe]:
        return (("image", "all"),)

    def observed(self, seen: Observation) -> State | None:
        return None if seen.get("image", self.reference) is None else {"reference": self.reference}

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_image", self.source.sha256, self.source.at or self.source.sha256),)

    def payload(self, change: Change) -> Mapping[str, Blob]:
        return {} if self.source.at else {self.source.sha256: self.source.fetch()}
