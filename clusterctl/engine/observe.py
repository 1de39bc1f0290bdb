"""A look at one machine: what it says about itself, and what is looked at beside that, in one trip."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.cluster.model import Role
from clusterctl.components.products import FOOTPRINT
from clusterctl.errors import Unreachable
from clusterctl.shell import Observation, Probe
from clusterctl.shell.facts import Facts, probe_program, read_facts
from clusterctl.ssh.transport import SILENCE, ConnectionLost, Transport

LOOK_SECONDS = 150.0
"""How long it may take, in seconds: a machine itself waits 120 for another program of ours that runs on it."""



@dataclass(frozen=True, slots=True)
class Look:
    """The result of one round trip. ``probes``: those that ran beside the facts; ``seconds``: its duration."""

    facts: Facts
    probes: frozenset[Probe]
    seen: Observation
    seconds: float


def look(transport: Transport, probes: Sequence[Probe] = (), *, verify: bool = False, forwarding: bool = True) -> Look:
    """Ask a machine for its facts and look at ``probes``; ``verify`` hashes programs again. Raises Unreachable.

    ``forwarding``: the API or etcd will be reached through the machine. Raises Refused where its sshd does not allow that.
    """
    started = time.monotonic()
    transport.connect()
    roles = transport.host.roles if forwarding else frozenset()
    # Beside the program, so that it costs no time.
    ports: Mapping[Role, int] = {"control_plane": transport.api_port, "etcd": 2379}
    tried = next((transport.try_forwarding(port) for role, port in ports.items() if role in roles), None)
    asked = time.time()
    try:
        program = probe_program(probes, footprint=FOOTPRINT, verify=verify)
        records = list(transport.stream(program, silence=SILENCE if verify else LOOK_SECONDS))
    except ConnectionLost as error:
        raise error.unreachable(transport.host) from None
    if tried is not None:
        tried.result()
    try:
        facts, seen = read_facts(records, asked=asked, answered=time.time())
    except (ValueError, IndexError) as error:
        raise Unreachable(f"its facts cannot be read: {error}", where=transport.host.name, code="ssh.unreadable-output",
                          hint="run it again; then look at what the machine's /proc, ip and ss print") from None
    return Look(facts, frozenset(probes), seen, time.monotonic() - started)
