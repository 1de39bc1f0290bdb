"""One control plane and two workers: what the cluster does for its users, and what a second apply does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import Cluster, until

from clusterctl.components.reserves import reserved_mib
from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with checks.raised(LabSpec(name="e2eone", machines=3), Path(tmp_path_factory.mktemp("one"))) as made:
        yield made


def test_nodes_are_ready(cluster: Cluster) -> None:
    checks.nodes_ready(cluster)


def test_flanneld_does_not_exit_before_its_node_exists(cluster: Cluster) -> None:
    for name in ("cp-1", "w-1", "w-2"):
        assert cluster.on(name, "systemctl show --property=NRestarts --value flanneld").split() == ["0"], cluster.on(name, "journalctl -u flanneld")


def test_second_apply_changes_nothing_in_one_round_trip_per_host(cluster: Cluster) -> None:
    summary = cluster.apply()
    assert not summary["changed"] and summary["trips"] == 3
    print("no-op apply:", summary["seconds"], "s,", summary["bytes_sent"], "bytes")


def test_pods_services_and_streams(cluster: Cluster) -> None:
    pods = checks.pods_everywhere(cluster)
    checks.pod_network(cluster, pods)
    checks.service_from_nodes(cluster)
    checks.kubectl_streams(cluster, pods)


def test_scaling_and_placing(cluster: Cluster) -> None:
    checks.scale_by_hand(cluster)
    checks.deleted_pod_returns(cluster)
    checks.placed_by_resources(cluster)


def test_settings_of_one_host_change_that_host_alone(cluster: Cluster) -> None:
    def kubelets() -> dict[str, str]:
        return {name: cluster.on(name, "systemctl show --property=MainPID --value kubelet").strip() for name in cluster.lab.machines}

    def node(name: str) -> Any:
        return cluster.json("get", "node", name)

    before = kubelets()
    settings = {"kubelet": {"max_pods": 40, "labels": {"disk": "fast"}, "annotations": {"example.com/rack": "r1"}, "reserves": {"memory": "1Gi"}},
                "hooks": [{"name": "fails", "after": "nodes", "run": "echo broken; exit 3"}]}
    cluster.edit(lambda content: content["all"]["children"]["workers"]["hosts"]["w-1"].update({"cluster": settings}))
    assert {entry["host"] for entry in cluster.plan()["changes"]} == {"w-1"}
    failed = cluster.cli("apply", "--yes", code=4)
    assert "hook:fails" in failed and "broken" in failed, failed
    cluster.edit(lambda content: content["all"]["children"]["workers"]["hosts"]["w-1"]["cluster"].pop("hooks"))
    cluster.apply()
    assert {name for name, pid in kubelets().items() if pid != before[name]} == {"w-1"}
    found, other = node("w-1"), node("w-2")
    assert found["metadata"]["labels"]["disk"] == "fast" and found["metadata"]["annotations"]["example.com/rack"] == "r1"
    assert (found["status"]["capacity"]["pods"], other["status"]["capacity"]["pods"]) == ("40", "110")
    for one in (found, other):
        capacity, allocatable = (int(one["status"][kind]["memory"].removesuffix("Ki")) for kind in ("capacity", "allocatable"))
        reserved = (1024 if one is found else reserved_mib(-(-capacity // 1024 // 256) * 256)) + 100
        assert abs(capacity - allocatable - reserved * 1024) < 1024 and allocatable > 0
    cluster.edit(lambda content: content["all"]["children"]["workers"]["hosts"]["w-1"].pop("cluster"))
    cluster.apply()
    meta = node("w-1")["metadata"]
    assert "disk" not in meta["labels"] and "example.com/rack" not in meta["annotations"]
    checks.nothing_to_do(cluster)


def test_the_only_member_without_its_data_begins_no_empty_cluster(cluster: Cluster) -> None:
    cluster.on("cp-1", "systemctl stop etcd && mv /var/lib/etcd/member /var/lib/kept && systemctl start etcd; ! systemctl is-active -q etcd")
    refused = cluster.cli("apply", "--yes", code=3)
    assert "[etcd.data-lost]" in refused and "clusterctl etcd snapshot restore" in refused, refused
    assert "lost" in cluster.cli("status", code=3)
    cluster.on("cp-1", "mv /var/lib/kept /var/lib/etcd/member && systemctl start etcd")
    until(lambda: cluster.cli("status") or True, "the cluster is well again", 60)
    checks.nothing_to_do(cluster)


def test_metrics_and_autoscaling(cluster: Cluster) -> None:
    checks.metrics(cluster)
    checks.autoscaled(cluster)


def test_a_killed_machine(cluster: Cluster) -> None:
    checks.killed_machine(cluster)
    assert not cluster.apply()["changed"]
