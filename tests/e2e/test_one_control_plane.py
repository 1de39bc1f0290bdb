"""One control plane and two workers: what the cluster does for its users, and what a second apply does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
from cluster import Cluster, until

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


def test_second_apply_changes_nothing_and_the_third_takes_one_trip(cluster: Cluster) -> None:
    summary = cluster.apply()
    assert not summary["changed"] and summary["trips"] == 2 * 3
    summary = cluster.apply()
    assert not summary["changed"] and summary["trips"] == 3, "machines that are as they were are looked at once"
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
