"""The baseline of a machine before clusterctl, and the leftovers of clusterctl on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.resources.base import Action, Change, Resource, State
from clusterctl.shell import MARK, Call, Observation, Probe
from clusterctl.shell.footprint import Footprint

BEFORE = "/var/lib/clusterctl/before"
STAMPS = "/var/lib/clusterctl/stamps"
MOST_NAMES = 40
"""How many names a reason has at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline(Resource):
    """A record of what was there before our first change. Made once, on a machine without a mark.

    ``identity``: of the cluster; ``sysctls``: the settings whose values are recorded. A machine that came into a cluster
    without a record gets none any more: it would take our things for its own.
    """

    identity: str
    sysctls: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"before:{BEFORE}"

    def desired(self) -> State:
        return {"before": "recorded"}

    def probes(self) -> Sequence[Probe]:
        return (("stat", BEFORE), ("stat", MARK))

    def observed(self, seen: Observation) -> State | None:
        # A record without a mark is of a run that was killed before it changed anything, or of long ago: it is made anew.
        return {"before": "recorded"} if seen.get("stat", MARK) is not None else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("record_before", self.identity, *self.sysctls),)


@dataclass(frozen=True, slots=True)
class FirewallBaseline(Resource):
    """A record of the nftables tables that were there, made when the packages are that can list them."""

    @property
    def id(self) -> str:
        return f"before:{BEFORE}/tables"

    def desired(self) -> State:
        return {"before": "recorded"}

    def probes(self) -> Sequence[Probe]:
        return (("stat", f"{BEFORE}/tables"), ("stat", BEFORE), ("stat", MARK))

    def observed(self, seen: Observation) -> State | None:
        marked, begun, there = (seen.get("stat", path) is not None for path in (MARK, BEFORE, f"{BEFORE}/tables"))
        return {"before": "recorded"} if marked and (there or not begun) else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("record_firewall",),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers(Resource):
    """One kind of leftovers of clusterctl, which reset removes. ``pods``: the pod network, whose routes are ours."""

    kind: str
    pods: str

    @property
    def id(self) -> str:
        return f"remains:{self.kind}"

    def desired(self) -> State | None:
        return None

    def probes(self) -> Sequence[Probe]:
        return (("remains", self.pods),)

    def observed(self, seen: Observation) -> State | None:
        lines = seen.get("remains", self.kind)
        return dict(line.partition("\t")[::2] for line in lines) if lines else None

    def diff(self, seen: State | None) -> Change | None:
        if seen is None:
            return None
        return Change(resource=self, action=KINDS[self.kind], reason=_told(self.kind, seen), before=seen)

    def apply(self, change: Change) -> Sequence[Call]:
        calls: Mapping[str, Sequence[Call]] = {
            # What the units started may be more by now than was seen.
            "units": (("undo_units", *change.before), ("undo_processes",), ("undo_mounts",), ("undo_network", self.pods),
                      ("undo_firewall",)),
            "network": (("undo_network", self.pods),),
            "packages": (("undo_packages", *change.before), ("undo_users",)),
            "mark": (("return_units",), ("undo_check", self.pods), ("undo_mark",)),
        }
        return calls.get(self.kind, ((f"undo_{self.kind}",),))


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerProduct(Resource):
    """A product that a cluster no longer has, on a host where it runs. ``files``: its own in folders of other products.

    A unit of the same name that clusterctl did not start has no stamp, and is not touched.
    """

    name: str
    footprint: Footprint
    files: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"product:{self.name}"

    def desired(self) -> State | None:
        return None

    def probes(self) -> Sequence[Probe]:
        return tuple(("stat", f"{STAMPS}/{unit}") for unit in self.footprint.units)

    def observed(self, seen: Observation) -> State | None:
        return {unit: "started" for unit in self.footprint.units if seen.get("stat", f"{STAMPS}/{unit}") is not None} or None

    def diff(self, seen: State | None) -> Change | None:
        if seen is None:
            return None
        return Change(resource=self, action="remove", reason=f"no longer in the inventory; stops {', '.join(seen)}", before=seen)

    def apply(self, change: Change) -> Sequence[Call]:
        own = self.footprint
        paths = (*own.configuration, *own.runtime, *self.files)
        return (("undo_product", *(" ".join(words) for words in (own.units, paths, own.interfaces, own.tables, own.prefixes))),)


KINDS: Mapping[str, Action] = {
    "units": "stop",
    "processes": "stop",
    "mounts": "remove",
    "network": "remove",
    "firewall": "remove",
    "added": "remove",
    "packages": "remove",
    "files": "remove",
    "users": "remove",
    "settings": "update",
    "mark": "remove",
}
"""Kinds of leftovers in the order of their removal; the mark last, so that an interrupted reset is detected and continues."""


def _told(kind: str, seen: State) -> str:
    """Return a summary of leftovers; ``-o json`` has all of them."""
    if kind in ("mounts", "packages"):
        return f"{len(seen)} {kind}: {_some(list(seen), 3 if kind == 'mounts' else 20)}"
    if kind == "mark":
        return "the cluster's mark and the record of what was there before, last of all"
    if kind in ("processes", "settings"):
        return _some([f"{name}: {detail}" for name, detail in seen.items()], MOST_NAMES)
    return _some(list(seen), MOST_NAMES)


def _some(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
