"""Additions of an inventory to a machine. The state before each is recorded there, so that it can be restored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from clusterctl.cluster.machine_settings import Hook
from clusterctl.resources.base import Change, Resource, State
from clusterctl.resources.file import File
from clusterctl.resources.service import Service
from clusterctl.resources.system import Module, Packages, Sysctl
from clusterctl.shell import Call, Observation, Probe

NOTES = "/etc/clusterctl/added"
"""A line for each addition: KIND, NAME and what was there before, separated by tabs."""
HOOKS = "/etc/clusterctl/hooks"
HOSTNAME_FILES = ("/proc/sys/kernel/hostname", "/etc/hostname")


def _note(kind: str, *names: str) -> Call:
    return ("note_added", kind, *names)


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerAdditions(Resource):
    """Additions of one kind that left the inventory. ``names``: those that it has; ``ours``: names that clusterctl needs."""

    kind: str
    names: tuple[str, ...]
    ours: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"added:{self.kind}"

    def desired(self) -> State | None:
        return None

    def probes(self) -> Sequence[Probe]:
        return (("text", NOTES),)

    def observed(self, seen: Observation) -> State | None:
        notes = (line.split("\t", 2) for line in seen.get("text", NOTES) or ())
        left = {words[1]: "added" for words in notes if words[0] == self.kind and words[1:] and words[1] not in self.names}
        return left or None

    def diff(self, seen: State | None) -> Change | None:
        if seen is None:
            return None
        return Change(resource=self, action="remove", fields=tuple(seen), before=seen,
                      reason=f"no longer in the inventory: {', '.join(seen)}")

    def apply(self, change: Change) -> Sequence[Call]:
        gone = [name for name in change.before if name not in self.ours]
        kept = [name for name in change.before if name in self.ours]
        return (*([("undo_added", self.kind, *gone)] if gone else []), *([("forget_added", self.kind, *kept)] if kept else []))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedPackages(Packages):
    """Packages whose services start, as the distribution has them."""

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("package", *change.fields), ("add_packages", *change.fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedModule(Module):
    """A kernel module of the inventory."""

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("module", self.name), *Module.apply(self, change))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedSysctl(Sysctl):
    """A kernel setting of the inventory."""

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("sysctl", self.key), *Sysctl.apply(self, change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostname(Resource):
    """The machine's own name: the kernel's, and the one that it has after a boot."""

    name: str

    @property
    def id(self) -> str:
        return f"hostname:{self.name}"

    def desired(self) -> State:
        return {"kernel": self.name, "boot": self.name}

    def probes(self) -> Sequence[Probe]:
        return tuple(("text", path) for path in HOSTNAME_FILES)

    def observed(self, seen: Observation) -> State:
        kernel, boot = ((seen.get("text", path) or [""])[0].strip() for path in HOSTNAME_FILES)
        return {"kernel": kernel, "boot": boot}

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("hostname", self.name), ("put_hostname", self.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedFile(File):
    """A file of the inventory. ``restarts``: a unit that depends on its content."""

    restarts: str = ""

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("file", self.path), *File.apply(self, change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart(Service):
    """A unit of the operating system that is restarted when its inputs change. Nothing else of it is clusterctl's."""

    @property
    def id(self) -> str:
        return f"restart:{self.unit}"

    def desired(self) -> State:
        return {"stamp": self.stamp}

    def diff(self, seen: State | None, changed: Iterable[str] = (),
             written: Mapping[str, int] = MappingProxyType({})) -> Change | None:
        because = [name for name in self.inputs if name in frozenset(changed)]
        if seen is not None and seen["stamp"] == self.stamp and not because:
            return None
        reason = f"uses {', '.join(because)}" if because else "was not restarted with these files"
        return Change(resource=self, action="restart", fields=("stamp",), reason=reason, before=seen or {}, after=self.desired())

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("restart", self.unit), ("put_restart", self.unit, self.stamp))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedService(Service):
    """A unit of a package that a setting adds: it runs, starts at boot, and is restarted when its inputs change."""

    inputs: tuple[str, ...] = ()

    def apply(self, change: Change) -> Sequence[Call]:
        return (_note("service", self.unit), *Service.apply(self, change))


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Resource):
    """A hook, whose definition is recorded on the machine once it has run; one of the controller has run before.

    ``sensitive``: its command is not shown.
    """

    hook: Hook
    sensitive: bool = False

    @property
    def id(self) -> str:
        return f"hook:{self.hook.name}"

    def desired(self) -> State:
        return {"definition": hashlib.sha256(self.hook.model_dump_json().encode()).hexdigest()}

    @property
    def _record(self) -> str:
        return f"{HOOKS}/{self.hook.name}"

    def probes(self) -> Sequence[Probe]:
        return (("text", self._record),)

    def observed(self, seen: Observation) -> State | None:
        lines = seen.get("text", self._record)
        return {"definition": lines[0]} if lines else None

    def diff(self, seen: State | None) -> Change | None:
        change = Resource.diff(self, seen)
        if change is None:
            return None
        first, *more = self.hook.run.strip().splitlines() or [""]
        shown = "(hidden)" if self.sensitive else f"{first[:77]}..." if more or len(first) > 80 else first
        return Change(resource=self, action=change.action, fields=change.fields, before=change.before, after=change.after,
                      reason=f"runs on the {self.hook.where}: {shown}")

    def apply(self, change: Change) -> Sequence[Call]:
        digest = self.desired()["definition"]
        if self.hook.where == "controller":
            return (_note("hook", self.hook.name), ("note_hook", self.hook.name, digest))
        return (_note("hook", self.hook.name),
                ("run_hook", self.hook.name, digest, str(self.hook.timeout), self.hook.run, self.hook.when or ""))
