"""The machine itself: packages, the firewall, and the mark of the cluster that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.cluster.model import Host
from clusterctl.components import additions, kernel
from clusterctl.components.base import Component, Context, everywhere, nodes
from clusterctl.components.common import ETC, PKI, ca_file
from clusterctl.components.products import PRODUCTS, ports
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder
from clusterctl.resources.firewall import Firewall
from clusterctl.resources.footprint import Baseline, FirewallBaseline
from clusterctl.resources.system import Packages


def packages(host: Host) -> tuple[str, ...]:
    """Return the distribution's packages that the products of a host need."""
    return tuple(dict.fromkeys(name for product in PRODUCTS if product.on(host) for name in product.packages))


def firewall(context: Context) -> Firewall:
    """Return the rules of a host: its ports for the machines that connect to them, and what pods send and receive.

    A pod's packets reach the kubelet and the API server of its own machine from its own address. On their way to other pods
    they are forwarded, also those to Services, whose addresses kube-proxy has replaced by then.
    """
    cluster, host = context.cluster, context.host
    if cluster.settings.firewall != "manage":
        return Firewall()
    pods, rules = str(cluster.network.pods), []
    for port in ports(cluster):
        sources = [str(client.address) for client in port.clients if client.name != host.name] + [pods] * port.pods
        if host in port.listeners and sources:
            rules.append((f"{port.protocol} {port.number}", ",".join(sources)))
    rules += [("forward pods", pods)] if host.is_node else []
    return Firewall(rules=tuple(rules), unit_file=render("host/clusterctl-firewall.service.j2"))


def resources(context: Context) -> Sequence[Resource]:
    ours = kernel.NETWORK_SETTINGS if kernel.in_container(context) else kernel.ALL_SETTINGS
    wanted: list[Resource] = [
        Baseline(identity=context.pki.identity, sysctls=tuple(ours)),
        Folder(path="/etc/clusterctl"),
        File(path="/etc/clusterctl/cluster", content=f"{context.pki.identity}\n".encode()),
    ]
    wanted += additions.hostname(context)
    wanted += additions.access(context)
    wanted.append(Packages(names=packages(context.host)))
    if context.host.is_node:
        wanted.append(FirewallBaseline())
    wanted += additions.packages(context, packages(context.host))
    wanted += kernel.resources(context)
    wanted.append(firewall(context))
    if context.facts.resolv_conf == "missing":
        wanted.append(File(path="/etc/clusterctl/resolv.conf", content=render("host/resolv.conf.j2")))
    return [*wanted, *additions.files(context)]


HOST = Component(name="host", on=everywhere, resources=resources)


def _trust(context: Context) -> Sequence[Resource]:
    return [Folder(path=ETC), Folder(path=PKI), ca_file(context, "kubernetes", f"{PKI}/ca.crt")]


TRUST = Component(name="trust", on=nodes, resources=_trust)
"""The certificate of the cluster's authority, which everything on a node trusts."""
