"""What pods leave to the system: GKE's formula, and what a machine of any size keeps for pods."""

from __future__ import annotations

import pytest

from clusterctl.cluster.host_settings import KubeletSettings
from clusterctl.components.reserves import reserved, reserved_mib, reserved_millicores
from clusterctl.shell.facts import Facts, parse_facts


@pytest.mark.parametrize(("memory", "mib"), [
    # From the table of GKE's documentation: 1, 2, 4, 8, 16, 128 and 256 GiB.
    (512, 255), (400, 200), (1023, 255), (1024, 256), (2048, 512), (4096, 1024), (8192, 1843), (16384, 2662), (131072, 9543), (262144, 12165),
])
def test_memory(memory: int, mib: int) -> None:
    assert reserved_mib(memory) == mib


@pytest.mark.parametrize(("cpus", "millicores"), [(1, 60), (2, 70), (3, 75), (4, 80), (8, 90), (16, 110), (64, 230)])
def test_processors(cpus: int, millicores: int) -> None:
    assert reserved_millicores(cpus) == millicores


@pytest.mark.parametrize("memory", range(700, 4000, 50))
def test_pods_keep_memory_and_processors_of_the_smallest_machines(memory: int) -> None:
    found = reserved(KubeletSettings(), facts(memory, "0"))
    # The kubelet's hard eviction threshold of 100Mi comes on top.
    assert memory - int(found["memory"].removesuffix("Mi")) - 100 > 300 and found["cpu"] == "60m"


def test_a_few_mib_more_or_less_change_nothing() -> None:
    assert reserved(KubeletSettings(), facts(7900, "0-3")) == reserved(KubeletSettings(), facts(7933, "0-3")) == {
        "cpu": "80m", "memory": "1792Mi"}


def test_settings_replace_the_formula() -> None:
    assert reserved(KubeletSettings(reserves="none"), facts(4000, "0")) == {}
    assert reserved(KubeletSettings(reserves={"cpu": "1"}), facts(4000, "0")) == {"cpu": "1"}
    assert reserved(KubeletSettings(), parse_facts({})) == {}


def facts(mib: int, cpus: str) -> Facts:
    return parse_facts({"MemTotal": f"{mib * 1024} kB", "Cpus_allowed_list": cpus})
