"""What cluster.firewall opens on a machine."""

from __future__ import annotations

from clusterctl.components.base import Context
from clusterctl.reach import ports
from clusterctl.render import render
from clusterctl.resources.firewall import Firewall


def firewall(context: Context) -> Firewall:
    """Return the rules of a host: its ports for the machines that connect to them, and what pods send and receive.

    A pod's packets reach the kubelet and the API server of its own machine from its own address. On their way to other pods
    they are forwarded, also those to Services, whose addresses kube-proxy has replaced by then.
    """
    cluster, host = context.cluster, context.host
    if cluster.settings.firewall != "manage":
        return Firewall()
    rules: list[tuple[str, str]] = []
    for port in ports(cluster):
        sources = [str(client.address) for client in port.clients if client.name != host.name]
        sources += [str(cluster.network.pods)] if port.pods else []
        if host in port.listeners and sources:
            rules.append((f"{port.protocol} {port.number}", ",".join(sources)))
    if host.is_node:
        rules.append(("forward pods", str(cluster.network.pods)))
    return Firewall(rules=tuple(rules), unit_file=render("host/clusterctl-firewall.service.j2"))
