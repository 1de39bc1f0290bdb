"""Components: pure functions from the desired cluster and the facts of a machine to resources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clusterctl.artifacts.catalog import Catalog
from clusterctl.cluster.model import Cluster, Host
from clusterctl.pki import Pki
from clusterctl.resources.base import Resource
from clusterctl.shell.facts import Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """All that a component may know: the cluster, one host of it, its facts, the keys and the catalog. No connection."""

    cluster: Cluster
    host: Host
    facts: Facts
    pki: Pki
    catalog: Catalog
    etcd_formed: frozenset[str] = frozenset()
    """The hosts whose etcd has served once: a member that is not among them joins the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A product on machines. ``on``: whether a host has it."""

    name: str
    on: Callable[[Host], bool]
    resources: Callable[[Context], Sequence[Resource]]


def everywhere(host: Host) -> bool:
    return True


def nodes(host: Host) -> bool:
    return host.is_node


def control_planes(host: Host) -> bool:
    return host.is_control_plane


def etcd_members(host: Host) -> bool:
    return host.is_etcd


def workers_only(host: Host) -> bool:
    return host.is_node and not host.is_control_plane
