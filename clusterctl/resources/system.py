"""Resources of the operating system: packages, kernel modules, sysctls, users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.resources.base import Change, Resource, State
from clusterctl.shell import Call, Observation, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Packages(Resource):
    """Packages of the distribution, installed in one go; nothing is ever removed or upgraded."""

    names: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"packages:{','.join(self.names)}"

    def desired(self) -> State:
        return dict.fromkeys(self.names, "installed")

    def probes(self) -> Sequence[Probe]:
        return tuple(("package", name) for name in self.names)

    def observed(self, seen: Observation) -> State:
        return {name: "absent" if seen.get("package", name) is None else "installed" for name in self.names}

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_packages", *change.fields),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module(Resource):
    """A kernel module. ``evidence`` is a path that exists where the kernel has it, also where it is built in."""

    name: str
    evidence: str

    @property
    def id(self) -> str:
        return f"module:{self.name}"

    def desired(self) -> State:
        return {"loaded": "yes"}

    def probes(self) -> Sequence[Probe]:
        return (("module", f"{self.name}={self.evidence}"),)

    def observed(self, seen: Observation) -> State | None:
        return None if seen.get("module", f"{self.name}={self.evidence}") is None else {"loaded": "yes"}

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_module", self.name),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(Resource):
    """The running value of a kernel setting; what survives a reboot is a file of its own."""

    key: str
    value: str

    @property
    def id(self) -> str:
        return f"sysctl:{self.key}"

    def desired(self) -> State:
        return {"value": self.value}

    def probes(self) -> Sequence[Probe]:
        return (("text", self._path),)

    def observed(self, seen: Observation) -> State | None:
        lines = seen.get("text", self._path)
        return {"value": " ".join(lines[0].split("\t"))} if lines else None

    @property
    def _path(self) -> str:
        return f"/proc/sys/{self.key.replace('.', '/')}"

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_sysctl", self.key, self.value),)


@dataclass(frozen=True, slots=True, kw_only=True)
class User(Resource):
    """A system user with a group of the same name and no login."""

    name: str
    home: str

    @property
    def id(self) -> str:
        return f"user:{self.name}"

    def desired(self) -> State:
        return {"name": self.name}

    def probes(self) -> Sequence[Probe]:
        return (("user", self.name),)

    def observed(self, seen: Observation) -> State | None:
        words = seen.get("user", self.name)
        return {"name": words[0]} if words else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("put_user", self.name, self.home),)
