"""kubespray's variables as settings of ``cluster``.

Names and meanings: kubespray's inventory/sample/group_vars and docs/ansible/vars.md. A setting that the inventory itself makes in
``cluster`` wins over a variable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.cluster.versions import SUPPORTED_MINORS, minor
from clusterctl.inventory.document import Node, bare, leaves
from clusterctl.inventory.findings import Diagnostics
from clusterctl.inventory.values import is_template, refuse_sealed

Variables = Mapping[str, Node]


class Untranslatable(Exception):
    """A value that no setting of ours can mean, and what that means here."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A setting, by its path in ``cluster``, and its value for a variable's. ``also``: further settings that get the value.

    ``required``: refuse a value that cannot be translated. ``decisive``: the setting that decides instead of it, where that is
    not ``path``. ``unless``: a variable that replaces this one. ``keys``: those of maps that are read; others are noted.
    """

    path: str
    value: Callable[[Node], object]
    required: bool = False
    also: tuple[str, ...] = ()
    decisive: str = ""
    unless: str = ""
    keys: tuple[str, ...] = ()

    def paths(self, *, of_host: bool) -> list[str]:
        """Return the paths of all settings, or of those that may differ between hosts."""
        found = (self.path, *self.also)
        return [path for path in found if not of_host or path.split(".")[0] in HostSettings.model_fields]

    @property
    def is_cluster_wide(self) -> bool:
        """Whether a host cannot have a value of its own."""
        return not self.paths(of_host=True)


def translate(variables: Variables, explicit: Node | None, findings: Diagnostics, *, of_host: bool = False) -> Node | None:
    """Return the variable ``cluster`` that kubespray's variables of a host mean; None where there are none.

    ``of_host``: only settings that may differ between hosts. ``explicit``: the inventory's own variable ``cluster``. A variable
    that differs from it is noted with both values; one that cannot be followed is refused (``kubespray.unsupported``) where the
    cluster would differ in what cannot be changed later, unless ``explicit`` decides.
    """
    root: Node | None = None
    if not of_host:
        _note_told(variables, findings)
    for name, rule in TRANSLATIONS.items():  # What is special comes after what is general, and wins.
        node, paths = variables.get(name), rule.paths(of_host=of_host)
        replaced = variables.get(rule.unless)
        if paths and node and not _says_nothing(node) and (replaced is None or _says_nothing(replaced)):
            value = _value(name, node, rule, explicit, findings)
            for keys, inner in (entry for path in paths for entry in _flat(value, tuple(path.split(".")))):
                own = _find(explicit, keys)
                if own is None:
                    root = _put(root, keys, inner, node)
                elif _text(bare(own)) != _text(inner):
                    findings.note(f"{name}: {_shown(node)} is not followed: cluster.{'.'.join(keys)} is {_shown(own)}")
    return root


def _note_told(variables: Variables, findings: Diagnostics) -> None:
    for name, node in variables.items():
        if name in TOLD and node.value:
            findings.note(f"{name}: {_shown(node)}: {TOLD[name]}")


def _value(name: str, node: Node, rule: Translation, explicit: Node | None, findings: Diagnostics) -> object:
    """Return the setting that a variable means; None where it means none, or what it means is among the findings."""
    decisive = rule.decisive or rule.path
    decided = _find(explicit, decisive.split("."))
    if sealed := [leaf for leaf in leaves(node) if leaf.sealed]:
        if decided is None:
            refuse_sealed(sealed[0], findings)
        return None
    try:
        value = rule.value(node)
    except Untranslatable as error:
        if decided is None and rule.required:
            findings.refuse(node.place, f"{node.path}: {_shown(node)}: {error}", f"say what is meant: cluster.{decisive}",
                            code="kubespray.unsupported")
        else:
            why = error if decided is None else f"cluster.{decisive} is {_shown(decided)}"
            findings.note(f"{name}: {_shown(node)} is not followed: {why}")
        return None
    if rule.keys and (unread := sorted(_keys(node) - {*rule.keys})):
        findings.note(f"{name}: {', '.join(unread)} mean nothing here; {', '.join(rule.keys)} are read")
    return value


def note_others(first: Variables, values: Mapping[str, Mapping[int, Node]], explicit: Node | None, findings: Diagnostics) -> None:
    """Note or refuse values of settings of the whole cluster that differ from those of the first control plane.

    ``values``: those of all hosts by variable, each once.
    """
    for name, rule in TRANSLATIONS.items():
        wanted = first.get(name)
        for node in values.get(name, {}).values() if rule.is_cluster_wide else ():
            if _says_nothing(node) or (wanted is not None and bare(wanted) == bare(node)):
                continue
            why = "counts for the whole cluster, and the first control plane has " + (_shown(wanted) if wanted else "none")
            if rule.required and _find(explicit, (rule.decisive or rule.path).split(".")) is None:
                findings.refuse(node.place, f"{node.path}: {_shown(node)} {why}", "give all hosts the same value",
                                code="kubespray.unsupported")
            else:
                findings.note(f"{node.place}: {name}: {_shown(node)} is not followed: it {why}")


def _says_nothing(node: Node) -> bool:
    """Whether a value is empty or the sample's ``dns_domain: "{{ cluster_name }}"``."""
    if isinstance(node.value, str):
        return node.value.replace(" ", "") in ("", "{{cluster_name}}") and not node.sealed
    return node.value is None


def _find(root: Node | None, keys: Sequence[str]) -> Node | None:
    for key in keys:
        if root is None or not isinstance(root.value, dict):
            return None
        root = root.value.get(key)
    return root


def _flat(value: object, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the values of nested maps, each with all of its keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, (*keys, key))
    elif value is not None:
        yield keys, value


def _keys(node: Node) -> set[str]:
    """Return the keys of all maps in a tree."""
    below = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, list) else ()
    return {*(node.value if isinstance(node.value, dict) else ()), *(key for item in below for key in _keys(item))}


def _put(root: Node | None, keys: Sequence[str], value: object, source: Node) -> Node:
    """Return a tree with a value at a path; every node has the place of the variable that it came from."""
    if not keys:
        return _node(value, source)
    below = dict(root.value) if root is not None and isinstance(root.value, dict) else {}
    below[keys[0]] = _put(below.get(keys[0]), keys[1:], value, source)
    return replace(root or source, value=below)


def _node(value: object, source: Node) -> Node:
    if isinstance(value, Mapping):
        return replace(source, value={str(key): _node(item, source) for key, item in value.items()})
    if isinstance(value, list):
        return replace(source, value=[_node(item, source) for item in value])
    assert value is None or isinstance(value, str | int | float)
    return replace(source, value=value, written=str(value), odd=False)


def _shown(node: Node) -> str:
    if isinstance(node.value, dict):
        return ", ".join(f"{key} {_shown(item)}" for key, item in node.value.items()) or "an empty map"
    return node.shown if not isinstance(node.value, list) else ", ".join(map(_shown, node.value)) or "an empty list"


def _text(value: object) -> str:
    words = {True: "true", False: "false"}
    if isinstance(value, bool):
        return words[value]
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _plain(node: Node) -> object:
    if isinstance(node.value, str) and is_template(node.value):
        raise Untranslatable("templates are not evaluated")
    return bare(node)


def _written(node: Node) -> str:
    _plain(node)
    if isinstance(node.value, dict | list):
        raise Untranslatable(f"text is expected, not {node.kind}")
    return node.written


def _version(node: Node) -> str:
    version = _written(node).removeprefix("v")
    if minor(version) not in SUPPORTED_MINORS:
        raise Untranslatable(f"clusterctl installs Kubernetes {', '.join(SUPPORTED_MINORS)}")
    return version


def _one_of(*known: str, why: str, **renamed: str) -> Callable[[Node], str]:
    def value(node: Node) -> str:
        word = _written(node).lower()
        if word in renamed or word in known:
            return renamed.get(word, word)
        raise Untranslatable(why)

    return value


def _number(node: Node) -> int:
    text = _written(node)
    if not text.isdigit():
        raise Untranslatable("a number is expected")
    return int(text)


def _flag(node: Node) -> bool:
    word = _written(node).lower()
    if word not in ("true", "yes", "on", "false", "no", "off"):
        raise Untranslatable("true or false is expected")
    return word in ("true", "yes", "on")


def _always(node: Node) -> None:
    """Of what clusterctl does in any case."""
    if not _flag(node):
        raise Untranslatable("clusterctl always does it")


def _endpoint(node: Node) -> dict[str, object]:
    parts = node.value if isinstance(node.value, dict) else {}
    if "address" not in parts:
        raise Untranslatable("a map of address and port is expected")
    port = {"port": _number(parts["port"])} if "port" in parts else {}
    return {"address": _written(parts["address"]), **port}


def _names(node: Node) -> list[str]:
    items = node.value if isinstance(node.value, list) else [node]
    return [_written(item) for item in items]


def _flags(node: Node) -> dict[str, str]:
    if not isinstance(node.value, dict):
        raise Untranslatable("a map of flags is expected")
    return {name: _written(item) for name, item in node.value.items()}


def _gates(node: Node) -> str | None:
    return ",".join(_names(node)) or None


def _unless(default: str, why: str) -> Callable[[Node], None]:
    """Of what is fixed here: only the default can be followed."""

    def value(node: Node) -> None:
        if _written(node) != default:
            raise Untranslatable(why)

    return value


def _words(node: Node) -> list[str]:
    """A list, or words with commas between, as ``no_proxy`` has them."""
    return [word.strip() for text in _names(node) for word in text.split(",") if word.strip()]


def _mirrors(node: Node) -> dict[str, object]:
    """``containerd_registries_mirrors``: a list of a prefix and its mirrors (kubespray's docs/CRI/containerd.md)."""
    registries: dict[str, object] = {}
    for entry in _items(node, "prefix", "mirrors"):
        registries[_written(entry["prefix"])] = {"mirrors": [_mirror(one) for one in _items(entry["mirrors"], "host")]}
    return registries


def _items(node: Node, *keys: str) -> Sequence[Variables]:
    """Return the maps in a list, each of which must have some keys."""
    items = [item.value for item in node.value if isinstance(item.value, dict)] if isinstance(node.value, list) else []
    if not isinstance(node.value, list) or len(items) < len(node.value) or not all({*keys} <= {*item} for item in items):
        raise Untranslatable(f"a list of maps with {' and '.join(keys)} is expected")
    return items


def _mirror(parts: Variables) -> dict[str, object]:
    if "capabilities" in parts and sorted(_names(parts["capabilities"])) != ["pull", "resolve"]:
        raise Untranslatable("mirrors have the capabilities pull and resolve")
    unverified = "skip_verify" in parts and _flag(parts["skip_verify"])
    return {"url": _written(parts["host"]), **({"skip_verify": True} if unverified else {})}


def _image_registry(node: Node) -> str | None:
    return None if _written(node) == "registry.k8s.io" else _written(node)


def _dns(node: Node) -> bool:
    word = _written(node)
    if word not in ("coredns", "none"):
        raise Untranslatable("coredns or none is expected")
    return word == "coredns"


TRANSLATIONS: Mapping[str, Translation] = {
    "kube_version": Translation("kubernetes", _version, required=True),
    "kube_network_plugin": Translation("network.cni", _one_of(
        "flannel", "none", cni="none", why="clusterctl installs flannel, or none for a plugin of your own"), required=True),
    "kube_pods_subnet": Translation("network.pods", _written, required=True),
    "kube_service_addresses": Translation("network.services", _written, required=True),
    "kube_network_node_prefix": Translation("network.node_mask", _number, required=True),
    "kube_proxy_mode": Translation("network.proxy_mode", _one_of("nftables", "iptables", why=(
        "clusterctl has nftables, which is used, and iptables; Kubernetes 1.35 deprecates ipvs"))),
    "flannel_backend_type": Translation("network.backend", _one_of("vxlan", "host-gw", why=(
        "clusterctl has vxlan, which is used, and host-gw"))),
    "cluster_name": Translation("network.domain", _written, required=True, unless="dns_domain"),
    "dns_domain": Translation("network.domain", _written, required=True),
    "loadbalancer_apiserver": Translation("endpoint", _endpoint, required=True, decisive="endpoint.address",
                                          keys=("address", "port")),
    "supplementary_addresses_in_ssl_keys": Translation("endpoint.names", _names),
    "kubelet_max_pods": Translation("kubelet.max_pods", _number, required=True),
    "kube_feature_gates": Translation("api_server.extra_args.feature-gates", _gates, also=tuple(
        f"{component}.extra_args.feature-gates" for component in ("controller_manager", "scheduler", "kubelet"))),
    "kubelet_feature_gates": Translation("kubelet.extra_args.feature-gates", _gates),
    "kube_kubeadm_apiserver_extra_args": Translation("api_server.extra_args", _flags),
    "kube_kubeadm_controller_extra_args": Translation("controller_manager.extra_args", _flags),
    "kube_kubeadm_scheduler_extra_args": Translation("scheduler.extra_args", _flags),
    "metrics_server_enabled": Translation("addons.metrics_server", _flag),
    "dns_mode": Translation("addons.coredns", _dns),
    "kube_encrypt_secret_data": Translation("api_server.encryption", _always),
    "kubernetes_audit": Translation("api_server.audit", _always),
    "kube_apiserver_port": Translation("api_server.port", _unless("6443", (
        "API servers listen on 6443; cluster.endpoint.port without an address sets another port"))),
    "container_manager": Translation("containerd", _unless("containerd", "containerd is the container runtime")),
    "etcd_deployment_type": Translation("etcd", _unless("host", "etcd is a systemd unit")),
    "http_proxy": Translation("proxy.http", _written),
    "https_proxy": Translation("proxy.https", _written),
    "additional_no_proxy": Translation("proxy.no_proxy", _words, unless="no_proxy"),
    "no_proxy": Translation("proxy.no_proxy", _words),
    "containerd_registries_mirrors": Translation("registries", _mirrors, keys=(
        "prefix", "mirrors", "host", "skip_verify", "capabilities")),
    "kube_image_repo": Translation("image_registry", _image_registry),
}
"""Variables that have a setting of ours."""

_FIXED = "clusterctl has no setting for it"
_ADDON = "it is not installed; cluster.addons.manifests applies manifests of your own"
TOLD: Mapping[str, str] = {
    **dict.fromkeys((
        "argocd_enabled", "cert_manager_enabled", "csi_snapshot_controller_enabled", "dashboard_enabled", "gateway_api_enabled",
        "ingress_alb_enabled", "ingress_nginx_enabled", "kube_vip_enabled", "local_path_provisioner_enabled",
        "local_volume_provisioner_enabled", "metallb_enabled", "node_feature_discovery_enabled", "registry_enabled"), _ADDON),
    **dict.fromkeys((
        "containerd_storage_dir", "deploy_netchecker", "enable_nodelocaldns", "etcd_data_dir", "kube_encryption_algorithm",
        "kube_token_auth", "kube_webhook_token_auth", "kubernetes_audit_webhook", "nameservers", "upstream_dns_servers"), _FIXED),
    **dict.fromkeys((
        "kubelet_config_extra_args", "kubelet_cpu_manager_policy", "kubelet_image_gc_high_threshold",
        "kubelet_max_parallel_image_pulls", "kubelet_node_config_extra_args", "kubelet_rotate_server_certificates",
        "kubelet_topology_manager_policy"), "fields of a KubeletConfiguration belong in cluster.kubelet.config"),
    **dict.fromkeys(("kubelet_custom_flags", "kubelet_node_custom_flags"), "flags belong in cluster.kubelet.extra_args"),
    **dict.fromkeys((
        "kube_apiserver_admission_control_config_file", "kube_apiserver_enable_admission_plugins", "kube_apiserver_feature_gates",
        "kube_apiserver_node_port_range"), "flags belong in cluster.api_server.extra_args"),
    **dict.fromkeys(("kube_proxy_feature_gates", "kube_proxy_strict_arp"), "kube-proxy has no setting but network.proxy_mode"),
    "kube_controller_node_monitor_grace_period": "flags belong in cluster.controller_manager.extra_args",
    "additional_sysctl": "kernel settings belong in cluster.sysctls",
    "ntp_enabled": "cluster.time: chrony adds a time service",
    "apiserver_loadbalancer_domain_name": "names of the API belong in cluster.endpoint",
    "containerd_insecure_registries": "registries belong in cluster.registries: skip_verify",
    "helm_enabled": "clusterctl does not install helm",
    "enable_dual_stack_networks": "clusters have IPv4 alone",
    "ipv6_stack": "clusters have IPv4 alone",
    "etcd_version": "cluster.versions.etcd names another version than the one that belongs to the minor",
    "containerd_version": "cluster.versions.containerd names another version than the one that belongs to the minor",
    "kube_oidc_auth": "issuers of tokens belong in cluster.api_server.authentication.jwt",
    "kube_network_plugin_multus": _ADDON,
    "cloud_provider": "cloud providers' controllers are not installed",
    "external_cloud_provider": "cloud providers' controllers are not installed",
    "kube_reserved": "cluster.kubelet.reserves sets what is kept for the kubelet and the system",
    "containerd_registry_auth": "logins belong in cluster.registries: username, and password by env, file or command",
    "system_reserved": "cluster.kubelet.reserves sets what is kept for the kubelet and the system",
}
"""Variables without a setting of ours, and what they mean here."""

NAMES = TRANSLATIONS.keys() | TOLD.keys()
"""The variables that are read."""
