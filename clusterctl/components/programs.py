"""The programs of every product, put on machines before anything is touched that runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Component, Context, everywhere
from clusterctl.components.common import product
from clusterctl.resources.base import Resource

CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE = ("kubelet", "kube-proxy")


def products(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(product, version) of everything that some machine of this cluster gets."""
    versions = cluster.versions
    yield from ((name, versions.kubernetes) for name in (*CONTROL_PLANE, "kubectl", *NODE))
    yield from (("etcd", versions.etcd), ("containerd", versions.containerd), ("runc", versions.runc))
    yield from (("crictl", versions.crictl), ("cni-plugins", versions.cni_plugins))
    if cluster.network.cni == "flannel":
        yield from (("flannel", versions.flannel), ("flannel-cni", versions.flannel_cni))


def _programs(context: Context) -> Sequence[Resource]:
    versions, host = context.cluster.versions, context.host
    found = []
    if host.is_etcd:
        found.append(product(context, "etcd", versions.etcd))
    if host.is_control_plane:
        found += [product(context, name, versions.kubernetes) for name in (*CONTROL_PLANE, "kubectl")]
    if host.is_node:
        found += [product(context, name, versions.kubernetes) for name in NODE]
        found += [
            product(context, "containerd", versions.containerd),
            product(context, "runc", versions.runc),
            product(context, "cni-plugins", versions.cni_plugins),
            product(context, "crictl", versions.crictl),
        ]
        if context.cluster.network.cni == "flannel":
            found += [product(context, "flannel", versions.flannel), product(context, "flannel-cni", versions.flannel_cni)]
    return found


PROGRAMS = Component(name="programs", on=everywhere, resources=_programs)
