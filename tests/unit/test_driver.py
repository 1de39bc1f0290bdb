"""The driver of changing verbs: the plan that is shown is the one that is run, and errors after a change are Stopped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.cli.driver import Operation, carry_out
from clusterctl.cli.prompts import Consent
from clusterctl.errors import ClusterctlError, Refused, Stopped
from clusterctl.local.storage import StateFolder
from clusterctl.plan.planner import OperationPlan
from clusterctl.views.report import Report

REFUSED = Refused("not now", code="host.clock")


@dataclass(eq=False)
class Made(OperationPlan):
    """A plan that is equal to itself alone."""

    changes: bool = True

    def __bool__(self) -> bool:
        return self.changes

    def as_dict(self) -> dict[str, object]:
        return {}


class Log(Report):
    """Remembers what it is asked to show, and what else happens."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, object]] = []

    def plan(self, plan: OperationPlan) -> None:
        self.log.append(("shown", plan))


def drive(folder: Path, plans: Sequence[Made | ClusterctlError], monkeypatch: pytest.MonkeyPatch, *, answers: Sequence[bool] = (),
          report: Log | None = None, **more: Any) -> tuple[list[tuple[str, object]], bool, Sequence[str]]:
    """``plans``: each, or why it cannot be made; ``answers``: to the questions, yes where they end."""
    report, left = report or Log(), iter(answers)

    def make() -> Iterator[Made]:
        for plan in plans:
            if isinstance(plan, ClusterctlError):
                raise plan
            yield plan

    def obtain(consent: Consent, cluster: str) -> None:
        report.log.append(("asked", cluster))
        if not next(left, True):
            raise REFUSED

    monkeypatch.setattr(Consent, "obtain", obtain)
    session: Any = SimpleNamespace(cluster=SimpleNamespace(name="prod"), state=StateFolder(folder / "state"))
    operation = Operation[Made](plans=make, journal="test", prepare=lambda plan: lambda: report.log.append(("run", plan)), **more)
    return report.log, *carry_out(operation, session, report, Consent(False))


def test_the_plan_that_is_shown_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Made()
    log, changed, steps = drive(tmp_path, [plan], monkeypatch)
    assert log == [("shown", plan), ("asked", "prod"), ("run", plan)] and changed and steps == ["clusterctl status"]
    assert [path.name.partition("-")[2] for path in (tmp_path / "state" / "journal").iterdir()] == ["test.jsonl"]


def test_a_plan_without_changes_is_shown_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Made(changes=False)
    assert drive(tmp_path, [plan], monkeypatch)[:2] == ([("shown", plan)], False)
    assert not (tmp_path / "state").exists(), "no journal of a run that changes nothing"
    assert drive(tmp_path, [], monkeypatch) == ([], False, [])


@pytest.mark.parametrize(("asks_once", "asked"), [(False, 2), (True, 1)])
def test_each_plan_is_made_when_those_before_it_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks_once: bool, asked: int) -> None:
    first, none, second = Made(), Made(changes=False), Made()
    ends: list[Made] = []
    log, _, _ = drive(tmp_path, [first, none, second], monkeypatch, asks_once=asks_once, finish=lambda plan: ends.append(plan) or [])
    assert [entry for entry in log if entry[0] != "asked"] == [("shown", first), ("run", first), ("shown", none), ("shown", second), ("run", second)]
    assert len(log) == 5 + asked and ends == [second]


def test_a_plan_that_fails_its_check_is_shown_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(plan: Made) -> None:
        raise REFUSED

    plan, report = Made(), Log()
    with pytest.raises(Refused):
        drive(tmp_path, [plan], monkeypatch, report=report, check=check)
    assert report.log == [("shown", plan)]


@pytest.mark.parametrize(("changes", "kind"), [(False, Refused), (True, Stopped)])
def test_what_comes_last_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: bool, kind: type[ClusterctlError]) -> None:
    def finish(plan: Made) -> list[str]:
        raise REFUSED

    with pytest.raises(ClusterctlError) as error:
        drive(tmp_path, [Made(changes)], monkeypatch, finish=finish)
    assert type(error.value) is kind


@pytest.mark.parametrize(("plans", "answers", "kind"), [
    ([REFUSED], (), Refused), ([Made()], (False,), Refused),
    ([Made(), REFUSED], (), Stopped), ([Made(), Made()], (True, False), Stopped),
], ids=["no plan", "a no", "no second plan", "a no to the second"])
def test_a_refusal_after_a_change_is_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plans: list[Any], answers: tuple[bool, ...],
                                            kind: type[ClusterctlError]) -> None:
    with pytest.raises(ClusterctlError, match="not now") as error:
        drive(tmp_path, plans, monkeypatch, answers=answers)
    assert type(error.value) is kind
