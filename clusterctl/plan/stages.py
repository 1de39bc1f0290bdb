"""Desired state of machines: the stages of ``apply``, and the resources of their components on each host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

from clusterctl.artifacts.catalog import AnyVersion, Artifact
from clusterctl.cluster.machine_settings import StageName
from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.additions import hooks
from clusterctl.components.base import Context
from clusterctl.components.host import HOST, TRUST
from clusterctl.components.products import FORMER, of
from clusterctl.components.programs import ADDON_IMAGES, ADDON_VERSIONS, PROGRAMS
from clusterctl.kube.disruption import Unavailable
from clusterctl.plan import planner
from clusterctl.plan.planner import OneByOne, Parallel, Rolling, Stage
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import Binary, Image
from clusterctl.session.session import Session
from clusterctl.shell import Probe
from clusterctl.shell.facts import Facts

BEFORE, AFTER = "before ", "after "
"""How the names of stages begin whose commands run on the controller."""

ByHost = Mapping[str, Mapping[str, tuple[Resource, ...]]]
"""Resources by host and stage."""


def max_unavailable(cluster: Cluster, given: Unavailable | None = None) -> int:
    """Return how many workers may be disrupted at once. ``given``: in place of the inventory's setting."""
    return (given or Unavailable.parse(cluster.settings.max_unavailable)).of(len(cluster.nodes))


def stages(cluster: Cluster, formed: frozenset[str] = frozenset()) -> tuple[Stage, ...]:
    """The whole of ``apply``, in order. ``formed``: the hosts whose etcd has served; others join it one by one."""
    order = (
        Stage(name="prepare", components=(HOST, *of("machine"), TRUST, PROGRAMS, *of("prepare")),
              strategy=Rolling(max_unavailable(cluster))),
        Stage(name="etcd", components=of("etcd"), strategy=OneByOne() if formed else Parallel()),
        Stage(name="control-plane", components=of("control-plane"), strategy=OneByOne() if formed else Rolling(1), together=True),
        Stage(
            name="nodes",
            components=(FORMER, *of("nodes")),
            strategy=Rolling(max_unavailable(cluster)),
            together=True,
        ),
        Stage(name="images", components=(ADDON_IMAGES, ADDON_VERSIONS)),
    )
    hooked = {str(hook.where) for host in cluster.hosts for hook in host.settings.hooks}
    return tuple(stage for one in order for stage in _with_hooks(one, hooked)) if hooked else order


def _with_hooks(stage: Stage, where: set[str]) -> Iterator[Stage]:
    """Yield a stage with its commands on hosts, between those of the controller, which are stages of their own."""
    name = cast(StageName, stage.name)
    if "controller" in where:
        yield Stage(name=BEFORE + name, components=(hooks(name, controller=True),))
    yield replace(stage, components=(hooks(name), *stage.components, hooks(name, after=True)))
    if "controller" in where:
        yield Stage(name=AFTER + name, components=(hooks(name, after=True, controller=True),))


def resources_by_host(
    session: Session, order: Sequence[Stage], hosts: Sequence[Host], facts: Mapping[str, Facts]
) -> ByHost:
    """All resources of all hosts, by stage."""
    return {host.name: planner.resources_for(order, context_of(session, host, facts)) for host in hosts}


MOST_NEEDING = Facts(container="none", resolv_conf="missing")
"""A machine that needs every resource: its kernel is its own, and it has no /etc/resolv.conf."""


def possible_probes(session: Session) -> Mapping[str, Sequence[Probe]]:
    """Return what must be observed of each chosen host, whatever its facts are and whichever versions it runs.

    Facts and probes are thus asked for in one round trip. An etcd member is observed for both cases: it has served, or it joins.
    """
    members = frozenset(host.name for host in session.cluster.etcd_members)
    components = [component for stage in stages(session.cluster) for component in stage.components]
    catalog = AnyVersion(session.catalog.pins, session.catalog.fetcher)
    return {host.name: planner.probes(
        resource for formed in dict.fromkeys((members, members - {host.name})) for component in components if component.on(host)
        for resource in component.resources(Context(cluster=session.cluster, host=host, facts=MOST_NEEDING, pki=session.pki,
                                                    catalog=catalog, etcd_formed=formed)))
        for host in session.chosen}


def foreign_pins(resources: ByHost, sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the programs and images whose pin is not built in, by the source of the pin."""
    found: dict[str, set[str]] = defaultdict(set)
    for stage in (stage for of_host in resources.values() for stage in of_host.values()):
        for resource in stage:
            artifact = resource.source if isinstance(resource, Binary | Image) else None
            if isinstance(artifact, Artifact) and artifact.path in sources:
                found[sources[artifact.path]].add(f"{artifact.product} {artifact.version} ({artifact.arch})")
    return {source: sorted(files) for source, files in sorted(found.items())}


def context_of(session: Session, host: Host, facts: Mapping[str, Facts]) -> Context:
    """All that components may know of one host."""
    return Context(
        cluster=session.cluster,
        host=host,
        facts=facts[host.name],
        pki=session.pki,
        catalog=session.catalog,
        etcd_formed=formed(facts),
    )


def formed(facts: Mapping[str, Facts]) -> frozenset[str]:
    """The hosts whose etcd has served once."""
    return frozenset(name for name, found in facts.items() if found.etcd == "formed")
