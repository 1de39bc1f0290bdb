"""containerd, with runc, crictl and the CNI plugins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.artifacts.catalog import ContainerImage, Release
from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.access import CERTIFICATES, CREDENTIALS, PROXY_FILE, proxy_digest, registry_files
from clusterctl.components.base import Context, Finding, Product, nodes, purge
from clusterctl.components.common import binary, ids, images, links, notes, unit
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import ROOT
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.service import Service
from clusterctl.shell.facts import Facts
from clusterctl.shell.footprint import Footprint

CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap", "bandwidth", "firewall", "tuning", "ptp", "static")
DOCKER_SOCKET = "/run/docker/containerd/containerd.sock"
"""Of the containerd that docker starts by itself, where no other one runs."""
RELEASES = (
    Release("containerd", "containerd",
            "github.com/containerd/containerd/releases/download/v{version}/containerd-static-{version}-linux-{arch}.tar.gz",
            members=tuple(f"bin/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
            checksums="{path}.sha256sum"),
    Release("runc", "runc", "github.com/opencontainers/runc/releases/download/v{version}/runc.{arch}",
            # Lines of digests among a signature.
            checksums="github.com/opencontainers/runc/releases/download/v{version}/runc.sha256sum"),
    Release("cni-plugins", "cni_plugins",
            "github.com/containernetworking/plugins/releases/download/v{version}/cni-plugins-linux-{arch}-v{version}.tgz",
            members=tuple(f"./{name}" for name in CNI_PLUGINS)),
    Release("crictl", "crictl",
            "github.com/kubernetes-sigs/cri-tools/releases/download/v{version}/crictl-v{version}-linux-{arch}.tar.gz",
            members=("crictl",)),
)
PAUSE = ContainerImage("pause", "pause", "pause:{version}")


def _containerd(context: Context) -> Sequence[Resource]:
    pause = PAUSE.reference(context.cluster.versions.pause, context.cluster.settings.image_registry)
    containerd, runc, plugins, crictl = (binary(context, release) for release in RELEASES)
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
        *links(runc, "runc"),
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
    return [*wanted, *images(context, PAUSE), *notes(context, PAUSE)]


def _foreign(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """A containerd of a package, and docker, whose containers run in the containerd that ours would replace."""
    active, programs = facts.foreign.get("active", ()), facts.foreign.get("program", ())
    docker = next((path for path in programs if path.endswith("/dockerd")), "")
    code = "host.foreign-runtime"
    taken = "its containers would be taken over"
    if "containerd" in active and ("docker" in active or docker):
        yield Finding(code, f"docker uses /run/containerd/containerd.sock of an active containerd.service: {taken}",
                      f"systemctl disable --now docker.socket docker.service containerd.service, then "
                      f"{purge('docker-ce', 'docker.io', 'containerd.io', 'containerd')}")
    elif "containerd" in active:
        yield Finding(code, f"containerd.service is active and not of this cluster: {taken}",
                      f"systemctl disable --now containerd.service, then {purge('containerd', 'containerd.io')}")
    elif "docker" in active and DOCKER_SOCKET not in facts.foreign.get("socket", ()):
        yield Finding(code, f"docker.service is active and would use /run/containerd/containerd.sock: {taken}",
                      f"systemctl disable --now docker.socket docker.service, then {purge('docker-ce', 'docker.io')}")
    elif docker:
        yield Finding(code, f"{docker} is installed: once it restarts it uses the containerd of the cluster",
                      f"to remove: {purge('docker-ce', 'docker.io')}", fatal=False)
    elif "/usr/bin/containerd" in programs:
        yield Finding(code, "/usr/bin/containerd of a package: installed, not active",
                      f"not used; to remove: {purge('containerd', 'containerd.io')}", fatal=False)


CONTAINERD = Product(
    name="containerd", on=nodes, slot="prepare", releases=RELEASES, images=(PAUSE,), resources=_containerd,
    # For the rules of CNI plugins; kube-proxy uses them as well.
    packages=("conntrack", "iptables", "nftables"), foreign=_foreign,
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
