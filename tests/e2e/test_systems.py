"""A whole cluster on one machine of each base beside the one of all other tests.

One has another port of the API and a name with dots and capitals, which the machine gets as well; one has dnf.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import Cluster, until
from machine_picture import differences, picture

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

WRITTEN, NAME = "CP_1.Example.com", "cp-1.example.com"
"""A host in the inventory, and its node."""


def rename(content: dict[str, Any]) -> None:
    for group in content["all"]["children"].values():
        if "cp-1" in group.get("hosts", ()):
            group["hosts"][WRITTEN] = group["hosts"].pop("cp-1")
    content["all"]["vars"]["cluster"]["hostnames"] = "set"


@pytest.fixture(params=["trixie", "bullseye", "dnf"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    release: str = request.param
    settings = {"schedule_on_control_plane": True, "endpoint": {"port": 8443 if release == "trixie" else 6443}}
    made = Cluster.up(LabSpec(name=f"e2e{release}", machines=1, base=release, cluster=settings), Path(tmp_path_factory.mktemp(release)))
    try:
        if release == "trixie":
            made.edit(rename)
        if release == "bullseye":
            refused = made.cli("apply", "--yes", code=3)
            assert "[host.nftables-version]" in refused
            made.edit(lambda content: content["all"]["vars"]["cluster"].update(network={"proxy_mode": "iptables"}))
        yield made
    finally:
        made.down()


def packages_of_dnf(cluster: Cluster) -> None:
    """Packages of the inventory come, one by another name of it, and go; of updates one is held back and one asks for a reboot."""
    assert cluster.on("cp-1", "command -v apt-get dpkg-query || :") == ""
    cluster.edit(lambda content: content["all"]["vars"]["cluster"].update(packages=["socat", "firmware"]))
    cluster.apply()
    assert "no changes" in cluster.cli("plan")
    assert cluster.on("cp-1", "socat -V >/dev/null && rpm -q --queryformat '%{VERSION}' linux-firmware") == "1.0"
    cluster.on("cp-1", "dnf -y -q install cri-tools; echo mine >>/etc/linux-firmware.conf; sed -i s/enabled=0/enabled=1/ /etc/yum.repos.d/lab.repo")
    for times in range(2):
        said = [json.loads(line) for line in cluster.cli("os-update", "--reboot", "never", "--yes", "-o", "json").splitlines()]
        [[part]] = [event["machines"] for event in said if event["event"] == "os-update-plan"]
        assert {entry["package"] for entry in part["updates"]} == (set() if times else {"zstd", "linux-firmware"})
        assert part["held_back"] == [{"package": "cri-tools", "from": "", "to": "99.0-1"}]
        assert part["reboot"] == "no" and "asked for by needs-restarting" in part["why"], part
    assert cluster.on("cp-1", "rpm -q zstd cri-tools --queryformat '%{RELEASE} '; cat /etc/linux-firmware.conf").split() == ["2", "1", "mine", "mine"]
    cluster.edit(lambda content: content["all"]["vars"]["cluster"].pop("packages"))
    cluster.apply()
    assert "no changes" in cluster.cli("plan")
    assert cluster.on("cp-1", "rpm -q --queryformat '%{NAME} ' socat linux-firmware conntrack-tools", check=False).endswith("\nconntrack-tools ")
    cluster.on("cp-1", "rpm -e cri-tools; rm /etc/linux-firmware.conf.*; sed -i '$s/1/0/' /etc/yum.repos.d/lab.repo")


def test_from_bare_to_reset(cluster: Cluster) -> None:
    until(lambda: "tentative" not in cluster.on("cp-1", "ip -o addr show"), "the machine's addresses are settled", 20)
    before = picture(cluster, "cp-1")
    cluster.apply()
    trixie = cluster.lab.state.spec.base == "trixie"
    checks.nodes_ready(cluster, {NAME if trixie else "cp-1"})
    if trixie:
        assert cluster.on("cp-1", "uname -n; cat /etc/hostname").split() == [NAME, NAME]
    checks.load_image(cluster)
    pods = checks.pods_everywhere(cluster)
    until(lambda: checks.pod_network(cluster, pods) is None, "pods reach each other and their Service", 60)
    assert "no changes" in cluster.cli("plan")
    cluster.cli("status")
    if cluster.lab.state.spec.base == "dnf":
        packages_of_dnf(cluster)
    cluster.edit(lambda content: content["all"]["vars"]["cluster"].update(endpoint={"port": 9443}))
    assert "[host.api-port-changed]" in cluster.cli("plan", code=3)
    cluster.cli("reset", "--yes", "--confirm", cluster.lab.name)
    left = "ls -d /etc/kubernetes /etc/clusterctl /opt/clusterctl 2>/dev/null; cat /proc/sys/net/ipv4/conf/all/route_localnet"
    assert cluster.on("cp-1", left).split() == ["0"]
    if trixie:
        # Started over D-Bus for the name, it ends by itself after a while.
        cluster.on("cp-1", "systemctl stop systemd-hostnamed.service")
    if cluster.lab.state.spec.base != "bullseye":  # In bullseye the control groups of mounts stay (systemd 247).
        found = differences(before, picture(cluster, "cp-1"))
        assert not found, found[:20000]
