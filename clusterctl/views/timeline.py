"""The timeline of a run, from its journal: stages, the changes of each host in them, and the hosts that each stage waited for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

from clusterctl.errors import InputError

WIDTH, ROW, LABEL = 1000, 18, 160
"""Pixels of the page: of a stage's bars, of a host's row, of its name."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One change of a host. ``begin``: seconds since the run began; ``seconds``: how long it took."""

    host: str
    resource: str
    action: str
    begin: float
    seconds: float

    @property
    def end(self) -> float:
        return self.begin + self.seconds


@dataclass(slots=True)
class StageTime:
    """A stage and its changes. ``begin`` and ``end``: seconds since the run began."""

    name: str
    hosts: tuple[str, ...]
    begin: float
    end: float
    bars: list[Bar] = field(default_factory=list)

    @property
    def slowest(self) -> str:
        """The host whose last change ended last: on the critical path of the run. Empty where nothing was changed."""
        return max(self.bars, key=lambda bar: bar.end).host if self.bars else ""


@dataclass(frozen=True, slots=True)
class Timeline:
    """A run: its name, its stages, and the summary that it ended with; empty where it did not end."""

    name: str
    stages: tuple[StageTime, ...]
    summary: Mapping[str, Any]


def runs(journals: Path) -> list[Path]:
    """Return the journals of a state folder, the newest last."""
    return sorted(journals.glob("*.jsonl"))


def choose(journals: Path, name: str | None) -> Path:
    """Return the journal of a run, of the newest where none is named. Raises InputError."""
    found = {path.stem: path for path in runs(journals)}
    if not found:
        raise InputError("no run is recorded", where=str(journals), code="timeline.no-run",
                         hint="apply and other changing verbs record theirs")
    if name is not None and name not in found:
        raise InputError(f"there is no run {name!r}", where="RUN", code="timeline.unknown-run",
                         hint=f"runs: {', '.join(list(found)[-5:])}")
    return found[name] if name is not None else list(found.values())[-1]


def read(path: Path) -> Timeline:
    """Read a journal. A line that a full disk or a kill cut off is left out. Raises InputError."""
    try:
        events = list(_events(path.read_text(encoding="utf-8", errors="replace").splitlines()))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="timeline.unreadable") from None
    start = min((at for at, _ in events), default=0.0)
    stages: list[StageTime] = []
    summary: Mapping[str, Any] = {}
    for at, event in events:
        kind, now = event["event"], at - start
        if kind == "stage-started":
            stages.append(StageTime(event["stage"], tuple(event["hosts"]), now, now))
        elif kind in ("changed", "failed") and stages:
            seconds = float(event.get("seconds", 0))
            stages[-1].bars.append(Bar(event["host"], event["resource"], event["action"] if kind == "changed" else "failed",
                                       max(stages[-1].begin, now - seconds), seconds))
            stages[-1].end = now
        elif kind == "stage-ended" and stages:
            stages[-1].end = now
        elif kind == "summary":
            summary = event
    return Timeline(path.stem, tuple(stages), summary)


def _events(lines: Iterable[str]) -> Iterator[tuple[float, dict[str, Any]]]:
    for line in lines:
        try:
            event = json.loads(line)
            yield datetime.fromisoformat(event["time"]).timestamp(), event
        except (ValueError, KeyError, TypeError):
            continue


def as_text(timeline: Timeline) -> list[str]:
    """Return a line for each stage: when it began, how long it took, and what it waited for."""
    lines = [f"run {timeline.name}"]
    for stage in timeline.stages:
        last = max(stage.bars, key=lambda bar: bar.end, default=None)
        waited = f"; last: {last.host} {last.resource} {last.action} ({last.seconds:.1f} s)" if last else ""
        lines.append(f"{stage.begin:8.1f} s  {stage.name}: {stage.end - stage.begin:.1f} s on {len(stage.hosts)} hosts{waited}")
    if timeline.summary:
        lines.append(f"{timeline.summary['seconds']:8.1f} s  ended; {timeline.summary['trips']} round trips, "
                     f"{timeline.summary['bytes_sent'] / 2**20:.1f} MiB sent")
    else:
        lines.append("          it did not end")
    return lines


def as_html(timeline: Timeline) -> str:
    """Return one self-contained page: a row for each host of a stage, a bar for each change, the critical path marked."""
    total = max((stage.end for stage in timeline.stages), default=0.0) or 1.0
    parts = [_HEAD.format(name=escape(timeline.name)), f"<h1>{escape(timeline.name)}</h1>",
             "".join(f"<p>{escape(line.strip())}</p>" for line in as_text(timeline)[-1:]),
             "<p>Bold hosts are on the critical path: each stage waited for them.</p>"]
    for stage in timeline.stages:
        parts.append(f"<h2>{escape(stage.name)}: {stage.end - stage.begin:.1f} s</h2>")
        parts.append(_stage(stage, total))
    return "\n".join([*parts, "</body></html>", ""])


def _stage(stage: StageTime, total: float) -> str:
    hosts = list(dict.fromkeys((*stage.hosts, *(bar.host for bar in stage.bars))))
    rows = []
    for number, host in enumerate(hosts):
        top, critical = number * ROW, ' class="critical"' if host == stage.slowest else ""
        rows.append(f'<text x="0" y="{top + ROW - 5}"{critical}>{escape(host)}</text>')
        for bar in (one for one in stage.bars if one.host == host):
            left, width = LABEL + bar.begin / total * WIDTH, max(1.0, bar.seconds / total * WIDTH)
            label = f"{bar.resource} {bar.action}, {bar.seconds:.1f} s, at {bar.begin:.1f} s"
            rows.append(f'<rect x="{left:.1f}" y="{top + 2}" width="{width:.1f}" height="{ROW - 4}" class="{escape(bar.action)}">'
                        f"<title>{escape(label)}</title></rect>")
    return f'<svg width="{LABEL + WIDTH}" height="{len(hosts) * ROW}">{"".join(rows)}</svg>'


_HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<style>
body {{ font: 13px sans-serif; margin: 2em }} text {{ font-size: 12px }} .critical {{ font-weight: bold }}
rect {{ fill: #6a9fd4 }} rect.restart, rect.start {{ fill: #e0a030 }}
rect.failed {{ fill: #c03030 }} rect.remove, rect.stop {{ fill: #888 }}
</style></head><body>"""
