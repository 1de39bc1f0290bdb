"""Words that shells complete: hosts and groups of the inventory, and versions of Kubernetes. Nothing is contacted."""

from __future__ import annotations

from contextlib import suppress

import typer

from clusterctl.errors import ClusterctlError

ROLES = ("all", "control_plane", "etcd", "workers")


def hosts(context: typer.Context, incomplete: str) -> list[str]:
    """Return the hosts of the inventory that begin so."""
    return _matching(_hosts(context), incomplete)


def host_lists(context: typer.Context, incomplete: str) -> list[str]:
    """Return hosts, with what was written of a list before its last comma in front."""
    return _listed(_hosts(context), incomplete)


def host_patterns(context: typer.Context, incomplete: str) -> list[str]:
    """Return hosts and groups, with what was written of a list before its last comma in front."""
    return _listed([*_hosts(context), *ROLES], incomplete)


def versions(incomplete: str) -> list[str]:
    """Return the versions of Kubernetes that belong to the supported minors."""
    from clusterctl.versions import SUPPORTED_MINORS, known_versions

    return _matching([known_versions(minor).kubernetes for minor in SUPPORTED_MINORS], incomplete)


def _hosts(context: typer.Context) -> list[str]:
    """The hosts of the inventory on the command line or in CLUSTERCTL_INVENTORY; none where it cannot be read."""
    from clusterctl.inventory import load
    from clusterctl.inventory.sources import STDIN, Sources

    paths = context.params.get("inventory")
    if not paths or STDIN in paths:
        return []
    with suppress(ClusterctlError):
        return [host.name for host in load(Sources(tuple(paths))).hosts]
    return []


def _listed(words: list[str], incomplete: str) -> list[str]:
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{word}" for word in _matching(words, last) if word not in before.split(",")]


def _matching(words: list[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]
