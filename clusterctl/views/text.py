"""Events as lines of text, for people: rich gives them colour on a terminal."""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clusterctl.cluster.model import Host
from clusterctl.engine.events import (
    Changed,
    Downloaded,
    Event,
    Failed,
    InventoryNotes,
    Noted,
    Observed,
    Planned,
    Progressed,
    StageEnded,
    StageStarted,
    Summarised,
    Warned,
)
from clusterctl.local.text import printable, shown_hosts
from clusterctl.views.plan import PlanText
from clusterctl.views.report import Report

if TYPE_CHECKING:
    from rich.console import Console

MOST_NOTES = 40
"""On the inventory that are printed above a plan."""
SLOW_SECONDS = 2.0
"""A change that takes longer has a line of its own."""


class TextReport(Report):
    """Plain lines."""

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__(verbose=verbose)
        self._console: Console | None = None
        self._plan = PlanText(self._line, verbose=verbose)
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=True)

    def _line(self, text: str, style: str | None = None) -> None:
        text = printable(text)
        if self._console is None:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        else:
            self._console.print(text, style=style, markup=False)

    def _timed(self, text: str, style: str | None = None) -> None:
        """Print a line that begins with the seconds since the run began."""
        self._line(f"{time.monotonic() - self.started:7.1f}s  {text}", style)

    def show(self, event: Event) -> None:
        match event:
            case Planned(kind, content):
                self._plan.show(kind, content)
            case Warned(text):
                self._line(f"warning: {text}", "yellow")
            case Failed():
                self._timed(f"  {event.host}: {event.resource} FAILED", "bold red")
            case InventoryNotes(count, notes):
                self._notes(count, notes)
            case Summarised():
                self._summary(event)
            case _:
                self._show_progress(event)

    def _show_progress(self, event: Event) -> None:
        match event:
            case StageStarted(stage, hosts):
                self._timed(f"{stage}: {', '.join(hosts)}", "bold")
            case StageEnded(stage, seconds):
                self._timed(f"{stage}: done in {seconds:.1f} s", "green")
            case Changed() if self.verbose or event.action in ("restart", "start", "stop") or event.seconds > SLOW_SECONDS:
                self._timed(f"  {event.host}: {event.resource} {event.action} ({event.seconds:.1f} s)")
            case Progressed(text):
                self._timed(f"  {text}")
            case Downloaded(path, done, total):
                size = f" of {total / 2**20:.0f}" if total else ""
                self._timed(f"fetching {path.rsplit('/', 1)[-1]}: {done / 2**20:.0f}{size} MiB")
            case Observed(host, what, seconds) if self.verbose:
                self._timed(f"{host}: looked at {what} in {seconds:.2f} s", "dim")
            case Noted(text) if self.verbose:
                self._timed(f"  {text}", "dim")

    def _notes(self, count: int, notes: Sequence[str]) -> None:
        for note in notes[:MOST_NOTES]:
            self._line(f"note: {note}", "dim")
        if count > MOST_NOTES:
            self._line(f"note: {count - MOST_NOTES} more notes on the inventory: clusterctl inventory", "dim")

    def warn_of_hosts(self, warnings: Sequence[str], hosts: Sequence[Host]) -> None:
        """Print the same warning of several hosts once."""
        names, alike = {host.name for host in hosts}, defaultdict[str, list[str]](list)
        for text in warnings:
            name, _, rest = text.partition(": ")
            alike[rest if name in names else text].extend([name] if name in names else [])
        for text, of in alike.items():
            self.warn(f"{shown_hosts(of)}: {text}" if of else text)

    def _summary(self, run: Summarised) -> None:
        for name, actions in sorted(run.hosts.items()):
            self._line(f"  {name}: " + ", ".join(f"{number} {action}" for action, number in sorted(actions.items())))
        if run.stages:
            self._line("  stages: " + ", ".join(f"{entry['stage']} {entry['seconds']:.1f} s" for entry in run.stages))
        what = "done" if run.changed else "no changes"
        self._line(f"{what} in {run.seconds:.1f} s, {run.trips} trips, {run.bytes_sent / 2**20:.1f} MiB sent", "bold green")
        for step in run.next:
            self._line(f"  next: {step}")
