"""containerd, with runc, crictl and the CNI plugins."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.artifacts.catalog import CNI_PLUGINS, image_reference
from clusterctl.components.access import CERTIFICATES, CREDENTIALS, PROXY_FILE, proxy_digest, registry_files
from clusterctl.components.base import Context, Product, nodes
from clusterctl.components.common import ids, links, product, unit
from clusterctl.components.images import images, notes
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import ROOT
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.service import Service
from clusterctl.shell.footprint import Footprint


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
    return [*wanted, *images(context, pause=versions.pause), *notes(pause=versions.pause)]


CONTAINERD = Product(
    name="containerd", on=nodes, slot="prepare", resources=_containerd,
    # For the rules of CNI plugins; kube-proxy uses them as well.
    packages=("conntrack", "iptables", "nftables"),
    footprint=Footprint(
        units=("containerd.service",),
        configuration=("/etc/containerd", "/etc/cni", "/etc/crictl.yaml", "/opt/cni", "/usr/local/bin/crictl"),
        data=("/opt/containerd", "/var/lib/containerd", "/var/lib/cni"),
        runtime=("/run/containerd", "/run/nri", "/run/cdi"),
        unlinked=("/etc/containerd", "/etc/cni", "/etc/cni/net.d", "/opt/cni", "/opt/cni/bin"),
        executables=("/opt/cni/bin",),
        interfaces=("cni0",),
        tables=("cni_hostport", "cni_plugins_masquerade"),
        prefixes=("CNI",),
        foreign_programs=("/usr/bin/containerd", "/usr/bin/dockerd", "/usr/sbin/dockerd"),
        foreign_units=("containerd", "docker"),
    ),
)
