"""Each product that is not Kubernetes upgraded alone: what runs afterwards, and what was not touched for it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import Cluster, deployment, service, until

from clusterctl.lab import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.versions]

UNITS = ("containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "flanneld", "api-proxy")
OLD_PLUGINS, NEW_PLUGINS = "1.9.0", "1.9.1"
ETCD, CONTAINERD, RUNC, COREDNS = "3.6.16", "2.3.7", "1.5.2", "1.14.7"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    spec = LabSpec(name="e2ecomp", machines=4, control_planes=3, cluster={"versions": {"cni_plugins": OLD_PLUGINS}})
    made = Cluster.up(spec, Path(tmp_path_factory.mktemp("components")))
    try:
        made.apply()
        # From here on the inventory names no version, and older plugins run than belong to this Kubernetes.
        made.edit(lambda content: content["all"]["vars"]["cluster"].pop("versions"))
        checks.load_image(made)
        checks.pods_everywhere(made)
        yield made
    finally:
        made.down()


def started(cluster: Cluster) -> dict[str, dict[str, tuple[str, int]]]:
    """When each unit of each machine was started, and how often systemd itself did so since then, by unit and machine."""
    look = f"systemctl show --property=Id,ActiveEnterTimestampMonotonic,NRestarts {' '.join(UNITS)}"
    found: dict[str, dict[str, tuple[str, int]]] = {unit: {} for unit in UNITS}
    for name in cluster.lab.machines:
        for block in cluster.on(name, look).strip().split("\n\n"):
            values = dict(line.split("=", 1) for line in block.splitlines())
            found[values["Id"].removesuffix(".service")][name] = values["ActiveEnterTimestampMonotonic"], int(values["NRestarts"])
    return found


def was_restarted(before: tuple[str, int], after: tuple[str, int]) -> bool:
    """Whether an operator restarted a unit. A leader that loses its lease on a loaded machine ends, and systemd starts it again."""
    return after[0] != before[0] and after[1] <= before[1]


def upgraded(cluster: Cluster, product: str, version: str, *words: str) -> dict[str, set[str]]:
    """Upgrade one product; the machines on which each unit was restarted for it. The plan must be about that product alone."""
    lines = cluster.cli("upgrade", "plan", "-o", "json", *words).splitlines()
    [plan] = [event for event in map(json.loads, lines) if event["event"] == "plan"]
    assert set(plan["versions"]) == {product} and plan["versions"][product]["to"] == version, plan["versions"]
    before, begun = started(cluster), time.monotonic()
    summary = json.loads(cluster.cli("upgrade", "apply", "--yes", "-o", "json", *words).splitlines()[-1])
    print(f"{product} {version}: {time.monotonic() - begun:.1f} s,", {entry["stage"]: entry["seconds"] for entry in summary["stages"]})
    after = started(cluster)
    again = [json.loads(line) for line in cluster.cli("upgrade", "apply", "--yes", "-o", "json", *words).splitlines()]
    assert [event["versions"] for event in again if event["event"] == "plan"] == [{}]
    checks.nothing_to_do(cluster)
    assert not [node for node in cluster.json("get", "nodes")["items"] if node["spec"].get("unschedulable")]
    restarted = {unit: {name for name, now in after[unit].items() if was_restarted(before[unit][name], now)} for unit in UNITS}
    return {unit: names for unit, names in restarted.items() if names}


def a_new_pod_reaches_others(cluster: Cluster, name: str) -> None:
    checks.apply_objects(cluster, deployment(name, replicas=2), service(name))
    pods = checks.running(cluster, name, 2)
    others = cluster.json("get", "pods", "-l", "app=everywhere")["items"]
    for other in others:
        checks.ask(cluster, pods[0]["metadata"]["name"], f"{other['status']['podIP']}:8080")
    until(lambda: checks.ask(cluster, pods[0]["metadata"]["name"], f"{name}.default.svc.cluster.local:80") == "", "the name", 60)
    cluster.kubectl("delete", "deployment,service", name, "--wait=false")


@pytest.mark.parametrize(("words", "code", "needle"), [
    (("--component", "etcd=3.5.0", "--locked"), 2, "[artifact.not-locked]"),
    (("--component", "runc=1.99.0", "--locked"), 2, "[artifact.not-locked]"),
    (("--component", "flanel=1.0.0"), 2, "no product is called 'flanel'"),
    (("--component", "kubernetes=1.37.2"), 2, "no product is called 'kubernetes'")])
def test_refused_before_anything(cluster: Cluster, words: tuple[str, ...], code: int, needle: str) -> None:
    output = cluster.cli("upgrade", "plan", *words, code=code)
    assert needle in output and "next: " in output, output


def test_etcd(cluster: Cluster) -> None:
    """One member after the other; no API server is restarted for it."""
    restarted = upgraded(cluster, "etcd", ETCD, "--component", f"etcd={ETCD}")
    assert restarted == {"etcd": set(cluster.control_planes)}
    members = json.loads(cluster.cli("etcd", "members", "-o", "json"))["members"]
    assert [member["version"] for member in members] == [ETCD] * 3 and all(member["healthy"] for member in members), members
    for name in cluster.control_planes:
        assert ETCD in cluster.on(name, "/proc/$(pidof etcd)/exe --version")
    checks.nodes_ready(cluster)


def test_etcd_does_not_go_back(cluster: Cluster) -> None:
    output = cluster.cli("upgrade", "plan", "--component", "etcd=3.6.14", code=3)
    assert "older" in output, output


def test_runc(cluster: Cluster) -> None:
    """Node by node, drained: what starts pods is restarted with it, and nothing of the control plane."""
    restarted = upgraded(cluster, "runc", RUNC, "--component", f"runc={RUNC}")
    assert restarted == {"containerd": set(cluster.lab.machines)}
    for name in cluster.lab.machines:
        assert RUNC in cluster.on(name, "/opt/clusterctl/bin/runc --version")
    a_new_pod_reaches_others(cluster, "afterrunc")


def test_cni_plugins(cluster: Cluster) -> None:
    """By the inventory; pods that run are not concerned, and nothing is restarted."""

    def change(content: dict[str, Any]) -> None:
        content["all"]["vars"]["cluster"]["versions"] = {"cni_plugins": NEW_PLUGINS}

    def pods() -> set[str]:
        found = [pod for words in (("-l", "app=everywhere"), ("-n", "kube-system")) for pod in cluster.json("get", "pods", *words)["items"]]
        return {pod["metadata"]["uid"] for pod in found}

    before = pods()
    cluster.edit(change)
    assert "clusterctl upgrade plan" in cluster.cli("apply", "--yes", code=3)
    assert upgraded(cluster, "cni_plugins", NEW_PLUGINS) == {}
    assert pods() == before
    for name in cluster.lab.machines:
        assert NEW_PLUGINS in cluster.on(name, "/opt/cni/bin/bridge --version 2>&1 || /opt/cni/bin/bridge 2>&1 </dev/null", check=False)
    a_new_pod_reaches_others(cluster, "aftercni")


def test_containerd(cluster: Cluster) -> None:
    """Node by node, drained; the daemons beside it go on."""
    restarted = upgraded(cluster, "containerd", CONTAINERD, "--component", f"containerd={CONTAINERD}")
    assert restarted == {"containerd": set(cluster.lab.machines)}

    def look() -> bool:
        nodes = cluster.json("get", "nodes")["items"]
        return {node["status"]["nodeInfo"]["containerRuntimeVersion"] for node in nodes} == {f"containerd://{CONTAINERD}"}

    until(look, "the nodes say their containerd", 90)
    a_new_pod_reaches_others(cluster, "aftercontainerd")


def found_replicas(cluster: Cluster) -> int:
    return int(cluster.json("get", "deployment", "-n", "kube-system", "coredns")["status"].get("updatedReplicas", 0))


def test_coredns(cluster: Cluster) -> None:
    """An image on all nodes and a Deployment; names are answered all the while, by the budget that it has."""
    assert upgraded(cluster, "coredns", COREDNS, "--component", f"coredns={COREDNS}") == {}
    found = cluster.json("get", "deployment", "-n", "kube-system", "coredns")
    assert found["spec"]["template"]["spec"]["containers"][0]["image"].endswith(f":v{COREDNS}"), found
    until(lambda: found_replicas(cluster) == 2, "CoreDNS", 90)
    a_new_pod_reaches_others(cluster, "aftercoredns")
    cluster.cli("status")
