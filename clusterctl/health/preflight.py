"""Checks whether machines are fit: pure functions of their facts; all findings are reported together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from clusterctl.cluster.model import Cluster, Host
from clusterctl.components import products
from clusterctl.errors import ClusterctlError, Problems, Refused
from clusterctl.health import foreign
from clusterctl.shell.facts import Facts

FREE_MIB = {"/opt": 1500, "/var/lib": 2000, "/etc": 10}
"""MiB that must be free on a machine that has nothing of ours yet: programs, images and data, configuration."""

FREE_INODES = 5000
SKEW_WARN, SKEW_REFUSE = 5.0, 30.0
"""Seconds between two clocks: certificates and tokens fail beyond."""

MEMORY_MIB = {"control_plane": 1700, "etcd": 700, "worker": 700}
SYSTEMD = 245

NFTABLES_KERNEL = (5, 13)
"""The oldest kernel that kube-proxy accepts for its nftables mode (pkg/proxy/nftables/supported.go)."""

NFTABLES_RELEASES: Mapping[str, tuple[int, ...]] = {"debian": (12,), "ubuntu": (22, 4)}
"""The first releases whose nft is at least 1.0.1, which that mode requires as well (packages.debian.org, packages.ubuntu.com)."""

"""X.509 allows 64 characters in a common name."""

Fleet = Mapping[str, Facts]


def check(cluster: Cluster, fleet: Fleet, identity: str) -> list[str]:
    """Warnings; raises Problems of Refused with everything that makes machines unfit. ``identity``: of the cluster."""
    errors: list[ClusterctlError] = []
    warnings: list[str] = []
    for host in cluster.hosts:
        if host.name in fleet:
            for rule in RULES:
                errors += rule(host, fleet[host.name], identity)
            if host.is_node:
                errors += nodes(cluster, host, fleet[host.name])
            errors += ports(cluster, host, fleet[host.name])
            errors += hostname(cluster, host, fleet[host.name])
            warnings += _warnings(host, fleet[host.name])
            for found in foreign.find(cluster, host, fleet[host.name]):
                if found.fatal:
                    errors.append(Refused(found.message, where=host.name, hint=found.hint, code=found.code))
                else:
                    warnings.append(f"{host.name}: {found.warning}")
    errors += duplicates(cluster, fleet)
    errors += clocks(fleet)
    if errors:
        raise Problems(errors)
    return warnings


def _refused(host: Host, code: str, message: str, hint: str) -> Refused:
    return Refused(message, code=code, where=host.name, hint=hint)


def system(host: Host, facts: Facts, identity: str) -> Iterator[Refused]:
    """Check the requirements on every machine of a cluster."""
    if facts.arch not in ("amd64", "arm64"):
        yield _refused(host, "host.architecture", f"its processor is {facts.arch}", "clusterctl knows amd64 and arm64")
    if facts.systemd < SYSTEMD:
        yield _refused(host, "host.systemd",
                       f"systemd {facts.systemd or 'is missing'}", f"systemd {SYSTEMD} or later is needed")
    if facts.kmsg == "missing":
        yield _refused(host, "host.kmsg",
                       "/dev/kmsg is missing, without which the kubelet does not start", "give the container /dev/kmsg")
    if str(host.address) not in facts.addresses:
        yield _refused(host, "host.address", f"it does not have the address {host.address} (it has {', '.join(facts.addresses)})",
                       "set clusterctl_address to the one that the other machines reach")
    if facts.cluster not in ("", identity):
        yield _refused(host, "host.other-cluster", "it belongs to another cluster",
                       "reset it there, or take it out of this inventory")


def hostname(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Refused]:
    """The machine's own name, where it must be that of its node. Capitals do not matter."""
    if cluster.settings.hostnames == "check" and facts.hostname.lower() != host.name:
        yield _refused(host, "host.hostname",
                       f"its hostname is {facts.hostname!r}, and cluster.hostnames: check requires {host.name!r}",
                       f"hostnamectl set-hostname {host.name} (where cloud-init sets it: preserve_hostname: true), "
                       "or cluster.hostnames: set")


def unchanged_identity(host: Host, facts: Facts, identity: str) -> Iterator[Refused]:
    """A machine that serves the cluster keeps its name, its address and its roles, or leaves first, with all that leaving means.

    Control planes and etcd are begun before the kubelet: a kubelet that was ever started tells that nothing of them was meant.
    """
    if facts.cluster == identity and facts.served_name not in ("", host.name):
        yield _refused(host, "host.name-changed",
                       f"it serves the cluster as {facts.served_name}, and the inventory calls it {host.name}",
                       f"call it {facts.served_name} again, or let it leave before: clusterctl node remove {facts.served_name}")
    if facts.node_ip not in ("", str(host.address)) and str(host.address) in facts.addresses:
        yield _refused(host, "host.address-changed",
                       f"its node has the address {facts.node_ip}, and the inventory gives it {host.address}",
                       f"give it back its address, or let it leave before: clusterctl node remove {host.name}")
    services = facts.served | set(facts.running) - {"etcd"}  # etcdctl is of the same product, and others have it too.
    joined = facts.cluster == identity and "kubelet" in facts.served
    for what, is_now, shall_be in (
            ("a control plane", "kube-apiserver" in services, host.is_control_plane),
            ("an etcd member", facts.etcd != "" or "etcd" in services, host.is_etcd),
            ("a node", "kubelet" in services, host.is_node)):
        if facts.cluster == identity and is_now != shall_be and (is_now or joined):
            yield _refused(host, "host.role-changed",
                           f"it is {'' if is_now else 'not '}{what}, and roles are not changed in place",
                           f"give it back its role in the inventory, or let it leave before: clusterctl node remove {host.name}")


def resources(host: Host, facts: Facts, identity: str) -> Iterator[Refused]:
    """Memory and disk."""
    wanted = max(MEMORY_MIB[role] for role in host.roles)
    if facts.memory_mib < wanted:
        yield _refused(host, "host.memory", f"it has {facts.memory_mib} MiB of memory", f"its roles need at least {wanted} MiB")
    for path, space in facts.space.items():
        if not space.writable:
            yield _refused(host, "host.read-only", f"the file system of {path} is read-only",
                           f"mount -o remount,rw the file system of {path}")
        needed = FREE_MIB.get(path, 0) if facts.cluster == "" else 50
        if space.mib < needed:
            yield _refused(host, "host.disk-space", f"{space.mib} MiB are free on the file system of {path}",
                           f"{needed} MiB are needed: free some")
        if space.inodes is not None and space.inodes < FREE_INODES:
            yield _refused(host, "host.inodes", f"{space.inodes} inodes are free on the file system of {path}",
                           f"{FREE_INODES} are needed")


def ports(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Refused]:
    """Ports that ours need and others hold; and the API's, which a cluster keeps."""
    if facts.api_port not in ("", str(cluster.api_port)):
        yield _refused(host, "host.api-port-changed",
                       f"its API server listens on {facts.api_port}, and the inventory says {cluster.api_port}",
                       "a cluster that runs keeps the port: set cluster.endpoint.port back")
    for port in dict.fromkeys(one.number for one in products.ports(cluster) if one.protocol == "tcp" and host in one.listeners):
        holder = facts.ports.get(port)
        if holder is not None:
            who = f"{holder.process} (pid {holder.pid})" if holder.pid else "a process of another namespace"
            yield _refused(host, "host.port-taken", f"port {port} is taken by {who}", "stop it, or give it another port")


def foreign_leftovers(host: Host, facts: Facts, identity: str) -> Iterator[Refused]:
    """Check for files of another cluster that our programs would use as their own, on a machine without ours."""
    if facts.cluster:
        return
    hint = "is it a machine of another cluster? Undo that there, or move it away"
    if host.is_etcd and facts.etcd:
        yield _refused(host, "host.foreign-etcd", "/var/lib/etcd has the data of an etcd that is not ours",
                       f"{hint}: mv /var/lib/etcd /var/lib/etcd.old")
    if host.is_node and facts.kubelet_client:
        # client-go prefers it to the certificate that the kubeconfig names (certificate_store.go).
        yield _refused(host, "host.foreign-kubelet", "/var/lib/kubelet has the certificate of a kubelet that is not ours",
                       f"{hint}: mv /var/lib/kubelet/pki /root")


RULES: tuple[Callable[[Host, Facts, str], Iterable[Refused]], ...] = (system, unchanged_identity, resources, foreign_leftovers)


def nodes(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Refused]:
    """Check the requirements of pods and of their network, as the cluster is configured."""
    kernel = tuple(int(word) for word in re.findall(r"\d+", facts.kernel)[:2])
    if cluster.network.proxy_mode == "nftables" and kernel < NFTABLES_KERNEL:
        oldest = ".".join(map(str, NFTABLES_KERNEL))
        yield _refused(host, "host.kernel", f"its kernel is {facts.kernel}, and kube-proxy with nftables needs {oldest}",
                       "cluster.network.proxy_mode: iptables, or a newer kernel")
    release = tuple(int(word) for word in re.findall(r"\d+", facts.os_version))
    if cluster.network.proxy_mode == "nftables" and release and release < NFTABLES_RELEASES.get(facts.os, ()):
        yield _refused(host, "host.nftables-version",
                       f"the nft of {facts.os} {facts.os_version} is older than 1.0.1, which "
                       "kube-proxy with nftables needs", "cluster.network.proxy_mode: iptables, or a newer release")
    if facts.resolves_locally and not facts.resolved and "resolvConf" not in host.settings.kubelet.config:
        servers = facts.nameservers.strip()
        yield _refused(host, "host.resolv-conf",
                       f"its name servers ({servers}) answer on the machine alone, and pods cannot reach them",
                       "write a resolv.conf with the real ones, and name it in cluster.kubelet.config.resolvConf")


def duplicates(cluster: Cluster, fleet: Fleet) -> Iterator[Refused]:
    """Two machines that say the same of themselves: cloned, or one machine named twice."""
    kinds: Sequence[tuple[str, Callable[[Facts], str]]] = (
        ("machine-id", lambda facts: facts.machine_id), ("boot", lambda facts: facts.boot_id),
        ("SSH host key", lambda facts: facts.ssh_host_key))
    for words, identity in kinds:
        owners: dict[str, list[str]] = defaultdict(list)
        for host in cluster.hosts:
            if host.name in fleet and identity(fleet[host.name]):
                owners[identity(fleet[host.name])].append(host.name)
        for names in owners.values():
            if len(names) > 1:
                yield Refused(f"they have the same {words}", code="host.duplicate", where=" and ".join(names),
                              hint="are they clones, or one machine twice? Give each its own "
                                   "(machine-id: rm /etc/machine-id; systemd-machine-id-setup)")


def clocks(fleet: Fleet) -> Iterator[Refused]:
    """Clocks too far from ours or from the others' median."""
    if not fleet:
        return
    skews = sorted(facts.skew for facts in fleet.values())
    middle = (skews[(len(skews) - 1) // 2] + skews[len(skews) // 2]) / 2
    for name, facts in sorted(fleet.items()):
        for what, skew in (("this machine's", facts.skew), ("the other machines'", facts.skew - middle)):
            if abs(skew) > SKEW_REFUSE:
                yield Refused(f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {what}",
                              code="host.clock", where=name,
                              hint="set its clock (chrony or systemd-timesyncd), then run this again")
                break


def _warnings(host: Host, facts: Facts) -> Iterator[str]:
    if SKEW_WARN < abs(facts.skew) <= SKEW_REFUSE:
        yield f"{host.name}: its clock is {facts.skew:+.0f} s off; {SKEW_REFUSE:.0f} s are refused"
    if facts.cgroup_v1:
        yield f"{host.name}: cgroup v1; the kubelet is configured to accept it (failCgroupV1: false), a later Kubernetes will not"
    if not facts.lowers_oom_score:
        yield f"{host.name}: it cannot lower oom_score_adj (a container?); programs run without that protection"
    if facts.selinux == "1":
        yield (f"{host.name}: SELinux is enforcing, for which clusterctl brings no policy; haproxy needs: "
               "setsebool -P haproxy_connect_any 1")
    if facts.swap_mib and host.is_node:
        yield f"{host.name}: swap is on ({facts.swap_mib} MiB); pods do not use it (NoSwap)"
    if facts.resolv_conf == "missing":
        yield f"{host.name}: /etc/resolv.conf is missing; an empty one for pods is written to /etc/clusterctl/resolv.conf"
