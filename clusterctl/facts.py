"""What one machine said about itself. Never what is wanted of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clusterctl.shell import Program, functions

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Space:
    """What is left on the file system of a path: MiB and inodes (None where it has no inodes); ``writable``."""

    mib: int
    inodes: int | None
    writable: bool


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens on a port."""

    pid: str
    process: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A machine, as its probe program saw it. ``skew``: seconds that its clock is ahead of ours, within the round trip."""

    values: Mapping[str, str]
    space: Mapping[str, Space] = field(default_factory=dict)
    ports: Mapping[int, Listener] = field(default_factory=dict)
    skew: float = 0.0

    def __getitem__(self, name: str) -> str:
        return self.values.get(name, "")

    @property
    def arch(self) -> str:
        """Upstream's name of the processor: amd64, arm64; the machine's own word where there is none."""
        return ARCHITECTURES.get(self["arch"], self["arch"])

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self["addresses"].split())

    @property
    def cgroup_v1(self) -> bool:
        return self["cgroup"] != "cgroup2fs"

    @property
    def lowers_oom_score(self) -> bool:
        """Whether processes may be made less likely to be killed; containers of systemd-nspawn and LXC may not."""
        return self["oom_score_adj"] == "lowers"

    @property
    def resolves_locally(self) -> bool:
        """Whether /etc/resolv.conf points at systemd-resolved's own address, which pods cannot reach."""
        return self["resolv_conf"] not in ("", "0", "missing")

    @property
    def memory_mib(self) -> int:
        return _number(self["memory_kib"]) // 1024

    @property
    def cpus(self) -> int:
        return _number(self["cpus"])

    @property
    def swap_mib(self) -> int:
        return _number(self["swap_kib"]) // 1024

    @property
    def running(self) -> Mapping[str, str]:
        """The version of each product that is switched on here, by the product's name in the catalog."""
        found = (target.split("/")[-3:-1] for target in self["running"].split())
        return {words[0]: words[1] for words in found if len(words) == 2}

    @property
    def systemd(self) -> int:
        return _number(self["systemd"])


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def probe_program() -> Program:
    """The program that asks a machine for its facts."""
    return Program(probes=(("facts", "all"),), functions=functions("facts"))


def read_facts(records: Iterable[list[str]], *, asked: float, answered: float) -> Facts:
    """Facts from a probe program's records; ``asked`` and ``answered``: our clock, in seconds, around it."""
    values: dict[str, str] = {}
    space: dict[str, Space] = {}
    ports: dict[int, Listener] = {}
    for words in records:
        if words[0] == "port":
            ports[int(words[1])] = Listener(*(words[2:5] + [""] * 3)[:3])
        elif words[0] == "fact" and words[1].startswith("free "):
            kib, inodes, access, *_ = (words[2].split() + ["", "", ""])[:3]
            space[words[1][5:]] = Space(
                _number(kib) // 1024, int(inodes) if inodes.isdigit() and inodes != "0" else None, access != "ro"
            )
        elif words[0] == "fact":
            values[words[1]] = words[2].strip() if len(words) > 2 else ""
    theirs = _seconds(values.get("time", "")) or answered
    skew = theirs - asked if theirs < asked else max(0.0, theirs - answered)
    return Facts(values=values, space=space, ports=ports, skew=skew)
