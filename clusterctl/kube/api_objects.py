"""Differences of API objects and Node objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.components import objects
from clusterctl.errors import Refused
from clusterctl.kube import pruning
from clusterctl.kube.client import Api, Object, ObjectChange
from clusterctl.plan import running
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts
from clusterctl.ssh.https import or_refused

NodeChanges = tuple[tuple[str, Object, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class ApiState:
    """Differences of API objects and of Node objects, and warnings about those that could not be read."""

    objects: tuple[ObjectChange, ...] = ()
    nodes: NodeChanges = ()
    later: tuple[Object, ...] = ()
    warnings: tuple[str, ...] = ()


def look(session: Session, facts: Mapping[str, Facts]) -> ApiState:
    """Compare the API with the inventory; a cluster that is not bootstrapped yet lacks everything.

    With ``--limit`` only the bindings are compared: the programs of a new node need theirs.
    """
    cluster = session.cluster
    limited = bool(session.target.limit)
    wanted_objects = objects.bindings(cluster) if limited else _wanted(session, facts)
    born = [host for host in cluster.control_planes if host.name in facts and facts[host.name].cluster]
    if not born or not running.is_bootstrapped(facts):
        whole = (objects.with_certificate(cluster, session.pki, item, None) for item in wanted_objects)
        return ApiState(tuple(ObjectChange(item, "create") for item in whole))
    api = session.any_api(born)
    if api is None:
        if limited:
            return ApiState()
        return ApiState(later=tuple(wanted_objects),
                        warnings=("no API server answers: what runs in the cluster is compared once one does",))
    if limited:
        return ApiState(tuple(compare_objects(session, api, wanted_objects)))
    with or_refused("the nodes cannot be read"):
        nodes = dict(api.nodes())
    unknown = sorted(set(nodes) - {host.name for host in cluster.nodes} - session.target.leaving)
    warnings = tuple(f"node {name} is not in the inventory: clusterctl node remove {name} --offline" for name in unknown)
    wanted_objects += _readmitted(session, api, facts)
    changes = tuple(compare_objects(session, api, wanted_objects))
    return ApiState(changes, tuple(objects.node_changes(cluster, nodes)), warnings=warnings)


def removed_names(api: Api) -> frozenset[str]:
    """Return nodes that were removed while they were unreachable, and must not rejoin. Raises ApiError."""
    return objects.removed_names(api.get(objects.removed_nodes(())[0]))


def _readmitted(session: Session, api: Api, facts: Mapping[str, Facts]) -> list[Object]:
    """Machines of the inventory that are kept out come in again where they are bare. Raises Refused where they are not."""
    with or_refused("the nodes that are kept out cannot be read"):
        names = removed_names(api)
    returned = sorted(names & {host.name for host in session.cluster.hosts})
    for name in returned:
        if name in facts and facts[name].cluster:
            raise Refused("it was removed while it could not be reached, and has come back as it was", where=name,
                          hint=f"clusterctl reset --limit {name}, then this again", code="node.removed-machine")
    return objects.removed_nodes(names - set(returned)) if returned else []


def _wanted(session: Session, facts: Mapping[str, Facts]) -> list[Object]:
    # CoreDNS does not start with an empty forward.
    forward = all(facts[host.name].nameservers for host in session.cluster.nodes if host.name in facts)
    found = [*objects.bindings(session.cluster), *objects.addons(session.cluster, session.pki, forward=forward)]
    return [*found, pruning.record(found)]


def compare_objects(session: Session, api: Api, wanted_objects: Sequence[Object]) -> list[ObjectChange]:
    """Return what differs from these objects and, where the record of applied ones is among them, what left the inventory."""
    def complete(item: Object, found: Object | None) -> Object:
        return objects.with_certificate(session.cluster, session.pki, item, found)

    with or_refused("the API's objects cannot be read"):
        changes = api.compare(wanted_objects, complete)
        if any(pruning.is_record(change.wanted) for change in changes):
            changes += pruning.stale(api, session.cluster.name, wanted_objects)
    return changes
