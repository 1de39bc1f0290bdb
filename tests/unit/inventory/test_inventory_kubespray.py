"""kubespray's variables as settings of ``cluster``, and what cannot be followed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusterctl.cluster.model import Endpoint, Settings
from clusterctl.errors import InputError
from clusterctl.inventory import read
from clusterctl.inventory.conversion import convert
from clusterctl.inventory.kubespray import TRANSLATIONS
from clusterctl.inventory.loader import Inventory
from clusterctl.inventory.show import as_text

EXAMPLES = Path(__file__).parent.parent.parent.parent / "inventories"
REAL = Path(__file__).with_name("real")


def loaded(folder: Path, variables: dict[str, Any], cluster: dict[str, Any] | None = None) -> Inventory:
    (folder / "group_vars").mkdir(exist_ok=True)
    (folder / "group_vars/k8s_cluster.yml").write_text(yaml.safe_dump(variables))
    own = {"ansible_user": "root", **({"cluster": cluster} if cluster is not None else {})}
    tree = {"all": {"vars": own, "children": {"k8s_cluster": {"children": {
        "kube_control_plane": {"hosts": {"n1": {"ansible_host": "192.0.2.1"}}}, "kube_node": {"hosts": {"n2": {"ansible_host": "192.0.2.2"}}}}}}}}
    path = folder / "hosts.yaml"
    path.write_text(yaml.safe_dump(tree))
    return read(path)


FOLLOWED = [
    # variables                                                         settings
    ({"kube_version": "v1.36.4"},                                       {"kubernetes": "1.36.4"}),
    ({"kube_version": "1.35.8"},                                        {"kubernetes": "1.35.8"}),
    ({"kube_network_plugin": "cni"},                                    {"network": {"cni": "none"}}),
    ({"kube_pods_subnet": "10.233.64.0/18", "kube_service_addresses": "10.233.0.0/18", "kube_network_node_prefix": 25},
     {"network": {"pods": "10.233.64.0/18", "services": "10.233.0.0/18", "node_mask": 25}}),
    ({"cluster_name": "k8s.example", "dns_domain": "{{ cluster_name }}"}, {"network": {"domain": "k8s.example"}}),
    ({"kube_proxy_mode": "iptables"},                                   {"network": {"proxy_mode": "iptables"}}),
    ({"loadbalancer_apiserver": {"address": "192.0.2.9", "port": 443}}, {"endpoint": {"address": "192.0.2.9", "port": 443}}),
    ({"supplementary_addresses_in_ssl_keys": ["192.0.2.8", "api"]},     {"endpoint": {"names": ["192.0.2.8", "api"]}}),
    ({"kubelet_max_pods": 60},                                          {"kubelet": {"max_pods": 60}}),
    ({"kube_kubeadm_apiserver_extra_args": {"event-ttl": "2h"}},        {"api_server": {"extra_args": {"event-ttl": "2h"}}}),
    ({"kube_feature_gates": ["A=true", "B=false"]}, {name: {"extra_args": {"feature-gates": "A=true,B=false"}}
                                                     for name in ("api_server", "controller_manager", "scheduler", "kubelet")}),
    ({"metrics_server_enabled": False, "dns_mode": "none"},             {"addons": {"metrics_server": False, "coredns": False}}),
    ({"http_proxy": "http://proxy:3128", "no_proxy": "a.example,10.9.0.0/16"},
     {"proxy": {"http": "http://proxy:3128", "no_proxy": ["a.example", "10.9.0.0/16"]}}),
    ({"containerd_registries_mirrors": [{"prefix": "docker.io", "mirrors": [{"host": "https://m.example", "skip_verify": True}]}]},
     {"registries": {"docker.io": {"mirrors": [{"url": "https://m.example", "skip_verify": True}]}}}),
    ({"containerd_registries_mirrors": [{"prefix": "a", "mirrors": [{"host": "https://m", "capabilities": ["pull", "resolve"]}]}]},
     {"registries": {"a": {"mirrors": [{"url": "https://m"}]}}}),
    ({"additional_no_proxy": "c.example"},                              {"proxy": {"no_proxy": ["c.example"]}}),
    ({"kube_image_repo": "m.example/k8s"},                              {"image_registry": "m.example/k8s"}),
    ({"kube_image_repo": "registry.k8s.io"},                            {}),
    ({"kube_encrypt_secret_data": True, "kubernetes_audit": True, "kube_apiserver_port": 6443, "container_manager": "containerd"}, {}),
]


@pytest.mark.parametrize(("variables", "settings"), FOLLOWED, ids=[" ".join(row[0]) for row in FOLLOWED])
def test_followed(tmp_path: Path, variables: dict[str, Any], settings: dict[str, Any]) -> None:
    found = loaded(tmp_path, variables)
    assert found.cluster.settings == Settings.model_validate(settings)
    assert not found.notes and not found.ignored
    assert found.cluster.hosts[0].settings.kubelet == found.cluster.settings.kubelet


NOTED = [
    # variables                               cluster                                 words of the note
    ({"kube_proxy_mode": "ipvs"},             None,                                   ("ipvs", "nftables")),
    ({"kube_pods_subnet": "10.1.0.0/16"},     {"network": {"pods": "10.2.0.0/16"}},   ("10.1.0.0/16", "10.2.0.0/16")),
    ({"kube_network_plugin": "calico"},       {"network": {"cni": "none"}},           ("calico", "none")),
    ({"kube_version": "v1.28.3"},             {"kubernetes": "1.36.4"},               ("v1.28.3", "1.36.4")),
    ({"http_proxy": "{{ x }}"},               None,                                   ("{{ x }}", "template")),
    ({"kube_pods_subnet": "{{ x }}"},         {"network": {"pods": "10.2.0.0/16"}},   ("{{ x }}", "10.2.0.0/16")),
    ({"kube_feature_gates": ["A=true"]}, {name: {"extra_args": {"feature-gates": "A=true" if name != "kubelet" else "B=true"}}
                                          for name in ("api_server", "controller_manager", "scheduler", "kubelet")}, ("A=true", "B=true")),
    ({"containerd_registries_mirrors": [{"mirrors": [{"host": "https://m"}]}]}, None, ("prefix",)),
    ({"containerd_registries_mirrors": [{"prefix": "docker.io"}]},              None, ("mirrors",)),
    ({"containerd_registries_mirrors": [{"prefix": "docker.io", "mirrors": [{}]}]}, None, ("host",)),
    ({"containerd_registries_mirrors": [{"prefix": "docker.io", "mirrors": ["https://x"]}]}, None, ("host",)),
    ({"containerd_registries_mirrors": "https://x"},                            None, ("prefix",)),
    ({"containerd_registries_mirrors": {"docker.io": "https://x"}},             None, ("prefix",)),
    ({"containerd_registries_mirrors": [{"prefix": "a", "mirrors": [{"host": "https://m", "capabilities": ["push"]}]}]}, None, ("resolve",)),
    ({"metallb_enabled": True},               None,                                   ("metallb_enabled", "manifests")),
    ({"kubernetes_audit": False},             None,                                   ("kubernetes_audit", "false")),
    ({"kube_apiserver_port": 8443},           None,                                   ("8443", "6443")),
]


@pytest.mark.parametrize(("variables", "cluster", "words"), NOTED, ids=[" ".join(row[0]) for row in NOTED])
def test_noted_with_both_values(tmp_path: Path, variables: dict[str, Any], cluster: dict[str, Any] | None, words: tuple[str, ...]) -> None:
    found = loaded(tmp_path, variables, cluster)
    assert found.cluster.settings == Settings.model_validate(cluster or {})
    [note] = found.notes
    assert all(word in note for word in words)


URL = "http://user:s3cret/pw@proxy:3128"


@pytest.mark.parametrize(("variables", "cluster"), [
    ({"http_proxy": URL}, {"proxy": {"http": "http://proxy2:3128"}}), ({"https_proxy": URL.replace("proxy", "{{ x }}")}, None),
    ({"http_proxy": "http://user:s3cretpw@" + "x" * 80}, {"proxy": {"http": "http://proxy2:3128"}}),
    ({"containerd_registry_auth": [{"registry": "a", "username": "u", "password": "s3cret"}]}, None)])
def test_no_password_is_in_a_note(tmp_path: Path, variables: dict[str, Any], cluster: dict[str, Any] | None) -> None:
    [note] = loaded(tmp_path, variables, cluster).notes
    assert "s3cret" not in note and "(hidden)" in note


def test_a_proxy_s_password_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, {"http_proxy": URL})
    assert caught.value.code == "inventory.proxy-credentials" and "s3cret" not in str(caught.value) and "cluster.proxy.http" in caught.value.hint


def test_a_boolean_is_shown_whatever_its_name(tmp_path: Path) -> None:
    [note] = loaded(tmp_path, {"kube_encrypt_secret_data": False}).notes
    assert "false" in note


@pytest.mark.parametrize(("variables", "cluster"), [
    ({"kube_pods_subnet": "10.2.0.0/16"}, {"network": {"pods": "10.2.0.0/16"}}), ({"metallb_enabled": False}, None),
    ({"kube_version": None, "etcd_version": ""}, None), ({"cluster_name": "cluster.local"}, {"network": {"domain": "cluster.local"}})])
def test_silent_where_both_agree(tmp_path: Path, variables: dict[str, Any], cluster: dict[str, Any] | None) -> None:
    assert not loaded(tmp_path, variables, cluster).notes


@pytest.mark.parametrize(("variables", "code", "line"), [
    ({"kube_network_plugin": "calico"}, "kubespray.unsupported", 1), ({"kube_version": "v1.28.3"}, "kubespray.unsupported", 1),
    *(({name: "{{ y }}"}, "kubespray.unsupported", 1) for name in (
        "kube_pods_subnet", "kube_service_addresses", "kube_network_node_prefix", "dns_domain", "cluster_name")),
    ({"loadbalancer_apiserver": {"address": "{{ lb }}"}}, "kubespray.unsupported", 2), ({"kubelet_max_pods": "x"}, "kubespray.unsupported", 1),
    ({"kube_pods_subnet": "10.233.64.0/99"}, "inventory.value", 1), ({"kubelet_max_pods": 5000}, "inventory.value", 1)])
def test_refused_where_it_stands(tmp_path: Path, variables: dict[str, Any], code: str, line: int) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, variables)
    assert caught.value.code == code and caught.value.where.startswith(f"{tmp_path}/group_vars/k8s_cluster.yml:{line}:")


EVERY_ORDER = {
    "supplementary_addresses_in_ssl_keys": ["10.9.9.9", "api.example.com"], "loadbalancer_apiserver": {"address": "10.0.0.100", "port": 443},
    "dns_domain": "my.domain", "cluster_name": "other.local", "kube_feature_gates": ["A=true"], "kube_kubeadm_apiserver_extra_args": {"v": "2"},
    "no_proxy": "a.example,b.example", "additional_no_proxy": "c.example"}


@pytest.mark.parametrize("order", [list, lambda items: list(reversed(list(items)))], ids=["as given", "reversed"])
def test_the_order_of_variables_means_nothing(tmp_path: Path, order: Any) -> None:
    loaded(tmp_path, {})
    (tmp_path / "group_vars/k8s_cluster.yml").write_text(yaml.safe_dump(dict(order(EVERY_ORDER.items())), sort_keys=False))
    found = read(tmp_path / "hosts.yaml").cluster
    assert found.settings.endpoint == Endpoint.model_validate({"address": "10.0.0.100", "port": 443, "names": ["10.9.9.9", "api.example.com"]})
    assert found.network.domain == "my.domain" and found.settings.proxy.no_proxy == ("a.example", "b.example")
    assert found.settings.api_server.extra_args == {"v": "2", "feature-gates": "A=true"}


def test_a_load_balancer_is_followed_beside_names_of_ours(tmp_path: Path) -> None:
    found = loaded(tmp_path, {"loadbalancer_apiserver": {"address": "10.0.0.100", "port": 443}}, {"endpoint": {"names": ["api"]}})
    assert found.cluster.settings.endpoint == Endpoint.model_validate({"address": "10.0.0.100", "port": 443, "names": ["api"]})
    assert not found.notes


def test_keys_that_mean_nothing_are_noted(tmp_path: Path) -> None:
    entry = {"prefix": "a", "server": "https://s", "mirrors": [{"host": "https://m"}]}
    [note] = loaded(tmp_path, {"containerd_registries_mirrors": [entry]}).notes
    assert "server" in note


@pytest.mark.parametrize(("variables", "code"), [
    ("kube_network_plugin: calico", "kubespray.unsupported"), ("kube_pods_subnet: 10.9.0.0/16", "kubespray.unsupported"), ("kube_proxy_mode: ipvs", "")])
def test_a_setting_of_the_cluster_that_a_worker_has_is_not_lost(tmp_path: Path, variables: str, code: str) -> None:
    loaded(tmp_path, {})
    (tmp_path / "group_vars/kube_node.yml").write_text(variables)
    if not code:
        [note] = read(tmp_path / "hosts.yaml").notes
        assert "kube_node.yml:1:" in note and "ipvs" in note
        return
    with pytest.raises(InputError) as caught:
        read(tmp_path / "hosts.yaml")
    assert caught.value.code == code and "kube_node.yml:1:" in caught.value.where
    assert loaded(tmp_path, {}, {"network": {"pods": "10.1.0.0/16", "cni": "none"}}).notes


def test_a_host_s_own_variable_changes_that_host_alone(tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/n2.yml").write_text("kubelet_max_pods: 50\n")
    found = loaded(tmp_path, {"kubelet_max_pods": 60}).cluster
    assert [host.settings.kubelet.max_pods for host in found.hosts] == [60, 50] and found.settings.kubelet.max_pods == 60


def test_every_path_is_a_setting() -> None:
    """But those of what clusterctl does in any case."""
    fixed = {"api_server.encryption", "api_server.audit", "api_server.port", "containerd", "etcd"}
    for translation in TRANSLATIONS.values():
        model: Any = Settings
        for key in translation.path.split(".") if translation.path not in fixed else ():
            model = getattr(model, "model_fields", {key: None}).get(key, None)
            assert model is not None or key == "feature-gates", translation.path
            model = getattr(model, "annotation", None)


@pytest.mark.parametrize("path", [
    *(EXAMPLES / name for name in ("ha.yaml", "external-etcd.yaml", "kubespray.yaml", "single.yaml", "lab.yaml")),
    *(REAL / name for name in ("kubespray/inventory.ini", "kubespray-builder/hosts.yaml", "k3s-ansible/inventory.yml", "kubeasz/hosts",
                               "terraform-aws/hosts", "precedence/hosts.ini", "names/inventory.yml"))], ids=lambda path: str(path.name))
def test_a_converted_inventory_means_the_same(path: Path, tmp_path: Path) -> None:
    cluster = read(path).cluster
    (tmp_path / "cluster.yaml").write_text(convert(cluster))
    again = read(tmp_path / "cluster.yaml")

    def essence(hosts: Any) -> list[str]:
        return sorted(json.dumps(host.model_dump(mode="json", exclude={"groups", "roles"}), sort_keys=True) + str(sorted(host.roles)) for host in hosts)

    assert again.cluster.settings == cluster.settings and again.cluster.versions == cluster.versions
    assert essence(again.cluster.hosts) == essence(cluster.hosts)
    assert not again.ignored


def test_a_local_host_and_its_hooks_are_converted(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(
        "control_plane: {hosts: {n1: {ansible_connection: local, ip: 192.0.2.1, cluster: {hooks: [{name: a, after: nodes, run: 'true'}]}}}}\n"
        "all: {vars: {cluster: {registries: {a.example: {mirrors: [{url: 'https://m.example'}]}}}}}\n"
        "workers: {hosts: {n2: {ip: 192.0.2.2}}}\n")
    found = read(tmp_path / "a.yml")
    text = convert(found.cluster)
    (tmp_path / "b.yml").write_text(text)
    again = read(tmp_path / "b.yml")
    assert "null" not in text and again.cluster.settings == found.cluster.settings
    assert [host.ssh.local for host in again.cluster.hosts] == [True, False]
    assert again.cluster.hosts[0].settings == found.cluster.hosts[0].settings
    [row] = [line for line in as_text(found).splitlines() if line.startswith("n1 ")]
    assert row.split()[2] == "local"


def test_a_local_host_has_no_user_and_this_computer_s_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As kubespray's inventory/local/hosts.ini is."""
    monkeypatch.setattr("clusterctl.inventory.values.own_address", lambda: "192.0.2.7")
    (tmp_path / "hosts.ini").write_text("node1 ansible_connection=local\n[kube_control_plane]\nnode1\n[etcd]\nnode1\n[kube_node]\nnode1\n")
    found = read(tmp_path / "hosts.ini")
    assert str(found.cluster.hosts[0].address) == "192.0.2.7" and not any("ansible_user" in note for note in found.notes)


SILENT = ["kubelet_config_extra_args", "kubelet_custom_flags", "kube_apiserver_node_port_range", "kube_apiserver_enable_admission_plugins",
          "kube_apiserver_feature_gates", "kube_proxy_feature_gates", "additional_sysctl", "ntp_enabled", "containerd_registry_auth",
          "apiserver_loadbalancer_domain_name", "etcd_data_dir", "containerd_storage_dir", "kube_encryption_algorithm", "enable_nodelocaldns",
          "upstream_dns_servers", "kubernetes_audit_webhook", "kube_webhook_token_auth"]


@pytest.mark.parametrize("name", SILENT)
def test_variables_that_mean_something_else_are_noted(tmp_path: Path, name: str) -> None:
    found = loaded(tmp_path, {name: True})
    assert len(found.notes) == 1 and name in found.notes[0] and name not in found.ignored


def test_a_host_s_own_settings_are_converted(tmp_path: Path) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/n2.yml").write_text("cluster: {kubelet: {max_pods: 50, labels: {a: b}}}\nclusterctl_taints: ['x:NoExecute']\n")
    cluster = loaded(tmp_path, {"kubelet_max_pods": 60}).cluster
    other = tmp_path / "other"
    other.mkdir()
    (other / "cluster.yaml").write_text(convert(cluster))
    assert read(other / "cluster.yaml").cluster.host("n2").model_dump(exclude={"groups"}) == cluster.host("n2").model_dump(exclude={"groups"})
