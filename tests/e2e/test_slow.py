"""A machine that gets a twentieth of a processor: each service starts later than its deadline, and none is given up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
from cluster import Cluster, until

from clusterctl.lab import LabSpec
from clusterctl.lab.cgroup import Cgroup

pytestmark = pytest.mark.lab

PERCENT = 5


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster.up(LabSpec(name="e2eslow", machines=1, cluster={"addons": {"metrics_server": False}}), tmp_path)
    try:
        yield made
    finally:
        limit(made, 100)
        made.down()


def limit(cluster: Cluster, percent: int) -> None:
    """Give the machine this part of one processor; 100: as much as it likes."""
    for directory in Cgroup(cluster.lab.machine("cp-1").cgroup).directories():
        quota, most = directory / "cpu.cfs_quota_us", directory / "cpu.max"
        if quota.exists():
            quota.write_text("-1" if percent == 100 else str(percent * 1000))
        elif most.exists():
            most.write_text("max" if percent == 100 else f"{percent * 1000} 100000")


def test_a_control_plane_comes_up_on_a_slow_machine(cluster: Cluster) -> None:
    """The machine is slow from the moment on in which its programs are there: to unpack them says nothing of services."""
    took: dict[str, float] = {}
    with cluster.start("apply", "--yes", "-o", "json") as apply:
        assert apply.stdout is not None
        lines = []
        for line in apply.stdout:
            lines.append(line)
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "stage-started" and event["stage"] == "control-plane":
                limit(cluster, PERCENT)
            if event.get("event") == "changed" and event["resource"].startswith("service:"):
                took[event["resource"]] = event["seconds"]
            if event.get("event") == "stage-started" and event["stage"] == "nodes":
                limit(cluster, 4 * PERCENT)
        assert apply.wait() == 0, "".join(lines[-8:])
    print("seconds:", took)
    assert took["service:kube-apiserver.service"] > 120, "it started in time: nothing is shown"
    limit(cluster, 100)
    until(lambda: checks.nodes_ready(cluster) or True, "the node", 60)
    checks.nothing_to_do(cluster)
