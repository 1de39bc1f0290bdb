"""Verbs that are killed or cut off at every stage boundary and at random moments, and run again: the same end, no hand step."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import Cluster, deployment, until
from interruption import Series, comes_to, no_leftovers, settled

from clusterctl.lab import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.versions]

BEFORE, AFTER = "1.36.4", "1.37.2"
PODS = 5
AT_LEAST = 10
"""Random moments for each of the long verbs."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster.up(LabSpec(name="klxverb", machines=5, control_planes=3), Path(tmp_path_factory.mktemp("verbs")))
    try:
        made.apply()
        checks.load_image(made)
        budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
                  "spec": {"minAvailable": PODS - 1, "selector": {"matchLabels": {"app": "web"}}}}
        checks.apply_objects(made, deployment("web", replicas=PODS), budget)
        checks.running(made, "web", PODS)
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def whole(cluster: Cluster) -> dict[str, object]:
    """What the cluster is before anything is done to it, and again once whoever left is back."""
    return settled(cluster)


def nodes(cluster: Cluster) -> dict[str, dict[str, Any]]:
    return {node["metadata"]["name"]: node for node in cluster.json("get", "nodes")["items"]}


def well(cluster: Cluster, *gone: str) -> None:
    """All that must hold after any verb. ``gone``: machines that left and are no longer in the inventory."""
    staying = {name for name in cluster.lab.machines if name not in gone}
    until(lambda: checks.nodes_ready(cluster, staying) is None, "all nodes Ready", 60)
    for name, node in nodes(cluster).items():
        assert not node["spec"].get("unschedulable"), f"{name} is cordoned"
        assert "clusterctl.dev/cordoned-for" not in node["metadata"].get("annotations", {}), name
    found = json.loads(cluster.cli("etcd", "members", "-o", "json"))["members"]
    assert {state["name"] for state in found} == staying & set(cluster.control_planes)
    assert all(state["healthy"] and state["host"] and not state["learner"] for state in found), found
    until(lambda: no_leftovers(cluster) is None, "nothing is left over", 60)
    checks.nothing_to_do(cluster)
    cluster.cli("status")


def without(cluster: Cluster, name: str) -> str:
    """Take a machine out of the inventory file; its text before."""
    text = cluster.inventory.read_text()

    def change(content: dict[str, Any]) -> None:
        for group in content["all"]["children"].values():
            (group.get("hosts") or {}).pop(name, None)

    cluster.edit(change)
    return text


def bare(cluster: Cluster, name: str) -> None:
    """A machine that left has nothing of ours."""
    found = cluster.on(name, "ls -d /opt/clusterctl /etc/kubernetes /etc/etcd /etc/clusterctl /var/lib/clusterctl /var/lib/kubelet/pki "
                             "/var/lib/etcd/member 2>/dev/null; pgrep -x 'kubelet|etcd|kube-apiserver|containerd' || :")
    assert not found, f"{name}: {found}"


def back(cluster: Cluster, name: str, text: str, whole: dict[str, object]) -> None:
    """The machine comes in again by apply, and the whole is as it was."""
    cluster.inventory.write_text(text)
    assert set(cluster.apply()["hosts"]) >= {name}
    cluster.cli("image", "load", str(checks.docker_archive(cluster.work)), "--limit", name)
    comes_to(cluster, whole)


def test_drain(cluster: Cluster, whole: dict[str, object]) -> None:
    """Whoever drains a node wants it cordoned: it is, for nobody but himself, and empty."""
    moments = 0
    while moments < AT_LEAST:
        places = Counter(pod["spec"]["nodeName"] for pod in checks.running(cluster, "web", PODS))
        [(name, _)] = places.most_common(1)
        series = Series(cluster, ("node", "drain", name, "--yes"), stride=1, pause=0.3, enough=5).run()
        assert series.moments
        moments += series.at_random
        node = nodes(cluster)[name]
        assert node["spec"]["unschedulable"] and "clusterctl.dev/cordoned-for" not in node["metadata"].get("annotations", {})
        assert all(pod["spec"]["nodeName"] != name for pod in checks.running(cluster, "web", PODS))
        cluster.cli("node", "uncordon", name)
    well(cluster)
    comes_to(cluster, whole)


def test_snapshot(cluster: Cluster) -> None:
    series = Series(cluster, ("etcd", "snapshot", "save"), within=2, least=AT_LEAST, cuts=5, enough=0).run()
    assert series.at_random >= AT_LEAST and series.severed
    folder = cluster.inventory.parent / ".clusterctl" / cluster.lab.name / "snapshots"
    saved = {path.name for path in folder.iterdir()}
    listed = json.loads(cluster.cli("etcd", "snapshot", "list", "-o", "json"))
    assert saved == {name for entry in listed for name in (entry["file"], entry["file"].replace(".db", ".json"))}, saved
    well(cluster)


def test_defrag(cluster: Cluster) -> None:
    series = Series(cluster, ("etcd", "defrag"), within=1.5, least=AT_LEAST, cuts=4, enough=0).run()
    assert series.at_random >= AT_LEAST and series.severed
    well(cluster)


def test_a_worker_is_removed(cluster: Cluster, whole: dict[str, object]) -> None:
    """Out of the inventory, too: killed once it is, the same command is run with a name that nobody knows any more."""
    text = cluster.inventory.read_text()
    edited = f"{cluster.inventory}: w-2 is taken out"
    Series(cluster, ("node", "remove", "w-2", "--yes", "--edit-inventory"), stride=2, also=[edited]).run()
    assert "w-2:" not in cluster.inventory.read_text()
    assert "w-2 is no part of the cluster any more" in cluster.cli("node", "remove", "w-2", "--yes")
    assert "inventory.no-host" in cluster.cli("node", "remove", "w-22", "--yes", code=2)
    bare(cluster, "w-2")
    well(cluster, "w-2")
    back(cluster, "w-2", text, whole)


def test_a_control_plane_is_removed(cluster: Cluster, whole: dict[str, object]) -> None:
    series = Series(cluster, ("node", "remove", "cp-3", "--yes"), stride=1, pause=0.5).run()
    assert series.at_random >= AT_LEAST
    bare(cluster, "cp-3")
    text = without(cluster, "cp-3")
    well(cluster, "cp-3")
    back(cluster, "cp-3", text, whole)


def test_a_control_plane_is_replaced(cluster: Cluster, whole: dict[str, object]) -> None:
    cluster.lab.reinstall("cp-3")
    series = Series(cluster, ("node", "replace", "cp-3", "--yes"), stride=6).run()
    assert series.at_random >= AT_LEAST
    well(cluster)
    cluster.cli("image", "load", str(checks.docker_archive(cluster.work)), "--limit", "cp-3")
    comes_to(cluster, whole)


def test_a_kill_while_nobody_can_be_reached(cluster: Cluster) -> None:
    """The machines do not hear that the holder of the lock is dead; the next run waits until they let go, and is not refused."""
    process = cluster.start("node", "drain", "w-1", "--yes")
    try:
        until(lambda: nodes(cluster)["w-1"]["spec"].get("unschedulable") or process.poll() is not None, "the drain has begun")
        for name in cluster.lab.machines:
            cluster.lab.cut(name, peer="controller")
    finally:
        process.kill()
        process.wait()
        for name in cluster.lab.machines:
            cluster.lab.heal(name)
    started = time.monotonic()
    cluster.cli("node", "drain", "w-1", "--yes")
    print(f"the lock of a dead holder that nobody told of: {time.monotonic() - started:.0f} s")
    cluster.cli("node", "uncordon", "w-1")
    well(cluster)


VERSION = re.compile(r"v?\d+\.\d+\.\d+(-[\w.-]+)?|\b[0-9a-f]{64}\b")


RESTARTED = [f"nodes {name} service:kubelet.service" for name in ("cp-1", "w-1")]
"""Killed here, it leaves a node that is done and cordoned, while the next one's pods need its place."""


def shape(found: dict[str, object]) -> dict[str, set[str]]:
    """Paths, modes, owners, links, units and images of the machines, whatever their versions. That contents are as wanted is what an
    empty plan says."""
    return {name: {VERSION.sub("X", str(line)) for line in lines}  # type: ignore[attr-defined]
            for name, lines in found.items() if name.startswith("machine ")}


def test_upgrade(cluster: Cluster, whole: dict[str, object]) -> None:
    series = Series(cluster, ("upgrade", "apply", "--to", AFTER, "--yes"), stride=6, also=RESTARTED).run()
    assert series.at_random >= AT_LEAST
    assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in nodes(cluster).values()} == {f"v{AFTER}"}
    checks.running(cluster, "web", PODS)
    well(cluster)
    found = settled(cluster)
    before, after = shape(whole), shape(found)
    for key, lines in before.items():
        assert after[key] == lines, f"{key}: no more {sorted(lines - after[key])}; new {sorted(after[key] - lines)}"
