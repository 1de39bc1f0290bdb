"""What other installations left on a machine: what is refused before anything is changed, and what is only a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.flannel import CONFLIST
from clusterctl.components.products import PRODUCTS, ports
from clusterctl.health.ports import some
from clusterctl.shell.facts import Facts

VENDOR = ("/usr/lib/", "/lib/")
"""Where packages have their units; an administrator's own are in /etc, /run and /usr/local."""

KUBELET_PROGRAMS = ("/usr/bin/kubelet", "/usr/bin/kubeadm")

DOCKER_SOCKET = "/run/docker/containerd/containerd.sock"
"""Of the containerd that docker starts by itself, where no other one runs."""


IPTABLES = ("iptables", "nftables (table ip filter)")
"""Firewalls that cluster.firewall does not manage unless ufw makes them: their rules belong to a program of the operator."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is in the way. ``code``: its stable name; ``fatal``: whether it is refused."""

    code: str
    message: str
    hint: str
    fatal: bool = True

    @property
    def warning(self) -> str:
        return f"{self.message} [{self.code}]; {self.hint}"


def find(cluster: Cluster, host: Host, facts: Facts) -> list[Finding]:
    """Return everything foreign on a machine that affects its roles."""
    return [found for rule in RULES for found in rule(cluster, host, facts)]


def purge(*packages: str) -> str:
    """The command that removes packages, for both families of distributions."""
    names = " ".join(packages)
    return f"apt-get purge {names} (or: dnf remove {names})"


def drop_ins(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """Drop-ins of our units. On a machine of the cluster an operator may have placed one on purpose: a warning."""
    units = {unit for product in PRODUCTS if product.on(host) for unit in product.footprint.units}
    for path in facts.foreign.get("drop-in", ()):
        unit = path.split("/")[-2].removesuffix(".d")
        if unit not in units:
            continue
        hint = f"rm {quote(path)} && systemctl daemon-reload"
        if path.endswith("/10-kubeadm.conf"):
            hint = purge("kubelet", "kubeadm") + f"; where it is still there: {hint}"
        elif path.startswith(VENDOR):
            hint = f"remove the package that owns it (dpkg -S {quote(path)}, or rpm -qf {quote(path)})"
        yield Finding("host.unit-drop-in", f"{path} changes our {unit}", hint, fatal=not facts.cluster)


def restores(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """An etcd restore that was interrupted keeps its member from starting."""
    for path in facts.foreign.get("restore", ()):
        yield Finding("etcd.restore-unfinished", f"a restore of etcd is not finished: {path}",
                      "run its command again to finish it, or: clusterctl etcd snapshot restore --abort")


def kubelets(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """A kubelet of a package: our unit takes precedence over an inactive one."""
    if not host.is_node:
        return
    if "kubelet" in facts.foreign.get("active", ()):
        yield Finding("host.foreign-kubelet", "kubelet.service is active and not of this cluster",
                      f"systemctl disable --now kubelet.service, then {purge('kubelet', 'kubeadm')}")
    elif programs := [path for path in facts.foreign.get("program", ()) if path in KUBELET_PROGRAMS]:
        yield Finding("host.foreign-kubelet", f"{' and '.join(programs)} of a package: installed, not active",
                      f"not used; to remove: {purge('kubelet', 'kubeadm')}", fatal=False)


def runtimes(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """A containerd of a package, and docker, whose containers run in the containerd that ours would replace."""
    if not host.is_node:
        return
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


def cnis(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """CNI configurations: containerd takes the first in the order of names."""
    configurations = facts.foreign.get("cni", ()) if host.is_node else ()
    found = [path for path in configurations if path != CONFLIST]
    ours = cluster.network.cni != "none"
    first = [path for path in found if path < CONFLIST] if ours else [] if facts.cluster else found
    if first and ours:
        files = " ".join(map(quote, first))
        yield Finding("host.foreign-cni", f"{', '.join(first)} would be used in place of {CONFLIST}",
                      f"rm {files}", fatal=not facts.cluster)
    elif first:
        yield Finding("host.foreign-cni", f"{', '.join(first)} is kept, as cluster.network.cni is none",
                      "remove it where it belongs to another installation", fatal=False)


def unready(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """Mounts from which our programs cannot be executed, links in place of folders, cloud-init that still changes the machine."""
    for mount in facts.foreign.get("noexec", ()):
        yield Finding("host.noexec", f"{mount} is mounted noexec, and programs are executed from /opt",
                      f"mount -o remount,exec {quote(mount)}, and the same in /etc/fstab")
    for path in facts.foreign.get("link", ()):
        yield Finding("host.linked-folder", f"{path} is a symbolic link: apply would change its target, and reset remove it",
                      f"replace the link by a folder, or mount the other file system at {path}")
    if facts.foreign.get("cloud-init", ()):
        yield Finding("host.cloud-init-running", "cloud-init is still running", "cloud-init status --wait, then run this again")


def firewalls(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """A firewall may be set up rightly: a warning that names what has to pass. That of iptables alone is not managed."""
    names, mode = facts.foreign.get("firewall", ()), cluster.settings.firewall
    if mode == "manage":
        names = () if "ufw" in names else tuple(name for name in names if name in IPTABLES)
    if names and mode != "ignore":
        yield Finding("host.firewall", f"{', '.join(names)} filters incoming packets",
                      f"it must accept {'; '.join(_ports(cluster, host))}", fatal=mode == "manage")


def _ports(cluster: Cluster, host: Host) -> Sequence[str]:
    needed = [f"{port.number}/{port.protocol} from {some(client.name for client in port.clients)}{' and pods' * port.pods}"
              for port in ports(cluster) if host in port.listeners and port.clients]
    return [*needed, f"all of {cluster.network.pods}"] if host.is_node else needed


RULES: Sequence[Callable[[Cluster, Host, Facts], Iterator[Finding]]] = (
    drop_ins, restores, kubelets, runtimes, cnis, unready, firewalls)
