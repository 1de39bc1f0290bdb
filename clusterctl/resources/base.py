"""Resources: one part of the desired state of a machine, with how to observe, compare and apply it. No I/O here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from clusterctl.shell import Blob, Call, Observation, Probe

State = Mapping[str, str]
"""The state of a resource, desired or observed; both have the same keys."""

Action = Literal["create", "update", "remove", "restart", "start", "stop"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of a plan: the resource, the action and the reason. It is printed, compared and executed from this value."""

    resource: Resource
    action: Action
    fields: tuple[str, ...] = ()
    reason: str = ""
    before: State = field(default_factory=dict)
    after: State = field(default_factory=dict)

    @property
    def disruptive(self) -> bool:
        """Whether something that runs is interrupted."""
        return self.action in ("restart", "stop")

    def as_dict(self) -> dict[str, object]:
        """For ``-o json``: no content and no secret, as states hold digests alone."""
        return {"resource": self.resource.id, "action": self.action, "fields": list(self.fields), "reason": self.reason,
                "before": dict(self.before), "after": dict(self.after), "disruptive": self.disruptive}


class Resource(ABC):
    """Base of all resources. A subclass is a frozen dataclass and knows no machine."""

    __slots__ = ()

    @property
    @abstractmethod
    def id(self) -> str:
        """``kind:name``, unique on a host."""

    @abstractmethod
    def desired(self) -> State | None:
        """Return the desired state; None: the resource must be absent."""

    @abstractmethod
    def probes(self) -> Sequence[Probe]:
        """Return the probes that observe the state."""

    @abstractmethod
    def observed(self, seen: Observation) -> State | None:
        """Return the observed state; None: the resource is absent."""

    @abstractmethod
    def apply(self, change: Change) -> Sequence[Call]:
        """Return the calls of shell functions that carry a change out."""

    def paths(self) -> Sequence[str]:
        """Return the files that a change touches. They are copied before a running service is interrupted, for a rollback."""
        return ()

    def payload(self, change: Change) -> Mapping[str, Blob]:
        """Return the files to send with the program, by the names that ``apply`` uses."""
        return {}

    def digest(self, seen: State | None = None, change: Change | None = None) -> str:
        """Return the digest that a service which uses this resource depends on, once ``change`` is done."""
        return repr(sorted((self.desired() or {}).items()))

    def diff(self, seen: State | None) -> Change | None:
        """Return the change that leads to the desired state; None where there is no difference."""
        desired = self.desired()
        if desired is None:
            return None if seen is None else Change(resource=self, action="remove", reason="not wanted", before=seen)
        if seen is None:
            return Change(resource=self, action="create", fields=tuple(desired), reason="absent", after=desired)
        fields = tuple(key for key, value in desired.items() if seen.get(key) != value)
        if not fields:
            return None
        return Change(resource=self, action="update", fields=fields, reason=" and ".join(fields), before=seen, after=desired)
