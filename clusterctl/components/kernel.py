"""The kernel's modules and settings: those that Kubernetes needs, and those of the inventory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from clusterctl.cluster.model import Host
from clusterctl.components.base import Context, Product
from clusterctl.components.render import render
from clusterctl.resources.additions import AddedModule, AddedSysctl, FormerAdditions
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.resources.system import Module, Sysctl
from clusterctl.shell.footprint import Footprint

MODULES_FILE = "/etc/modules-load.d/clusterctl.conf"
SETTINGS_FILE = "/etc/sysctl.d/99-zz-clusterctl.conf"
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
"""The values that the kubelet requires (pkg/kubelet/cm, protectKernelDefaults), and higher limits for inotify."""

CONNTRACK_SETTINGS = ("net.netfilter.nf_conntrack_max", "net.netfilter.nf_conntrack_tcp_timeout_established",
                      "net.netfilter.nf_conntrack_tcp_timeout_close_wait")
"""Settings that kube-proxy changes by itself."""
ALL_SETTINGS = (*NETWORK_SETTINGS, *KERNEL_SETTINGS, *CONNTRACK_SETTINGS)


def in_container(context: Context) -> bool:
    """Whether the machine shares its kernel, whose own settings are then not ours to set."""
    return context.facts.container not in ("", "none")


def resources(context: Context) -> list[Resource]:
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
        found.append(File(path=MODULES_FILE, content=content))
    if not in_container(context):
        found += [Module(name=name, evidence=MODULES[name]) for name in names]
        found += [AddedModule(name=name, evidence=f"builtin:{name.replace('_', '[-_]')}") for name in modules]
    if settings:
        # The last of all names: Debian's 99-sysctl.conf, which is /etc/sysctl.conf, would win over it at boot.
        found.append(File(path=SETTINGS_FILE, content=render("host/sysctl.conf.j2", settings=settings)))
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


KERNEL = Product(
    name="kernel",
    footprint=Footprint(
        configuration=(MODULES_FILE, SETTINGS_FILE),
        modules=("br_netfilter", "nf_conntrack", "overlay"),
    ),
)
