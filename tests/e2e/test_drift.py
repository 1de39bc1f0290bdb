"""What changed behind the product's back: plan shows just that, apply repairs just that and restarts what depends on it alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checks
import pytest
import yaml
from cluster import Cluster, until
from interruption import Undisturbed

from clusterctl.cluster.versions import DEFAULT_KUBERNETES, known_versions
from clusterctl.components.products import IMAGES

pytestmark = pytest.mark.lab

PKI = "/etc/kubernetes/pki"
PROGRAMS = "/opt/clusterctl"
COREDNS = IMAGES["coredns"].reference(known_versions(DEFAULT_KUBERNETES).coredns)
Deed = tuple[str, str, str]
"""(host, resource, action); the API's objects and nodes belong to the host ``api``."""


@pytest.fixture
def cluster(undisturbed: Undisturbed) -> Cluster:
    return undisturbed.cluster


def deeds(plan: dict[str, Any]) -> set[Deed]:
    """All that a plan would do."""
    return {(change["host"], change["resource"], change["action"]) for change in plan["changes"]} | {
        ("api", change["object"], change["action"]) for change in plan["objects"]} | {
        ("api", f"node {node['node']}", field) for node in plan["nodes"] for field in node["fields"]}


def runs(cluster: Cluster) -> dict[tuple[str, str], str]:
    """Which start of each of our services is the present one, by machine and unit."""
    script = ("cd /etc/systemd/system && for unit in *.service; do "
              "echo $unit $(systemctl show --property=InvocationID --value $unit); done")
    return {(machine, unit): start for machine in cluster.lab.machines
            for unit, _, start in (line.partition(" ") for line in cluster.on(machine, script).splitlines())}


@dataclass(frozen=True)
class Drift:
    """What somebody did on a machine, what is to be done about it, and which units are thereby started anew."""

    name: str
    machine: str
    script: str
    deeds: tuple[tuple[str, str], ...]
    restarted: tuple[str, ...] = ()


def replaced(program: str, change: str) -> str:
    """A shell command that changes an installed program as a copy, as a file that runs cannot be written."""
    path = f"{PROGRAMS}/{program}/{DEFAULT_KUBERNETES}/{program}"
    return f"cp -p {path} {path}.1 && {change} {path}.1 && mv {path}.1 {path}"


def started_with(unit: str, change: str) -> str:
    """A shell command that starts a unit with another version of its file, and then restores the desired content."""
    path = f"/etc/systemd/system/{unit}.service"
    return (f"cp -p {path} /root/kept && {change} {path} && systemctl daemon-reload && systemctl restart {unit} && "
            f"cat /root/kept >{path} && touch -d '2 seconds' {path} && systemctl daemon-reload && rm /root/kept")


TRUSTING = ("api-proxy.service", "kubelet.service", "kube-proxy.service", "flanneld.service")

ROUNDS = (
    (
        Drift("changed-configuration", "w-1", "echo '# by hand' >>/var/lib/kubelet/config.yaml",
              (("file:/var/lib/kubelet/config.yaml", "update"), ("service:kubelet.service", "restart")), ("kubelet.service",)),
        Drift("changed-scheduler", "cp-1", "sed -i s/true/false/ /etc/kubernetes/scheduler.yaml",
              (("file:/etc/kubernetes/scheduler.yaml", "update"), ("service:kube-scheduler.service", "restart")),
              ("kube-scheduler.service",)),
        Drift("changed-proxy", "w-1", "echo '# by hand' >>/etc/clusterctl/haproxy.cfg",
              (("file:/etc/clusterctl/haproxy.cfg", "update"), ("service:api-proxy.service", "restart")), ("api-proxy.service",)),
        Drift("changed-unit", "cp-1", "echo '# by hand' >>/etc/systemd/system/kube-controller-manager.service",
              (("file:/etc/systemd/system/kube-controller-manager.service", "update"),
               ("service:kube-controller-manager.service", "restart")),
              ("kube-controller-manager.service",)),
        Drift("stopped-unit", "w-1", "systemctl stop kube-proxy",
              (("service:kube-proxy.service", "start"),), ("kube-proxy.service",)),
        Drift("disabled-unit", "w-1", "systemctl disable --quiet flanneld", (("service:flanneld.service", "update"),)),
        Drift("deleted-file", "w-1", "rm /etc/crictl.yaml", (("file:/etc/crictl.yaml", "create"),)),
        Drift("wrong-mode", "cp-1", f"chmod 644 {PKI}/apiserver.key /etc/kubernetes/encryption.yaml",
              ((f"certificate:{PKI}/apiserver", "update"), ("file:/etc/kubernetes/encryption.yaml", "update"))),
        Drift("removed-image", "w-1", f"{PROGRAMS}/bin/ctr --namespace k8s.io images rm {COREDNS}", ((f"image:{COREDNS}", "create"),)),
        Drift("kernel-setting", "w-1", "echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables",
              (("sysctl:net.bridge.bridge-nf-call-iptables", "update"),)),
    ),
    (
        Drift("deleted-certificate", "cp-1", f"rm {PKI}/apiserver-kubelet-client.crt",
              ((f"certificate:{PKI}/apiserver-kubelet-client", "create"), ("service:kube-apiserver.service", "restart")),
              ("kube-apiserver.service",)),
        Drift("other-key", "cp-1", f"cp {PKI}/scheduler.key {PKI}/controller-manager.key",
              ((f"certificate:{PKI}/controller-manager", "update"), ("service:kube-controller-manager.service", "restart")),
              ("kube-controller-manager.service",)),
        Drift("lost-stamp", "cp-1", "rm /var/lib/clusterctl/stamps/kube-scheduler.service",
              (("service:kube-scheduler.service", "restart"),), ("kube-scheduler.service",)),
        Drift("removed-program", "w-1", f"rm {PROGRAMS}/kubelet/{DEFAULT_KUBERNETES}/kubelet",
              ((f"program:kubelet-{DEFAULT_KUBERNETES}", "update"),)),
        Drift("unread-unit", "w-1", "touch /etc/systemd/system/flanneld.service", (("service:flanneld.service", "update"),)),
        Drift("broken-link", "w-1", f"ln -sfn /nowhere {PROGRAMS}/bin/crictl", (("link:/opt/clusterctl/bin/crictl", "update"),)),
        Drift("wrong-owner", "cp-1", "chown nobody /etc/etcd/pki/peer.key /etc/kubernetes/admin.conf",
              (("certificate:/etc/etcd/pki/peer", "update"), ("file:/etc/kubernetes/admin.conf", "update"))),
    ),
    (
        Drift("changed-authority", "w-1", f"echo >>{PKI}/ca.crt",
              ((f"file:{PKI}/ca.crt", "update"), *((f"service:{unit}", "restart") for unit in TRUSTING)), TRUSTING),
        Drift("modified-program", "cp-1", replaced("kube-scheduler", "echo >>"),
              ((f"program:kube-scheduler-{DEFAULT_KUBERNETES}", "update"), ("service:kube-scheduler.service", "restart")),
              ("kube-scheduler.service",)),
        Drift("started-with-other-files", "cp-1", started_with("kube-controller-manager", "echo '# by hand' >>"),
              (("service:kube-controller-manager.service", "restart"),), ("kube-controller-manager.service",)),
    ),
)
"""What happens at once touches different units, so that what is found and restarted still belongs to one of them each."""


@pytest.mark.parametrize("drifts", ROUNDS, ids=["configuration", "keys-and-programs", "authority"])
def test_drift_of_machines(cluster: Cluster, drifts: tuple[Drift, ...]) -> None:
    assert not deeds(cluster.plan())
    before = runs(cluster)
    for drift in drifts:
        cluster.on(drift.machine, drift.script)
    assert deeds(cluster.plan()) == {(drift.machine, resource, action) for drift in drifts for resource, action in drift.deeds}
    summary = cluster.apply()
    assert summary["hosts"].keys() == {drift.machine for drift in drifts}
    after = runs(cluster)
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {(drift.machine, unit) for drift in drifts for unit in drift.restarted}
    assert not deeds(cluster.plan())


def test_status_reports_a_daemon_that_died_within_its_restart_pause(cluster: Cluster) -> None:
    def states(code: int = 0) -> dict[str, str]:
        found = json.loads(cluster.cli("status", "-o", "json", code=code))["hosts"]
        return {host["name"]: host["services"]["flanneld"] for host in found}

    assert set(states().values()) == {"active"}
    pause = "/run/systemd/system/flanneld.service.d"
    cluster.on("w-1", f"mkdir -p {pause} && printf '[Service]\\nRestartSec=600\\n' >{pause}/pause.conf && systemctl daemon-reload && "
                      "systemctl kill --signal=KILL flanneld")
    until(lambda: states(3)["w-1"] == "activating", "the daemon is down", 10)
    assert states(3)["cp-1"] == "active"
    cluster.on("w-1", f"rm -r {pause} && systemctl daemon-reload && systemctl restart flanneld")
    until(lambda: set(states().values()) == {"active"}, "the daemon is up", 10)


def test_drift_in_the_api(cluster: Cluster) -> None:
    """Objects, labels and taints; no service is touched."""
    before = runs(cluster)
    bindings = [item["metadata"]["name"] for item in cluster.json("get", "clusterrolebindings")["items"]]
    flannel = next(name for name in bindings if "flannel" in name)
    cluster.kubectl("delete", "clusterrolebinding", flannel)
    broken = json.dumps({"data": {"Corefile": ".:53 {\n}\n"}})
    cluster.kubectl("patch", "configmap", "-n", "kube-system", "coredns", "--patch", broken)
    role = "node-role.kubernetes.io/control-plane"
    cluster.kubectl("label", "node", "cp-1", f"{role}-")
    cluster.kubectl("taint", "node", "cp-1", f"{role}-")
    assert deeds(cluster.plan()) == {
        ("api", f"ClusterRoleBinding {flannel}", "create"), ("api", "ConfigMap kube-system/coredns", "update"),
        ("api", "node cp-1", role), ("api", "node cp-1", f"taint {role}")}
    cluster.apply()
    assert runs(cluster) == before
    node = cluster.json("get", "node", "cp-1")
    assert role in node["metadata"]["labels"]
    assert {"key": role, "effect": "NoSchedule"} in node["spec"]["taints"]
    assert "kubernetes cluster.local" in cluster.json("get", "configmap", "-n", "kube-system", "coredns")["data"]["Corefile"]


def test_status_sees_what_is_wrong_inside_the_cluster(cluster: Cluster) -> None:
    """A deleted CoreDNS, one that has no pods, and a certificate request that waits for an answer."""

    def problems(code: int = 3) -> str:
        return "\n".join(json.loads(cluster.cli("status", "-o", "json", code=code))["problems"])

    assert not problems(0)
    cluster.kubectl("delete", "deployment", "-n", "kube-system", "coredns")
    assert "Deployment kube-system/coredns is missing: clusterctl apply" in problems()
    cluster.apply()
    assert not problems(0), "apply waits until the new one serves"
    pods = ("-n", "kube-system", "delete", "service", "kube-dns")
    cluster.kubectl(*pods)
    assert "Service kube-system/kube-dns is missing" in problems()
    cluster.apply()
    cluster.kubectl("-n", "kube-system", "patch", "service", "kube-dns", "--patch", '{"spec": {"selector": {"other": "pods"}}}')
    until(lambda: "CoreDNS does not answer" in problems(), "CoreDNS is missed", 30)
    cluster.kubectl("-n", "kube-system", "patch", "service", "kube-dns", "--type=json", "--patch",
                    '[{"op": "remove", "path": "/spec/selector/other"}]')
    until(lambda: not problems(0), "all is well", 60)


def test_differences_are_shown(cluster: Cluster) -> None:
    """Line by line in files, field by field in certificates; of secrets nothing."""
    cluster.on("cp-1", "cp -p /etc/kubernetes/scheduler.yaml /run/kept && echo '# by hand' >>/etc/kubernetes/scheduler.yaml && "
                       f"echo '# by hand' >>/etc/kubernetes/encryption.yaml && chmod 640 {PKI}/apiserver.key")
    text = cluster.cli("plan", "--diff")
    assert "-# by hand\n" in text
    assert "content not shown" in text
    assert "key_mode: 640 root:root -> 600 root:root" in text
    [rule] = yaml.safe_load(cluster.on("cp-1", "cat /etc/kubernetes/encryption.yaml"))["resources"]
    assert rule["providers"][0]["secretbox"]["keys"][0]["secret"] not in text
    plan = next(event for event in map(json.loads, cluster.cli("plan", "--diff", "-o", "json").splitlines()) if event["event"] == "plan")
    shown = {change["resource"]: change.get("diff") for change in plan["changes"]}
    assert shown["file:/etc/kubernetes/scheduler.yaml"].splitlines()[-1] == "-# by hand"
    assert shown["file:/etc/kubernetes/encryption.yaml"] == "content not shown"
    assert "diff" not in cluster.cli("plan", "-o", "json")
    cluster.apply()


def test_what_others_set_stays(cluster: Cluster) -> None:
    """Labels, taints and fields that nobody asked us for are somebody else's business."""
    cluster.kubectl("label", "node", "w-1", "team=red")
    cluster.kubectl("taint", "node", "w-1", "team=red:PreferNoSchedule")
    cluster.kubectl("annotate", "deployment", "-n", "kube-system", "coredns", "team=red")
    assert not deeds(cluster.plan())


def test_what_the_inventory_drops_leaves_the_node(cluster: Cluster) -> None:
    def given(labels: dict[str, str], taints: list[str]) -> None:
        cluster.edit(lambda content: content["all"]["children"]["workers"]["hosts"]["w-1"].update(node_labels=labels, node_taints=taints))

    given({"zone": "east"}, ["dedicated=gpu:NoSchedule"])
    cluster.apply()
    given({}, [])
    assert deeds(cluster.plan()) >= {("api", "node w-1", "zone removed"), ("api", "node w-1", "taint removed")}
    cluster.apply()
    node = cluster.json("get", "node", "w-1")
    assert "zone" not in node["metadata"]["labels"] and node["metadata"]["labels"]["team"] == "red"
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["team"]
    assert not deeds(cluster.plan())


def test_exit_code_of_plan(cluster: Cluster) -> None:
    cluster.cli("plan", "--exit-code")
    cluster.on("w-1", "chmod 600 /etc/crictl.yaml")
    cluster.cli("plan", "--exit-code", code=10)
    cluster.cli("plan")
    cluster.apply()
    cluster.cli("plan", "--exit-code")


def test_a_run_without_changes_takes_one_round_trip_per_host(cluster: Cluster, tmp_path: Path) -> None:
    """Whichever verb ran before, and from whichever computer."""
    for more in ({}, {"CLUSTERCTL_CACHE": str(tmp_path)}):
        summary = cluster.apply(**more)
        assert not summary["changed"] and summary["trips"] == 2


def refused(cluster: Cluster, change: Callable[[dict[str, Any]], None], *said: str) -> None:
    """Neither plan nor apply does anything with an inventory that was changed so; with the old one there is nothing to do."""
    text = cluster.inventory.read_text()
    cluster.edit(change)
    try:
        for words in (("plan",), ("apply", "--yes")):
            output = cluster.cli(*words, code=3)
            for needle in (*said, "next: "):
                assert needle in output, output
    finally:
        cluster.inventory.write_text(text)


def test_what_a_live_machine_keeps(cluster: Cluster) -> None:
    """Its name, its address and its roles."""
    before = runs(cluster)
    address = cluster.lab.machines["w-1"].address
    other = f"{address.rpartition('.')[0]}.99"

    def move(group: str) -> Callable[[dict[str, Any]], None]:
        def change(content: dict[str, Any]) -> None:
            groups = content["all"]["children"]
            groups[group]["hosts"]["w-1"] = groups["workers"]["hosts"].pop("w-1") if group == "control_plane" else {}
        return change

    def rename(content: dict[str, Any]) -> None:
        hosts = content["all"]["children"]["workers"]["hosts"]
        hosts["w-9"] = hosts.pop("w-1")

    refused(cluster, move("control_plane"), "[host.role-changed]", "clusterctl node remove w-1")
    refused(cluster, move("etcd"), "[host.role-changed]", "clusterctl node remove w-1")
    refused(cluster, rename, "[host.name-changed]", "clusterctl node remove w-1")
    cluster.on("w-1", f"ip addr add {other}/32 dev lo")
    try:
        refused(cluster, lambda content: content["all"]["children"]["workers"]["hosts"]["w-1"].update(clusterctl_address=other),
                "[host.address-changed]", "clusterctl node remove w-1")
    finally:
        cluster.on("w-1", f"ip addr del {other}/32 dev lo")
    assert "no changes" in cluster.cli("plan")
    assert runs(cluster) == before


def test_a_reboot(cluster: Cluster) -> None:
    """All machines at once: nodes are Ready again by themselves, with all units and settings; apply finds nothing to do."""
    machines = list(cluster.lab.machines)
    for machine in machines:
        cluster.on(machine, "echo 0 >/proc/sys/net/ipv4/ip_forward")
    with ThreadPoolExecutor() as pool:
        list(pool.map(cluster.lab.reboot, machines))
    boots = {machine: cluster.on(machine, "cat /proc/sys/kernel/random/boot_id").strip() for machine in machines}

    def back() -> bool:
        nodes = cluster.json("get", "nodes")["items"]
        return {node["metadata"]["name"]: node["status"]["nodeInfo"]["bootID"] for node in nodes} == boots

    until(back, "the nodes after their reboot", 120)
    until(lambda: checks.nodes_ready(cluster) is None, "all nodes Ready", 90)
    until(lambda: not deeds(cluster.plan()), "all units", 60)
    assert not cluster.apply()["changed"]
