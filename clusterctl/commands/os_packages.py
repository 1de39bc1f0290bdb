"""Package updates and reboots of one machine: the programs that run there, and their records."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clusterctl.shell import Call, Script, functions

HELD_BACK = ("containerd", "containerd.io", "docker.io", "docker-ce", "runc", "kubelet", "kubeadm", "kubectl", "kubernetes-cni",
             "cri-tools", "etcd*", "flannel")
"""The packages, as patterns, that an update leaves as they are: they would get in the way of the cluster's own programs.

Those that clusterctl installs (haproxy, nftables, iptables, conntrack, zstd, openssl) are the distribution's, and get its
security fixes as all others do.
"""

RELEASED = re.compile(r"[0-9][0-9.+~_-]*")
NOT_A_FLAVOUR = {"bpo", "deb", "rc", "el", "fc"}


@dataclass(frozen=True, slots=True)
class Package:
    """One package and its versions; ``installed`` is empty where it is new or the package manager does not say."""

    name: str
    installed: str
    available: str

    def as_dict(self) -> dict[str, object]:
        return {"package": self.name, "from": self.installed, "to": self.available}


@dataclass(frozen=True, slots=True)
class Marker:
    """The marker of an os-update on a machine that it reboots: its id, the boot id before, whether the operation has ended."""

    operation: str
    boot_id: str
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The report of one machine. ``interrupted``: its package manager was killed over its work; ``cluster``: whose it is."""

    boot_id: str
    cluster: str = ""
    updates: tuple[Package, ...] = ()
    held: tuple[Package, ...] = ()
    interrupted: bool = False
    reboot: tuple[str, ...] = ()
    marker: Marker | None = None
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def rebooted(self) -> bool:
        """Whether the operation that left its marker has rebooted it already."""
        return self.marker is not None and (self.marker.ended or self.marker.boot_id != self.boot_id)


def read_machine(records: Iterable[Sequence[str]]) -> Machine:
    """Parse the records of a program that observes a machine."""
    values: dict[str, str] = {}
    lists: dict[str, list[Sequence[str]]] = {}
    for kind, *words in records:
        if kind == "os":
            values[words[0]] = words[1] if len(words) > 1 else ""
        else:
            lists.setdefault(kind, []).append(words)
    said = values.get("marker", "").split()
    kernel = newer_kernel(values.get("kernel", ""), [words[0] for words in lists.get("kernel", ())])
    return Machine(
        boot_id=values.get("boot_id", ""),
        cluster=values.get("cluster", ""),
        updates=_packages(lists.get("update", ())),
        held=_packages(lists.get("held", ())),
        interrupted="interrupted" in values,
        reboot=(*(words[0] for words in lists.get("reboot", ())), *([f"kernel {kernel} is installed"] if kernel else [])),
        marker=Marker(said[0], said[1], ended="ended" in said[2:]) if len(said) > 1 else None,
        warnings=tuple(words[0] for words in lists.get("warning", ())),
        problems=tuple(words[0] for words in lists.get("problem", ())),
    )


def _packages(lines: Iterable[Sequence[str]]) -> tuple[Package, ...]:
    return tuple(Package(*(*words, "", "")[:3]) for words in lines)


def newer_kernel(running: str, installed: Iterable[str]) -> str:
    """The newest installed kernel of the running one's flavour, where that is newer; empty where none is.

    ``6.1.0-28-cloud-amd64`` and ``6.1.0-29-amd64`` are of two flavours.
    """
    newest = max((release for release in installed if _flavour(release) == _flavour(running)), key=_numbers, default="")
    return newest if newest and running and _numbers(newest) > _numbers(running) else ""


def _flavour(release: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", release)) - NOT_A_FLAVOUR


def _numbers(release: str) -> list[int]:
    found = RELEASED.match(release)
    return [int(number) for number in re.findall(r"\d+", found[0])] if found else []


def look_program(*, refresh: bool) -> Script:
    """Asks a machine what would be updated. ``refresh``: have the lists of packages fetched first."""
    lists = [("lists", "now")] if refresh else []
    return Script(probes=[*lists, *LOOK], functions=functions("os_update"))


LOOK = tuple(("os_update", pattern) for pattern in HELD_BACK)


def download_program() -> Script:
    """Fetches what an update needs; nothing is installed."""
    return program(("os_download", *HELD_BACK))


def update_program() -> Script:
    """Updates a machine's packages, restarts what still runs their old files, and looks again."""
    return Script(steps=[("os_update", *HELD_BACK), ("restart_outdated", "api-proxy.service")], probes=LOOK,
                  functions=functions("os_update"))


def boot_program() -> Script:
    """Asks which boot it is."""
    return Script(probes=[("boot", "id")], functions=functions("os_update"))


def program(*steps: Call) -> Script:
    """Any steps of these functions."""
    return Script(steps=steps, functions=functions("os_update"))
