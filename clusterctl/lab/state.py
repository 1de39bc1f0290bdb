"""The state of a lab: its specification, its machines, and the directory with all its files."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clusterctl.errors import InputError, Refused
from clusterctl.lab.lock import FileLock
from clusterctl.lab.network import namespace_of
from clusterctl.lab.sources import BASES, DNF

ROLES = {"control_plane": "cp", "etcd": "etcd", "worker": "w"}
FIRST_OCTET = {"control_plane": 10, "etcd": 30, "worker": 50}
DRIVERS = ("nspawn", "qemu")
LAST_OCTET = {"control_plane": 29, "etcd": 49, "worker": 239}


def labs_directory() -> Path:
    """Where labs live: ``$CLUSTERCTL_LAB_DIRECTORY`` or ``/var/lib/clusterctl-lab``."""
    return Path(os.environ.get("CLUSTERCTL_LAB_DIRECTORY") or "/var/lib/clusterctl-lab")


def lock_of(name: str) -> FileLock:
    """The lock that ``up``, ``add`` and ``down`` of one lab hold."""
    return FileLock(labs_directory() / f".{name}.lock", wait=120)


def ranges_lock() -> FileLock:
    """The lock under which address ranges are given away."""
    return FileLock(labs_directory() / ".ranges.lock")


def check_name(name: str) -> str:
    """``name`` if a lab may be called that; raises :class:`InputError`."""
    if not re.fullmatch(r"[a-z][a-z0-9]{0,15}", name):
        raise InputError(f"a lab cannot be called {name!r}", where="--name",
                         hint="use up to 16 lower-case letters and digits, a letter first", code="lab.name")
    return name


@dataclass(frozen=True)
class LabSpec:
    """The specification of a lab. ``machines``: the number of all of them; ``memory``: a limit per machine in bytes, or the size
    of a virtual machine's memory."""

    name: str = "lab"
    machines: int = 3
    control_planes: int = 1
    etcd: int = 0
    memory: int | None = None
    user: str = "root"
    sudo_password: bool = False
    cluster: dict[str, object] = field(default_factory=dict)
    driver: str = "nspawn"
    base: str = BASES[0]

    def check(self) -> None:
        """Raise InputError if it is not possible."""
        check_name(self.name)
        if self.control_planes < 1 or self.etcd < 0:
            raise InputError("a lab needs at least one control plane", where="--control-planes", code="lab.control-planes")
        if self.workers < 0:
            raise InputError(f"{self.control_planes} control planes and {self.etcd} etcd members are more than "
                             f"{self.machines} machines", where="--machines", code="lab.machines")
        if self.user not in ("root", "admin"):
            raise InputError(f"a lab's machines have no user {self.user!r}", where="--user", code="lab.user",
                             hint="root or admin")
        if self.driver not in DRIVERS:
            raise InputError(f"there is no driver {self.driver!r}", where="--driver", code="lab.driver",
                             hint=" or ".join(DRIVERS))
        bases = [base for base in BASES if base != DNF or self.driver == "nspawn"]
        if self.base not in bases:
            raise InputError(f"the driver {self.driver} has no base {self.base!r}", where="--base", code="lab.unknown-base",
                             hint=" or ".join(bases))
        if self.memory is not None and self.memory < 128 << 20:
            raise InputError("a machine needs at least 128M", where="--memory", code="lab.memory")

    @property
    def workers(self) -> int:
        """How many machines are neither control planes nor etcd members."""
        return self.machines - self.control_planes - self.etcd

    def roles(self) -> Iterator[tuple[str, int]]:
        """Each role with the number of its machines."""
        yield from (("control_plane", self.control_planes), ("etcd", self.etcd), ("worker", self.workers))


@dataclass(frozen=True)
class Machine:
    """A machine: its name is unique in its lab; ``role`` is control_plane, etcd or worker."""

    name: str
    address: str
    role: str
    namespace: str
    lab: str
    directory: Path

    @property
    def gateway(self) -> str:
        """The controller's address in the lab's network."""
        return f"{self.address.rpartition('.')[0]}.1"

    @property
    def cgroup(self) -> str:
        """Its control group in every hierarchy."""
        return f"{namespace_of(self.lab)}/{self.name}"

    @property
    def prepared(self) -> bool:
        """Whether its files are written; not so if what should have added it was killed."""
        return (self.directory / "host_key.pub").exists()

    @property
    def host_key(self) -> str:
        """Its public host key, as ``ssh-ed25519 AAAA...``."""
        return (self.directory / "host_key.pub").read_text().strip()


@dataclass
class State:
    """A lab on the disk. It is written before anything of the lab is made, and removed after everything is gone."""

    spec: LabSpec
    number: int
    machines: dict[str, Machine] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Holds all files of the lab."""
        return labs_directory() / self.spec.name

    def address(self, octet: int) -> str:
        """An address of the lab's range; 1 is the controller's."""
        return f"10.77.{self.number}.{octet}"

    def new_machine(self, role: str) -> Machine:
        """The next machine of a role, remembered here but not made. Raises :class:`InputError` where all are taken."""
        if role not in ROLES:
            raise InputError(f"there is no role {role!r}", where="--role", hint=", ".join(ROLES), code="lab.role")
        taken = [int(machine.name.rpartition("-")[2]) for machine in self.machines.values() if machine.role == role]
        index = max(taken, default=0) + 1
        octet = FIRST_OCTET[role] + index
        if octet > LAST_OCTET[role]:
            raise InputError(f"a lab has no room for {index} machines of role {role}", where="--machines", code="lab.machines")
        name = f"{ROLES[role]}-{index}"
        machine = Machine(name, self.address(octet), role, namespace_of(self.spec.name, name), self.spec.name,
                          self.directory / name)
        self.machines[name] = machine
        return machine

    def save(self) -> None:
        """Write it atomically."""
        self.directory.mkdir(parents=True, exist_ok=True)
        document = {"number": self.number, "spec": asdict(self.spec),
                    "machines": [{"name": machine.name, "address": machine.address, "role": machine.role}
                                 for machine in self.machines.values()]}
        write_atomically(self.directory / "state.json", json.dumps(document, indent=1) + "\n", 0o600)

    @classmethod
    def load(cls, name: str) -> State:
        """The lab called ``name``; raises :class:`InputError` if there is none."""
        try:
            document = json.loads((labs_directory() / check_name(name) / "state.json").read_text())
        except FileNotFoundError:
            raise InputError(f"there is no lab called {name}", where="--name", code="lab.unknown",
                             hint=f"clusterctl lab up --name {name}") from None
        state = cls(LabSpec(**document["spec"]), document["number"])
        for entry in document["machines"]:
            state.machines[entry["name"]] = Machine(entry["name"], entry["address"], entry["role"],
                                                    namespace_of(name, entry["name"]), name, state.directory / entry["name"])
        return state

    @classmethod
    def create(cls, spec: LabSpec) -> State:
        """A new lab with an address range of its own, on the disk. Its lock must be held."""
        with ranges_lock() as lock:
            taken = {State.load(name).number for name in lab_names()}
            free = [number for number in range(1, 255) if number not in taken]
            if not free:
                raise Refused("all 254 address ranges are in use", where="lab", hint="clusterctl lab list", code="lab.no-network")
            state = cls(spec, free[0])
            for role, count in spec.roles():
                for _ in range(count):
                    state.new_machine(role)
            state.save()
            lock.remove()
        return state


def lab_names() -> list[str]:
    """Names of the labs that have a state on the disk."""
    return sorted(file.parent.name for file in labs_directory().glob("*/state.json"))


def write_atomically(path: Path, content: str, mode: int) -> None:
    """Put a whole file in place of ``path``, or nothing."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(fd, "w") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
