"""Services: systemd units whose restarts follow from data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clusterctl.resources.base import Action, Change, Resource, State
from clusterctl.shell import Call, Observation, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(Resource):
    """A unit that runs and starts at boot.

    ``inputs`` are the ids of the resources it depends on. Their digest is stamped on the host after a successful
    start; another stamp means a restart. ``ready`` is a call that succeeds when it serves; ``deadline`` in seconds; one that
    makes progress may take up to ``limit`` seconds.
    ``stamp`` is filled in by the planner, which alone knows the inputs.
    """

    unit: str
    inputs: tuple[str, ...]
    ready: Call = ()
    deadline: int = 90
    limit: int = 600
    stamp: str = ""

    @property
    def id(self) -> str:
        return f"service:{self.unit}"

    @property
    def _stamp(self) -> str:
        return f"/var/lib/clusterctl/stamps/{self.unit}"

    def paths(self) -> Sequence[str]:
        return (self._stamp,)

    def wanted(self) -> State:
        return {"active": "active", "enabled": "enabled", "stamp": self.stamp}

    def probes(self) -> Sequence[Probe]:
        return (("unit", self.unit), ("text", self._stamp), ("text", self._started), ("stat", self._invocation))

    @property
    def _started(self) -> str:
        """The inputs and the invocation of a start that took longer than its deadline."""
        return f"{self._stamp}.started"

    @property
    def _invocation(self) -> str:
        """systemd's link to the id of the current run of the unit."""
        return f"/run/systemd/units/invocation:{self.unit}"

    def parse(self, seen: Observation) -> State | None:
        words = seen.get("unit", self.unit)
        if words is None:
            return None
        unit = dict(word.partition("=")[::2] for word in words)
        if unit.get("LoadState") == "not-found":
            return None
        stamp = seen.get("text", self._stamp)
        started = (seen.get("text", self._started) or [""])[0]
        invocation = (seen.get("stat", self._invocation) or [])[3:]
        if started and invocation and started.endswith(f" {invocation[0]}"):
            unit["Started"] = started.partition(" ")[0]
        return {"active": unit.get("ActiveState", ""), "enabled": unit.get("UnitFileState", ""), "stamp": (stamp or [""])[0],
                **({"started": unit["Started"]} if "Started" in unit else {})}

    def diff(self, seen: State | None, changed: Iterable[str] = ()) -> Change | None:
        """``changed``: the ids of the inputs that this same plan changes; they alone already mean a restart."""
        because = [name for name in self.inputs if name in frozenset(changed)]
        wanted = self.wanted()
        if seen is None or seen["active"] in ("inactive", "failed", "deactivating"):
            reason = "not there" if seen is None else f"is {seen['active']}"
            return Change(resource=self, action="start", fields=tuple(wanted), reason=reason, before=seen or {}, after=wanted)
        fields = tuple(key for key, value in wanted.items() if seen.get(key) != value)
        if self.stamp and seen.get("started") == self.stamp and "enabled" not in fields and not because:
            return Change(resource=self, action="update", fields=("stamp",), reason="started with these inputs; not ready yet",
                          before=seen, after=wanted)
        if because:
            reason = f"uses {', '.join(because[:3])}" + (f" and {len(because) - 3} more" if len(because) > 3 else "")
        elif "stamp" in fields:
            reason = "runs with other inputs than are wanted"
        else:
            reason = " and ".join(f"{key} is {seen[key]}" for key in fields)
        if not fields and not because:
            return None
        action: Action = "restart" if because or fields != ("enabled",) else "update"
        return Change(resource=self, action=action, fields=fields or ("stamp",), reason=reason, before=seen, after=wanted)

    def apply(self, change: Change) -> Sequence[Call]:
        verb = "restart"
        if change.action == "update":
            verb = "await" if change.fields == ("stamp",) else "start"
        return (("put_service", self.unit, self.stamp, verb, str(self.deadline), str(self.limit), *self.ready),)

