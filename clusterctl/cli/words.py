"""Words that shells complete: hosts and groups of the inventory, versions, error codes. Nothing is contacted."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from clusterctl.errors import ClusterctlError

if TYPE_CHECKING:
    from clusterctl.cluster.model import Host


def hosts(context: typer.Context, incomplete: str) -> list[str]:
    """Return the hosts of the inventory that begin so."""
    return _matching([host.name for host in _hosts(context)], incomplete)


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
