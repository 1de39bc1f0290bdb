"""What other installations left on a machine: what is refused, and what is a warning."""

from __future__ import annotations

import pytest
from test_facts_preflight import HOSTS, IDENTITY, check, facts

from clusterctl.cluster.model import Cluster, Settings, Versions
from clusterctl.components.containerd import DOCKER_SOCKET
from clusterctl.errors import Problems
from clusterctl.health import foreign, preflight
from clusterctl.shell.facts import Facts, read_facts

CP, W, E = HOSTS
SYSTEM = "/etc/systemd/system"
KUBEADM = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
PACKAGED = "/usr/bin/kubelet\n/usr/bin/kubeadm"
CALICO = "/etc/cni/net.d/10-calico.conflist"


def codes(odd: Facts, number: int = 1, **network: str) -> list[tuple[str, bool]]:
    """The codes of all findings on one machine, and whether each is refused."""
    settings = Settings.model_validate({"network": network})
    cluster = Cluster.model_construct(hosts=HOSTS, versions=Versions.model_construct(), settings=settings)
    return [(found.code, found.fatal) for found in foreign.find(cluster, HOSTS[number], odd)]


@pytest.mark.parametrize(("values", "code", "fatal"), [
    ({"foreign_drop-in": KUBEADM}, "host.unit-drop-in", True),
    ({"foreign_drop-in": f"{SYSTEM}/containerd.service.d/http-proxy.conf"}, "host.unit-drop-in", True),
    ({"foreign_drop-in": KUBEADM, "cluster": IDENTITY}, "host.unit-drop-in", False),
    ({"foreign_active": "kubelet", "foreign_program": PACKAGED}, "host.foreign-kubelet", True),
    ({"foreign_program": PACKAGED}, "host.foreign-kubelet", False),
    ({"foreign_active": "containerd"}, "host.foreign-runtime", True),
    ({"foreign_active": "containerd\ndocker", "foreign_program": "/usr/bin/containerd\n/usr/bin/dockerd"}, "host.foreign-runtime", True),
    ({"foreign_active": "docker", "foreign_program": "/usr/sbin/dockerd"}, "host.foreign-runtime", True),
    ({"foreign_active": "docker", "foreign_program": "/usr/bin/dockerd", "foreign_socket": DOCKER_SOCKET}, "host.foreign-runtime", False),
    ({"foreign_program": "/usr/bin/containerd"}, "host.foreign-runtime", False),
    ({"foreign_program": "/usr/bin/containerd\n/usr/bin/dockerd"}, "host.foreign-runtime", False),
    ({"foreign_restore": f"{SYSTEM}/etcd.service.d/90-clusterctl-restore.conf", "cluster": IDENTITY}, "etcd.restore-unfinished", True),
    ({"foreign_cni": CALICO}, "host.foreign-cni", True),
    ({"foreign_cni": "/etc/cni/net.d/00-multus.conf\n/etc/cni/net.d/99-bridge.conf"}, "host.foreign-cni", True),
    ({"foreign_cni": CALICO, "cluster": IDENTITY}, "host.foreign-cni", False),
    ({"foreign_noexec": "/opt"}, "host.noexec", True),
    ({"foreign_link": "/etc/containerd"}, "host.linked-folder", True),
    ({"foreign_link": "/var/lib/etcd", "cluster": IDENTITY}, "host.linked-folder", True),
    ({"foreign_cloud-init": "/run/cloud-init"}, "host.cloud-init-running", True),
    ({"foreign_firewall": "ufw\nnftables (table ip filter)"}, "host.firewall", False),
])
def test_foreign_installations(values: dict[str, str], code: str, fatal: bool) -> None:
    assert codes(facts(W, **values)) == [(code, fatal)]
    errors, warnings = check(w_1=facts(W, **values))
    assert (len(errors), len(warnings)) == (int(fatal), int(not fatal))
    assert fatal or (f"[{code}]" in warnings[0] and warnings[0].startswith("w-1: "))


@pytest.mark.parametrize(("number", "values"), [
    (1, {"foreign_drop-in": f"{SYSTEM}/etcd.service.d/10-tuning.conf"}),
    (2, {"foreign_drop-in": KUBEADM}),
    (2, {"foreign_active": "kubelet\ncontainerd\ndocker", "foreign_program": PACKAGED, "foreign_cni": CALICO}),
    (1, {"foreign_cni": "/etc/cni/net.d/87-podman-bridge.conflist\n/etc/cni/net.d/10-flannel.json"}),
], ids=["etcd-on-a-worker", "kubelet-on-etcd", "runtimes-on-etcd", "later-configurations"])
def test_what_does_not_affect_the_roles_of_a_machine(number: int, values: dict[str, str]) -> None:
    assert codes(facts(HOSTS[number], **values), number) == []


def test_another_network_keeps_its_configurations() -> None:
    assert codes(facts(W, foreign_cni=CALICO), cni="none") == [("host.foreign-cni", False)]
    assert codes(facts(W, foreign_cni=CALICO, cluster=IDENTITY), cni="none") == []


def test_a_refusal_has_the_path_and_what_removes_it() -> None:
    with pytest.raises(Problems) as caught:
        preflight.check(Cluster.model_construct(hosts=HOSTS, versions=Versions.model_construct(), settings=Settings()),
                        {"w-1": facts(W, **{"foreign_cni": "/etc/cni/net.d/00 x.conf", "foreign_drop-in": KUBEADM})}, IDENTITY)
    assert caught.value.exit_code == 3
    drop_in, cni = caught.value.errors
    assert KUBEADM in drop_in.message and drop_in.code == "host.unit-drop-in" and "apt-get purge kubelet kubeadm" in drop_in.hint
    assert cni.hint == "rm '/etc/cni/net.d/00 x.conf'"


@pytest.mark.parametrize(("number", "ports"), [
    (0, {"2379/tcp", "2380/tcp", "6443/tcp", "10250/tcp", "8472/udp"}), (1, {"10250/tcp", "8472/udp"}), (2, {"2379/tcp", "2380/tcp"})])
def test_a_firewall_must_accept_the_ports_of_the_roles(number: int, ports: set[str]) -> None:
    one = HOSTS[number]
    warning = check(**{one.name.replace("-", "_"): facts(one, foreign_firewall="firewalld")})[1][0]
    assert {word for word in warning.split() if word.endswith(("/tcp", "/udp"))} == ports


def test_records_of_one_kind_are_kept_in_order() -> None:
    found, _ = read_facts([["foreign", "cni", "/a b"], ["foreign", "link", "/c"], ["foreign", "cni", "/d"]], asked=0, answered=1)
    assert found.foreign == {"cni": ("/a b", "/d"), "link": ("/c",)}
