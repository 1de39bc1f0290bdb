"""Whose cordon it is, and what becomes of one that a killed operation left."""

from __future__ import annotations

from typing import Any

import pytest
from test_os_update import cluster, machine, node

from clusterctl.commands.os_update import make_plan
from clusterctl.kube import drain
from clusterctl.kube.client import CORDONED_FOR


class Nodes:
    """An API that has nothing but nodes. ``cordoned``: as for ``node``."""

    def __init__(self, **cordoned: str | None) -> None:
        self.found = {name: node(name, operation) for name, operation in cordoned.items()}

    def nodes(self) -> dict[str, Any]:
        return self.found

    def patch_node(self, name: str, patch: dict[str, Any]) -> None:
        entry = self.found[name]
        for target, changes in ((entry["spec"], patch.get("spec", {})), (entry["metadata"]["annotations"], patch["metadata"]["annotations"])):
            for key, value in changes.items():
                target.pop(key, None)
                if value is not None:
                    target[key] = value

    def state(self, name: str) -> str | None:
        entry = self.found[name]
        return entry["metadata"]["annotations"].get(CORDONED_FOR, "") if entry["spec"].get("unschedulable") else None


@pytest.mark.parametrize(
    ("before", "operation", "done", "after"),
    [
        (None, "os-update", True, "os-update"),
        (None, "", True, ""),
        ("", "os-update", False, ""),
        ("", "", False, ""),
        ("upgrade", "os-update", False, "upgrade"),
        # A person wants it so, whatever ended early.
        ("upgrade", "", True, ""),
    ],
)
def test_a_cordon(before: str | None, operation: str, done: bool, after: str) -> None:
    api: Any = Nodes(w=before)
    assert drain.cordon(api, "w", operation) is done
    assert api.state("w") == after


def test_what_a_killed_operation_left_is_given_back() -> None:
    api: Any = Nodes(a="upgrade", b="", c=None, d="os-update")
    said: list[str] = []
    drain.recover(lambda: api, said.append, keep=["d"])
    assert [api.state(name) for name in "abcd"] == [None, "", None, "os-update"]
    assert said == ["a: uncordoned: upgrade, which did not end, had cordoned it"]


def test_an_os_update_goes_on_with_its_own_and_gives_the_others_back() -> None:
    made = cluster()
    nodes = {"cp-1": node("cp-1", "upgrade"), "w-1": node("w-1", "os-update"), "w-2": node("w-2", ""), "gone": node("gone", "os-update")}
    plan = make_plan(made, made.hosts, dict.fromkeys(nodes, machine()), nodes, mode="auto", at_once=1)
    assert plan and plan.resumed == ("w-1",)
    assert plan.as_dict()["forgotten"] == {"cp-1": "upgrade", "gone": "os-update"}
