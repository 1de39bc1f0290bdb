"""Facts: what a machine reports about itself, never its desired state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clusterctl.shell import Observation, Probe, Script, functions
from clusterctl.shell.footprint import Footprint

CGROUPS = "/sys/fs/cgroup"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Space:
    """Free space on the file system of a path: MiB and inodes (None where it has no inodes); ``writable``."""

    mib: int
    inodes: int | None
    writable: bool


@dataclass(frozen=True, slots=True)
class Listener:
    """The process that listens on a port."""

    pid: str
    process: str
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A machine, as its facts program observed it. A text is empty where the machine reports nothing.

    ``skew``: seconds that its clock is ahead of ours, within the round trip.
    """

    arch: str = ""
    """Upstream's name of the processor: amd64, arm64; the machine's own word where there is none."""
    hostname: str = ""
    kernel: str = ""
    os: str = ""
    os_version: str = ""
    systemd: int = 0
    machine_id: str = ""
    boot_id: str = ""
    ssh_host_key: str = ""
    memory_mib: int = 0
    swap_mib: int = 0
    cpus: int = 0
    """How many processors its programs may use."""
    addresses: tuple[str, ...] = ()
    nameservers: str = ""
    resolv_conf: str = ""
    """``missing``, ``0``, or how many of its name servers are the machine itself."""
    resolved: str = ""
    cgroup: str = ""
    """The type of the file system of /sys/fs/cgroup."""
    oom_score_adj: Literal["", "lowers", "fixed"] = ""
    container: str = ""
    kmsg: Literal["", "there", "missing"] = ""
    selinux: str = ""
    cluster: str = ""
    """The identity of the cluster whose machine it is."""
    etcd: Literal["", "begun", "formed", "lost"] = ""
    served: frozenset[str] = frozenset()
    """Services of clusterctl that have been ready here at least once, such as ``kubelet``."""
    running: Mapping[str, str] = field(default_factory=dict)
    """The version of each product that is in use, by the product's name in the catalog."""
    node_ip: str = ""
    node_name: str = ""
    member_name: str = ""
    api_port: str = ""
    kubelet_client: str = ""
    foreign: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths, units or names of other installations, by the kinds of shell/foreign.sh."""
    space: Mapping[str, Space] = field(default_factory=dict)
    ports: Mapping[int, Listener] = field(default_factory=dict)
    skew: float = 0.0

    @property
    def cgroup_v1(self) -> bool:
        return self.cgroup != "cgroup2fs"

    @property
    def lowers_oom_score(self) -> bool:
        """Whether processes may be made less likely to be killed; containers of systemd-nspawn and LXC may not."""
        return self.oom_score_adj == "lowers"

    @property
    def resolves_locally(self) -> bool:
        """Whether /etc/resolv.conf points at the machine itself (systemd-resolved, dnsmasq), which pods cannot reach."""
        return self.resolv_conf not in ("", "0", "missing")

    @property
    def served_name(self) -> str:
        """The name under which this machine is a node or an etcd member; empty where it has no unit of either.

        A kubelet without ``--hostname-override`` has the machine's hostname, in lower case.
        """
        return self.node_name or self.member_name or (self.hostname.lower() if self.node_ip else "")


TEXTS = (
    "hostname", "kernel", "os", "os_version", "machine_id", "boot_id", "ssh_host_key", "nameservers", "resolv_conf", "resolved",
    "cgroup", "oom_score_adj", "container", "kmsg", "selinux", "cluster", "etcd", "node_ip", "node_name", "member_name",
    "api_port", "kubelet_client")
"""Facts that are taken as the machine reports them."""
FOREIGN = "foreign_"


def parse_facts(values: Mapping[str, str], *, space: Mapping[str, Space] | None = None,
                ports: Mapping[int, Listener] | None = None, skew: float = 0.0) -> Facts:
    """Parse what a machine reports, by name; ``running``: targets of links, ``served``: paths of stamps, both in one line."""
    texts: dict[str, Any] = {name: values[name] for name in TEXTS if name in values}
    links = (target.split("/")[-3:-1] for target in values.get("running", "").split())
    stamps = {path.rpartition("/")[2].removesuffix(".service") for path in values.get("served", "").split()}
    machine = values.get("arch", "")
    return Facts(
        **texts,
        arch=ARCHITECTURES.get(machine, machine),
        systemd=_number(values.get("systemd", "")),
        memory_mib=_kib(values.get("MemTotal", "")) // 1024,
        swap_mib=_kib(values.get("SwapTotal", "")) // 1024,
        cpus=_cpus(values.get(CPUS, "")),
        addresses=tuple(values.get("addresses", "").split()),
        running={words[0]: words[1] for words in links if len(words) == 2},
        # A pattern that matched nothing.
        served=frozenset(stamps - {"*"}),
        foreign={name.removeprefix(FOREIGN): tuple(value.splitlines()) for name, value in values.items()
                 if name.startswith(FOREIGN)},
        space=space or {}, ports=ports or {}, skew=skew)


def _cpus(text: str) -> int:
    """The number of processors in a list as 0-3,8 (proc(5), Cpus_allowed_list)."""
    ends = (part.partition("-")[::2] for part in text.split(",") if part)
    return sum(_number(last or first) - _number(first) + 1 for first, last in ends)


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _kib(text: str) -> int:
    """The number of such a text as ``8000000 kB``."""
    return _number(text.partition(" ")[0])


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


KINDS = ("fact", "time", "address", "running", "space", "writable", "port", "foreign")
"""The records that a machine's facts come in; all others are answers to other probes."""

LINES: Mapping[str, str] = {
    "hostname": "/proc/sys/kernel/hostname", "kernel": "/proc/sys/kernel/osrelease", "arch": "/proc/sys/kernel/arch",
    "machine_id": "/etc/machine-id", "boot_id": "/proc/sys/kernel/random/boot_id",
    "ssh_host_key": "/etc/ssh/ssh_host_ed25519_key.pub",
}
"""Facts that are the first line of a file."""

STATUS, CPUS = "/proc/self/status", "Cpus_allowed_list"
"""The line of a file, NAME: VALUE, that says which processors there are."""

FLAGS: Mapping[str, Mapping[str, str]] = {
    "/etc/systemd/system/kubelet.service": {"node-ip": "node_ip", "hostname-override": "node_name"},
    "/etc/systemd/system/etcd.service": {"name": "member_name"},
    "/etc/systemd/system/kube-apiserver.service": {"secure-port": "api_port"},
}
"""Facts that are flags in unit files, by file and flag."""

PROBES: Sequence[Probe] = (("facts", "all"), ("running", "all"), *(("text", path) for path in (*LINES.values(), STATUS, *FLAGS)))


def probe_program(probes: Sequence[Probe] = (), *, footprint: Footprint, verify: bool = False) -> Script:
    """The program that asks a machine for its facts, and looks at ``probes`` in the same trip. ``footprint``: of all products."""
    return Script(probes=(*PROBES, *probes), functions=footprint.assignments + functions("facts", "foreign"), verify=verify)


def read_facts(records: Iterable[Sequence[str]], *, asked: float, answered: float) -> tuple[Facts, Observation]:
    """Facts from a probe program's records, and what else they say; ``asked``, ``answered``: our clock, in seconds, around it."""
    said: dict[str, list[list[str]]] = {kind: [] for kind in KINDS}
    seen = Observation()
    for kind, *words in records:
        if kind in said:
            said[kind].append(words)
        else:
            seen.add(kind, words)
    values = _lines(seen) | {words[0]: words[1].strip() if len(words) > 1 else "" for words in said["fact"]}
    values["addresses"] = " ".join(word.partition("/")[0] for words in said["address"] for word in words[0].split()[3:4])
    values["running"] = " ".join(words[0] for words in said["running"])
    for found, path, *_ in said["foreign"]:
        values[FOREIGN + found] = "\n".join([*values.get(FOREIGN + found, "").splitlines(), path])
    writable = {words[0] for words in said["writable"]}
    space = {words[0]: _space(words[1:], words[0] in writable) for words in said["space"] if words[0] != CGROUPS}
    values["cgroup"] = next((words[1] for words in said["space"] if words[0] == CGROUPS and words[1:]), "")
    ports = {int(words[0]): Listener(*(words[1:4] + [""] * 3)[:3]) for words in said["port"]}
    theirs = next((_seconds(words[0]) for words in said["time"]), 0.0) or answered
    skew = theirs - asked if theirs < asked else max(0.0, theirs - answered)
    return parse_facts(values, space=space, ports=ports, skew=skew), seen


def _lines(seen: Observation) -> dict[str, str]:
    """The facts that are lines of files; where a file is not there, nothing of it."""
    found = {name: lines[0].strip() for name, path in LINES.items() if (lines := seen.get("text", path))}
    for line in seen.get("text", STATUS) or ():
        if line.startswith(CPUS):
            found[CPUS] = line.partition(":")[2].strip()
    for path, flags in FLAGS.items():
        for word in " ".join(seen.get("text", path) or ()).split():
            flag, _, value = word.removeprefix("--").partition("=")
            if word.startswith("--") and flag in flags:
                found[flags[flag]] = value
    return found


def _space(words: Sequence[str], writable: bool) -> Space:
    """From the kind of a file system, its free blocks, their size and its free inodes."""
    _, blocks, size, inodes, *_ = [*words, "", "", "", ""]
    # One that makes inodes as it needs them says that it has none.
    return Space(_number(blocks) * _number(size) >> 20, _number(inodes) or None, writable)
