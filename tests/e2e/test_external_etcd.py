"""etcd on three machines of its own, one control plane, a worker; then a worker more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
from cluster import Cluster, until
from expiry import renewed

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with checks.raised(LabSpec(name="e2eetcd", machines=5, control_planes=1, etcd=3), Path(tmp_path_factory.mktemp("etcd"))) as made:
        yield made


def test_all_of_it(cluster: Cluster) -> None:
    checks.nodes_ready(cluster)
    pods = checks.pods_everywhere(cluster)
    checks.pod_network(cluster, pods)
    checks.service_from_nodes(cluster)
    checks.kubectl_streams(cluster, pods)
    checks.scale_by_hand(cluster)
    checks.deleted_pod_returns(cluster)
    checks.placed_by_resources(cluster)


def test_etcd_machines_run_etcd_alone(cluster: Cluster) -> None:
    for name in ("etcd-1", "etcd-2", "etcd-3"):
        running = cluster.on(name, "systemctl list-units --plain --no-legend --state=running 'etcd*' 'kube*' 'containerd*'")
        assert [line.split()[0] for line in running.splitlines()] == ["etcd.service"]
    assert cluster.on("cp-1", "systemctl is-active etcd", check=False).strip() != "active"


def written(cluster: Cluster) -> set[str]:
    """The uids of objects that no controller makes anew after a restart."""
    return {item["metadata"]["uid"] for item in cluster.json("get", "configmaps,secrets", "-A")["items"]}


def test_a_snapshot_is_restored_onto_machines_of_etcd_alone(cluster: Cluster) -> None:
    cluster.cli("etcd", "snapshot", "save")
    path = max((cluster.inventory.parent / ".clusterctl" / cluster.lab.name / "snapshots").glob("*.db"))
    before = written(cluster)
    cluster.kubectl("create", "configmap", "after")
    started = time.monotonic()
    cluster.cli("etcd", "snapshot", "restore", str(path), "--yes", "--confirm", cluster.lab.name)
    print(f"\nrestored onto three machines of etcd alone in {time.monotonic() - started:.0f} s")
    assert written(cluster) == before
    checks.nodes_ready(cluster)
    until(lambda: cluster.cli("status"), "all of it is well", 60)
    checks.nothing_to_do(cluster)


def test_a_worker_more(cluster: Cluster) -> None:
    """Only the new machine is changed; the old ones, which are as plan saw them, see one looking trip, and nodes begin and end a probe of its ports."""
    before = cluster.json("get", "nodes")["items"]
    [added] = cluster.lab.add(count=1, role="worker")
    changes = cluster.plan()["changes"]
    assert {change["host"] for change in changes} == {added.name}
    summary = cluster.apply()
    assert set(summary["hosts"]) == {added.name}
    old = len(cluster.lab.machines) - 1
    nodes = len(cluster.control_planes) + len(cluster.workers)
    assert summary["trips"] == old + 1 + 2 * nodes + len({change["stage"] for change in changes})
    checks.nodes_ready(cluster)
    assert len(cluster.json("get", "nodes")["items"]) == len(before) + 1
    assert not cluster.apply()["changed"]


def test_every_certificate_has_ended(cluster: Cluster) -> None:
    """No member of etcd is well before a majority has new ones, and no API answers: apply needs neither."""
    seconds = renewed(cluster)
    print(f"all certificates renewed in {seconds:.0f} s")
    assert seconds < 180
    checks.nodes_ready(cluster)
    until(lambda: cluster.cli("status"), "all of it is well", 60)
    checks.nothing_to_do(cluster)
