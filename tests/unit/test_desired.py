"""The probes that are sent before the facts of a machine are known."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_golden import CONTAINER, ROOT, VM, Pins, nothing

from clusterctl.artifacts.catalog import Catalog, Pin
from clusterctl.cluster.model import Cluster
from clusterctl.cluster.versions import SUPPORTED_MINORS, known_versions
from clusterctl.inventory import load
from clusterctl.pki import Pki
from clusterctl.plan import planner
from clusterctl.plan.stages import possible_probes, resources_by_host, stages

FACTS = [
    replace(facts, arch=arch, container=container, resolv_conf=resolver)
    for facts, arch in ((VM, "amd64"), (CONTAINER, "arm64")) for container in ("none", "lxc") for resolver in ("0", "missing")]
"""What facts may say, as far as it matters to components."""


class Images(Pins):
    """A mirror that has all images, too."""

    def get(self, path: str, default: object = None) -> Pin | None:  # type: ignore[override]
        return Pin("0" * 64)


def session(cluster: Cluster, *, images: bool = False) -> Any:
    pins = Images({f"images/{name}-0-amd64.tar": Pin("") for name in ("pause", "coredns", "metrics-server")}) if images else Pins()
    return SimpleNamespace(cluster=cluster, chosen=cluster.hosts, pki=Pki.create(), catalog=Catalog(pins, nothing))


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("inventory", ["single", "ha", "external-etcd", "lab"])
def test_one_round_trip_observes_whatever_the_facts_turn_out_to_require(inventory: str, images: bool) -> None:
    cluster = load(ROOT / "inventories" / f"{inventory}.yaml")
    possible = {name: set(probes) for name, probes in possible_probes(session(cluster, images=images)).items()}
    members = [host.name for host in cluster.etcd_members]
    formations = (frozenset(), frozenset(members), frozenset(members[:1]), frozenset(members[1:]))
    for minor, formed, facts in itertools.product(SUPPORTED_MINORS, formations, FACTS):
        made = session(cluster.at(known_versions(f"{minor}.0")), images=images)
        known = {host.name: replace(facts, etcd="formed" if host.name in formed else "") for host in cluster.hosts}
        for name, resources in resources_by_host(made, stages(made.cluster, formed), made.chosen, known).items():
            needed = set(planner.probes(one for stage in resources.values() for one in stage))
            assert needed <= possible[name], (name, minor, facts, needed - possible[name])


def test_little_is_observed_that_no_machine_requires(tmp_path: Path) -> None:
    made = session(load(ROOT / "inventories" / "ha.yaml"))
    known = dict.fromkeys((host.name for host in made.chosen), VM)
    for name, resources in resources_by_host(made, stages(made.cluster), made.chosen, known).items():
        needed = set(planner.probes(one for stage in resources.values() for one in stage))
        assert len(set(possible_probes(made)[name]) - needed) <= 5
