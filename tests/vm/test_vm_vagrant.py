"""The documented way with Vagrant: a box of our own, `vagrant up && vagrant/apply`, halted and raised again. The tests follow each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import until
from lab_leftovers import own_name
from libvirt_host import LibvirtHost
from timing import timed

from clusterctl.artifacts.places import default_mirror
from clusterctl.lab.base import ensure_base
from clusterctl.lab.drivers import check_driver
from clusterctl.lab.network import NAMESPACES

pytestmark = [pytest.mark.vm, pytest.mark.long]

ROOT = Path(__file__).parent.parent.parent
BOX = "clusterctl-debian12"
PATIENCE = 2400
OTHER_ADDRESS = "192.168.121.77"


class Vagrant:
    """A clone's Vagrantfile and scripts beside a libvirtd, with a home of Vagrant's own."""

    def __init__(self, work: Path) -> None:
        self.folder = work / "clone"
        self.env = {"HOME": str(work), "VAGRANT_HOME": str(work / "home"), "VAGRANT_CHECKPOINT_DISABLE": "1",
                    "CLUSTERCTL": f"{sys.prefix}/bin/clusterctl", "CLUSTERCTL_MIRROR": str(default_mirror()),
                    "CLUSTERCTL_VAGRANT_BOX": BOX, "CLUSTERCTL_VAGRANT_PROVIDER": "libvirt", "CLUSTERCTL_VAGRANT_WORKERS": "1"}
        self.folder.mkdir()
        shutil.copy(ROOT / "Vagrantfile", self.folder)
        shutil.copytree(ROOT / "vagrant", self.folder / "vagrant", ignore=shutil.ignore_patterns("inventory.yaml"))
        base = ensure_base(print, check_driver("qemu").recipe)
        (work / "libvirt").mkdir()
        self.libvirt = LibvirtHost(own_name("g"), work / "libvirt", base.repository)

    def run(self, *argv: str, code: int | None = 0) -> str:
        return self.libvirt.run(*argv, code=code, timeout=PATIENCE, cwd=self.folder, env=self.env)

    def well(self) -> None:
        until(lambda: self.run("vagrant/clusterctl", "status"), "status well", 900)

    @property
    def hosts(self) -> dict[str, dict[str, str]]:
        children = yaml.safe_load((self.folder / "vagrant/inventory.yaml").read_text())["all"]["children"]
        return {name: host for group in children.values() for name, host in group["hosts"].items()}


@pytest.fixture(scope="module")
def vagrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vagrant]:
    made = Vagrant(Path(tmp_path_factory.mktemp("vagrant")))
    try:
        yield made
    finally:
        made.libvirt.end()
    assert not (NAMESPACES / made.libvirt.name).exists()


def test_a_box_of_debian_packages(vagrant: Vagrant) -> None:
    work = vagrant.folder.parent
    (work / "sources.list").write_text("deb [trusted=yes] http://192.168.121.1/ ./\n")
    with timed("make-box"):
        subprocess.run([ROOT / "vagrant/make-box", work / "debian12.box", work / "sources.list"], check=True, timeout=PATIENCE,
                       env={**os.environ, "PYTHON": sys.executable})
    vagrant.run("vagrant", "box", "add", "--name", BOX, str(work / "debian12.box"))
    (work / "debian12.box").unlink()


def test_up_and_apply(vagrant: Vagrant) -> None:
    with timed("vagrant up, 2 machines"):
        vagrant.run("vagrant", "up")
    with timed("vagrant/apply"):
        vagrant.run("vagrant/apply", "--yes")
    with timed("status well"):
        vagrant.well()
    settings = yaml.safe_load((vagrant.folder / "vagrant/inventory.yaml").read_text())["all"]["vars"]["cluster"]
    assert settings["artifacts"]["mirror"] == str(default_mirror())
    assert sorted(vagrant.hosts) == ["cp-1", "w-1"]
    assert len({host["clusterctl_host_key"] for host in vagrant.hosts.values()}) == 2


def test_a_machine_that_is_down_is_named(vagrant: Vagrant) -> None:
    vagrant.run("vagrant", "halt", "w-1")
    said = vagrant.run("vagrant/clusterctl", "status", code=3)
    assert "w-1 does not run (shutoff); next: vagrant up w-1" in said and "w-1" in vagrant.hosts


def test_up_again_with_another_address(vagrant: Vagrant) -> None:
    """libvirt's DHCP gives the worker another address; the next verb reports it, and reaches the worker there."""
    vagrant.run("vagrant", "halt")
    domain = f"{vagrant.folder.name}_w-1"
    [mac] = re.findall(r"network +vagrant-libvirt .*?(52:54:00\S+)", vagrant.run("virsh", "domiflist", domain))
    before = vagrant.hosts["w-1"]["ansible_host"]
    assert before != OTHER_ADDRESS
    vagrant.run("virsh", "net-update", "vagrant-libvirt", "add", "ip-dhcp-host", f"<host mac='{mac}' ip='{OTHER_ADDRESS}'/>", "--live")
    with timed("vagrant up again"):
        vagrant.run("vagrant", "up")
    said = vagrant.run("vagrant/clusterctl", "status", code=None)
    assert f"w-1: its SSH address has changed ({OTHER_ADDRESS}, before {before})" in said
    vagrant.well()
    assert vagrant.hosts["w-1"]["ansible_host"] == OTHER_ADDRESS
    assert "no changes" in vagrant.run("vagrant/clusterctl", "plan")


def test_destroy(vagrant: Vagrant) -> None:
    vagrant.run("vagrant", "destroy", "--force")
    assert "no machine runs" in vagrant.run("vagrant/clusterctl", "status", code=6)
