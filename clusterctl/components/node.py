"""What makes a machine a node: the way to the API, kubelet, kube-proxy and the pod network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clusterctl.components.base import Component, Context, nodes, workers_only
from clusterctl.components.common import (
    CIPHERS,
    PKI,
    ca_file,
    ids,
    issued,
    kubeconfig,
    links,
    node_user,
    product,
    unit,
    with_extra,
)
from clusterctl.components.host import in_container
from clusterctl.components.objects import node_taints
from clusterctl.components.render import render, yaml_value
from clusterctl.components.reserves import reserved
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.service import Service

ETC = "/etc/kubernetes"


def _trust(context: Context) -> Sequence[Resource]:
    return [Folder(path=ETC), Folder(path=PKI), ca_file(context, "kubernetes", f"{PKI}/ca.crt")]


TRUST = Component(name="trust", on=nodes, resources=_trust)


def _api_proxy(context: Context) -> Sequence[Resource]:
    servers = [(host.name, str(host.address)) for host in context.cluster.control_planes]
    content = render("api-proxy/haproxy.cfg.j2", servers=servers, port=context.cluster.api_port)
    config = File(path="/etc/clusterctl/haproxy.cfg", content=content)
    service = unit("api-proxy", "api-proxy/api-proxy.service.j2")
    return [
        config,
        service,
        Service(
            unit="api-proxy.service",
            inputs=(f"file:{PKI}/ca.crt", *ids(config, service)),
            ready=("tcp_open", "127.0.0.1", str(context.cluster.api_port)),
            deadline=30,
        ),
    ]


API_PROXY = Component(name="api-proxy", on=workers_only, resources=_api_proxy)


def kubelet_config(context: Context) -> dict[str, object]:
    """The KubeletConfiguration, with the user's fields merged over ours."""
    cluster, facts, settings = context.cluster, context.facts, context.host.settings.kubelet
    config: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs" if facts.cgroup_v1 else "systemd",
        "clusterDNS": [str(cluster.network.dns_address)],
        "clusterDomain": cluster.network.domain,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": list(CIPHERS),
        "rotateCertificates": True,
        "readOnlyPort": 0,
        "protectKernelDefaults": not in_container(context),
        "makeIPTablesUtilChains": True,
        "seccompDefault": True,
        "podPidsLimit": 4096,
        "maxPods": settings.max_pods,
        "eventRecordQPS": 50,
        "streamingConnectionIdleTimeout": "5m0s",
        "failSwapOn": False,
        "nodeStatusUpdateFrequency": "4s",
        "shutdownGracePeriod": "30s",
        "shutdownGracePeriodCriticalPods": "10s",
    }
    if facts.resolves_locally:
        config["resolvConf"] = "/run/systemd/resolve/resolv.conf"
    elif facts["resolv_conf"] == "missing":
        config["resolvConf"] = "/etc/clusterctl/resolv.conf"
    if facts.cgroup_v1:
        config["failCgroupV1"] = False
    if not facts.lowers_oom_score:
        config["oomScoreAdj"] = 0
    if quantities := reserved(settings, facts):
        config["kubeReserved"] = dict(quantities)
    if taints := node_taints(cluster, context.host):
        # From its first moment on: a pod that was placed before the taint would stay.
        config["registerWithTaints"] = taints
    return _merge(config, settings.config)


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _kubelet(context: Context) -> Sequence[Resource]:
    cluster, host = context.cluster, context.host
    name = node_user("system:node", host.name)
    server = issued(
        context,
        f"{PKI}/kubelet",
        name,
        organizations=("system:nodes",),
        dns=(host.name,),
        addresses=(str(host.address),),
        server=True,
    )
    client = issued(context, f"{PKI}/kubelet-client", name, organizations=("system:nodes",), client=True)
    conf = kubeconfig(context, f"{ETC}/kubelet.conf", name, client.path)
    config = File(path="/var/lib/kubelet/config.yaml", content=yaml_value(kubelet_config(context)).encode() + b"\n", mode="600")
    program = product(context, "kubelet", cluster.versions.kubernetes)
    switch = links(program, "kubelet")
    ours = {"config": config.path, "kubeconfig": conf.path, "hostname-override": host.name, "node-ip": host.address, "v": 2}
    arguments = with_extra(ours, host.settings.kubelet.extra_args)
    service = unit("kubelet", "kubelet/kubelet.service.j2", arguments=arguments)
    return [
        Folder(path="/etc/cni/net.d"),
        Folder(path=f"{ETC}/manifests"),
        server,
        client,
        conf,
        config,
        *switch,
        service,
        Service(
            unit="kubelet.service",
            inputs=(f"file:{PKI}/ca.crt", *ids(program, server, client, conf, config, *switch, service)),
            ready=("http_ok", "10248", "/healthz"),
            deadline=90,
        ),
    ]


KUBELET = Component(name="kubelet", on=nodes, resources=_kubelet)


def proxy_config(context: Context) -> dict[str, object]:
    """The KubeProxyConfiguration."""
    network = context.cluster.network
    config: dict[str, object] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{ETC}/kube-proxy.conf"},
        "mode": network.proxy_mode,
        "clusterCIDR": str(network.pods),
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "0.0.0.0:10256",
        "hostnameOverride": context.host.name,
    }
    if network.proxy_mode == "iptables":
        # As in the nftables mode: otherwise kube-proxy sets route_localnet for the whole machine, which nothing sets back.
        config["iptables"] = {"localhostNodePorts": False}
    if in_container(context):
        # These sysctls belong to the kernel that the machine shares.
        config["conntrack"] = {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"}
    if not context.facts.lowers_oom_score:
        config["oomScoreAdj"] = 0
    return config


def _kube_proxy(context: Context) -> Sequence[Resource]:
    user = node_user("kube-proxy", context.host.name)
    client = issued(context, f"{PKI}/kube-proxy", user, organizations=("clusterctl:kube-proxies",), client=True)
    conf = kubeconfig(context, f"{ETC}/kube-proxy.conf", user, client.path)
    config = File(path="/var/lib/kube-proxy/config.yaml", content=yaml_value(proxy_config(context)).encode() + b"\n", mode="600")
    program = product(context, "kube-proxy", context.cluster.versions.kubernetes)
    switch = links(program, "kube-proxy")
    service = unit("kube-proxy", "kube-proxy/kube-proxy.service.j2")
    return [
        client,
        conf,
        config,
        *switch,
        service,
        Service(
            unit="kube-proxy.service",
            inputs=(f"file:{PKI}/ca.crt", *ids(program, client, conf, config, *switch, service)),
            # Its own /healthz says yes only once the node is known and all rules are written: half a minute at first.
            ready=("tcp_open", "127.0.0.1", "10256"),
            deadline=60,
        ),
    ]


KUBE_PROXY = Component(name="kube-proxy", on=nodes, resources=_kube_proxy)


def _flannel(context: Context) -> Sequence[Resource]:
    cluster, network = context.cluster, context.cluster.network
    if network.cni != "flannel":
        return []
    program, plugin = (
        product(context, "flannel", cluster.versions.flannel),
        product(context, "flannel-cni", cluster.versions.flannel_cni),
    )
    user = node_user("flannel", context.host.name)
    client = issued(context, f"{PKI}/flannel", user, client=True)
    conf = kubeconfig(context, f"{ETC}/flannel.conf", user, client.path)
    net = File(
        path="/etc/kube-flannel/net-conf.json",
        content=render(
            "flannel/net-conf.json.j2", pods=str(network.pods), backend=network.backend, nftables=network.proxy_mode == "nftables"
        ),
    )
    switch = links(program, "flanneld")
    service = unit("flanneld", "flannel/flanneld.service.j2", node=context.host.name, address=str(context.host.address))
    await_node = File(path="/etc/kube-flannel/await-node", content=render("flannel/await-node.sh.j2", port=cluster.api_port))
    conflist = File(path="/etc/cni/net.d/10-flannel.conflist", content=render("flannel/10-flannel.conflist.j2"), mode="600")
    return [
        client,
        conf,
        net,
        await_node,
        *switch,
        service,
        Link(path="/opt/cni/bin/flannel", target=f"{plugin.folder}/flannel-{context.facts.arch}"),
        conflist,
        # It waits for nothing but the API server and the controller manager, which may be as slow as any start.
        Service(
            unit="flanneld.service",
            deadline=cluster.settings.timeouts.start,
            inputs=(f"file:{PKI}/ca.crt", *ids(program, client, conf, net, await_node, *switch, service)),
        ),
    ]


FLANNEL = Component(name="flannel", on=nodes, resources=_flannel)
