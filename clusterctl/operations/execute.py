"""``exec``: a command of the user's on many machines, as root, over the same connections."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from clusterctl import fleet
from clusterctl.errors import InputError, Stopped
from clusterctl.inventory.names import ROLE_GROUPS
from clusterctl.model import Cluster, Host, Role
from clusterctl.operations.base import Session
from clusterctl.shell import Program
from clusterctl.transport import Cut


def _has(role: Role, host: Host) -> bool:
    return role in host.roles


GROUPS: Mapping[str, Callable[[Host], bool]] = {
    "all": lambda host: True,
    "k8s_cluster": lambda host: host.is_node,
    **{group: partial(_has, role) for group, role in ROLE_GROUPS.items()},
}
"""Those that an inventory may have, under its names and kubespray's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command printed on one host, both streams, and its exit code."""

    output: str
    code: int


def choose(cluster: Cluster, pattern: str) -> tuple[Host, ...]:
    """Hosts by name, group or glob, with commas between. Raises InputError for a part that names nobody."""
    chosen: dict[str, Host] = {}
    for part in pattern.split(","):
        found = [
            host for host in cluster.hosts if (GROUPS[part](host) if part in GROUPS else fnmatch.fnmatchcase(host.name, part))
        ]
        if not found:
            raise InputError(
                f"no host or group is called {part!r}",
                where="HOSTS",
                hint=f"groups: {', '.join(GROUPS)}; hosts: {', '.join(host.name for host in cluster.hosts)}",
            )
        chosen.update({host.name: host for host in found})
    return tuple(chosen.values())


def execute(session: Session, hosts: tuple[Host, ...], command: str, *, silence: float = 600) -> Mapping[str, Answer]:
    """Run a shell command on each host, in parallel. ``silence``: seconds that it may take. Raises Unreachable, Stopped."""

    def run(host: Host) -> Answer:
        lines: list[str] = []
        code = 0
        try:
            for words in session.engine.transports[host.name].stream(
                    Program(probes=(("command", command),), unlocked=True), silence=silence):
                if words[0] == "output":
                    lines.append("\t".join(words[1:]))
                elif words[0] == "exit":
                    code = int(words[1])
        except Cut as error:
            raise Stopped(
                f"the connection broke; whether the command ran to its end is not known: {error}",
                where=host.name,
                hint="look at the host before you run it again",
            ) from None
        return Answer("\n".join(lines), code)

    return fleet.each(hosts, run, limit=session.options.forks).or_raise()
