"""Services: systemd units whose restarts follow from data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

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

    def desired(self) -> State:
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

    def observed(self, seen: Observation) -> State | None:
        words = seen.get("unit", self.unit)
        if words is None:
            return None
        unit = dict(word.partition("=")[::2] for word in words)
        if unit.get("LoadState") == "not-found":
            return None
        stamp = seen.get("text", self._stamp)
        started = (seen.get("text", self._started) or [""])[0]
        link = seen.get("stat", self._invocation) or []
        invocation = link[4] if len(link) > 4 else ""
        if started and invocation and started.endswith(f" {invocation}"):
            unit["Started"] = started.partition(" ")[0]
        digest, _, stamped = (stamp or [""])[0].partition(" ")
        again = bool(invocation and stamped and invocation != stamped)
        return {"active": unit.get("ActiveState", ""), "enabled": unit.get("UnitFileState", ""), "stamp": digest,
                **({"started": unit["Started"]} if "Started" in unit else {}),
                **({"outdated": "yes"} if unit.get("NeedDaemonReload") == "yes" else {}),
                **({"since": link[3]} if again and link[3] else {})}

    def diff(self, seen: State | None, changed: Iterable[str] = (),
             written: Mapping[str, int] = MappingProxyType({})) -> Change | None:
        """Return what must be done with the unit.

        ``changed``: the ids of the inputs that this same plan changes; they alone already mean a restart. ``written``: when
        inputs were written, by id, in seconds of the epoch.
        """
        because = [name for name in self.inputs if name in frozenset(changed)]
        # Restarted outside a run, and its inputs were written after that: the process may have loaded other content.
        since = int((seen or {}).get("since", 0))
        doubtful = [name for name in self.inputs if 0 < since < written.get(name, 0)]
        desired = self.desired()
        if seen is None or seen["active"] in ("inactive", "failed", "deactivating"):
            reason = "not there" if seen is None else f"is {seen['active']}"
            return Change(resource=self, action="start", fields=tuple(desired), reason=reason, before=seen or {}, after=desired)
        fields = tuple(key for key, value in desired.items() if seen.get(key) != value)
        if self.stamp and seen.get("started") == self.stamp and "enabled" not in fields and not because:
            return Change(resource=self, action="update", fields=("stamp",), reason="started with these inputs; not ready yet",
                          before=seen, after=desired)
        if because:
            reason = f"uses {', '.join(because[:3])}" + (f" and {len(because) - 3} more" if len(because) > 3 else "")
        elif "stamp" in fields:
            reason = "runs with other inputs than are wanted"
        elif doubtful:
            reason = f"was restarted outside clusterctl before {doubtful[0]} was last written"
        else:
            reason = " and ".join(f"{key} is {seen[key]}" for key in fields)
        if not fields and not because and not doubtful:
            return None if "outdated" not in seen else Change(
                resource=self, action="update", fields=("unit",), reason="systemd has loaded another version of its unit",
                before=seen, after=desired)
        action: Action = "restart" if because or doubtful or fields != ("enabled",) else "update"
        return Change(resource=self, action=action, fields=fields or ("stamp",), reason=reason, before=seen, after=desired)

    def apply(self, change: Change) -> Sequence[Call]:
        verb: Literal["restart", "start", "await"] = "restart"
        if change.action == "update":
            verb = "await" if change.fields == ("stamp",) else "start"
        return (self.put(verb),)

    def put(self, verb: Literal["restart", "start", "await"]) -> Call:
        """Return the call that starts the unit, or with ``await`` waits for a start that has begun, until the unit is ready."""
        return ("put_service", self.unit, self.stamp, verb, str(self.deadline), str(self.limit), *self.ready)

