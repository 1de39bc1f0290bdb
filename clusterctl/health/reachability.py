"""Whether machines reach each other on the ports of their roles: one program on each, all at the same moment."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from clusterctl.cluster.model import Host
from clusterctl.engine import fleet
from clusterctl.engine.engine import Gate
from clusterctl.errors import ClusterctlError, Problems, Refused, Stopped
from clusterctl.health import ports
from clusterctl.health.ports import Answers, Pair
from clusterctl.plan.planner import Plan, StagePlan
from clusterctl.resources.firewall import Firewall
from clusterctl.session.session import Session
from clusterctl.shell import Script, functions
from clusterctl.shell.facts import Facts
from clusterctl.ssh.transport import ConnectionLost

SILENCE = 60.0
"""How long a machine may be silent, in seconds. Its program reports several times a second once it runs."""


def probe(session: Session, wanted: Sequence[Pair], new: Collection[str]) -> Answers:
    """Try connections: one trip to each machine, until all answers are there. ``new``: machines that raise listeners."""
    answers, lock, token = Answers(wanted), threading.Lock(), secrets.token_hex(8)
    names = {name for pair in wanted for name in (pair.client, pair.target)}
    hosts = [host for host in session.cluster.hosts if host.name in names]

    def attempt(host: Host) -> None:
        words = (host.name, token, *ports.lines(host.name, wanted, new))
        try:
            transport = session.engine.transports[host.name]
            running = _read(transport.stream(_program("reach", words), silence=SILENCE), lambda record: take(host, record))
            if running:
                list(transport.stream(_program("reach_end", running), silence=SILENCE))
        except (ConnectionLost, ClusterctlError) as error:
            session.engine.events.note(f"{host.name}: its ports are not probed: {error}")

    def take(host: Host, record: list[str]) -> bool:
        with lock:
            answers.take(host, record, time.monotonic())
            return answers.complete

    # Not as many as there are forks: each has to listen while the others connect.
    fleet.each(hosts, attempt, limit=len(hosts))
    return answers


def _program(kind: str, words: Sequence[str]) -> Script:
    return Script(probes=[(kind, word) for word in words], functions=functions("reach"), shared=True)


def _read(records: Iterator[list[str]], take: Callable[[list[str]], bool]) -> list[str]:
    """Read until ``take`` has seen enough. Return what ``reach_end`` needs to end the program, empty where it has ended."""
    running: list[str] = []
    for record in records:
        if record[0] == "runs":
            running = record[1:]
        elif take(record):
            return running
    return []


def check(session: Session, facts: Mapping[str, Facts], plan: Plan) -> tuple[tuple[Pair, ...], list[str]]:
    """Probe what new machines need. Return the pairs that the plan opens, and warnings. Raises Problems of Refused.

    Costs nothing where all machines serve already.
    """
    cluster = session.cluster
    wanted = () if cluster.settings.firewall == "ignore" else ports.pairs(cluster, facts)
    if not wanted:
        return (), []
    answers = probe(session, wanted, ports.new_hosts(cluster, facts))
    opening = {host.name for _, host, change in plan.changes
               if isinstance(change.resource, Firewall) and change.action != "remove"}
    closed = answers.closed
    later = {pair: answer for pair, answer in closed.items() if pair.target in opening}
    more = {"check": "; cluster.firewall: manage opens firewalld, ufw and nftables",
            "manage": "; where --limit leaves the machine out, run this without it"}.get(cluster.settings.firewall, "")
    errors = [Refused(message, where=target, hint=hint + more, code=ports.UNREACHABLE)
              for target, message, hint in ports.group({pair: answer for pair, answer in closed.items() if pair not in later})]
    if errors:
        raise Problems(errors)
    opened = [f"{target}: {message} [{ports.UNREACHABLE}]; the rules of this plan open it"
              for target, message, _ in ports.group(later)]
    return tuple(later), [*opened, *answers.notes]


def gate(session: Session, facts: Mapping[str, Facts], wanted: Sequence[Pair]) -> Gate:
    """Return what runs after each batch of a stage: after the last one it probes again what was closed. Raises Stopped."""
    done: set[str] = set()

    def recheck(stage: StagePlan, batch: Sequence[Host]) -> None:
        done.update(host.name for host in batch)
        if not wanted or not done.issuperset(part.host.name for part in stage.hosts):
            return
        findings = list(ports.group(probe(session, wanted, ports.new_hosts(session.cluster, facts)).closed))
        if findings:
            messages = "\n".join(f"{target}: {message}" for target, message, _ in findings)
            raise Stopped(f"closed with the rules of cluster.firewall in place: {messages}", where="ports",
                          code="host.still-unreachable",
                          hint="accept it on the way to these machines, then run the same command again")

    return recheck
