"""The view on a terminal: below the lines that scroll, a bar for the stage that runs and a line for each of its hosts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clusterctl.engine.events import Changed, Downloaded, Event, Planned, StageEnded, StageStarted, Summarised
from clusterctl.local.text import printable
from clusterctl.views.text import TextReport

MOST_HOSTS = 12
"""Of a stage that have a line; the others are counted."""
NAME_COLUMNS, BAR_COLUMNS = 22, 24
REFRESHES = 4
"""Per second."""


@dataclass(slots=True)
class Stage:
    """A stage that runs. ``total``: its changes, none where they are not known; ``sent``: bytes that were sent before it."""

    name: str
    hosts: Sequence[str]
    total: Mapping[str, int]
    sent: int
    began: float = field(default_factory=time.monotonic)
    done: Counter[str] = field(default_factory=Counter)
    last: dict[str, tuple[str, float]] = field(default_factory=dict)
    """By host: the resource that was changed last, and when."""

    def seconds_left(self, now: float) -> float | None:
        """Return an estimate by the changes that are done; None where there is too little to tell."""
        done, total = self.done.total(), sum(self.total.values())
        return (now - self.began) / done * (total - done) if 0 < done <= total and now - self.began >= 1 else None


class LiveReport(TextReport):
    """Text with a region at the bottom of the terminal that is redrawn while a stage runs or files arrive."""

    def __init__(self, *, verbose: bool = False, console: Console | None = None) -> None:
        super().__init__(verbose=verbose)
        self._console = self._terminal = console or Console(highlight=False, soft_wrap=True)
        self._planned: dict[str, Counter[str]] = {}
        self._stage: Stage | None = None
        self._files: dict[str, tuple[int, int | None]] = {}
        self._live: Live | None = None
        self._changing, self._drawing = threading.Lock(), threading.Lock()

    def emit(self, event: Event) -> None:
        with self._changing:
            match event:
                case StageStarted(name, hosts):
                    planned = self._planned.get(name, Counter())
                    self._stage = Stage(name, hosts, {host: planned[host] for host in hosts}, self.bytes_sent())
                case Changed() if self._stage is not None:
                    self._stage.done[event.host] += 1
                    self._stage.last[event.host] = event.resource, time.monotonic()
                case StageEnded() | Summarised():
                    self._stage = None
                case Planned():
                    self._plan_stages(event.content.get("changes", ()))
                case Downloaded(path, done, total):
                    self._files[path] = done, total
                    if done == total:
                        del self._files[path]
        self._draw()
        # The bar stands in place of a line every other second.
        if not isinstance(event, Downloaded):
            super().emit(event)

    def _plan_stages(self, changes: Any) -> None:
        self._planned = {}
        for change in changes:
            self._planned.setdefault(change["stage"], Counter())[change["host"]] += 1

    def close(self) -> None:
        """Remove the region: the terminal is free for a question or an error."""
        with self._changing:
            self._stage, self._files = None, {}
        self._draw()

    def _draw(self) -> None:
        """Begin to redraw the region, or end it where it would be empty."""
        with self._drawing:
            with self._changing:
                wanted = self._stage is not None or bool(self._files)
            # What redraws takes the lock of the state: it is free here.
            if wanted and self._live is None:
                self._live = Live(get_renderable=self.region, console=self._terminal, refresh_per_second=REFRESHES,
                                  transient=True, redirect_stdout=False, redirect_stderr=False)
                self._live.start()
            elif not wanted and self._live is not None:
                live, self._live = self._live, None
                live.stop()

    def region(self) -> RenderableType:
        """Return what is at the bottom of the terminal now."""
        with self._changing:
            files = list(self._files.items())[:MOST_HOSTS]
            parts: list[RenderableType] = [self._file(path, *progress) for path, progress in files]
            if self._stage is not None:
                parts += self._of_stage(self._stage)
            return Group(*parts)

    def _of_stage(self, stage: Stage) -> list[RenderableType]:
        now, total = time.monotonic(), sum(stage.total.values())
        head = [f"{stage.done.total()}/{total} changes" if total else "", f"{now - stage.began:.0f} s"]
        if sent := self.bytes_sent() - stage.sent:
            head.append(f"{sent / 2**20:.1f} MiB sent")
        if left := stage.seconds_left(now):
            head.append(f"about {left:.0f} s left")
        rows: list[RenderableType] = [_line(stage.name, stage.done.total(), total, ", ".join(word for word in head if word))]
        active = [name for name in stage.hosts if not stage.total.get(name) or stage.done[name] < stage.total[name]]
        for name in active[:MOST_HOSTS]:
            resource, when = stage.last.get(name, ("", stage.began))
            said = f"after {resource}, {now - when:.0f} s" if resource else f"{now - when:.0f} s"
            rows.append(_line(f"  {name}", stage.done[name], stage.total.get(name, 0), said))
        if len(active) > MOST_HOSTS:
            rows.append(Text(f"  and {len(active) - MOST_HOSTS} more hosts", style="dim"))
        return rows

    def _file(self, path: str, done: int, total: int | None) -> RenderableType:
        size = f"{done / 2**20:.0f}" + (f" of {total / 2**20:.0f}" if total else "") + " MiB"
        return _line(path.rsplit("/", 1)[-1], done, total or 0, size)


def _line(name: str, done: int, total: int, text: str) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=NAME_COLUMNS, no_wrap=True, overflow="ellipsis")
    row.add_column(width=BAR_COLUMNS)
    row.add_column(no_wrap=True, overflow="ellipsis")
    bar: RenderableType = ProgressBar(total=total, completed=min(done, total), width=BAR_COLUMNS) if total else Text("")
    row.add_row(Text(printable(name)), bar, Text(printable(text)))
    return row
