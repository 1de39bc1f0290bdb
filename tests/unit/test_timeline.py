"""The timeline of a run from its journal: stages, bars and the critical path; torn lines are left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clusterctl.engine.events import Changed, StageEnded, StageStarted
from clusterctl.errors import InputError
from clusterctl.local.storage import Journal, StateFolder
from clusterctl.views.timeline import as_html, as_text, choose, read


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    def event(at: float, name: str, **fields: object) -> str:
        return json.dumps({"time": f"2026-01-02T03:{int(at // 60):02}:{at % 60:06.3f}+00:00", "event": name, **fields})

    lines = [
        event(0, "stage-started", stage="etcd", hosts=["cp-1"]),
        event(4, "changed", stage="etcd", host="cp-1", resource="service:etcd.service", action="start", seconds=3.0),
        event(4.5, "stage-ended", stage="etcd", seconds=4.5),
        event(5, "stage-started", stage="nodes", hosts=["w-1", "w-<2>"]),
        event(7, "changed", stage="nodes", host="w-1", resource="file:/x", action="create", seconds=2.0),
        event(9, "failed", stage="nodes", host="w-<2>", resource="service:kubelet.service", action="start", message="no"),
        event(10, "summary", seconds=10.0, trips=4, bytes_sent=1 << 21),
        '{"time": "2026-01-02T03:0',
    ]
    path = tmp_path / "journal/20260102T030000-apply.jsonl"
    path.parent.mkdir()
    path.write_text("\n".join(lines))
    return path


def test_stages_and_the_hosts_that_they_waited_for(journal: Path) -> None:
    found = read(journal)
    assert [(stage.name, round(stage.begin, 1), round(stage.end, 1), stage.slowest) for stage in found.stages] == [
        ("etcd", 0.0, 4.5, "cp-1"), ("nodes", 5.0, 9.0, "w-<2>")]
    [etcd] = found.stages[0].bars
    assert (round(etcd.begin, 1), etcd.seconds, etcd.action) == (1.0, 3.0, "start")
    text = as_text(found)
    assert "etcd: 4.5 s on 1 hosts; last: cp-1 service:etcd.service start (3.0 s)" in text[1] and "2.0 MiB" in text[-1]


def test_the_page_has_a_bar_for_each_change_and_marks_the_critical_path(journal: Path) -> None:
    page = as_html(read(journal))
    assert page.count("<rect ") == 3 and 'class="failed"' in page and "<script" not in page and "http" not in page
    assert re.findall(r'class="critical">([^<]+)<', page) == ["cp-1", "w-&lt;2&gt;"]


def test_a_run_that_was_killed_has_no_end(journal: Path) -> None:
    journal.write_text("\n".join(journal.read_text().splitlines()[:2]))
    assert "did not end" in as_text(read(journal))[-1]


@pytest.mark.parametrize(("name", "code"), [("nope", "timeline.unknown-run"), (None, "timeline.no-run")])
def test_refused(tmp_path: Path, name: str | None, code: str) -> None:
    if name:
        (tmp_path / "a.jsonl").touch()
    with pytest.raises(InputError) as caught:
        choose(tmp_path, name)
    assert caught.value.code == code


def test_what_a_run_writes_is_read(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / ".clusterctl/prod")
    folder.prepare()
    made = Journal(folder, "20260102T030000-apply")
    made.write(StageStarted("prepare", ["a"]).as_dict())
    made.write(Changed("prepare", "a", "file:/x", "create", "", 0.0).as_dict())
    made.write(StageEnded("prepare", 0.1).as_dict())
    made.close()
    [stage] = read(choose(folder.path / "journal", None)).stages
    assert (stage.name, stage.hosts, len(stage.bars)) == ("prepare", ("a",), 1)
