"""Clusters in the lab for the tests of each file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).parent))

import checks
from cluster import Cluster
from interruption import Undisturbed, settled

from clusterctl.lab import LabSpec

FILL = Path(__file__).parent.parent.parent / "tools/fill-mirror"
LONGEST = ("slow", "verb_kills", "nodes", "restore", "components", "os_update", "one_control_plane", "kills", "reset", "ci")
"""Files whose tests take longest. They begin first, so that no process is left with one of them at the end."""

FILLED = "CLUSTERCTL_MIRROR_FILLED"
"""Set for all processes of a run, which must agree on the order of tests: whether the mirror had all versions at its beginning."""

TOGETHER = {"drift": "kills", "ha": "nodes"}
"""Files whose tests share a cluster with those of another one."""


def group(path: str) -> str:
    """What a test file belongs to: all tests of a group are run by one process, as they share clusters."""
    name = Path(path).stem.removeprefix("test_")
    return TOGETHER.get(name, name)


class Scheduling(LoadScopeScheduling):
    """Whole groups of tests to each process."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


def pytest_configure(config: pytest.Config) -> None:
    if FILLED not in os.environ:
        done = subprocess.run([FILL, "--list"], capture_output=True, text=True, check=False)
        os.environ[FILLED] = "yes" if done.returncode == 0 and "missing" not in done.stdout else "no"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups stay together, a group's files in the order of their names; those that wait for other versions come last."""

    def key(item: pytest.Item) -> tuple[bool, int, str, str]:
        name = group(item.path.name)
        place = LONGEST.index(name) if name in LONGEST else len(LONGEST)
        waits = item.get_closest_marker("versions") is not None and os.environ[FILLED] != "yes"
        return waits, place, name, item.path.name

    items.sort(key=key)


class Mirror:
    """Whether the mirror has all versions that the tests need."""

    filled = False


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fill the mirror where a test needs more than the default version, or wait until somebody else has filled it."""
    if item.get_closest_marker("versions") is None or Mirror.filled:
        return
    ends = time.monotonic() + 70 * 60
    while (done := subprocess.run([FILL], capture_output=True, text=True, check=False)).returncode == 5:
        assert time.monotonic() < ends, f"the mirror is not filled: {done.stderr}"
        time.sleep(5)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    Mirror.filled = True


class Shared:
    """Clusters that files of one group share. They end with the group: an idle one of five machines takes a tenth of two processors."""

    ends = ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or group(nextitem.path.name) != group(item.path.name):
        Shared.ends.close()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    made = Cluster.up(LabSpec(name="e2edrift", machines=2), Path(tmp_path_factory.mktemp("drift")))
    Shared.ends.callback(made.down)
    lines = made.cli("apply", "--yes", "-o", "json").splitlines()
    return Undisturbed(made, [json.loads(line) for line in lines if line.startswith("{")], settled(made))


@pytest.fixture(scope="session")
def three_and_two(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """Three control planes and two workers, with the image of the app."""
    spec = LabSpec(name="e2enode", machines=5, control_planes=3)
    return Shared.ends.enter_context(checks.raised(spec, Path(tmp_path_factory.mktemp("nodes"))))
