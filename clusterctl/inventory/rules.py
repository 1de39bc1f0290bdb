"""Rules between the parts of an inventory: pure functions of a cluster that return what is wrong, in words."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from clusterctl.cluster.model import Cluster, Host

MOST_NODE_SUBNET_BITS = 16  # kube-controller-manager's limit between the pod network and a node's part of it
Network = ipaddress.IPv4Network


class RuleViolation(NamedTuple):
    """A rule that does not hold: about which host or which setting, the latter of which host where it may differ."""

    about: str | tuple[str | int, ...]
    message: str
    hint: str = ""
    code: str = ""
    host: str = ""


def broken(cluster: Cluster) -> list[RuleViolation]:
    """Everything that does not fit together."""
    return [found for rule in RULES for found in rule(cluster)]


def even_members(count: int) -> tuple[str, str]:
    """Why so many etcd members are no good number, and what to do; two empty texts where they are.

    No cluster is born so; one that runs passes through it when a member leaves or comes.
    """
    if count % 2 or not count:
        return "", ""
    why = (f"{count} etcd members: a majority of {count} is {count // 2 + 1}, so that {count} tolerate the loss of "
           f"{(count - 1) // 2}, as {count - 1} do: an even number tolerates no more failures")
    return why, f"make it {count - 1} or {count + 1}"


def role_counts(cluster: Cluster) -> Iterator[RuleViolation]:
    """Require a control plane, and at most six etcd members."""
    if not cluster.control_planes:
        yield RuleViolation((), "no host is in the group control_plane", "put 1, 3 or 5 machines in it",
                            "inventory.no-control-plane")
    count = len(cluster.etcd_members)
    if count > 6:
        yield RuleViolation((), f"{count} etcd members: each write waits for {count // 2 + 1} machines; at most 5 are supported",
                            "take 3 or 5 of them for the group etcd")


def delivery(cluster: Cluster) -> Iterator[RuleViolation]:
    """Machines cannot fetch from a folder of the controller, and the relay is one of them."""
    settings, names = cluster.settings.artifacts, [host.name for host in cluster.hosts]
    if settings.relay is not None and settings.relay not in names:
        yield RuleViolation(("artifacts", "relay"), f"no host is called {settings.relay!r}", f"hosts: {', '.join(names)}")
    own = all(host.settings.mirror for host in cluster.hosts)
    if settings.delivery == "pull" and settings.mirror and "://" not in settings.mirror and not own:
        yield RuleViolation(("artifacts", "delivery"), "machines cannot fetch from the folder of cluster.artifacts.mirror",
                            "serve the folder over HTTPS and give its URL, or delivery: push")
    unused = ", ".join([host.name for host in cluster.hosts if host.settings.mirror][:5])
    if settings.delivery == "push" and unused:
        yield RuleViolation(("artifacts", "delivery"),
                            f"{unused}: with push no machine fetches, and cluster.mirror has no effect",
                            "delivery: auto, or remove cluster.mirror")


def distinct_addresses(cluster: Cluster) -> Iterator[RuleViolation]:
    """Two names for one machine would be two kubelets on it."""
    yield from _twice(cluster.hosts, "node address", lambda host: host.address)
    yield from _twice(cluster.hosts, "SSH address", lambda host: (
        host.ssh.address, host.ssh.port, host.ssh.network_namespace, host.ssh.common_args))


def one_local_host(cluster: Cluster) -> Iterator[RuleViolation]:
    """This computer is one machine."""
    local = [host.name for host in cluster.hosts if host.ssh.local]
    if len(local) > 1:
        yield RuleViolation(local[1], f"{local[0]} and {local[1]} are both local, and this computer is one machine",
                            "ansible_connection: local is for the host that is this computer", code="inventory.local-twice")


def _twice(hosts: Sequence[Host], what: str, of: Callable[[Host], object]) -> Iterator[RuleViolation]:
    seen: dict[object, Host] = {}
    for host in hosts:
        first = seen.setdefault(of(host), host)
        if first is not host:
            shown = host.address if what == "node address" else f"{host.ssh.address}:{host.ssh.port}"
            yield RuleViolation(host.name, f"hosts {first.name} and {host.name} have the same {what} {shown}")


def usable_addresses(cluster: Cluster) -> Iterator[RuleViolation]:
    for host in cluster.hosts:
        if _is_unusable(host.address):
            yield RuleViolation(host.name, f"host {host.name}: other machines cannot reach {host.address}",
                                "set clusterctl_address to the node's address in the machines' common network")
    endpoint = _endpoint_address(cluster)
    if endpoint is not None and _is_unusable(endpoint):
        yield RuleViolation(("endpoint", "address"), f"other machines cannot reach {endpoint}",
                            "name the load balancer, or leave cluster.endpoint out for the first control plane")


def _is_unusable(address: ipaddress.IPv4Address) -> bool:
    """Whether no other machine can have an address: 0.0.0.0/8, loopback, link-local, multicast, 240.0.0.0/4 (RFC 6890)."""
    unusable = address.is_loopback or address.is_multicast or address.is_link_local or address.is_reserved
    return unusable or address in ipaddress.IPv4Network("0.0.0.0/8")


def separate_networks(cluster: Cluster) -> Iterator[RuleViolation]:
    """Pods, services and machines must not share addresses."""
    networks = {"pods": cluster.network.pods, "services": cluster.network.services}
    for (one, first), (other, second) in combinations(networks.items(), 2):
        if first.overlaps(second):
            yield RuleViolation(("network", other), f"{other} {second} overlaps {one} {first}")
    for what, network in networks.items():
        for host in cluster.hosts:
            if host.address in network:
                yield RuleViolation(host.name,
                                    f"host {host.name}: its address {host.address} is inside the {what} network {network}",
                                    f"choose another cluster.network.{what}")
        address = _endpoint_address(cluster)
        if address is not None and address in network:
            yield RuleViolation(("endpoint", "address"), f"{address} is inside the {what} network {network}")


def _endpoint_address(cluster: Cluster) -> ipaddress.IPv4Address | None:
    return _as_address(str(cluster.settings.endpoint.address))


def _as_address(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def endpoint_form(cluster: Cluster) -> Iterator[RuleViolation]:
    """Digits and dots that are no address are a DNS name by their form alone."""
    endpoint = cluster.settings.endpoint
    for about, name in (("address", endpoint.address), *(("names", name) for name in endpoint.names)):
        if name is not None and set(str(name)) <= set("0123456789.") and _as_address(str(name)) is None:
            yield RuleViolation(("endpoint", about), f"{name} is not an IPv4 address")


def room_for_nodes(cluster: Cluster) -> Iterator[RuleViolation]:
    """Each node gets its own part of the pod network."""
    network = cluster.network
    bits = network.node_mask - network.pods.prefixlen
    about = ("network", "node_mask")
    if bits < 0:
        yield RuleViolation(about, f"a /{network.node_mask} for each node does not fit into the pod network {network.pods}")
    elif bits > MOST_NODE_SUBNET_BITS:
        yield RuleViolation(about, f"/{network.node_mask} and the pod network {network.pods} are {bits} bits apart; Kubernetes "
                            f"allows {MOST_NODE_SUBNET_BITS}")
    elif 2**bits < len(cluster.nodes):
        yield RuleViolation(about, f"the pod network {network.pods} has {2**bits} parts of /{network.node_mask}, too few for "
                            f"{len(cluster.nodes)} nodes", "choose a larger cluster.network.pods or a longer node_mask")


def room_for_pods(cluster: Cluster) -> Iterator[RuleViolation]:
    network = cluster.network
    room = 2 ** (32 - network.node_mask) - 3  # network, broadcast and the bridge's own address
    for host in cluster.nodes if network.cni == "flannel" else ():
        pods = host.settings.kubelet.max_pods
        if pods > room:
            yield RuleViolation(("kubelet", "max_pods"), f"{pods} pods do not fit into a node's /{network.node_mask}, which "
                                f"has room for {room}", "lower max_pods or cluster.network.node_mask", host=host.name)


def service_size(cluster: Cluster) -> Iterator[RuleViolation]:
    services = cluster.network.services
    if not 12 <= services.prefixlen <= 28:
        yield RuleViolation(("network", "services"), f"{services} is not between /12 and /28, which is what Kubernetes can serve")


_FILES = {name: "inventory.file-unreadable" for name in ("source", "template", "ca", "client_cert", "client_key")}
_FILES |= {"file": "inventory.secret-missing"}
"""Settings of hosts that name a file, by their keys, and the code where it is missing."""


def missing_files(cluster: Cluster) -> Iterator[RuleViolation]:
    """Require the files that the settings name. This one looks at the disk."""
    for host in {id(host.settings): host for host in cluster.hosts}.values():
        for about, name in _texts(host.settings.model_dump(include={"files", "registries", "proxy"}), ()):
            path = cluster.base / os.path.expanduser(name)
            code = _FILES.get(str(about[-1]))
            if code and (not os.access(path, os.R_OK) or path.is_dir()):
                yield RuleViolation(about, f"{path} is no file that can be read", "correct the path or the permissions", code,
                                    host.name)


def _texts(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, Mapping | tuple):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(item, (*path, key))
    elif isinstance(value, str):
        yield path, value


RULES: tuple[Callable[[Cluster], Iterator[RuleViolation]], ...] = (
    role_counts, delivery, one_local_host, distinct_addresses, usable_addresses, separate_networks, endpoint_form, room_for_nodes,
    room_for_pods,
    service_size,
)
