"""apply that is killed, interrupted or cut off, and run again: the same end as an uninterrupted run."""

from __future__ import annotations

import difflib
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import Cluster, until

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

FOLDERS = "/etc/kubernetes /etc/etcd /etc/clusterctl /etc/containerd /etc/systemd/system /etc/cni /var/lib/kube-proxy /opt /usr/local/bin"
LOOK = f"""find {FOLDERS} /var/lib/kubelet/config.yaml -printf '%p %y %m %u:%g %l\\n' | sort
find {FOLDERS} /var/lib/kubelet/config.yaml -type f ! -name '*.key' ! -name '*.crt' ! -name '*.pub' ! -name .stamp ! -name cluster \
  ! -name encryption.yaml ! -name initial.env ! -path '/opt/*' -print | sort | while read -r file; do
  echo "$file $(sed 's/10[.]77[.][0-9]*[.]/10.77.N./g' "$file" | sha256sum)"
done
for file in /opt/clusterctl/*/*/.stamp; do echo "$file $(head -n 1 "$file")"; done
ls /var/lib/clusterctl/stamps
cd /etc/systemd/system && for unit in *.service; do systemctl show --property=Id,ActiveState,UnitFileState "$unit"; done
cat /proc/sys/net/ipv4/ip_forward; /opt/clusterctl/bin/ctr -n k8s.io images ls -q | sort"""
"""A machine's end state. Keys and what follows from them are new in each cluster; programs are known by their stamps.

Each lab has a network of its own, which is taken out of what is compared.
"""

KINDS = "clusterrolebindings,clusterroles,rolebindings,roles,serviceaccounts,configmaps,secrets,services,deployments,apiservices"
MOMENTS = 10


def raised(name: str, folder: Path) -> Cluster:
    return Cluster.up(LabSpec(name=name, machines=2), folder)


def state(cluster: Cluster) -> dict[str, object]:
    """All that must be the same, however often apply was interrupted."""
    checks.nodes_ready(cluster)
    nodes = cluster.json("get", "nodes")["items"]
    found: dict[str, object] = {
        node["metadata"]["name"]: (sorted(node["metadata"]["labels"].items()), node["spec"].get("taints")) for node in nodes}
    found["objects"] = sorted(cluster.kubectl("get", KINDS, "--all-namespaces", "-o", "name").split())
    for machine in cluster.lab.machines:
        found[f"machine {machine}"] = cluster.on(machine, LOOK).splitlines()
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], list[str]]:
    """The end of a run that nobody disturbed, and its events."""
    cluster = raised("e2ekill", tmp_path_factory.mktemp("reference"))
    try:
        events = cluster.cli("apply", "--yes", "-o", "json").splitlines()
        return settled(cluster), [line for line in events if line.startswith("{")]
    finally:
        cluster.down()


def settled(cluster: Cluster) -> dict[str, object]:
    """The state once the cluster's own controllers have made what they always make."""
    until(lambda: cluster.json("get", "deployment", "-n", "kube-system", "coredns")["status"].get("readyReplicas"), "CoreDNS", 120)
    return state(cluster)


@pytest.fixture(scope="module")
def cluster(reference: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = raised("e2ekill", Path(tmp_path_factory.mktemp("kill")))
    try:
        yield made
    finally:
        made.down()


def start(cluster: Cluster) -> subprocess.Popen[str]:
    return cluster.start("apply", "--yes", "-o", "json")


def read_until(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool], seconds: float = 120) -> list[dict[str, Any]]:
    """The events up to one that is wanted, or all where none is. The process is killed after ``seconds``."""
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    events = []
    try:
        for line in process.stdout:
            assert line.startswith("{"), line + process.stdout.read()
            events.append(json.loads(line))
            if wanted(events[-1]):
                break
    finally:
        timer.cancel()
    return events


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


def no_leftovers(cluster: Cluster) -> None:
    """No temporary file and no program that still runs, on any machine."""
    for machine in cluster.lab.machines:
        found = cluster.on(machine, "find /etc /opt /usr/local /var/lib/clusterctl /var/lib/kubelet /var/lib/kube-proxy -xdev "
                                    r"\( -name '.clusterctl.*' -o -name '*.new' -o -name .all -o -path '*/run/*' \); "
                                    "pgrep -f '[/]var/lib/clusterctl/run' || :")
        assert not found, f"{machine}: {found}"


def same(found: dict[str, object], wanted: dict[str, object]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        left, right = ([str(line) for line in side] for side in (found[key], value))  # type: ignore[attr-defined]
        assert left == right, f"{key}:\n" + "\n".join(difflib.unified_diff(right, left, "uninterrupted", "killed", lineterm="", n=0))


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
        namespace = cluster.lab.machines["w-1"].namespace
        subprocess.run(["ip", "netns", "exec", namespace, "ss", "-K", "sport", "=", ":22"], check=True, capture_output=True, timeout=10)
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
