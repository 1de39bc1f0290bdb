"""How long a mirror still takes to be filled, from weights and the pace of the run."""

from __future__ import annotations

from clusterctl.mirror.progress import Progress


def test_the_time_left_follows_the_pace() -> None:
    now = 0.0
    lines: list[str] = []
    progress = Progress({"a": 300.0, "b": 300.0}, lines.append, clock=lambda: now)
    progress.begin("a", "building")
    now = 14.0
    progress.tick("a")
    assert len(lines) == 1
    now = 15.0
    progress.tick("a")
    assert lines[-1] == "[1/2] a: 15 s so far, about 10 min left"
    progress.end("a", "built")
    assert 30 < progress.seconds_left() < 60
    progress.begin("b", "building")
    now = 1000.0
    assert progress.seconds_left() > 0
    progress.end("b", "built")
    assert lines[-1] == "[2/2] b: built in 985 s"


def test_the_time_left_counts_two_tasks_at_a_time_as_halves_of_the_machine() -> None:
    now = 0.0
    lines: list[str] = []
    progress = Progress({"a": 100.0, "b": 100.0, "c": 100.0}, lines.append, clock=lambda: now)
    progress.begin("a", "building")
    progress.begin("b", "building")
    now = 200.0
    progress.end("a", "built")
    assert 100 <= progress.seconds_left() <= 110, lines
    progress.begin("c", "building")
    progress.tick("c")
    assert len(lines) == 4 and lines[3].startswith("[3/3] c: building"), "each task has an interval of its own"
    now = 210.0
    progress.end("b", "built")
    assert 95 <= progress.seconds_left() <= 99, lines
