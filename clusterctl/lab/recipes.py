"""The bases by name: what a release of Debian, or the base with dnf, adds to a driver's recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clusterctl.lab import repository
from clusterctl.lab.base import Recipe
from clusterctl.lab.sources import DNF, RELEASES

DNF_PACKAGES = ("createrepo-c", "dnf", "dnf-plugins-core", "rpm")
RPMS = ("conntrack", "haproxy", "iptables", "nftables", "openssl", "socat", "zstd")
"""The packages of Debian that machines of the base with dnf can install as RPMs, beside what these depend on."""


def recipe_of(recipe: Recipe, base: str) -> Recipe:
    """Return a driver's recipe for the base of this name."""
    if base != DNF:
        return replace(recipe, release=base)
    late = f"{repository.fetch(RPMS)}{(Path(__file__).parent / 'rpms.sh').read_text()}"
    return replace(recipe, release=RELEASES[0], packages=(*recipe.packages, *DNF_PACKAGES), late=late)
