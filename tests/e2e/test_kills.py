"""apply that is killed, interrupted or cut off, and run again: the same end as an uninterrupted run."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from interruption import cut, no_leftovers, read_until, same, settled

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

MOMENTS = 10


def raised(name: str, folder: Path) -> Cluster:
    return Cluster.up(LabSpec(name=name, machines=2), folder)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], list[str]]:
    """The end of a run that nobody disturbed, and its events."""
    cluster = raised("e2ekill", tmp_path_factory.mktemp("reference"))
    try:
        events = cluster.cli("apply", "--yes", "-o", "json").splitlines()
        return settled(cluster), [line for line in events if line.startswith("{")]
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def cluster(reference: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = raised("e2ekill", Path(tmp_path_factory.mktemp("kill")))
    try:
        yield made
    finally:
        made.down()


def start(cluster: Cluster) -> subprocess.Popen[str]:
    return cluster.start("apply", "--yes", "-o", "json")


def kill_after(cluster: Cluster, count: int, number: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
    """Run apply and send it a signal once it has told of so many changes; its exit code and what it said after that."""
    process = start(cluster)
    seen = 0

    def enough(event: dict[str, Any]) -> bool:
        nonlocal seen
        seen += event["event"] in ("changed", "note")
        return seen >= count

    try:
        read_until(process, enough)
        process.send_signal(number)
        rest, _ = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    return process.returncode, rest


def test_ten_kills(cluster: Cluster, reference: tuple[dict[str, object], list[str]]) -> None:
    """Each run is killed further on in what is left to do than an uninterrupted one would be at its tenth part."""
    end, events = reference
    changes = sum(json.loads(line)["event"] in ("changed", "note") for line in events)
    # The first is killed before it has changed anything; all others after a tenth of the whole each.
    for moment in range(MOMENTS):
        code, _ = kill_after(cluster, max(1, changes // (MOMENTS + 1)) if moment else 0)
        assert code == -signal.SIGKILL, f"run {moment + 1} ended with {code}"
    cluster.apply()
    same(settled(cluster), end)
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
        code, rest = kill_after(cluster, 1, number)
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
