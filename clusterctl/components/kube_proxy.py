"""kube-proxy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context, Port, Product, nodes
from clusterctl.components.common import ETC, PKI, daemon, issued, kubeconfig, kubernetes, node_user
from clusterctl.components.kernel import in_container
from clusterctl.components.render import yaml_value
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.shell.footprint import Footprint

RELEASE = kubernetes("kube-proxy")
METRICS_PORT, HEALTH_PORT = 10249, 10256


def proxy_config(context: Context) -> dict[str, object]:
    """The KubeProxyConfiguration."""
    network = context.cluster.network
    config: dict[str, object] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": f"{ETC}/kube-proxy.conf"},
        "mode": network.proxy_mode,
        "clusterCIDR": str(network.pods),
        "metricsBindAddress": f"127.0.0.1:{METRICS_PORT}",
        "healthzBindAddress": f"0.0.0.0:{HEALTH_PORT}",
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
    # Its /healthz succeeds only once the node is registered and all rules are written: half a minute at first.
    return daemon(context, RELEASE, client, conf, config, ready=("tcp_open", "127.0.0.1", str(HEALTH_PORT)))


def _ports(cluster: Cluster) -> Iterator[Port]:
    yield from (Port("tcp", number, cluster.nodes) for number in (METRICS_PORT, HEALTH_PORT))


KUBE_PROXY = Product(
    name="kube-proxy", on=nodes, slot="nodes", resources=_kube_proxy, releases=(RELEASE,), ports=_ports,
    footprint=Footprint(
        units=("kube-proxy.service",),
        data=("/var/lib/kube-proxy",),
        runtime=("/run/xtables.lock",),
        tables=("kube-proxy",),
        prefixes=("KUBE",),
    ),
)
