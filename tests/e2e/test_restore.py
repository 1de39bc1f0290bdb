"""Back to a snapshot on three members: what was written before it is there with its uid, what came after is gone; kills on the way."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
from cluster import Cluster, until

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

COUNT, KILLS = 2_000, 10
NAMESPACE = "written"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster.up(LabSpec(name="restored", machines=4, control_planes=3), Path(tmp_path_factory.mktemp("restore")))
    try:
        made.cli("apply", "--yes")
        made.kubectl("create", "namespace", NAMESPACE)
        yield made
    finally:
        made.down()


def write(cluster: Cluster, count: int) -> None:
    writer = Path(__file__).with_name("writer.py")
    subprocess.run(["nsenter", f"--net=/run/netns/{cluster.lab.namespace}", sys.executable, str(writer), str(cluster._config()), NAMESPACE, str(count)],
                   check=True, timeout=300)


def uids(cluster: Cluster) -> set[str]:
    text = cluster.kubectl("get", "configmaps", "-n", NAMESPACE, "-o", "jsonpath={range .items[*]}{.metadata.uid} {end}")
    return set(text.split())


def save(cluster: Cluster) -> Path:
    cluster.cli("etcd", "snapshot", "save")
    return max((cluster.inventory.parent / ".clusterctl" / cluster.lab.name / "snapshots").glob("*.db"))


def restore(cluster: Cluster, path: Path) -> tuple[str, ...]:
    return ("etcd", "snapshot", "restore", str(path), "--yes", "--confirm", cluster.lab.name)


@pytest.fixture(scope="module")
def saved(cluster: Cluster) -> tuple[Path, set[str]]:
    started = time.monotonic()
    write(cluster, COUNT)
    print(f"\n{COUNT} ConfigMaps in {time.monotonic() - started:.0f} s")
    return save(cluster), uids(cluster)


def test_all_objects_come_back(cluster: Cluster, saved: tuple[Path, set[str]]) -> None:
    path, wanted = saved
    cluster.kubectl("delete", "configmap", "-n", NAMESPACE, "written-1", "written-2")
    cluster.kubectl("create", "configmap", "-n", NAMESPACE, "after")
    started = time.monotonic()
    cluster.cli(*restore(cluster, path))
    print(f"\nrestored {COUNT} ConfigMaps on three members in {time.monotonic() - started:.0f} s")
    found = uids(cluster)
    assert found == wanted and len(found) > COUNT
    checks.nodes_ready(cluster)
    checks.nothing_to_do(cluster)
    for name in cluster.control_planes:
        assert "before-restore-" in cluster.on(name, "ls /var/lib/etcd")
    until(lambda: cluster.cli("status"), "all of it is well", 60)


def test_it_comes_to_its_end_however_often_it_is_killed(cluster: Cluster, saved: tuple[Path, set[str]]) -> None:
    path, wanted = saved
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    moments = []
    for number in range(KILLS):
        process = cluster.start(*restore(cluster, path))
        # Each kill is later in the work than the last one could be; what was done before a kill is not done again.
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1 + number * 0.3 + chance.random() * 3)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0]
        assert "Traceback" not in said
        moments.append(said.strip().splitlines()[-1] if said.strip() else "nothing yet")
    cluster.cli(*restore(cluster, path))
    print(f"\n{KILLS} kills (seed {seed}):\n   " + "\n   ".join(moments))
    assert uids(cluster) == wanted
    checks.nodes_ready(cluster)
    checks.nothing_to_do(cluster)
    for name in cluster.lab.machines:
        assert not cluster.on(name, "ls -d /var/lib/clusterctl/restore /etc/systemd/system/etcd.service.d /var/lib/etcd/restore-* 2>/dev/null || :").strip()


def test_abort_keeps_what_was_written_since(cluster: Cluster, saved: tuple[Path, set[str]]) -> None:
    path, wanted = saved
    cluster.kubectl("create", "configmap", "-n", NAMESPACE, "kept")
    process = cluster.start(*restore(cluster, path))
    assert process.stdout is not None
    for line in process.stdout:
        if "swap: " in line and "done" not in line:
            break
    process.kill()
    process.wait()
    cluster.cli("etcd", "snapshot", "restore", "--abort", "--yes", "--confirm", cluster.lab.name)
    assert len(uids(cluster)) == len(wanted) + 1
    checks.nothing_to_do(cluster)


def recover(cluster: Cluster) -> tuple[str, ...]:
    return ("etcd", "recover", "--yes", "--confirm", cluster.lab.name)


def test_one_of_three_becomes_the_cluster_and_the_others_join(cluster: Cluster) -> None:
    """Two machines are lost for good; recovery is killed ten times on its way, and apply joins the machines that replace them."""
    assert "etcd.quorum-present" in cluster.cli(*recover(cluster), code=3)
    wanted = uids(cluster)
    for name in ("cp-2", "cp-3"):
        cluster.lab.kill(name)
    chance = random.Random(5)
    for number in range(KILLS):
        process = cluster.start(*recover(cluster))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3 + number * 0.3 + chance.random() * 3)
        process.kill()
        process.communicate()
    started = time.monotonic()
    cluster.cli(*recover(cluster))
    print(f"\nthe last run of eleven recovered in {time.monotonic() - started:.0f} s")
    assert uids(cluster) == wanted
    for name in ("cp-2", "cp-3"):
        cluster.lab.reinstall(name)
    cluster.lab.add(count=2, role="control_plane")
    started = time.monotonic()
    cluster.cli("apply", "--yes")
    print(f"four machines joined in {time.monotonic() - started:.0f} s")
    members(cluster, 5, wanted)


def members(cluster: Cluster, count: int, wanted: set[str]) -> None:
    """So many members are well, all nodes are Ready, nothing is to be done, and the objects are these.

    A kubelet whose API server was without etcd reports its node anew.
    """
    until(lambda: checks.nodes_ready(cluster) is None, "nodes that are Ready", 60)
    checks.nothing_to_do(cluster)
    until(lambda: cluster.cli("etcd", "members").count("healthy") == count, f"{count} members", 60)
    assert uids(cluster) == wanted


def bind_later_machines(cluster: Cluster) -> None:
    """Of machines that joined after the snapshot was taken only the API knows nothing: no machine is to be changed."""
    plan = cluster.plan()
    assert not plan["changes"] and plan["objects"], plan
    cluster.cli("apply", "--yes")


def test_a_snapshot_of_three_members_is_restored_onto_five(cluster: Cluster, saved: tuple[Path, set[str]]) -> None:
    path, wanted = saved
    cluster.kubectl("create", "configmap", "-n", NAMESPACE, "after")
    started = time.monotonic()
    cluster.cli(*restore(cluster, path))
    print(f"\nrestored onto five members in {time.monotonic() - started:.0f} s")
    bind_later_machines(cluster)
    members(cluster, 5, wanted)


def test_recovery_from_two_of_five(cluster: Cluster, saved: tuple[Path, set[str]]) -> None:
    """The survivor that goes furthest becomes the cluster; the other one joins it anew together with the machines that replace the lost."""
    _, wanted = saved
    lost = ("cp-3", "cp-4", "cp-5")
    for name in lost:
        cluster.lab.kill(name)
    started = time.monotonic()
    output = cluster.cli(*recover(cluster))
    print(f"\nrecovered from two of five members in {time.monotonic() - started:.0f} s")
    assert "leave: " in output
    assert uids(cluster) == wanted
    for name in lost:
        cluster.lab.reinstall(name)
    started = time.monotonic()
    cluster.cli("apply", "--yes")
    print(f"four members joined in {time.monotonic() - started:.0f} s")
    members(cluster, 5, wanted)


def test_all_machines_are_lost_and_one_other_takes_the_snapshot(cluster: Cluster, saved: tuple[Path, set[str]]) -> None:
    """Nodes of machines that are gone are named until they are removed; then nothing is left to do."""
    path, wanted = saved
    lost = list(cluster.lab.machines)
    for name in lost:
        cluster.lab.kill(name)
    [fresh] = cluster.lab.add(role="control_plane")
    cluster.edit(lambda content: [group["hosts"].pop(name, None) for group in content["all"]["children"].values() for name in lost])
    # It names the first control plane.
    cluster._config().unlink()
    started = time.monotonic()
    cluster.cli("apply", "--yes")
    applied = time.monotonic()
    cluster.cli(*restore(cluster, path))
    print(f"\none machine in {applied - started:.0f} s, restored onto it in {time.monotonic() - applied:.0f} s")
    assert uids(cluster) == wanted
    bind_later_machines(cluster)
    gone = [name for name in lost if name in {node["metadata"]["name"] for node in cluster.json("get", "nodes")["items"]}]
    assert len(gone) == 4, "those that the snapshot has"
    output = cluster.cli("status", code=3)
    for name in gone:
        assert f"node {name} is not in the inventory: clusterctl node remove {name} --offline" in output
    cluster.cli("node", "remove", *gone, "--offline", "--yes")
    checks.nodes_ready(cluster, {fresh.name})
    checks.nothing_to_do(cluster)
    until(lambda: cluster.cli("status"), "all of it is well", 120)
    assert uids(cluster) == wanted


def test_one_member_takes_its_own_snapshot(cluster: Cluster) -> None:
    path, wanted = save(cluster), uids(cluster)
    cluster.kubectl("create", "configmap", "-n", NAMESPACE, "after")
    started = time.monotonic()
    cluster.cli(*restore(cluster, path))
    print(f"\nrestored onto one member in {time.monotonic() - started:.0f} s")
    assert uids(cluster) == wanted
    until(lambda: cluster.cli("status"), "all of it is well", 60)
    checks.nothing_to_do(cluster)
