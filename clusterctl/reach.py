"""Which machines need which port of each other: pure. The probe and the firewall's rules are made from the same table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clusterctl.facts import Facts
from clusterctl.foreign import Finding
from clusterctl.model import Cluster, Host

Protocol = Literal["tcp", "udp"]
Answer = Literal["open", "dropped", "refused", "no-route", "unknown"]

MOST_TARGETS = 32
"""How many machines a machine connects to on one port, at most: in a large cluster each tries the next ones of the inventory."""

SETTLE_SECONDS = 1.0
"""How long a port must have been listened on, before a connection that failed says anything."""

UDP_SECONDS = 4.0
"""How long datagrams are sent to a port that is listened on, before they count as dropped."""

CODE = "host.unreachable"


@dataclass(frozen=True, slots=True)
class Port:
    """A port that machines listen on, and the machines that connect to it. ``pods``: whether pods do, too."""

    protocol: Protocol
    number: int
    listeners: tuple[Host, ...]
    clients: tuple[Host, ...]
    pods: bool = False

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A connection that has to be possible, by host names."""

    client: str
    target: str
    address: str
    protocol: Protocol
    port: int


def ports(cluster: Cluster) -> tuple[Port, ...]:
    """Return the ports of the cluster's own network. Each address is the node's own: nothing here goes through a load balancer.

    A pod's packets to a machine other than its own have the address of its node (flannel --ip-masq): nodes stand for pods.
    """
    members, planes, nodes = cluster.etcd_members, cluster.control_planes, cluster.nodes
    metrics = cluster.settings.addons.metrics_server
    found = [
        Port("tcp", 2379, members, tuple(host for host in cluster.hosts if host.is_etcd or host.is_control_plane)),
        Port("tcp", 2380, members, members),
        Port("tcp", 6443, planes, nodes, pods=True),
        Port("tcp", 10250, nodes, nodes if metrics else planes, pods=metrics),
    ]
    if cluster.network.cni == "flannel" and cluster.network.backend == "vxlan":
        found.append(Port("udp", 8472, nodes, nodes))
    return tuple(found)


def is_new(host: Host, facts: Facts) -> bool:
    """Return whether some service of the host's roles has never been ready on it."""
    served = {path.rpartition("/")[2] for path in facts["served"].split()}
    needed = {"etcd.service"} if host.is_etcd else set()
    needed |= {"kube-apiserver.service"} if host.is_control_plane else set()
    needed |= {"kubelet.service"} if host.is_node else set()
    return not needed <= served


def new_hosts(cluster: Cluster, fleet: Mapping[str, Facts]) -> set[str]:
    return {host.name for host in cluster.hosts if host.name in fleet and is_new(host, fleet[host.name])}


def pairs(cluster: Cluster, fleet: Mapping[str, Facts]) -> tuple[Pair, ...]:
    """Return the connections that are new: from or to a machine that does not serve yet. Machines without facts are left out."""
    new = new_hosts(cluster, fleet)
    if not new:
        return ()
    return tuple(pair for port in ports(cluster) for place, client in enumerate(port.clients) if client.name in fleet
                 for pair in _of_client(port, client, place, new, fleet))


def _of_client(port: Port, client: Host, place: int, new: set[str], fleet: Mapping[str, Facts]) -> Iterable[Pair]:
    """The pairs of one machine on one port, beginning at its own place, so that every listener is tried by some."""
    begin = place * max(1, len(port.listeners) // len(port.clients)) % len(port.listeners)
    ring = (*port.listeners[begin:], *port.listeners[:begin])
    targets = [host for host in ring if host.name in fleet and host.name != client.name and new & {client.name, host.name}]
    if port.protocol == "udp":
        # The kernel answers for an overlay that runs, and does not report what it receives.
        targets = [host for host in targets if host.name in new]
    return (Pair(client.name, host.name, str(host.address), port.protocol, port.number) for host in targets[:MOST_TARGETS])


def lines(name: str, wanted: Sequence[Pair], new: Iterable[str]) -> list[str]:
    """Return what one machine does for the pairs, as lines for ``observe_reach``. ``new``: machines that may raise listeners."""
    verb = "listen" if name in frozenset(new) else "watch"
    listened = (f"{verb} {pair.protocol} {pair.address} {pair.port}" for pair in wanted if pair.target == name)
    dialled = (f"dial {pair.protocol} {pair.address} {pair.port}" for pair in wanted if pair.client == name)
    return list(dict.fromkeys((*listened, *dialled)))


Key = tuple[str, str, Protocol, int]


def _key(pair: Pair) -> Key:
    return pair.client, pair.address, pair.protocol, pair.port


class Answers:
    """What machines reported of their connections. ``now``: seconds of one clock, the controller's.

    A machine that begins late, or has nothing to listen with, must not look like a firewall.
    """

    def __init__(self, wanted: Sequence[Pair]) -> None:
        self.wanted = tuple(wanted)
        self._unable: dict[tuple[str, str], None] = {}
        """(host, listen or dial) for machines that have no program for it."""
        self._listens: dict[tuple[str, str, int], float] = {}
        self._reported: dict[str, float] = {}
        self._answers: dict[Key, tuple[Answer, float]] = {}

    def take(self, host: Host, words: Sequence[str], now: float) -> None:
        """Take in one record of a machine's program; a malformed one is none."""
        match words:
            case ["waits", *_]:
                self._reported[host.name] = now
            case ["listens", port]:
                protocol, _, number = port.partition("/")
                self._listens[host.name, protocol, _number(number)] = now
            case ["reached", address, port, "open" | "dropped" | "refused" | "no-route" as answer]:
                self._answers[host.name, address, "tcp", _number(port)] = (answer, now)
            case ["heard", client]:
                self._answers |= {_key(pair): ("open", now) for pair in self.wanted
                                  if (pair.client, pair.target, pair.protocol) == (client, host.name, "udp")}
            case ["unable", what]:
                self._unable[host.name, what] = None

    @property
    def complete(self) -> bool:
        """Whether nothing more can come that would change a finding."""
        return all(_key(pair) in self._answers or self._impossible(pair) or self._is_silent(pair) for pair in self.wanted)

    def _is_silent(self, pair: Pair) -> bool:
        """Whether datagrams were sent for long enough, and none came."""
        listens = self._listens.get((pair.target, pair.protocol, pair.port))
        return pair.protocol == "udp" and listens is not None and self._reported.get(pair.client, 0.0) - listens >= UDP_SECONDS

    def _impossible(self, pair: Pair) -> bool:
        return (pair.client, "dial") in self._unable or (pair.protocol == "udp" and (pair.target, "listen") in self._unable)

    def answer(self, pair: Pair) -> Answer:
        """Return what came of a pair; unknown where the target did not listen while the client tried."""
        answer, at = self._answers.get(_key(pair), ("unknown", 0.0))
        listens = self._listens.get((pair.target, pair.protocol, pair.port))
        if answer == "open":
            return "open"
        if listens is None or self._impossible(pair):
            return "unknown"
        if pair.protocol == "udp":
            # Datagrams are sent between two reports.
            answer, at = "dropped", self._reported.get(pair.client, 0.0)
        return answer if at - listens >= SETTLE_SECONDS else "unknown"

    @property
    def closed(self) -> dict[Pair, Answer]:
        """The pairs that cannot connect, and why."""
        return {pair: answer for pair in self.wanted if (answer := self.answer(pair)) not in ("open", "unknown")}

    @property
    def notes(self) -> Iterator[str]:
        """Yield what could not be probed, a line for each machine."""
        left: dict[str, set[str]] = defaultdict(set)
        for pair in self.wanted:
            if self.answer(pair) == "unknown":
                left[pair.target].add(f"{pair.port}/{pair.protocol}")
        for name, numbers in left.items():
            yield f"{name}: not known whether others reach {', '.join(sorted(numbers))}: nothing listened there during the probe"
        programs = {"dial": "bash", "listen": "systemd-socket-activate"}
        for name, what in self._unable:
            yield f"{name}: {programs.get(what, what)} is missing, which the probe of ports needs"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


WORDS: Mapping[Answer, str] = {
    "dropped": "dropped, no answer", "refused": "refused, although the machine listens", "no-route": "no route to host",
}


def group(closed: Mapping[Pair, Answer]) -> Iterator[tuple[str, Finding]]:
    """Yield a finding for each machine that is not reached: one for all ports with the same cause and the same clients."""
    clients: dict[tuple[str, str, str, Answer], list[str]] = defaultdict(list)
    for pair, answer in closed.items():
        clients[pair.target, pair.address, f"{pair.port}/{pair.protocol}", answer].append(pair.client)
    causes: dict[tuple[str, str, Answer, tuple[str, ...]], list[str]] = defaultdict(list)
    for (target, address, port, answer), names in clients.items():
        causes[target, address, answer, tuple(dict.fromkeys(names))].append(port)
    for (target, address, answer, sources), numbers in causes.items():
        named = ", ".join(numbers)
        yield target, Finding(CODE, f"{_some(sources)} cannot reach {address} at {named}: {WORDS[answer]}",
                              f"accept {named} from {_some(sources)} on {target} and on the way to it, or set "
                              "cluster.firewall: manage, which opens firewalld, ufw and nftables")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 6 else ""
    return ", ".join(names[:5] if more else names) + more
