"""Which connections between machines are probed, and what their answers mean: pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.base import Port, Protocol
from clusterctl.components.products import ports
from clusterctl.shell.facts import Facts

Answer = Literal["open", "dropped", "refused", "no-route", "unknown"]

MOST_TARGETS = 32
"""How many machines a machine connects to on one port, at most: in a large cluster each tries the next ones of the inventory."""

SETTLE_SECONDS = 1.0
"""How long a port must have been listened on, before a connection that failed says anything."""

UDP_SECONDS = 4.0
"""How long datagrams are sent to a port that is listened on, before they count as dropped."""

OVERLAY = "8472"
UNREACHABLE = "host.unreachable"


@dataclass(frozen=True, slots=True)
class Pair:
    """A connection that has to be possible, by host names."""

    client: str
    target: str
    address: str
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        return f"{self.protocol}/{self.port}"


def new_hosts(cluster: Cluster, fleet: Mapping[str, Facts]) -> set[str]:
    """Return the machines with facts on which some service of their roles has never been ready."""
    services = {"etcd": cluster.etcd_members, "kube-apiserver": cluster.control_planes, "kubelet": cluster.nodes}
    return {host.name for service, hosts in services.items() for host in hosts
            if host.name in fleet and service not in fleet[host.name].served}


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


class Answers:
    """The connections that machines reported. ``now``: seconds of one clock, the controller's.

    A machine that begins late, or has nothing to listen with, must not look like a firewall.
    """

    def __init__(self, wanted: Sequence[Pair]) -> None:
        self._by_words: dict[tuple[str, ...], Pair] = {
            (pair.client, pair.address, pair.protocol, str(pair.port)): pair for pair in wanted}
        self._waiting = dict.fromkeys(wanted)
        self._answers: dict[Pair, tuple[Answer, float]] = dict.fromkeys(wanted, ("unknown", 0.0))
        self._listens: dict[tuple[str, str], float] = {}
        self._reported: dict[str, float] = {}
        self._unable: dict[tuple[str, str], None] = {}

    def take(self, host: Host, words: Sequence[str], now: float) -> None:
        """Take in one record of a machine's program; a malformed one is none."""
        match words:
            case ["waits", *_]:
                self._reported[host.name] = now
            case ["listens", port]:
                self._listens[host.name, port] = now
            case ["reached", address, port, "open" | "dropped" | "refused" | "no-route" as answer]:
                self._settle((host.name, address, "tcp", port), answer, now)
            case ["heard", client]:
                self._settle((client, str(host.address), "udp", OVERLAY), "open", now)
            case ["unable", what]:
                self._unable[host.name, what] = None
                for pair in [pair for pair in self._waiting if host.name in (pair.client, pair.target)]:
                    if what == "dial" and pair.client == host.name or what == "listen" and pair.protocol == "udp":
                        del self._waiting[pair]

    def _settle(self, words: tuple[str, ...], answer: Answer, now: float) -> None:
        pair = self._by_words.get(words)
        if pair is not None:
            self._answers[pair] = (answer, now)
            self._waiting.pop(pair, None)

    @property
    def complete(self) -> bool:
        """Whether nothing is waited for any more but datagrams that were sent for long enough."""
        return all(pair.protocol == "udp" and self._since(pair, self._reported.get(pair.client, 0.0)) >= UDP_SECONDS
                   for pair in self._waiting)

    def _since(self, pair: Pair, now: float) -> float:
        """Return how long the target had listened by then; negative where it did not."""
        return now - self._listens.get((pair.target, str(pair)), float("inf"))

    def answer(self, pair: Pair) -> Answer:
        """Return what came of a pair; unknown where the target did not listen while the client tried."""
        answer, at = self._answers[pair]
        if pair.protocol == "udp" and answer == "unknown" and (pair.client, "dial") not in self._unable:
            # Datagrams are sent between two reports.
            answer, at = "dropped", self._reported.get(pair.client, 0.0)
        return answer if answer == "open" or self._since(pair, at) >= SETTLE_SECONDS else "unknown"

    @property
    def closed(self) -> dict[Pair, Answer]:
        """The pairs that cannot connect, and why."""
        return {pair: answer for pair in self._answers if (answer := self.answer(pair)) not in ("open", "unknown")}

    @property
    def notes(self) -> Iterator[str]:
        """Yield what could not be probed, a line for each machine."""
        left: dict[str, dict[str, None]] = defaultdict(dict)
        for pair in self._answers:
            if self.answer(pair) == "unknown":
                left[pair.target][str(pair)] = None
        for name, numbers in left.items():
            yield f"{name}: not known whether others reach {', '.join(numbers)}: nothing listened there during the probe"
        for name, what in self._unable:
            program = "bash" if what == "dial" else "systemd-socket-activate"
            yield f"{name}: {program} is missing, which the probe of ports needs"


WORDS: Mapping[Answer, str] = {
    "dropped": "dropped, no answer", "refused": "refused, although the machine listens", "no-route": "no route to host",
}


def group(closed: Mapping[Pair, Answer]) -> Iterator[tuple[str, str, str]]:
    """Yield (host, message, hint): one finding for all ports of a machine with the same cause and the same clients."""
    clients: dict[tuple[str, str, str, Answer], list[str]] = defaultdict(list)
    for pair, answer in closed.items():
        clients[pair.target, pair.address, f"{pair.port}/{pair.protocol}", answer].append(pair.client)
    causes: dict[tuple[str, str, Answer, tuple[str, ...]], list[str]] = defaultdict(list)
    for (target, address, port, answer), names in clients.items():
        causes[target, address, answer, tuple(dict.fromkeys(names))].append(port)
    for (target, address, answer, sources), numbers in causes.items():
        named = ", ".join(numbers)
        yield (target, f"{some(sources)} cannot reach {address} at {named}: {WORDS[answer]}",
               f"accept {named} from {some(sources)} on {target} and on the way to it")


def some(words: Iterable[str]) -> str:
    """Return names as text: all of them, or the first five and how many more there are."""
    names = list(words)
    more = f" and {len(names) - 5} more" if len(names) > 6 else ""
    return ", ".join(names[:5] if more else names) + more
