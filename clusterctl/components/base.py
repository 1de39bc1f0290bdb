"""Components: pure functions from the desired cluster and the facts of a machine to resources."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from clusterctl.artifacts.catalog import Catalog, ContainerImage, Release
from clusterctl.cluster.model import Cluster, Host
from clusterctl.pki import Pki
from clusterctl.resources.base import Resource
from clusterctl.shell.facts import Facts
from clusterctl.shell.footprint import NOTHING, Footprint

Protocol = Literal["tcp", "udp"]
Slot = Literal["machine", "prepare", "etcd", "control-plane", "nodes"]
"""Where the resources of a product come in ``apply``: a stage, or the part of ``prepare`` that comes before all programs."""


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
    """Resources that belong together. ``on``: whether a host has them."""

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


@dataclass(frozen=True, slots=True)
class Port:
    """A port that machines listen on, and the machines that connect to it. ``pods``: whether pods do, too."""

    protocol: Protocol
    number: int
    listeners: tuple[Host, ...]
    clients: tuple[Host, ...] = ()
    pods: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is in the way. ``code``: its stable name; ``fatal``: whether it is refused."""

    code: str
    message: str
    hint: str
    fatal: bool = True

    @property
    def warning(self) -> str:
        return f"{self.message} [{self.code}]; {self.hint}"


def purge(*packages: str) -> str:
    """The command that removes packages, for both families of distributions."""
    names = " ".join(packages)
    return f"apt-get purge {names} (or: dnf remove {names})"


def _none(*_: object) -> tuple[()]:
    return ()


def _always(_: object) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Component):
    """Everything that clusterctl knows of one product; ``products.PRODUCTS`` has all of them.

    ``enabled``: whether a cluster has it. ``releases``: its programs, which are installed before everything else of it.
    ``resources``: what a host needs besides them, in the part of ``apply`` that ``slot`` names. ``packages``: the
    distribution's, on the same hosts. ``ports``: those that it listens on, also those for the machine itself alone.
    ``foreign``: what other installations of it mean for a host.
    """

    on: Callable[[Host], bool] = everywhere
    resources: Callable[[Context], Sequence[Resource]] = _none
    slot: Slot | None = None
    enabled: Callable[[Cluster], bool] = _always
    releases: tuple[Release, ...] = ()
    images: tuple[ContainerImage, ...] = ()
    packages: tuple[str, ...] = ()
    ports: Callable[[Cluster], Iterable[Port]] = _none
    additions: Callable[[Context], Sequence[Resource]] = _none
    """Return the resources that a setting adds to a machine: AddedPackages, AddedFile, AddedService. They are undone with it."""
    foreign: Callable[[Cluster, Host, Facts], Iterable[Finding]] = _none
    footprint: Footprint = NOTHING
    files: tuple[str, ...] = ()
    """Its files in folders of other products: they go with it when a cluster no longer has it."""
    managed: tuple[str, ...] = ()
    """Paths beside those of the footprint that no file of an inventory may replace."""
