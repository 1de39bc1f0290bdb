"""metrics-server, which runs in the cluster."""

from __future__ import annotations

from clusterctl.artifacts.catalog import ContainerImage
from clusterctl.components.base import Product, nodes

IMAGE = ContainerImage("metrics-server", "metrics_server", "metrics-server/metrics-server:v{version}")

METRICS_SERVER = Product(name="metrics-server", on=nodes, enabled=lambda cluster: cluster.settings.addons.metrics_server,
                         images=(IMAGE,))
