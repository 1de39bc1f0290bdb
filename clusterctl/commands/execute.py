"""``exec``: a command of the user's on many machines, as root, over the same connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clusterctl.cluster.model import Host
from clusterctl.engine import fleet
from clusterctl.errors import Stopped
from clusterctl.session.session import Session
from clusterctl.shell import Script
from clusterctl.ssh.transport import ConnectionLost


@dataclass(frozen=True, slots=True)
class Answer:
    """The output of a command on one host, both streams, and its exit code."""

    output: str
    code: int


def run_command(session: Session, hosts: tuple[Host, ...], command: str, *, silence: float = 600) -> Mapping[str, Answer]:
    """Run a shell command on each host, in parallel. ``silence``: seconds that it may take. Raises Unreachable, Stopped."""

    def run(host: Host) -> Answer:
        lines: list[str] = []
        code = 0
        try:
            for words in session.engine.transports[host.name].stream(
                    Script(probes=(("command", command),), unlocked=True), silence=silence):
                if words[0] == "output":
                    lines.append("\t".join(words[1:]))
                elif words[0] == "exit":
                    code = int(words[1])
        except ConnectionLost as error:
            raise Stopped(
                f"the connection broke; whether the command ran to its end is not known: {error}",
                where=host.name,
                hint="look at the host before you run it again",
                code="exec.outcome-unknown",
            ) from None
        return Answer("\n".join(lines), code)

    return fleet.each(hosts, run, limit=session.options.forks).or_raise()
