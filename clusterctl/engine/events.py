"""Typed events of a run. Views print them, and the journal keeps them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events. ``NAME``: in JSON; ``KEPT``: whether the journal keeps it. Durations are in seconds."""

    NAME: ClassVar[str] = ""
    KEPT: ClassVar[bool] = True

    def as_dict(self) -> dict[str, object]:
        """Return the event as JSON shows it; durations have milliseconds."""
        values = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {"event": self.NAME, **{name: round(value, 3) if isinstance(value, float) else value for name, value in values}}


@dataclass(frozen=True, slots=True)
class Observed(Event):
    """A host has been observed."""

    NAME, KEPT = "looked", False
    host: str
    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Downloaded(Event):
    """Part of a file has been downloaded. ``done``, ``total``: bytes."""

    NAME, KEPT = "fetched", False
    path: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class InventoryNotes(Event):
    """Variables of the inventory whose meaning differs from that of another tool."""

    NAME, KEPT = "inventory-notes", False
    count: int
    notes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """A warning for the operator."""

    NAME, KEPT = "warning", False
    text: str


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """An operation has been planned. ``kind``: the event's name in JSON; ``content``: the plan's ``as_dict``."""

    KEPT = False
    kind: str
    content: Mapping[str, object]

    def as_dict(self) -> dict[str, object]:
        return {"event": self.kind, **self.content}


@dataclass(frozen=True, slots=True)
class StageStarted(Event):
    """A stage begins on ``hosts``, or on objects of the API."""

    NAME = "stage-started"
    stage: str
    hosts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """A change of a plan has been carried out."""

    NAME = "changed"
    stage: str
    host: str
    resource: str
    action: str
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A change of a plan has failed."""

    NAME = "failed"
    stage: str
    host: str
    resource: str
    action: str
    message: str


@dataclass(frozen=True, slots=True)
class Acted(Event):
    """An action on a host that is not a change of the plan, such as a reboot. The summary counts it."""

    host: str
    action: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class StageEnded(Event):
    """A stage has been carried out."""

    NAME = "stage-ended"
    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Noted(Event):
    """A detail for the journal and for ``-v``."""

    NAME = "note"
    text: str


@dataclass(frozen=True, slots=True)
class Progressed(Event):
    """A line of progress for the operator."""

    NAME = "progress"
    text: str


@dataclass(frozen=True, slots=True)
class Summarised(Event):
    """A run has ended. ``hosts``: actions counted by host; ``trips``: round trips; ``next``: the next steps for the operator."""

    NAME = "summary"
    changed: bool
    hosts: Mapping[str, Mapping[str, int]]
    stages: Sequence[Mapping[str, object]]
    seconds: float
    trips: int
    bytes_sent: int
    next: Sequence[str]


class Events:
    """Receives events. This class ignores them; a report overrides ``emit``."""

    def emit(self, event: Event) -> None:
        """Receive an event, from any thread."""

    def note(self, text: str) -> None:
        self.emit(Noted(text))

    def progress(self, text: str) -> None:
        self.emit(Progressed(text))

    @contextmanager
    def stage(self, name: str, hosts: Sequence[str]) -> Iterator[None]:
        """Emit StageStarted and, unless an error is raised, StageEnded."""
        started = time.monotonic()
        self.emit(StageStarted(name, list(hosts)))
        yield
        self.emit(StageEnded(name, time.monotonic() - started))
