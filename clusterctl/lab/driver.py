"""Drivers of the lab: the parts that differ between containers and virtual machines."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from clusterctl.lab.base import Base, Recipe
from clusterctl.lab.cgroup import Cgroup
from clusterctl.lab.host import LabError
from clusterctl.lab.state import LabSpec, Machine


class Driver(ABC):
    """Raises machines of one kind. All of them have a network namespace, a control group and a directory on this host."""

    recipe: Recipe
    """The base of the machines."""
    packages: Mapping[str, str]
    """Programs that the driver runs on this host beside those of every lab, each with its Debian package."""
    deadline: float
    """Seconds within which a machine boots."""
    kubelet: Mapping[str, object]
    """Settings of the machines' kubelets."""
    rules: str
    """The family of nftables whose rules see a machine's traffic in its namespace."""

    @abstractmethod
    def connect(self, machine: Machine, gateway: str) -> None:
        """Make the machine's network namespace with a link to the lab's bridge."""

    @abstractmethod
    def install(self, machine: Machine, base: Base) -> None:
        """Make the machine's disk of the base and the files in its directory ``upper``."""

    @abstractmethod
    def wipe(self, machine: Machine) -> None:
        """Remove what :meth:`install` made. The machine must be down."""

    @abstractmethod
    def launch(self, machine: Machine, base: Base, spec: LabSpec) -> None:
        """Start the machine as a session of its own that outlives this process. It must not be running."""

    @abstractmethod
    def leader(self, machine: Machine) -> int | None:
        """Return the process of this host that stands for the machine, or None while it is not running."""

    @abstractmethod
    def execute(self, machine: Machine, argv: Sequence[str], *, stdin: str = "", timeout: float = 60,
                check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root in the machine. Raises :class:`LabError` if the machine is down or too slow."""

    @abstractmethod
    def ask_for_reboot(self, machine: Machine) -> None:
        """Request a reboot from the machine's systemd; return at once."""

    def boot_id(self, machine: Machine) -> str:
        """Return the machine's boot id; empty while it cannot be read."""
        try:
            return self.execute(machine, ["cat", "/proc/sys/kernel/random/boot_id"], timeout=30, check=True).stdout.strip()
        except LabError:
            return ""

    def require_leader(self, machine: Machine) -> int:
        """Return :meth:`leader`; raises :class:`LabError` while there is none."""
        pid = self.leader(machine)
        if pid is None:
            raise LabError(f"{machine.name} is not running", where="lab", code="lab.not-running",
                           hint=f"clusterctl lab start {machine.name} --name {machine.lab}")
        return pid

    def _new_group(self, machine: Machine, memory: int | None = None) -> None:
        group = Cgroup(machine.cgroup)
        group.remove()
        group.create(memory=memory)
