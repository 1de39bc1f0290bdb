"""Three control planes and two workers: what stays when one dies."""

from __future__ import annotations

import json
from collections.abc import Iterator

import checks
import pytest
from cluster import Cluster, until

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def cluster(three_and_two: Cluster) -> Iterator[Cluster]:
    """What these tests leave is taken away for those that come after them."""
    yield three_and_two
    for what in (("deployment,daemonset", "-l", "app"), ("service", "-l", "provider!=kubernetes")):
        until(lambda words=what: three_and_two.kubectl("delete", *words) is not None, "what these tests leave is gone", 60)


def test_all_of_it(cluster: Cluster) -> None:
    checks.nodes_ready(cluster)
    pods = checks.pods_everywhere(cluster)
    checks.pod_network(cluster, pods)
    checks.service_from_nodes(cluster)
    checks.kubectl_streams(cluster, pods)
    checks.scale_by_hand(cluster)
    checks.deleted_pod_returns(cluster)
    checks.placed_by_resources(cluster)


def test_a_killed_machine(cluster: Cluster) -> None:
    checks.killed_machine(cluster)
    checks.nothing_to_do(cluster)


def test_etcd_has_three_voters(cluster: Cluster) -> None:
    members = json.loads(cluster.on("cp-1", ETCDCTL + "member list -w json"))["members"]
    assert {member["name"] for member in members} == {"cp-1", "cp-2", "cp-3"}
    assert not any(member.get("isLearner") for member in members)


ETCDCTL = (
    "/opt/clusterctl/bin/etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/etcd/pki/ca.crt "
    "--cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key "
)


def test_second_apply_changes_nothing(cluster: Cluster) -> None:
    summary = cluster.apply()
    assert not summary["changed"] and summary["trips"] == 5
    print("no-op apply:", summary["seconds"], "s")


def test_the_api_answers_with_one_control_plane_dead(cluster: Cluster) -> None:
    cluster.lab.kill("cp-1")
    try:
        for worker in cluster.workers:
            until(lambda name=worker: api_from(cluster, name) == "ok", f"the API through {worker}'s own endpoint", 30)
        # Writes succeed: the kubelet's own credentials renew its lease, and a pod that is asked for comes up.
        config = cluster.work / "second"
        text = (cluster.work / "kubeconfig").read_text()
        config.write_text(text.replace(cluster.lab.machines["cp-1"].address, cluster.lab.machines["cp-2"].address))
        (cluster.work / "kubeconfig").rename(cluster.work / "first")
        config.rename(cluster.work / "kubeconfig")
        until(lambda: cluster.kubectl("create", "configmap", "written", "--from-literal=a=b"), "a write", 60)
        checks.apply_objects(cluster, checks.deployment("afterwards", replicas=2))
        checks.running(cluster, "afterwards", 2)
    finally:
        cluster.lab.start("cp-1")
        if (cluster.work / "first").exists():
            (cluster.work / "first").rename(cluster.work / "kubeconfig")
    until(lambda: cluster.cli("status"), "cp-1 well again by itself", 120)
    checks.nothing_to_do(cluster)


def api_from(cluster: Cluster, worker: str) -> str:
    """/readyz through the worker's own load balancer, with openssl as there is no curl."""
    client = "timeout 5 openssl s_client -quiet -CAfile /etc/kubernetes/pki/ca.crt -connect 127.0.0.1:6443 2>/dev/null"
    script = f"printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' | {client}"
    return cluster.on(worker, script, check=False).rpartition("\n")[2].strip()
