"""flannel: the pod network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context, Port, Product, nodes
from clusterctl.components.common import ETC, PKI, ids, issued, kubeconfig, links, node_user, product, unit
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Link
from clusterctl.resources.service import Service
from clusterctl.shell.footprint import Footprint

CONFLIST = "/etc/cni/net.d/10-flannel.conflist"


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
    conflist = File(path=CONFLIST, content=render("flannel/10-flannel.conflist.j2"), mode="600")
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


def _ports(cluster: Cluster) -> Iterator[Port]:
    if cluster.network.cni == "flannel" and cluster.network.backend == "vxlan":
        yield Port("udp", 8472, cluster.nodes, cluster.nodes)


FLANNEL = Product(
    name="flannel", on=nodes, slot="nodes", resources=_flannel, ports=_ports,
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
