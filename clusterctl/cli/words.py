"""Words that shells complete: hosts and groups of the inventory, versions, error codes. Nothing is contacted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from clusterctl.errors import ClusterctlError

if TYPE_CHECKING:
    from clusterctl.cluster.model import Host


def hosts(context: typer.Context, incomplete: str) -> list[str]:
    """Return the hosts of the inventory that begin so, without those that are on the command line already."""
    given = {*(context.params.get("names") or ()), context.params.get("old")}
    return _matching([host.name for host in _hosts(context) if host.name not in given], incomplete)


def host_lists(context: typer.Context, incomplete: str) -> list[str]:
    """Return hosts, with what was written of a list before its last comma in front."""
    return _listed([host.name for host in _hosts(context)], incomplete)


def host_patterns(context: typer.Context, incomplete: str) -> list[str]:
    """Return hosts and groups, with what was written of a list before its last comma in front."""
    from clusterctl.inventory.patterns import groups_of

    found = _hosts(context)
    return _listed([*(host.name for host in found), *sorted(frozenset().union(*map(groups_of, found)))], incomplete)


def versions(incomplete: str) -> list[str]:
    """Return the versions of Kubernetes that belong to the supported minors."""
    from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions

    return _matching([known_versions(minor).kubernetes for minor in SUPPORTED_MINORS], incomplete)


def programs(incomplete: str) -> list[str]:
    """Return the programs that have checksums, and ``kubernetes`` for the patch release of a minor."""
    from clusterctl.components.products import RELEASES

    return _matching(["kubernetes", *RELEASES], incomplete)


def components(incomplete: str) -> list[str]:
    """Return the products whose version may be chosen, each with the equals sign before its version."""
    from clusterctl.cluster.model import Versions

    return _matching([f"{name.replace('_', '-')}=" for name in Versions.model_fields if name != "kubernetes"], incomplete)


def architectures(incomplete: str) -> list[str]:
    """Return the architectures of programs, with what was written of a list before its last comma in front."""
    from clusterctl.artifacts.lock_file import ARCHITECTURES

    return _listed(list(ARCHITECTURES), incomplete)


def error_codes(incomplete: str) -> list[str]:
    """Return the codes of errors that begin so."""
    from clusterctl.errors.codes import table

    return _matching(list(table()), incomplete)


def _hosts(context: typer.Context) -> tuple[Host, ...]:
    """The hosts of the inventory on the command line or in CLUSTERCTL_INVENTORY; none where it cannot be read."""
    from clusterctl.inventory import load
    from clusterctl.inventory.sources import STDIN, Sources

    paths = context.params.get("inventory")
    if not paths or STDIN in paths:
        return ()
    with suppress(ClusterctlError):
        return load(Sources(tuple(paths))).hosts
    return ()


def _listed(words: list[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{word}" for word in _matching(words, last) if word not in before.split(",")]


def _matching(words: list[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
