"""Leftovers of other installations on a machine: some are refused before any change, others are a warning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from shlex import quote

from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.base import Finding, purge
from clusterctl.components.flannel import CONFLIST
from clusterctl.components.products import PRODUCTS, enabled, ports
from clusterctl.health.ports import some
from clusterctl.shell.facts import Facts

VENDOR = ("/usr/lib/", "/lib/")
"""Where packages have their units; an administrator's own are in /etc, /run and /usr/local."""

IPTABLES = ("iptables", "nftables (table ip filter)")
"""Firewalls that cluster.firewall does not manage unless ufw makes them: their rules belong to a program of the operator."""


def find(cluster: Cluster, host: Host, facts: Facts) -> list[Finding]:
    """Return everything foreign on a machine that affects its roles."""
    rules = (*RULES, *(product.foreign for product in enabled(cluster) if product.on(host)))
    return [found for rule in rules for found in rule(cluster, host, facts)]


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
    drop_ins, restores, cnis, unready, firewalls)
