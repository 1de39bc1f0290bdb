"""apply that is killed, interrupted or cut off, and run again: the same end as an uninterrupted run."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from interruption import Series, Undisturbed, comes_to, cut, no_leftovers, read_until

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

MOMENTS = 10


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster.up(LabSpec(name="e2ekill", machines=2), Path(tmp_path_factory.mktemp("kill")))
    try:
        yield made
    finally:
        made.down()


def start(cluster: Cluster) -> subprocess.Popen[str]:
    return cluster.start("apply", "--yes", "-o", "json")


def kill_after(cluster: Cluster, share: int, number: signal.Signals = signal.SIGKILL) -> tuple[int, int, str]:
    """Run apply and send it a signal once one part of so many of its own plan is done.

    With 0 once it has a plan. Returns how many changes it planned, its exit code and what it said after the signal.
    """
    process = start(cluster)
    seen = planned = 0

    def enough(event: dict[str, Any]) -> bool:
        nonlocal seen, planned
        planned = planned or len(event.get("changes", ()))
        seen += event["event"] in ("changed", "note")
        return seen >= max(1, planned // share) if share else bool(planned)

    try:
        read_until(process, enough)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    return planned, process.returncode, rest


def test_ten_kills(cluster: Cluster, undisturbed: Undisturbed) -> None:
    """Each run is killed further on: the first before it has changed anything, the last amid what the others left."""
    left: list[int] = []
    for moment in range(MOMENTS):
        planned, code, _ = kill_after(cluster, MOMENTS + 1 - moment if moment else 0)
        assert code == -signal.SIGKILL, f"run {moment + 1} ended with {code}"
        left.append(planned)
    print(f"changes that were left before each kill: {left}")
    assert left == sorted(left, reverse=True) and len(set(left)) >= MOMENTS // 2
    cluster.apply()
    comes_to(cluster, undisturbed.end)
    no_leftovers(cluster)
    summary = cluster.apply()
    assert not summary["changed"], cluster.plan()


def wounded(cluster: Cluster) -> None:
    """Enough work for a run of some seconds: programs gone, a configuration changed."""
    cluster.on("w-1", "rm -rf /opt/clusterctl/kubelet /opt/clusterctl/kube-proxy /opt/clusterctl/containerd; "
                      "echo '# by hand' >>/var/lib/kubelet/config.yaml")


def test_signals_stop_midway(cluster: Cluster) -> None:
    """Exit code 4 at once, with what to do next; the same command goes on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        wounded(cluster)
        _, code, rest = kill_after(cluster, Series.ALL, number)
        assert code == 4, rest
        assert "run the same command again" in rest
        assert "Traceback" not in rest
    cluster.apply()
    assert not cluster.apply()["changed"]
    no_leftovers(cluster)


def test_a_cut_connection(cluster: Cluster) -> None:
    """The machine resets its connections midway: the same run connects again, asks what was done, and ends well."""
    wounded(cluster)
    process = start(cluster)
    try:
        read_until(process, lambda event: event["event"] == "changed" and event["host"] == "w-1")
        cut(cluster, ["w-1"])
        rest, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, rest
    assert "asking what was done" in rest
    assert not cluster.apply()["changed"]


def test_a_short_outage(cluster: Cluster) -> None:
    """Three seconds without the network only cost time."""
    wounded(cluster)
    process = start(cluster)
    timer = threading.Timer(3, cluster.lab.heal, ("w-1",))
    try:
        read_until(process, lambda event: event["event"] == "changed" and event["host"] == "w-1")
        cluster.lab.cut("w-1", peer="controller")
        timer.start()
        rest, _ = process.communicate(timeout=120)
    finally:
        timer.cancel()
        cluster.lab.heal("w-1")
        process.kill()
        process.wait()
    assert process.returncode == 0, rest
    assert not cluster.apply()["changed"]
