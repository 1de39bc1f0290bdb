"""The machine itself: packages, kernel modules and settings, and the mark of the cluster that it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from clusterctl.cluster.model import Host
from clusterctl.components import additions
from clusterctl.components.base import Component, Context, everywhere
from clusterctl.components.render import render
from clusterctl.health.ports import ports
from clusterctl.resources.additions import AddedModule, AddedSysctl, FormerAdditions
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder
from clusterctl.resources.firewall import Firewall
from clusterctl.resources.footprint import Baseline, FirewallBaseline
from clusterctl.resources.system import Module, Packages, Sysctl

MODULES = {
    "overlay": "/sys/module/overlay/parameters",
    "br_netfilter": "/proc/sys/net/bridge",
    "nf_conntrack": "/proc/sys/net/netfilter/nf_conntrack_max",
}
"""Module -> a path that exists where the kernel has it, loaded or built in."""

NETWORK_SETTINGS = {"net.ipv4.ip_forward": "1", "net.bridge.bridge-nf-call-iptables": "1"}
KERNEL_SETTINGS = {
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
    # Each daemon and many a pod watches files; the default of 128 for all of root's is soon used up.
    "fs.inotify.max_user_instances": "8192",
    "fs.inotify.max_user_watches": "524288",
}
"""What the kubelet wants to find (pkg/kubelet/cm, protectKernelDefaults), and room for watching files."""

CONNTRACK_SETTINGS = ("net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_tcp_timeout_established",
                      "net.netfilter.nf_conntrack_tcp_timeout_close_wait")
"""What kube-proxy sets by itself."""


def packages(host: Host) -> tuple[str, ...]:
    """The distribution's packages that a host of these roles needs.

    openssl hashes programs several times faster than coreutils, and zstd unpacks them.
    """
    node = ("conntrack", "iptables", "nftables") if host.is_node else ()
    proxy = ("haproxy",) if host.is_node and not host.is_control_plane else ()
    return ("openssl", "zstd", *node, *proxy)


def in_container(context: Context) -> bool:
    """Whether the machine shares its kernel, whose own settings are then not ours to set."""
    return context.facts.container not in ("", "none")


def _kernel(context: Context) -> list[Resource]:
    """Return kernel modules and settings: those of clusterctl on nodes, and those of the inventory, which win."""
    added, names = context.host.settings, list(MODULES) if context.host.is_node else []
    ours = dict(NETWORK_SETTINGS if in_container(context) else NETWORK_SETTINGS | KERNEL_SETTINGS) if context.host.is_node else {}
    more = {key: str(value) for key, value in added.sysctls.items()}
    settings = ours | more
    boot = [*names, *(["vxlan"] if names and context.cluster.network.backend == "vxlan" else [])]
    modules = [name for name in dict.fromkeys(name.replace("-", "_") for name in added.modules) if name not in boot]
    found: list[Resource] = [
        FormerAdditions(kind="module", names=tuple(modules), ours=tuple(boot)),
        FormerAdditions(kind="sysctl", names=tuple(more), ours=tuple(ours)),
    ]
    if boot or modules:
        content = render("host/modules.conf.j2", modules=[*boot, *modules])
        found.append(File(path="/etc/modules-load.d/clusterctl.conf", content=content))
    if not in_container(context):
        found += [Module(name=name, evidence=MODULES[name]) for name in names]
        found += [AddedModule(name=name, evidence=f"builtin:{name.replace('_', '[-_]')}") for name in modules]
    if settings:
        # The last of all names: Debian's 99-sysctl.conf, which is /etc/sysctl.conf, would win over it at boot.
        found.append(File(path="/etc/sysctl.d/99-zz-clusterctl.conf", content=render("host/sysctl.conf.j2", settings=settings)))
    found += [(AddedSysctl if key in more else Sysctl)(key=key, value=value) for key, value in settings.items()]
    return found


def replaced_settings(hosts: Iterable[Host]) -> Iterator[str]:
    """Yield a warning for each kernel setting of clusterctl's that the inventory replaces."""
    ours, names = NETWORK_SETTINGS | KERNEL_SETTINGS, defaultdict[tuple[str, str], list[str]](list)
    for host in hosts:
        for key, value in host.settings.sysctls.items() if host.is_node else ():
            if key in ours and ours[key] != str(value):
                names[key, str(value)].append(host.name)
    for (key, value), found in names.items():
        yield f"cluster.sysctls: {key} = {value} replaces {ours[key]}, which clusterctl sets for Kubernetes: {', '.join(found)}"


def firewall(context: Context) -> Firewall:
    """Return the rules of a host: its ports for the machines that connect to them, and what pods send and receive.

    A pod's packets reach the kubelet and the API server of its own machine from its own address. On their way to other pods
    they are forwarded, also those to Services, whose addresses kube-proxy has replaced by then.
    """
    cluster, host = context.cluster, context.host
    if cluster.settings.firewall != "manage":
        return Firewall()
    pods, rules = str(cluster.network.pods), []
    for port in ports(cluster):
        sources = [str(client.address) for client in port.clients if client.name != host.name] + [pods] * port.pods
        if host in port.listeners and sources:
            rules.append((f"{port.protocol} {port.number}", ",".join(sources)))
    rules += [("forward pods", pods)] if host.is_node else []
    return Firewall(rules=tuple(rules), unit_file=render("host/clusterctl-firewall.service.j2"))


def resources(context: Context) -> Sequence[Resource]:
    ours = NETWORK_SETTINGS if in_container(context) else (*NETWORK_SETTINGS, *KERNEL_SETTINGS, *CONNTRACK_SETTINGS)
    wanted: list[Resource] = [
        Baseline(identity=context.pki.identity, sysctls=tuple(ours)),
        Folder(path="/etc/clusterctl"),
        File(path="/etc/clusterctl/cluster", content=f"{context.pki.identity}\n".encode()),
    ]
    wanted += additions.hostname(context)
    wanted += additions.access(context)
    wanted.append(Packages(names=packages(context.host)))
    if context.host.is_node:
        wanted.append(FirewallBaseline())
    wanted += additions.packages(context, packages(context.host))
    wanted += _kernel(context)
    wanted.append(firewall(context))
    if context.facts.resolv_conf == "missing":
        wanted.append(File(path="/etc/clusterctl/resolv.conf", content=render("host/resolv.conf.j2")))
    return [*wanted, *additions.files(context)]


HOST = Component(name="host", on=everywhere, resources=resources)
