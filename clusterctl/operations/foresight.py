"""What machines said the last time: a guess at what they will be asked, so that one trip is enough. It is checked, always.

Nothing is decided by it. A machine that says anything else than before is looked at anew, for what is then wanted of it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clusterctl import planner
from clusterctl.errors import ClusterctlError
from clusterctl.facts import Facts
from clusterctl.operations import running
from clusterctl.operations.base import Session
from clusterctl.operations.desired import ByHost, formed, stages, wanted
from clusterctl.planner import Stage
from clusterctl.shell import Probe
from clusterctl.storage import user_cache, write_whole


@dataclass(frozen=True)
class Foresight:
    """What is wanted of machines if they are as they were. ``session``: with the cluster as it would be then."""

    session: Session
    facts: Mapping[str, Facts]
    order: tuple[Stage, ...]
    resources: ByHost

    @cached_property
    def probes(self) -> Mapping[str, Sequence[Probe]]:
        """What will have to be looked at, by host."""
        return {name: planner.probes(resource for stage in stages.values() for resource in stage)
                for name, stages in self.resources.items()}

    def holds(self, facts: Mapping[str, Facts]) -> bool:
        """Whether all machines said the same again: then all that was worked out from it stands."""
        same = (facts[name].lasting == found.lasting for name, found in self.facts.items() if name in facts)
        return facts.keys() == self.facts.keys() and all(same)


def foresee(session: Session) -> Foresight | None:
    """What is wanted of the machines that were heard before; None where nobody was. Nothing is asked."""
    if session.pki_is_new:
        return None
    concerned = {host.name for host in (*session.chosen, *session.cluster.etcd_members)}
    facts = {name: Facts(values=values) for name, values in _recall(_place(session)).items() if name in concerned}
    hosts = [host for host in session.chosen if host.name in facts]
    if not hosts:
        return None
    try:
        ahead = replace(session, cluster=running.settle(session.cluster, facts))
        order = stages(ahead.cluster, formed(facts))
        return Foresight(ahead, facts, order, wanted(ahead, order, hosts, facts))
    except (ClusterctlError, KeyError, ValueError):
        # Whatever stands against it is said of what the machines say now.
        return None


def remember(session: Session, facts: Mapping[str, Facts]) -> None:
    """Keep what machines said for the next run."""
    if session.pki_is_new:
        return
    place = _place(session)
    before = _recall(place)
    now = {**before, **{name: dict(found.lasting) for name, found in facts.items()}}
    names = {host.name for host in session.cluster.hosts}
    now = {name: values for name, values in now.items() if name in names}
    if now != before:
        with contextlib.suppress(OSError):
            write_whole(place, json.dumps(now).encode())


def _place(session: Session) -> Path:
    return user_cache() / "facts" / f"{session.pki.identity}.json"


def _recall(place: Path) -> dict[str, dict[str, str]]:
    """What is kept; nothing where there is nothing, or nothing that could be read."""
    try:
        kept = json.loads(place.read_bytes())
        return {str(name): {str(key): str(value) for key, value in values.items()} for name, values in kept.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
