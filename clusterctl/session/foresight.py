"""What will be wanted of machines, worked out from what they said the last time, while they are looked at.

Nothing is decided by it. A machine that says anything else than before is looked at anew, for what is then wanted of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from clusterctl.cluster.model import Host
from clusterctl.components.render import keep_texts
from clusterctl.engine.observe import Look
from clusterctl.errors import ClusterctlError
from clusterctl.pki import keep_found
from clusterctl.plan import planner, running
from clusterctl.plan.planner import HostChanges, Stage
from clusterctl.plan.stages import ByHost, formed, stages, wanted
from clusterctl.session.recall import Kept, keep
from clusterctl.session.session import Session
from clusterctl.shell import Probe
from clusterctl.shell.facts import Facts


@dataclass(frozen=True)
class Foresight:
    """What is wanted of machines if they are as they were. ``session``: with the cluster as it would be then."""

    session: Session
    facts: Mapping[str, Facts]
    order: tuple[Stage, ...]
    resources: ByHost
    compared: dict[str, dict[str, HostChanges]] = field(default_factory=dict)
    """What changes on the machines that were as foreseen, by host and stage."""

    @cached_property
    def probes(self) -> Mapping[str, Sequence[Probe]]:
        """What will have to be looked at, by host."""
        return probes_of(self.resources)

    def compare(self, host: Host, found: Look) -> None:
        """Compare a machine that says the same again with what is wanted of it, while others are still looked at."""
        same = host.name in self.facts and self.facts[host.name].lasting == found.facts.lasting
        if same and host.name in self.resources and found.probes.issuperset(self.probes[host.name]):
            self.compared[host.name] = planner.of_host(self.order, host, self.resources[host.name], found.seen)

    def holds(self, facts: Mapping[str, Facts]) -> bool:
        """Whether all machines said the same again: then all that was worked out from it stands."""
        same = (facts[name].lasting == found.lasting for name, found in self.facts.items() if name in facts)
        return facts.keys() == self.facts.keys() and all(same)


def foresee(session: Session) -> Foresight | None:
    """What is wanted of the machines that were heard before; None where nobody was. Nothing is asked."""
    if session.pki_is_new:
        return None
    concerned = {host.name for host in (*session.chosen, *session.cluster.etcd_members, *session.cluster.control_planes)}
    facts = {name: Facts(values=one.facts) for name, one in session.opening.kept.items() if name in concerned}
    hosts = [host for host in session.chosen if host.name in facts]
    if not hosts:
        return None
    try:
        ahead = session.at(running.pin_running(session.cluster, facts))
        order = stages(ahead.cluster, formed(facts))
        return Foresight(ahead, facts, order, wanted(ahead, order, hosts, facts))
    except (ClusterctlError, KeyError, ValueError):
        # Whatever stands against it is said of what the machines say now.
        return None


def remember(session: Session, facts: Mapping[str, Facts], probes: Mapping[str, Sequence[Probe]]) -> None:
    """Keep for the next run what machines said, what was looked at and what templates became. What was read ahead is over."""
    apis = dict(session.opening.apis)  # What is read ahead may be making one still.
    for api in apis.values():
        api.forget()
    keep_texts()
    keep_found()
    if session.pki_is_new:
        return
    before = session.opening.kept
    reads = {name: tuple(api.reads) for name, api in apis.items()}
    nothing = Kept({})
    # Who was asked for less this time is asked for all of it again the next time.
    heard = {name: Kept(dict(found.lasting), tuple(probes.get(name, ())) or before.get(name, nothing).probes,
                        max(reads.get(name, ()), before.get(name, nothing).reads, key=len)) for name, found in facts.items()}
    names = {host.name for host in session.cluster.hosts}
    keep(session.state, {name: one for name, one in {**before, **heard}.items() if name in names}, before)


def probes_of(resources: ByHost) -> dict[str, Sequence[Probe]]:
    """What must be looked at, by host."""
    return {name: planner.probes(resource for stage in stages.values() for resource in stage)
            for name, stages in resources.items()}
