"""Firewalls between machines: told before anything is changed, opened where the inventory wants it, and left as they were by reset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import Cluster, until

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

NAME = "e2efw"
NFTABLES = """#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept
		ct state established,related accept
		tcp dport 22 accept
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
	}
}
"""
"""The operator's own rules, as /etc/nftables.conf: nothing of the cluster passes."""

LISTENING = "ps ax | grep -c '[s]ocket-activate'; grep -c ' 0A ' /proc/net/tcp; ls /etc/clusterctl /var/lib/clusterctl/before 2>/dev/null | wc -l"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A worker with nftables, and a control plane; nothing is applied yet."""
    made = Cluster.up(LabSpec(name=NAME, machines=2), Path(tmp_path_factory.mktemp("firewall")))
    try:
        made.on("w-1", "{ apt-get -q update && apt-get -y -q install nftables; } >/dev/null 2>&1")
        made.lab.exec("w-1", ["sh", "-c", "cat >/etc/nftables.conf && systemctl enable -q nftables && systemctl restart nftables"], stdin=NFTABLES,
                      check=True)
        yield made
    finally:
        made.down()


def firewall(cluster: Cluster, mode: str) -> None:
    def change(content: dict[str, Any]) -> None:
        content["all"]["vars"]["cluster"]["firewall"] = mode

    cluster.edit(change)


def rules(cluster: Cluster) -> list[dict[str, Any]]:
    return [change for change in cluster.plan()["changes"] if change["resource"] == "firewall:rules"]


def ruleset(cluster: Cluster) -> str:
    return cluster.on("w-1", "nft list table inet filter")


def works(cluster: Cluster) -> None:
    """Nodes are Ready, and what goes between machines does: pods of each other, the API server and the kubelets."""
    checks.nodes_ready(cluster)
    until(lambda: len(cluster.kubectl("top", "nodes", code=None).splitlines()) == 3, "metrics of both nodes", 90)


def test_closed_ports_are_refused_before_anything_is_changed(cluster: Cluster) -> None:
    before = {name: cluster.on(name, LISTENING, check=False) for name in cluster.lab.machines}
    for words in (("plan",), ("apply", "--yes")):
        refused = cluster.cli(*words, code=3)
        [line] = [line for line in refused.splitlines() if "[host.unreachable]" in line]
        assert all(part in line for part in ("w-1:", "cp-1 cannot reach", "10250/tcp", "8472/udp", "dropped")), refused
    for name, was in before.items():
        until(lambda name=name, was=was: cluster.on(name, LISTENING, check=False) == was, f"{name} is as it was", 5)
    firewall(cluster, "ignore")
    assert "host.unreachable" not in cluster.cli("plan")


def test_managed_ports_are_opened_and_kept(cluster: Cluster) -> None:
    firewall(cluster, "manage")
    plan = cluster.plan()
    assert [change["host"] for change in plan["changes"] if change["resource"] == "firewall:rules"] == ["w-1"]
    assert [text for text in plan["warnings"] if "[host.unreachable]" in text]
    cluster.apply()
    works(cluster)
    assert not cluster.apply()["changed"]
    own = ruleset(cluster)
    cluster.on("w-1", "nft flush chain inet filter clusterctl_input")
    [drift] = rules(cluster)
    assert (drift["host"], drift["action"], drift["fields"]) == ("w-1", "update", ["in force"])
    assert cluster.apply()["changed"] and ruleset(cluster) == own
    # The operator loads the rules of the file again, which lacks ours.
    cluster.on("w-1", "systemctl reload nftables")
    until(lambda: ruleset(cluster) == own, "the rules are in force again", 10)
    # It flushed those of kube-proxy and flannel, too.
    until(lambda: {"table ip kube-proxy", "table ip flannel-ipv4"} <= set(cluster.on("w-1", "nft list tables").splitlines()), "their tables", 30)
    checks.nothing_to_do(cluster)


def test_a_control_plane_with_ufw_and_then_firewalld(cluster: Cluster) -> None:
    # Debian's packages enable and start their daemons.
    cluster.on("cp-1", "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d && "
                       "{ apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends install ufw firewalld; } "
                       ">/dev/null 2>&1 && rm /usr/sbin/policy-rc.d && systemctl daemon-reload && systemctl reload dbus")
    # Administrators are not machines of the cluster: who reaches the API server is the operator's decision.
    cluster.on("cp-1", "ufw allow 22/tcp && ufw allow 6443/tcp && ufw --force enable; firewall-offline-cmd -q --add-port=6443/tcp")
    assert [change["host"] for change in rules(cluster)] == ["cp-1"]
    cluster.apply()
    works(cluster)
    checks.nothing_to_do(cluster)
    cluster.on("cp-1", "ufw delete allow proto udp from $(sed -n 's/^udp 8472 //p' /etc/clusterctl/firewall) to any port 8472")
    assert [change["fields"] for change in rules(cluster)] == [["in force"]]
    cluster.apply()
    checks.nothing_to_do(cluster)
    cluster.on("cp-1", "ufw --force disable && systemctl start firewalld")
    assert [change["fields"] for change in rules(cluster)] == [["in force"]]
    cluster.apply()
    works(cluster)
    checks.nothing_to_do(cluster)


def test_rules_go_with_a_machine_and_with_the_cluster(cluster: Cluster) -> None:
    cluster.cli("node", "remove", "w-1", "--yes", "--edit-inventory")
    assert "clusterctl" not in ruleset(cluster) and 'tcp dport 22 accept' in ruleset(cluster)
    address = cluster.lab.machines["w-1"].address
    assert address not in cluster.on("cp-1", "cat /etc/clusterctl/firewall 2>/dev/null; nft list ruleset")
    assert not rules(cluster)
    cluster.cli("reset", "--yes", "--confirm", NAME)
    left = cluster.on("cp-1", "cat /etc/ufw/user.rules 2>/dev/null; ls /etc/firewalld/policies 2>/dev/null; ls /etc/systemd/system; nft list ruleset",
                      check=False)
    assert "clusterctl" not in left and "636c757374657263746c" not in left
    assert cluster.on("cp-1", "ls -d /var/lib/clusterctl /etc/clusterctl 2>/dev/null", check=False) == ""
