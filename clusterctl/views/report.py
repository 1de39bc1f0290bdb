"""Reports: each event of a run goes to the journal and to one view, and is counted for the summary."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from clusterctl.cluster.model import Host
from clusterctl.engine.events import (
    Acted,
    Changed,
    Downloaded,
    Event,
    Events,
    InventoryNotes,
    Planned,
    StageEnded,
    Summarised,
    Warned,
)
from clusterctl.local.storage import Journal

if TYPE_CHECKING:
    from clusterctl.plan.planner import OperationPlan

FETCHED_SECONDS = 2.0
"""How often the progress of a download is shown."""


class Report(Events):
    """Counts events and passes them on. ``journal``: set once a run changes something; ``bytes_sent``: to all machines so far."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose
        self.journal: Journal | None = None
        self.started = time.monotonic()
        self.done: dict[str, Counter[str]] = defaultdict(Counter)
        self.stages: list[tuple[str, float]] = []
        self.bytes_sent: Callable[[], int] = lambda: 0
        self._fetched = 0.0

    def show(self, event: Event) -> None:
        """Show one event."""

    def close(self) -> None:
        """End what is being drawn, before a question or an error."""

    def emit(self, event: Event) -> None:
        match event:
            case Acted():
                self.done[event.host][event.action] += event.count
                return
            case Downloaded():
                now = time.monotonic()
                if event.done != event.total and now - self._fetched < FETCHED_SECONDS:
                    return
                self._fetched = now
            case Changed():
                self.done[event.host][event.action] += 1
            case StageEnded():
                self.stages.append((event.stage, event.seconds))
        if self.journal is not None and event.KEPT:
            self.journal.write(event.as_dict())
        self.show(event)

    def inventory_notes(self, notes: Sequence[str]) -> None:
        if notes:
            self.emit(InventoryNotes(len(notes), list(notes)))

    def warn(self, text: str) -> None:
        self.emit(Warned(text))

    def warn_of_hosts(self, warnings: Sequence[str], hosts: Sequence[Host]) -> None:
        """Report warnings of a plan, of which those of hosts begin with their names."""
        for text in warnings:
            self.warn(text)

    def plan(self, plan: OperationPlan) -> None:
        """Show what an operation will do."""
        self.emit(Planned(plan.event, plan.as_dict()))

    def summary(self, *, changed: bool, trips: int, sent: int, next_steps: Sequence[str]) -> None:
        self.emit(Summarised(
            changed=changed, hosts={name: dict(count) for name, count in self.done.items()},
            stages=[{"stage": name, "seconds": round(seconds, 3)} for name, seconds in self.stages],
            seconds=time.monotonic() - self.started, trips=trips, bytes_sent=sent, next=list(next_steps)))


class JsonReport(Report):
    """Events as JSON lines on stdout."""

    def show(self, event: Event) -> None:
        sys.stdout.write(json.dumps(event.as_dict(), default=str) + "\n")
        sys.stdout.flush()
