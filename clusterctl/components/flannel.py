"""flannel: the pod network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.artifacts.catalog import Release
from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context, Port, Product, nodes
from clusterctl.components.common import ETC, PKI, binary, daemon, issued, kubeconfig, node_user
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Link
from clusterctl.shell.footprint import Footprint

RELEASE = Release("flannel", "flannel",
                  "github.com/flannel-io/flannel/releases/download/v{version}/flannel-v{version}-linux-{arch}.tar.gz",
                  members=("flanneld",), asset=("flannel-io/flannel", r"flannel-v{version}-linux-{arch}\.tar\.gz"))
PLUGIN = Release("flannel-cni", "flannel_cni",
                 "github.com/flannel-io/cni-plugin/releases/download/v{version}/cni-plugin-flannel-linux-{arch}-v{version}.tgz",
                 members=("./flannel-{arch}",),
                 asset=("flannel-io/cni-plugin", r"cni-plugin-flannel-linux-{arch}-v[0-9.]+(-flannel[0-9]+)?\.tgz"))
CONFLIST, PLUGIN_LINK = "/etc/cni/net.d/10-flannel.conflist", "/opt/cni/bin/flannel"
CONFIGURATION = f"{ETC}/flannel.conf"


def _enabled(cluster: Cluster) -> bool:
    return cluster.network.cni == "flannel"


def _flannel(context: Context) -> Sequence[Resource]:
    cluster, network = context.cluster, context.cluster.network
    if not _enabled(cluster):
        return []
    user = node_user("flannel", context.host.name)
    client = issued(context, f"{PKI}/flannel", user, client=True)
    conf = kubeconfig(context, CONFIGURATION, user, client.path)
    net = File(path="/etc/kube-flannel/net-conf.json", content=render(
        "flannel/net-conf.json.j2", pods=str(network.pods), backend=network.backend, nftables=network.proxy_mode == "nftables"))
    await_node = File(path="/etc/kube-flannel/await-node", content=render("flannel/await-node.sh.j2", port=cluster.api_port))
    conflist = File(path=CONFLIST, content=render("flannel/10-flannel.conflist.j2"), mode="600")
    return [
        # It waits for nothing but the API server and the controller manager, which may be as slow as any start.
        *daemon(context, RELEASE, client, conf, net, await_node, name="flanneld", deadline=cluster.settings.timeouts.start,
                node=context.host.name, address=str(context.host.address)),
        Link(path=PLUGIN_LINK, target=f"{binary(context, PLUGIN).folder}/flannel-{context.facts.arch}"),
        conflist,
    ]


def _ports(cluster: Cluster) -> Iterator[Port]:
    if _enabled(cluster) and cluster.network.backend == "vxlan":
        yield Port("udp", 8472, cluster.nodes, cluster.nodes)


FLANNEL = Product(
    name="flannel", on=nodes, slot="nodes", enabled=_enabled, releases=(RELEASE, PLUGIN), resources=_flannel, ports=_ports,
    files=(CONFLIST, PLUGIN_LINK, CONFIGURATION, f"{PKI}/flannel.crt", f"{PKI}/flannel.key"),
    footprint=Footprint(
        units=("flanneld.service",),
        configuration=("/etc/kube-flannel",),
        runtime=("/run/flannel",),
        interfaces=("flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6"),
        tables=("flannel-ipv4", "flannel-ipv6"),
        prefixes=("FLANNEL",),
        modules=("vxlan",),
    ),
)
