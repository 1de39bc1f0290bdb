"""reset: a machine before and after it is the same, wherever it was killed; and takes apply again."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import CLI, Cluster, deployment, service
from interruption import Series
from machine_picture import differences, picture

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

NAME = "rste2e"
YES = ("--yes", "--confirm", NAME)
AT_LEAST = 10
"""Random moments of the interrupted runs."""


class Machines:
    """The lab, and how its machines were before anything was done to them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.before = self.pictures(*cluster.lab.machines)
        self.series: list[Series] = []

    def pictures(self, *names: str) -> Mapping[str, dict[str, list[str]]]:
        with ThreadPoolExecutor() as pool:
            return dict(zip(names, pool.map(lambda name: picture(self.cluster, name), names), strict=True))

    def unchanged(self, *names: str) -> None:
        for name, after in self.pictures(*names).items():
            found = differences(self.before[name], after)
            assert not found, f"{name}:\n{found[:6000]}"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    made = Cluster.up(LabSpec(name=NAME, machines=2), Path(tmp_path_factory.mktemp("reset")))
    try:
        yield Machines(made)
    finally:
        made.down()


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def reset(cluster: Cluster, *words: str) -> list[dict[str, Any]]:
    return events(cluster.cli("reset", *YES, "-o", "json", *words))


def typed(cluster: Cluster, answer: str) -> tuple[int, str]:
    """reset on a terminal where somebody types an answer; its exit code and output."""
    control, terminal = pty.openpty()
    try:
        os.write(control, answer.encode() + b"\n")
        done = subprocess.run([*CLI, "reset", "-v", "-i", str(cluster.inventory)], stdin=terminal, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stdout + done.stderr
    finally:
        os.close(control)
        os.close(terminal)


def test_a_machine_that_was_never_ours(machines: Machines) -> None:
    [plan] = [event for event in reset(machines.cluster) if event["event"] == "plan"]
    assert plan["clean"] == ["cp-1", "w-1"] and not plan["changes"]
    machines.cluster.cli("plan")
    machines.unchanged("cp-1", "w-1")


def test_a_cluster_with_pods(machines: Machines) -> None:
    cluster = machines.cluster
    print("apply:", cluster.apply()["stages"])
    assert not cluster.apply()["changed"]
    checks.load_image(cluster)
    cluster.kubectl("label", "namespace", "default", "--overwrite", "pod-security.kubernetes.io/enforce=privileged")
    hosted = deployment("hosted", spread=False)
    hosted["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 8088}]
    checks.apply_objects(cluster, hosted, service("hosted", type="NodePort"))
    checks.pods_everywhere(cluster)
    checks.running(cluster, "hosted", 1)


def test_only_who_types_the_name_resets(machines: Machines) -> None:
    cluster = machines.cluster
    code, output = typed(cluster, "another")
    assert code == 3 and "is not the name of this cluster; nothing was changed" in output, output
    assert "the whole cluster ends" in output and "kubelet.service" in output
    assert "--confirm" in cluster.cli("reset", "--yes", code=2)
    cluster.cli("reset", "--yes", "--confirm", "another", code=2)
    cluster.cli("reset", "--limit", "nobody", code=2)
    assert "while other machines of the cluster stay" in cluster.cli("reset", *YES, "--limit", "cp-1", code=3)
    assert not cluster.apply()["changed"]


def test_unreachable_machines_are_told_first(machines: Machines) -> None:
    cluster = machines.cluster
    cluster.lab.cut("w-1", peer="controller")
    try:
        assert "w-1" in cluster.cli("reset", *YES, code=6)
    finally:
        cluster.lab.heal("w-1")
    assert not cluster.apply()["changed"]


def test_the_whole_cluster(machines: Machines) -> None:
    cluster = machines.cluster
    code, output = typed(cluster, NAME)
    print(*[line for line in output.splitlines() if "stages:" in line or "done in" in line])
    assert code == 0 and "clusterctl apply makes the machines a cluster again" in output, output
    assert "the connection broke" not in output, "the one connection to each machine has outlived all of it"
    assert (cluster.inventory.parent / ".clusterctl" / NAME / "pki").is_dir()
    machines.unchanged("cp-1", "w-1")


def test_a_second_reset_finds_nothing(machines: Machines) -> None:
    output = machines.cluster.cli("reset")
    assert output.count("nothing of clusterctl is on it") == 2, output
    machines.unchanged("cp-1", "w-1")


def test_apply_again(machines: Machines) -> None:
    cluster = machines.cluster
    cluster.apply()
    assert not cluster.apply()["changed"]
    checks.load_image(cluster)
    checks.pods_everywhere(cluster)


def test_a_pod_network_that_leaves_the_inventory(machines: Machines) -> None:
    """Its daemon, files, links and objects go with the plan, and come again with it."""
    cluster = machines.cluster

    def network(**settings: str) -> None:
        cluster.edit(lambda content: content["all"]["vars"]["cluster"].update(network=settings))

    network(cni="none")
    [plan] = [event for event in events(cluster.cli("plan", "-o", "json")) if event["event"] == "plan"]
    removed = [change for change in plan["changes"] if change["resource"] == "product:flannel"]
    assert [change["host"] for change in removed] == ["cp-1", "w-1"] and {change["action"] for change in removed} == {"remove"}
    cluster.apply()
    left = "ls /etc/systemd/system/flanneld.service /etc/cni/net.d /etc/kube-flannel /run/flannel; ip -o link; nft list tables; pidof flanneld"
    for name in cluster.lab.machines:
        assert "flannel" not in cluster.on(name, f"({left}) 2>/dev/null", check=False)
    assert "flannel" not in cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    assert not cluster.apply()["changed"]
    network(cni="flannel")
    cluster.apply()
    checks.nodes_ready(cluster)
    checks.pod_network(cluster, checks.pods_everywhere(cluster))


def test_a_worker_alone(machines: Machines) -> None:
    """However often that is interrupted, its Node object goes with it, and the cluster lives on."""
    cluster = machines.cluster
    series = Series(cluster, ("reset", *YES, "--limit", "w-1"), stride=1, pause=0.2).run()
    machines.series.append(series)
    machines.unchanged("w-1")
    checks.nodes_ready(cluster, {"cp-1"})
    [plan] = [event for event in reset(cluster, "--limit", "w-1") if event["event"] == "plan"]
    assert plan["clean"] == ["w-1"] and not plan["changes"] and not plan["objects"]
    assert "DRIFT" in cluster.cli("status", "--limit", "cp-1")


def test_interrupted_and_run_again(machines: Machines) -> None:
    """Each run goes on where the one before it was killed or cut off, and the last reaches the end."""
    cluster = machines.cluster
    cluster.apply()
    checks.load_image(cluster)
    checks.pods_everywhere(cluster)
    series = Series(cluster, ("reset", *YES), stride=1, pause=0.2).run()
    machines.series.append(series)
    assert sum(one.at_random for one in machines.series) >= AT_LEAST and sum(one.severed for one in machines.series) >= 3
    machines.unchanged("cp-1", "w-1")
