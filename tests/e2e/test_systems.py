"""A whole cluster on one machine of each release of Debian beside the one of all other tests; one has another port of the API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import checks
import pytest
from cluster import Cluster
from machine_picture import differences, picture

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab


@pytest.fixture(params=["trixie", "bullseye"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    release: str = request.param
    settings = {"schedule_on_control_plane": True, "endpoint": {"port": 8443 if release == "trixie" else 6443}}
    made = Cluster.up(LabSpec(name=f"e2e{release}", machines=1, base=release, cluster=settings), Path(tmp_path_factory.mktemp(release)))
    try:
        if release == "bullseye":
            refused = made.cli("apply", "--yes", code=3)
            assert "[host.nftables-version]" in refused
            made.edit(lambda content: content["all"]["vars"]["cluster"].update(network={"proxy_mode": "iptables"}))
        yield made
    finally:
        made.down()


def test_from_bare_to_reset(cluster: Cluster) -> None:
    before = picture(cluster, "cp-1")
    cluster.apply()
    checks.nodes_ready(cluster)
    checks.load_image(cluster)
    pods = checks.pods_everywhere(cluster)
    checks.pod_network(cluster, pods)
    assert "no changes" in cluster.cli("plan")
    cluster.cli("status")
    cluster.edit(lambda content: content["all"]["vars"]["cluster"].update(endpoint={"port": 9443}))
    assert "[host.api-port-changed]" in cluster.cli("plan", code=3)
    cluster.cli("reset", "--yes", "--confirm", cluster.lab.name)
    left = "ls -d /etc/kubernetes /etc/clusterctl /opt/clusterctl 2>/dev/null; cat /proc/sys/net/ipv4/conf/all/route_localnet"
    assert cluster.on("cp-1", left).split() == ["0"]
    if cluster.lab.state.spec.base == "trixie":  # In bullseye the control groups of mounts stay (systemd 247).
        found = differences(before, picture(cluster, "cp-1"))
        assert not found, found[:20000]
