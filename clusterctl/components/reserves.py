"""The part of a node's memory and processors that its pods leave to the kubelet, containerd and the operating system."""

from __future__ import annotations

from collections.abc import Mapping

from clusterctl.cluster.host_settings import KubeletSettings
from clusterctl.shell.facts import Facts

_MEMORY = ((4096, 25), (4096, 20), (8192, 10), (114688, 6))
"""(MiB, per cent of them); of the rest 2 per cent."""
_SMALL, _OF_SMALL = 1024, 255
"""A machine with less MiB than the first reserves the second, and never more than half of its memory."""
_CORES = (600, 100, 50, 50)
"""Ten-thousandths of the first cores; of each further one 25."""
_ROUND = 256
"""MiB to which memory is rounded up: MemTotal changes by a few MiB with each kernel, which must not restart kubelets."""


def reserved(kubelet: KubeletSettings, facts: Facts) -> Mapping[str, str]:
    """Return kubeReserved of a KubeletConfiguration."""
    if not isinstance(kubelet.reserves, str):
        return {str(name): quantity for name, quantity in kubelet.reserves.items()}
    if kubelet.reserves == "none":
        return {}
    memory, cpus = -(-facts.memory_mib // _ROUND) * _ROUND, facts.cpus
    return {**({"cpu": f"{reserved_millicores(cpus)}m"} if cpus else {}),
            **({"memory": f"{reserved_mib(memory)}Mi"} if memory else {})}


def reserved_mib(memory: int) -> int:
    """Return how many MiB of a machine's memory GKE reserves.

    25 % of the first 4 GiB, 20 % of the next 4, 10 % of the next 8, 6 % of the next 112 and 2 % of the rest; 255 MiB of less than
    1 GiB: https://cloud.google.com/kubernetes-engine/docs/concepts/plan-node-sizes#memory_and_cpu_reservations
    """
    if memory < _SMALL:
        return min(_OF_SMALL, memory // 2)
    hundredths = 0
    for most, per_cent in _MEMORY:
        part = min(memory, most)
        hundredths += part * per_cent
        memory -= part
    return (hundredths + memory * 2) // 100


def reserved_millicores(cpus: int) -> int:
    """Return how many thousandths of a core GKE reserves: 6 % of the first core, 1 % of the next, 0.5 % of the next two and
    0.25 % of the rest (same source)."""
    return (sum(_CORES[:cpus]) + 25 * max(0, cpus - len(_CORES))) // 10
