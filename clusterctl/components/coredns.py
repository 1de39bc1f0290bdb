"""CoreDNS, which runs in the cluster."""

from __future__ import annotations

from clusterctl.artifacts.catalog import ContainerImage
from clusterctl.components.base import Product, nodes

IMAGE = ContainerImage("coredns", "coredns", "coredns/coredns:v{version}")

COREDNS = Product(name="coredns", on=nodes, enabled=lambda cluster: cluster.settings.addons.coredns, images=(IMAGE,))
