"""Running versions, and the desired versions that follow from them: only an upgrade changes those of a running cluster."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from clusterctl.cluster.model import MINOR, Cluster, Versions
from clusterctl.cluster.versions import known_versions, minor, order
from clusterctl.components.products import IMAGES, RELEASES
from clusterctl.errors import Refused
from clusterctl.shell.facts import Facts

FIELDS: Mapping[str, str] = {name: one.field for table in (RELEASES, IMAGES) for name, one in table.items()}
"""Products as they lie on machines -> the field of Versions."""

Fleet = Mapping[str, Facts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A product that a machine runs in another version than the desired one."""

    host: str
    product: str
    running: str
    wanted: str


def is_bootstrapped(fleet: Fleet) -> bool:
    """Return whether the cluster has been bootstrapped: some etcd member has served, also where its data is lost."""
    return any(facts.etcd in ("formed", "lost") for facts in fleet.values())


def versions_of(fleet: Fleet) -> dict[str, set[str]]:
    """The versions that run, by the field of Versions."""
    found: dict[str, set[str]] = defaultdict(set)
    for facts in fleet.values():
        for product, version in facts.running.items():
            if product in FIELDS:
                found[FIELDS[product]].add(version)
    return found


def pinned(cluster: Cluster) -> dict[str, str]:
    """The versions that the inventory itself names, by the field of Versions."""
    named = {name: str(version) for name, version in cluster.settings.versions.items()}
    wanted = cluster.settings.kubernetes
    return {**named, **({"kubernetes": wanted} if wanted and not MINOR.fullmatch(wanted) else {})}


def pin_running(cluster: Cluster, fleet: Fleet) -> Cluster:
    """Return the cluster with its running versions where the inventory names none; one that is not bootstrapped is unchanged.

    A newer clusterctl with newer defaults thus changes nothing by itself. Raises Refused for a version it does not know.
    """
    if not is_bootstrapped(fleet):
        return cluster
    named, found = pinned(cluster), versions_of(fleet)
    running = {name: max(versions, key=order) for name, versions in found.items() if name not in named}
    kubernetes = named.get("kubernetes") or running.get("kubernetes") or cluster.versions.kubernetes
    if cluster.settings.kubernetes and minor(kubernetes) != minor(cluster.versions.kubernetes):
        # The inventory names a minor: any patch of it that runs is right, and none of another minor.
        kubernetes = cluster.versions.kubernetes
    overrides = {name: version for name, version in {**running, **named}.items() if name != "kubernetes"}
    return cluster.at(versions_for(kubernetes, overrides))


def versions_for(kubernetes: str, overrides: Mapping[str, str]) -> Versions:
    """The versions that belong to one of Kubernetes. Raises Refused for one that is not supported."""
    try:
        return known_versions(kubernetes, **overrides)
    except ValueError as error:
        raise Refused(str(error), where="cluster.kubernetes", code="version.unknown",
                      hint="use a clusterctl that knows this version") from None


def skewed(cluster: Cluster, fleet: Fleet) -> list[Difference]:
    """Return the products that machines run in another version than the desired one."""
    wanted = cluster.versions.model_dump()
    return [
        Difference(host=host.name, product=product, running=version, wanted=str(wanted[FIELDS[product]]))
        for host in cluster.hosts
        if host.name in fleet
        for product, version in fleet[host.name].running.items()
        if product in FIELDS and version != wanted[FIELDS[product]]
    ]


def refuse_skewed(cluster: Cluster, fleet: Fleet) -> None:
    """``apply`` never changes a version of a cluster that runs. Raises Refused with what runs where."""
    found = skewed(cluster, fleet) if is_bootstrapped(fleet) else []
    if not found:
        return
    lines = []
    for name, version in sorted({(FIELDS[entry.product], entry.running) for entry in found}):
        hosts = sorted({entry.host for entry in found if (FIELDS[entry.product], entry.running) == (name, version)})
        wanted = getattr(cluster.versions, name)
        lines.append(f"{name.replace('_', '-')} {version} runs on {', '.join(hosts)}, and {wanted} is wanted")
    raise Refused("; ".join(lines), where="versions", code="version.differs",
                  hint="a cluster that runs changes its versions by: clusterctl upgrade plan; or name in the inventory what runs")
