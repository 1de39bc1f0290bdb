"""The table of all products, and what follows from it. To add a product is to add its file, and its line here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clusterctl.artifacts.catalog import ContainerImage, Release
from clusterctl.cluster.model import Cluster
from clusterctl.components.api_proxy import API_PROXY
from clusterctl.components.apiserver import APISERVER
from clusterctl.components.base import Component, Context, Port, Product, Slot, everywhere
from clusterctl.components.chrony import CHRONY
from clusterctl.components.common import ETC, release_version
from clusterctl.components.containerd import CONTAINERD
from clusterctl.components.controller_manager import CONTROLLER_MANAGER
from clusterctl.components.coredns import COREDNS
from clusterctl.components.etcd import ETCD
from clusterctl.components.flannel import FLANNEL
from clusterctl.components.kernel import KERNEL
from clusterctl.components.kube_proxy import KUBE_PROXY
from clusterctl.components.kubectl import KUBECTL
from clusterctl.components.kubelet import KUBELET
from clusterctl.components.metrics_server import METRICS_SERVER
from clusterctl.components.scheduler import SCHEDULER
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import ROOT
from clusterctl.resources.footprint import FormerProduct
from clusterctl.shell.footprint import Footprint

CLUSTERCTL = Product(
    name="clusterctl",
    # openssl hashes programs several times faster than coreutils, and zstd unpacks them.
    packages=("openssl", "zstd"),
    footprint=Footprint(
        units=("clusterctl-firewall.service",),
        configuration=(ETC,),
        data=(ROOT,),
        unlinked=(ETC,),
        executables=(f"{ROOT}/bin",),
    ),
    # The record of the machine itself, which a reset removes last.
    managed=("/etc/clusterctl", "/var/lib/clusterctl"),
)
"""Packages and paths that belong to no single product."""

PRODUCTS: tuple[Product, ...] = (
    CLUSTERCTL, KERNEL, CHRONY, CONTAINERD, ETCD, KUBECTL, APISERVER, CONTROLLER_MANAGER, SCHEDULER,
    API_PROXY, KUBELET, KUBE_PROXY, FLANNEL, COREDNS, METRICS_SERVER,
)
"""All products, in the order in which their resources are applied within a stage."""

FOOTPRINT = Footprint.merge(product.footprint for product in PRODUCTS)

RELEASES: Mapping[str, Release] = {release.name: release for product in PRODUCTS for release in product.releases}
IMAGES: Mapping[str, ContainerImage] = {image.name: image for product in PRODUCTS for image in product.images}

SERVICES = frozenset(FOOTPRINT.units) - frozenset(CLUSTERCTL.footprint.units)
"""Units that are services of products: the planner adds the files that restart them to their inputs."""

MANAGED = (*FOOTPRINT.configuration, *FOOTPRINT.data, *(f"/etc/systemd/system/{unit}" for unit in FOOTPRINT.units),
           *(path for product in PRODUCTS for path in product.managed))
"""The files and folders that no file of an inventory may replace."""


def of(slot: Slot) -> tuple[Product, ...]:
    """Return the products whose resources come in one part of ``apply``."""
    return tuple(product for product in PRODUCTS if product.slot == slot)


def _former(context: Context) -> list[Resource]:
    return [FormerProduct(name=product.name, footprint=product.footprint, files=product.files) for product in PRODUCTS
            if product.footprint.units and product.on(context.host) and not product.enabled(context.cluster)]


FORMER = Component(name="former products", on=everywhere, resources=_former)
"""Removes products that a setting has switched off."""


def enabled(cluster: Cluster) -> tuple[Product, ...]:
    """Return the products that a cluster has."""
    return tuple(product for product in PRODUCTS if product.enabled(cluster))


def releases(cluster: Cluster) -> list[tuple[Release, str]]:
    """Return the programs that some machine of a cluster gets, with their versions."""
    return [(release, release_version(cluster, release)) for product in enabled(cluster) for release in product.releases]


def files(cluster: Cluster, architectures: Mapping[str, str]) -> list[tuple[Release, str, str]]:
    """Return the programs that machines get, each with its version and architecture. ``architectures``: of machines, by name."""
    return list(dict.fromkeys(
        (release, release_version(cluster, release), architectures[host.name])
        for host in cluster.hosts if architectures.get(host.name)
        for product in enabled(cluster) if product.on(host) for release in product.releases))


def product_of(path: str) -> str:
    """Return the name of the release that a path upstream belongs to, ``PRODUCT`` for an unknown path."""
    return next((name for name, release in RELEASES.items()
                 if re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(release.path)), path)), "PRODUCT")


def ports(cluster: Cluster) -> tuple[Port, ...]:
    """Return the ports of the cluster. Each address is the node's own: nothing here goes through a load balancer.

    A pod's packets to a machine other than its own have the address of its node (flannel --ip-masq): nodes stand for pods.
    """
    return tuple(port for product in enabled(cluster) for port in product.ports(cluster))
