"""One virtual machine with all roles, from bare to reset: Debian's own kernel, cgroup v2, AppArmor. The tests follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
from cluster import Cluster, until
from lab_leftovers import left_over, own_name
from machine_picture import differences, picture
from timing import timed

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.vm

PATIENCE = 1800
"""Seconds for a verb, where the processor is emulated and busy."""
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


class Vm:
    """The machine's cluster, and how the machine was before."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.before = self.picture()

    def picture(self) -> dict[str, list[str]]:
        """The machine once it has booted, with network-online.target, which stays active once a unit has required it."""
        self.cluster.on("cp-1", "systemctl is-system-running --wait || :; systemctl start network-online.target", timeout=300)
        return picture(self.cluster, "cp-1")

    def well(self) -> None:
        """The cluster is well by itself: nothing is run but ``status``."""
        until(lambda: self.cluster.cli("status"), "status well", 900)


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vm]:
    name = own_name("v")
    with timed("boot"):
        made = Cluster.up(LabSpec(name=name, machines=1, memory=4 << 30, user="admin", driver="qemu"),
                          Path(tmp_path_factory.mktemp("vm")))
    made.patience = PATIENCE
    try:
        made.edit(lambda content: content["all"]["children"]["workers"].update(hosts={"cp-1": {}}))
        yield Vm(made)
    finally:
        made.down()
    assert left_over(name) == []


def test_a_real_kernel(vm: Vm) -> None:
    on = vm.cluster.on
    assert on("cp-1", "uname -r").strip().endswith("-cloud-amd64")
    assert on("cp-1", "stat -fc %T /sys/fs/cgroup; cat /sys/module/apparmor/parameters/enabled").split() == ["cgroup2fs", "Y"]


def test_apply_and_a_plan_without_changes(vm: Vm) -> None:
    summary = vm.cluster.apply()
    print("apply:", summary["seconds"], "s,", summary["stages"])
    checks.nodes_ready(vm.cluster)
    with timed("second plan"):
        assert "no changes" in vm.cluster.cli("plan")


def test_reboot(vm: Vm) -> None:
    before = vm.cluster.on("cp-1", BOOT_ID)
    with timed("reboot"):
        vm.cluster.lab.reboot("cp-1")
    assert vm.cluster.on("cp-1", BOOT_ID) != before
    with timed("well after the reboot"):
        vm.well()
    assert "no changes" in vm.cluster.cli("plan")


@pytest.mark.long
def test_pods_are_confined_and_have_a_network(vm: Vm) -> None:
    cluster = vm.cluster
    checks.load_image(cluster)
    pods = checks.pods_everywhere(cluster, seconds=600)
    profiles = cluster.on("cp-1", "for pid in $(pgrep -x agnhost); do cat /proc/$pid/attr/current; done")
    assert set(profiles.splitlines()) == {"cri-containerd.apparmor.d (enforce)"}
    assert "kubepods.slice" in cluster.on("cp-1", "cat /proc/$(pgrep -o -x agnhost)/cgroup")
    checks.pod_network(cluster, pods)
    checks.service_from_nodes(cluster)


@pytest.mark.long
def test_os_update_reboots(vm: Vm) -> None:
    cluster = vm.cluster
    before = cluster.on("cp-1", BOOT_ID)
    with timed("os-update --reboot always"):
        cluster.cli("os-update", "--reboot", "always", "--yes")
    assert cluster.on("cp-1", BOOT_ID) != before
    assert not any(node["spec"].get("unschedulable") for node in cluster.json("get", "nodes")["items"])
    vm.well()
    checks.running(cluster, "everywhere", 1, 600)


@pytest.mark.long
@pytest.mark.versions
def test_upgrade_by_a_minor(vm: Vm) -> None:
    with timed("upgrade to 1.37.2"):
        vm.cluster.cli("upgrade", "apply", "--to", "1.37.2", "--yes")
    assert vm.cluster.json("get", "nodes")["items"][0]["status"]["nodeInfo"]["kubeletVersion"] == "v1.37.2"
    vm.well()
    checks.running(vm.cluster, "everywhere", 1, 600)


@pytest.mark.long
def test_reset_leaves_the_machine_as_it_was(vm: Vm) -> None:
    with timed("reset"):
        vm.cluster.cli("reset", "--yes", "--confirm", vm.cluster.lab.name)
    # Modules that were loaded stay so until the next boot, and with them the settings that they add.
    after = vm.picture()
    found = differences(vm.before, {**after, "settings": vm.before["settings"]})
    assert not found, found[:20000]
    vm.cluster.lab.reboot("cp-1")
    found = differences(vm.before, vm.picture())
    assert not found, found[:20000]
