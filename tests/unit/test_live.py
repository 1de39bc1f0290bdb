"""The view on a terminal: bars and hosts while a stage runs, and a clean terminal before a question or an error."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from clusterctl.engine.events import Changed, Downloaded, Planned, StageEnded, StageStarted
from clusterctl.views import live
from clusterctl.views.live import LiveReport

CHANGES = [{"stage": "nodes", "host": host, "resource": f"file:/etc/{number}", "action": "create", "reason": "missing", "disruptive": False}
           for host in ("w-1", "w-2") for number in range(4)]


class Terminal:
    """A report on a terminal of 100 columns."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.report = LiveReport(console=Console(file=self.file, force_terminal=True, width=100, height=40, highlight=False, soft_wrap=True))

    @property
    def region(self) -> list[str]:
        """What is redrawn at the bottom, as text."""
        console = Console(file=io.StringIO(), width=100)
        console.print(self.report.region())
        printed: Any = console.file
        return [line.rstrip() for line in printed.getvalue().splitlines()]

    @property
    def printed(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.file.getvalue())


@pytest.fixture
def terminal() -> Terminal:
    made = Terminal()
    made.report.emit(Planned("plan", {"changes": CHANGES, "objects": [], "nodes": [], "warnings": []}))
    return made


def changed(host: str, number: int) -> Changed:
    return Changed("nodes", host, f"file:/etc/{number}", "create", "", 0.1)


def test_a_stage_has_a_bar_and_each_active_host_a_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    report, now = terminal.report, time.monotonic()
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    report.bytes_sent = lambda: 0
    report.emit(StageStarted("nodes", ["w-1", "w-2"]))
    report.bytes_sent = lambda: 3 << 20
    for number in range(4):
        report.emit(changed("w-1", number))
    report.emit(changed("w-2", 0))
    monkeypatch.setattr(live.time, "monotonic", lambda: now + 10)
    head, *hosts = terminal.region
    assert head.startswith("nodes") and "5/8 changes, 10 s, 3.0 MiB sent, about 6 s left" in head and "━" in head
    assert [line.split()[0] for line in hosts] == ["w-2"] and "after file:/etc/0, 10 s" in hosts[0], "w-1 has done all of it"
    report.emit(StageEnded("nodes", 10.0))
    assert terminal.region == [] and report._live is None
    assert "nodes: w-1, w-2" in terminal.printed and "nodes: done in 10.0 s" in terminal.printed


def test_many_hosts_are_counted(terminal: Terminal) -> None:
    terminal.report.emit(StageStarted("prepare", [f"w-{number}" for number in range(50)]))
    assert len(terminal.region) == 1 + live.MOST_HOSTS + 1 and terminal.region[-1] == f"  and {50 - live.MOST_HOSTS} more hosts"
    terminal.report.close()


def test_files_on_their_way(terminal: Terminal) -> None:
    report = terminal.report
    report.emit(Downloaded("w-1: dl.k8s.io/release/kubelet", 10 << 20, 40 << 20))
    [line] = terminal.region
    assert line.startswith("kubelet") and "10 of 40 MiB" in line
    report.emit(Downloaded("w-1: dl.k8s.io/release/kubelet", 40 << 20, 40 << 20))
    assert terminal.region == [] and report._live is None


def test_the_terminal_is_free_after_an_error(terminal: Terminal) -> None:
    report = terminal.report
    report.emit(StageStarted("nodes", ["w-1"]))
    assert report._live is not None and report._live.is_started
    shown = report._live
    report.close()
    assert report._live is None and not shown.is_started
    report.close()
