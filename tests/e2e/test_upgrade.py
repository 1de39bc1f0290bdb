"""Two minors up, 1.35 to 1.37, under load: what does not come up is put back, nobody who asks notices, and it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
import yaml
from cluster import APP, CLI, Cluster, deployment, service, until

from clusterctl.lab import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.versions, pytest.mark.alone]

OLD, BETWEEN, NEW = "1.35.8", "1.36.4", "1.37.2"
WAY = ("--to", NEW, "--through", BETWEEN)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    spec = LabSpec(name="e2eup", machines=5, control_planes=3, cluster={"kubernetes": OLD})
    made = Cluster.up(spec, Path(tmp_path_factory.mktemp("upgrade")))
    try:
        made.apply()
        # From here on the inventory names no version: what runs is what is wanted.
        settings(made, kubernetes=None)
        checks.nothing_to_do(made)
        checks.load_image(made)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def probe(cluster: Cluster) -> Iterator[subprocess.Popen[str]]:
    """A Service of two pods with a budget, asked from a pod of the host's network that no drain evicts; and the API."""
    web = deployment("web", replicas=2, args=("netexec", "--http-port=8080", "--delay-shutdown=6"), terminationGracePeriodSeconds=15)
    container = web["spec"]["template"]["spec"]["containers"][0]
    container["readinessProbe"] = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
              "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}
    asker = deployment("asker", args=("netexec", "--http-port=18080", "--udp-port=-1"), spread=False, hostNetwork=True,
                       tolerations=[{"operator": "Exists"}])
    asker["kind"] = "DaemonSet"
    del asker["spec"]["replicas"]
    asker["metadata"]["namespace"] = "kube-system"
    checks.apply_objects(cluster, web, budget, service("web"), asker)
    checks.running(cluster, "web", 2)
    until(lambda: cluster.json("get", "ds", "-n", "kube-system", "asker")["status"].get("numberReady") == 5, "the asking pods")
    address = cluster.json("get", "service", "web")["spec"]["clusterIP"]
    url = f"http://{cluster.lab.machines['cp-3'].address}:18080/dial?request=hostname&protocol=http&host={address}&port=80&tries=1"
    endpoints = ",".join(cluster.lab.machines[name].address for name in cluster.control_planes)
    process = subprocess.Popen(
        [*CLI, "lab", "exec", "--name", cluster.lab.name, "--", sys.executable, str(Path(__file__).with_name("probe.py")),
         str(cluster._config()), endpoints, url], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def settings(cluster: Cluster, **values: Any) -> None:
    """Change the inventory's settings; None takes one out."""

    def change(content: dict[str, Any]) -> None:
        own = content["all"]["vars"]["cluster"]
        for name, value in values.items():
            own.pop(name, None)
            own.update({name: value} if value is not None else {})

    cluster.edit(change)


def versions(cluster: Cluster) -> dict[str, str]:
    return {node["metadata"]["name"]: node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.json("get", "nodes")["items"]}


def api_versions(cluster: Cluster) -> dict[str, str]:
    """What each control plane's own API server says it is."""
    link = "readlink /opt/clusterctl/bin/kube-apiserver; systemctl is-active kube-apiserver"
    return {name: cluster.on(name, link, check=False).split("/")[2] for name in cluster.control_planes
            if "active" in cluster.on(name, link, check=False).splitlines()}


def started(cluster: Cluster, unit: str) -> dict[str, str]:
    """When a unit was started on each machine: another time is a restart."""
    look = f"systemctl show --property=ActiveEnterTimestampMonotonic --value {unit}"
    return {name: cluster.on(name, look).strip() for name in cluster.lab.machines}


def cordoned(cluster: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in cluster.json("get", "nodes")["items"] if node["spec"].get("unschedulable")]


@pytest.mark.parametrize(("words", "needle"), [
    (("--to", NEW), "skips a minor"), (("--to", "1.34.1"), "[version.unsupported]"), (("--to", "1.38.0", "--through", BETWEEN, "--through", NEW), "[version.unsupported]"),
    (("--to", "1.36.99", "--locked"), "[artifact.not-locked]"), (("--to", BETWEEN, "--component", "etcd=3.5.0", "--locked"), "")],
    ids=["skip", "back", "unknown", "no-pin", "component-back"])
def test_refused_before_anything(cluster: Cluster, words: tuple[str, ...], needle: str) -> None:
    code = 2 if needle in ("[artifact.not-locked]", "[version.unsupported]", "") else 3
    output = cluster.cli("upgrade", "plan", *words, code=code)
    assert needle in output and "next: " in output, output


def test_a_node_does_not_run_ahead(cluster: Cluster) -> None:
    output = cluster.cli("upgrade", "plan", "--to", BETWEEN, "--limit", "w-1", code=3)
    assert "no kubelet may be newer" in output
    assert "no changes" in cluster.cli("plan", "--limit", "w-1"), "a limit does not hide what the cluster runs"


def test_apply_changes_no_version(cluster: Cluster) -> None:
    settings(cluster, kubernetes=BETWEEN)
    try:
        output = cluster.cli("apply", "--yes", code=3)
        assert f"kubernetes {OLD} runs on" in output and "clusterctl upgrade plan" in output
    finally:
        settings(cluster, kubernetes=None)


def test_a_second_operator_is_refused_within_five_seconds(cluster: Cluster) -> None:
    """While a drain that a PodDisruptionBudget blocks holds the lock."""
    labels = {"app": "held"}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "held"},
              "spec": {"minAvailable": 2, "selector": {"matchLabels": labels}}}
    checks.apply_objects(cluster, deployment("held", replicas=2), budget)
    node = checks.running(cluster, "held", 2)[0]["spec"]["nodeName"]
    holder = cluster.start("node", "drain", node, "--yes")
    try:
        until(lambda: cluster.json("get", "node", node)["spec"].get("unschedulable"), "the drain has begun")
        started = time.monotonic()
        refused = cluster.cli("apply", "--yes", code=5)
        assert time.monotonic() - started < 5, refused
        assert f"pid {holder.pid}" in refused
    finally:
        holder.kill()
        holder.wait()
        cluster.kubectl("delete", "pdb,deployment", "held")
        cluster.cli("node", "uncordon", node)


def test_what_the_target_does_not_know_is_told(cluster: Cluster) -> None:
    """By the tables, and by the staged program itself, before anything is interrupted."""
    settings(cluster, api_server={"extra_args": {"feature-gates": "WatchFromStorageWithoutResourceVersion=true"}})
    output = cluster.cli("upgrade", "plan", "--to", BETWEEN, code=3)
    assert "no feature gate WatchFromStorageWithoutResourceVersion any more in 1.36" in output
    before = started(cluster, "kube-apiserver")
    settings(cluster, api_server={"extra_args": {"no-such-flag": "1"}})
    output = cluster.cli("upgrade", "apply", "--yes", "--to", BETWEEN, code=4)
    assert "unknown flag: --no-such-flag" in output and "does not take its flags" in output
    assert started(cluster, "kube-apiserver") == before
    settings(cluster, api_server=None)


def test_an_api_server_that_does_not_come_up_is_put_back(cluster: Cluster, probe: subprocess.Popen[str]) -> None:
    """One control plane is tried, goes back within two minutes, and the others are left alone; apply rolls the same way."""
    before = {unit: started(cluster, unit) for unit in ("kube-apiserver", "kubelet")}
    settings(cluster, api_server={"extra_args": {"tls-cipher-suites": "NO_SUCH_SUITE"}})
    for words in (("apply", "--yes"), ("upgrade", "apply", "--yes", "--to", BETWEEN)):
        begun = time.monotonic()
        output = cluster.cli(*words, code=4)
        print(" ".join(words), "ended after", round(time.monotonic() - begun), "s")
        assert "what was there before runs again" in output, output
        assert "cp-1: stage control-plane: service:kube-apiserver.service" in output and "NO_SUCH_SUITE" in output
        assert set(api_versions(cluster).items()) == {(name, OLD) for name in cluster.control_planes}
        for name in ("cp-2", "cp-3", "w-1", "w-2"):
            assert started(cluster, "kube-apiserver")[name] == before["kube-apiserver"][name]
        assert started(cluster, "kubelet") == before["kubelet"] and not cordoned(cluster)
    settings(cluster, api_server=None)
    cluster.cli("status", code=0)


def test_a_kubelet_that_does_not_come_up_is_put_back(cluster: Cluster, probe: subprocess.Popen[str]) -> None:
    """The API servers are at the next minor by then; the first node goes back, is uncordoned, and the run stops."""
    own = yaml.safe_load(cluster.inventory.read_text())["all"]["vars"]["cluster"]["kubelet"]
    settings(cluster, kubelet={**own, "config": {**own["config"], "topologyManagerPolicy": "no-such-policy"}})
    output = cluster.cli("upgrade", "apply", "--yes", *WAY, code=4)
    assert "cp-1: stage nodes: service:kubelet.service" in output and "what was there before runs again" in output, output
    assert "no-such-policy" in output, "the line of the log that matters"
    assert set(versions(cluster).values()) == {f"v{OLD}"} and set(api_versions(cluster).values()) == {BETWEEN}
    checks.nodes_ready(cluster)
    assert not cordoned(cluster)
    settings(cluster, kubelet=own)


def test_while_it_is_in_progress(cluster: Cluster) -> None:
    """Another target is refused, apply too; status says so."""
    output = cluster.cli("upgrade", "apply", "--yes", "--to", OLD, code=3)
    assert f"an upgrade to {BETWEEN} is in progress" in output
    output = cluster.cli("apply", "--yes", code=3)
    assert "clusterctl upgrade plan" in output
    assert "is wanted: clusterctl upgrade plan" in cluster.cli("status", code=3)


def test_two_minors_under_load(cluster: Cluster, probe: subprocess.Popen[str]) -> None:
    begun = time.monotonic()
    lines = cluster.cli("upgrade", "apply", "--yes", "-o", "json", *WAY, timeout=1500).splitlines()
    summary = json.loads(lines[-1])
    print("the rest of 1.35 -> 1.36 and 1.36 -> 1.37:", round(time.monotonic() - begun), "s,", summary["stages"])
    assert set(versions(cluster).values()) == {f"v{NEW}"} and set(api_versions(cluster).values()) == {NEW}
    probe.send_signal(signal.SIGTERM)
    output, _ = probe.communicate(timeout=60)
    figures = json.loads(output)
    print("under load:", figures)
    assert figures["writes"] > 500 and figures["asked"] > 500
    assert figures["lost"] == 0, figures
    assert figures["longest_gap"] < 2, figures
    assert figures["failed"] == 0, figures


def test_afterwards(cluster: Cluster) -> None:
    """A second run has nothing to do, apply neither; the snapshots are kept and good; the app still runs."""
    checks.nothing_to_do(cluster)
    assert "no changes" in cluster.cli("upgrade", "apply", "--yes")
    assert not cordoned(cluster)
    cluster.cli("status")
    saved = json.loads(cluster.cli("etcd", "snapshot", "list", "-o", "json"))
    assert len(saved) >= 2 and all(entry["keys"] > 100 for entry in saved)
    path = cluster.inventory.parent / ".clusterctl" / "e2eup" / "snapshots" / saved[-1]["file"]
    assert "of this cluster" in cluster.cli("etcd", "snapshot", "verify", str(path))
    torn = cluster.work / "torn.db"
    torn.write_bytes(path.read_bytes()[:-700])
    assert "not a whole snapshot" in cluster.cli("etcd", "snapshot", "verify", str(torn), code=7)
    assert "->" in cluster.cli("etcd", "defrag")
    checks.running(cluster, "web", 2)
    assert APP in cluster.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[*].image}")
