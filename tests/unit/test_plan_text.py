"""A plan for people: hosts with the same changes together, many changes counted, warnings of several hosts once."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.commands.node.replace import RejoinPlan
from clusterctl.local.text import shown_hosts
from clusterctl.views.report import JsonReport
from clusterctl.views.text import TextReport


def change(stage: str, host: str, number: int, *, action: str = "create", reason: str = "not there", **more: Any) -> dict[str, Any]:
    return {"stage": stage, "host": host, "resource": f"file:/etc/{stage}/{number}", "action": action, "reason": reason,
            "disruptive": action == "restart", **more}


def plan(changes: list[dict[str, Any]]) -> Any:
    return SimpleNamespace(event="plan", as_dict=lambda: {"changes": changes, "objects": [], "nodes": []})


def first_apply(workers: int) -> list[dict[str, Any]]:
    planes, nodes = [f"cp-{number}" for number in (1, 2, 3)], [f"w-{number}" for number in range(1, workers + 1)]
    sizes = {"prepare": (30, planes + nodes), "etcd": (15, planes), "control-plane": (40, planes), "nodes": (25, planes + nodes)}
    return [change(stage, host, number) for stage, (size, hosts) in sizes.items() for host in hosts for number in range(size)]


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_first_apply_of_fifty_machines_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    TextReport().plan(plan(first_apply(47)))
    short = lines(capsys)
    assert len(short) < 60 and any("cp-1..w-47 (50 hosts)" in line for line in short) and any("+ 30 create" in line for line in short)
    assert short[-1] == f"plan: {30 * 50 + 15 * 3 + 40 * 3 + 25 * 50} to create"
    TextReport(verbose=True).plan(plan(first_apply(47)))
    whole = lines(capsys)
    assert sum("file:/etc/control-plane/" in line for line in whole) == 40, "each resource, once for all hosts that are alike"


def test_few_changes_and_disruptions_are_always_listed(capsys: pytest.CaptureFixture[str]) -> None:
    TextReport().plan(plan([*(change("nodes", "w-1", number) for number in range(20)), change("nodes", "w-1", 99, action="restart", reason="uses x"),
                            change("nodes", "w-2", 1, diff="+ a\n- b\n")]))
    text = "\n".join(lines(capsys))
    assert "20 create" in text and "file:/etc/nodes/99  restart (uses x)" in text and "file:/etc/nodes/1  create" in text and "+ a" in text


def test_hosts_that_differ_are_shown_apart(capsys: pytest.CaptureFixture[str]) -> None:
    TextReport().plan(plan([change("nodes", "w-1", 1), change("nodes", "w-2", 1), change("nodes", "w-3", 2)]))
    assert [line.strip() for line in lines(capsys)][1:5] == [
        "w-1, w-2", "+ file:/etc/nodes/1  create (not there)", "w-3", "+ file:/etc/nodes/2  create (not there)"]


def test_a_member_that_joins_anew_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    TextReport().plan(RejoinPlan("cp-3"))
    [line] = lines(capsys)
    assert line.startswith("  cp-3: its etcd member is removed")
    JsonReport().plan(RejoinPlan("cp-3"))
    assert json.loads(lines(capsys)[0])["event"] == "progress"


def test_the_same_warning_of_several_hosts_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    hosts: Any = [SimpleNamespace(name=f"w-{number}") for number in range(1, 9)]
    warnings = [*(f"{host.name}: SELinux is enforcing" for host in hosts), "two of a kind: no host"]
    TextReport().warn_of_hosts(warnings, hosts)
    assert lines(capsys) == ["warning: w-1..w-8 (8 hosts): SELinux is enforcing", "warning: two of a kind: no host"]
    JsonReport().warn_of_hosts(warnings, hosts)
    assert len(lines(capsys)) == 9, "programs get each"


@pytest.mark.parametrize(("names", "shown"), [(["a"], "a"), (["a", "b", "c", "d"], "a, b, c, d"), (list("abcde"), "a..e (5 hosts)")])
def test_names_of_hosts(names: list[str], shown: str) -> None:
    assert shown_hosts(names) == shown
