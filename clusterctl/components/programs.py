"""The bytes of every product, put on machines before anything is touched that runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.artifacts.catalog import CNI_PLUGINS, IMAGES, image_reference
from clusterctl.cluster.model import Cluster
from clusterctl.components.access import CERTIFICATES, CREDENTIALS, PROXY_FILE, proxy_digest, registry_files
from clusterctl.components.base import Component, Context, everywhere, nodes
from clusterctl.components.common import ids, links, product, unit
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.program import ROOT, Image
from clusterctl.resources.service import Service

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


def _containerd(context: Context) -> Sequence[Resource]:
    versions = context.cluster.versions
    pause = image_reference("pause", versions.pause, context.cluster.settings.image_registry)
    containerd, runc = product(context, "containerd", versions.containerd), product(context, "runc", versions.runc)
    plugins, crictl = product(context, "cni-plugins", versions.cni_plugins), product(context, "crictl", versions.crictl)
    oom = context.facts.lowers_oom_score
    config = File(
        path="/etc/containerd/config.toml",
        content=render("containerd/config.toml.j2", pause=pause, oom=oom, systemd_cgroup=not context.facts.cgroup_v1),
    )
    proxy = proxy_digest(context.cluster, context.host)
    service = unit("containerd", "containerd/containerd.service.j2", oom=oom, proxy=proxy, proxy_file=PROXY_FILE)
    logins = [one for one in registry_files(context.cluster, context.host) if one.path == CREDENTIALS]
    daemon = [
        *links(containerd, "containerd", "containerd-shim-runc-v2", "ctr"),
        Link(path=f"{ROOT}/bin/runc", target=f"../runc/{versions.runc}/runc"),
    ]
    wanted: list[Resource] = [
        *daemon,
        *links(crictl, "crictl"),
        Link(path="/usr/local/bin/crictl", target=f"{ROOT}/bin/crictl"),
        Folder(path=CERTIFICATES),
        File(path="/etc/crictl.yaml", content=render("containerd/crictl.yaml.j2")),
        *(Link(path=f"/opt/cni/bin/{name}", target=f"{plugins.folder}/{name}") for name in CNI_PLUGINS),
        config,
        service,
        Service(unit="containerd.service", inputs=ids(containerd, runc, *daemon, config, service, *logins), deadline=60),
    ]
    return [*wanted, *_images(context, pause=versions.pause), *_notes(pause=versions.pause)]


def _notes(**named: str) -> list[Resource]:
    """Which versions of images are in use stands on the machine: no link says it, as one does of a program."""
    return [File(path=f"/etc/clusterctl/images/{name}", content=f"{name}/{version}/image\n".encode())
            for name, version in named.items()]


def _images(context: Context, **named: str) -> list[Resource]:
    """The images that a mirror holds, by name and version; the others containerd pulls by itself.

    An archive names its image as upstream does: with another registry containerd pulls all of them.
    """
    found: list[Resource] = []
    if context.cluster.settings.image_registry:
        return found
    for name, version in named.items():
        archive = context.catalog.image(name, version, context.facts.arch)
        if archive is not None:
            found.append(Image(reference=IMAGES[name].format(version=version), source=archive))
    return found


CONTAINERD = Component(name="containerd", on=nodes, resources=_containerd)


def _addons(context: Context) -> dict[str, str]:
    versions, addons = context.cluster.versions, context.cluster.settings.addons
    named = {"coredns": versions.coredns} if addons.coredns else {}
    return {**named, **({"metrics-server": versions.metrics_server} if addons.metrics_server else {})}


ADDON_IMAGES = Component(name="addon-images", on=nodes, resources=lambda context: _images(context, **_addons(context)))
"""The images of what runs in the cluster: sent when the nodes are Ready, as nothing waits for them before."""

ADDON_VERSIONS = Component(name="addon-versions", on=nodes, resources=lambda context: _notes(**_addons(context)))
"""What is about to run in the cluster, noted when nothing else is left to be done on the machine."""
