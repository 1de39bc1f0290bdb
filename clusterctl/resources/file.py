"""Files, folders and links."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.cluster.model import SHA256
from clusterctl.resources.base import Change, Resource, State
from clusterctl.shell import Blob, Call, Observation, Probe


def parse_stat(seen: Observation, path: str) -> tuple[str, str, str] | None:
    """(type, mode, owner) of a path; None where there is nothing."""
    words = seen.get("stat", path)
    return (words[0], words[1], words[2]) if words else None


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Resource):
    """A file with its whole content. ``mode`` is octal text. A sensitive one shows no content anywhere; its mode is 0600."""

    path: str
    content: bytes
    mode: str = "644"
    owner: str = "root:root"
    sensitive: bool = False

    @property
    def id(self) -> str:
        return f"file:{self.path}"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def paths(self) -> Sequence[str]:
        return (self.path,)

    def desired(self) -> State:
        return {"content": self.sha256, "mode": self.mode, "owner": self.owner}

    def probes(self) -> Sequence[Probe]:
        return (("stat", self.path), ("sha", self.path))

    def observed(self, seen: Observation) -> State | None:
        found = parse_stat(seen, self.path)
        if found is None:
            return None
        kind, mode, owner = found
        content = (seen.get("sha", self.path) or ["unreadable"])[0] if kind.startswith("regular") else kind
        return {"content": content, "mode": mode, "owner": owner}

    def apply(self, change: Change) -> Sequence[Call]:
        if change.action == "update" and "content" not in change.fields:
            return (("put_mode", self.path, self.mode, self.owner),)
        expected = change.before.get("content", "absent")
        if change.before and not SHA256.fullmatch(expected):
            expected = "any"
        return (("put_file", self.path, self.mode, self.owner, self.sha256, expected),)

    def payload(self, change: Change) -> Mapping[str, Blob]:
        return {self.sha256: self.content} if "content" in change.fields else {}

    def digest(self, seen: State | None = None, change: Change | None = None) -> str:
        """The content alone: who may read a file is no reason to restart what has read it."""
        return self.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOnceFile(File):
    """A file that is written where it is absent and then left alone: what a program reads once, at its first start."""

    def diff(self, seen: State | None) -> Change | None:
        return File.diff(self, seen) if seen is None else None

    def digest(self, seen: State | None = None, change: Change | None = None) -> str:
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder(Resource):
    """A folder; what is in it is not touched."""

    path: str
    mode: str = "755"
    owner: str = "root:root"

    @property
    def id(self) -> str:
        return f"folder:{self.path}"

    def desired(self) -> State:
        return {"type": "directory", "mode": self.mode, "owner": self.owner}

    def probes(self) -> Sequence[Probe]:
        return (("stat", self.path),)

    def observed(self, seen: Observation) -> State | None:
        found = parse_stat(seen, self.path)
        return dict(zip(("type", "mode", "owner"), found, strict=True)) if found else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_folder", self.path, self.mode, self.owner),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Resource):
    """A symbolic link, switched atomically."""

    path: str
    target: str

    @property
    def id(self) -> str:
        return f"link:{self.path}"

    def paths(self) -> Sequence[str]:
        return (self.path,)

    def desired(self) -> State:
        return {"target": self.target}

    def probes(self) -> Sequence[Probe]:
        return (("stat", self.path),)

    def observed(self, seen: Observation) -> State | None:
        words = seen.get("stat", self.path)
        return {"target": words[4] if len(words) > 4 else f"a {words[0]}"} if words else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_link", self.path, self.target),)
