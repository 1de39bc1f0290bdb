"""Machines as containers of systemd-nspawn: systemd, sshd and disks of their own, on this host's kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from clusterctl.lab import base as common
from clusterctl.lab import network
from clusterctl.lab.base import Base, Files, Recipe
from clusterctl.lab.cgroup import UNIFIED, Cgroup, hierarchies
from clusterctl.lab.driver import Driver
from clusterctl.lab.host import remove_tree, run
from clusterctl.lab.machine import start
from clusterctl.lab.state import LabSpec, Machine

DATA = ("containerd", "etcd", "kubelet")
REBOOT_SIGNAL = signal.SIGRTMIN + 5  # systemd's: start reboot.target
IN_MACHINE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
              "TERM": "dumb"}

# Units that wait for hardware, or that would change what all machines of a host share.
MASKED = (
    "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount", "dev-hugepages.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "modprobe@.service",
    "systemd-networkd.service", "systemd-pstore.service", "systemd-random-seed.service", "systemd-remount-fs.service",
    "tmp.mount",
)

FILES: Files = {
    "etc/fstab": (0o644, ""),
    # The console is a file on the host, for machines where no login works. /dev/kmsg is the host's.
    "etc/systemd/journald.conf.d/lab.conf": (0o644, "[Journal]\nReadKMsg=no\nForwardToConsole=yes\nMaxLevelConsole=notice\n"),
    # Pods whose first process does not heed SIGTERM would hold every reboot up for the usual 90 s.
    "etc/systemd/system.conf.d/lab.conf": (0o644, "[Manager]\nDefaultTimeoutStopSec=15s\n"),
    # A container finds its cgroups read-only; a machine does not, and a kubelet needs to write them.
    "etc/systemd/system/lab-cgroups.service": (0o644, "[Unit]\nDescription=Make the control groups writable\n"
                                               "DefaultDependencies=no\nBefore=sysinit.target\n\n"
                                               "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
                                               "ExecStart=/usr/lib/lab/cgroups\n\n[Install]\nWantedBy=sysinit.target\n"),
    "usr/lib/lab/cgroups": (0o755, "#!/bin/sh\nset -e\nwhile read -r _ point kind _; do\n  case \"$kind\" in\n"
                            "    cgroup | cgroup2) mount -o remount,bind,rw \"$point\" ;;\n  esac\ndone < /proc/mounts\n"),
}

LINKS = {"etc/systemd/system/sysinit.target.wants/lab-cgroups.service": "/etc/systemd/system/lab-cgroups.service"}


class Nspawn(Driver):
    """Containers. They are up in seconds; what belongs to the kernel itself is this host's."""

    recipe = Recipe(common.COMMON_PACKAGES, {**common.COMMON_FILES, **FILES}, LINKS, common.COMMON_MASKED + MASKED,
                    shares_kernel=True)
    packages = {"systemd-nspawn": "systemd-container"}
    deadline = 90
    # All machines of a lab lie on one disk, which others fill as well: how full it is in percent says nothing of any of them.
    kubelet = {
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi",
                         "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100,
    }
    rules = "inet"

    def connect(self, machine: Machine, gateway: str) -> None:
        network.create_machine_network(machine.lab, machine.name, machine.address)
        network.address_machine(machine.namespace, machine.address, gateway)

    def install(self, machine: Machine, base: Base) -> None:
        for name in ("work", "root", *(f"data/{name}" for name in DATA)):
            (machine.directory / name).mkdir(parents=True, exist_ok=True)
        shutil.copytree(base.tree / "var/log", machine.directory / "data/log", symlinks=True)

    def wipe(self, machine: Machine) -> None:
        for part in ("upper", "work", "root", "data"):
            remove_tree(machine.directory / part)

    def launch(self, machine: Machine, base: Base, spec: LabSpec) -> None:
        self._new_group(machine, spec.memory)
        unified_only = set(hierarchies().values()) == {UNIFIED}
        if unified_only:  # there a group with processes cannot hand controllers on
            Cgroup(f"{machine.cgroup}/starter").create()
        start("container", machine.directory / "console.log", LAB_CGROUP=machine.cgroup, LAB_DIRECTORY=str(machine.directory),
              LAB_TREE=str(base.tree), LAB_MACHINE=machine.name, LAB_NAMESPACE=machine.namespace,
              LAB_LOOP="starter" if unified_only else ".")

    def leader(self, machine: Machine) -> int | None:
        """Process 1 of the machine."""
        depth = len(_namespaced_pids("self"))
        for pid in sorted(Cgroup(machine.cgroup).pids()):
            numbers = _namespaced_pids(str(pid))
            if len(numbers) == depth + 1 and numbers[-1] == 1:
                return pid
        return None

    def execute(self, machine: Machine, argv: Sequence[str], *, stdin: str = "", timeout: float = 60,
                check: bool = False) -> subprocess.CompletedProcess[str]:
        """As :meth:`Driver.execute`: as a process of the machine that this host starts, not over the network."""
        pid = self.require_leader(machine)
        groups = [_payload(directory) / "cgroup.procs" for directory in Cgroup(machine.cgroup).directories()]
        join = "".join(f"echo $$ > {file}; " for file in groups)
        inside = ["bash", "-c", f'{join}exec "$@"', "bash", "nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net",
                  "--pid", "--cgroup", *argv]
        return run(inside, stdin=stdin, timeout=timeout, check=check, env=IN_MACHINE)

    def ask_for_reboot(self, machine: Machine) -> None:
        pid = self.leader(machine)
        if pid is not None:
            os.kill(pid, REBOOT_SIGNAL)


def _namespaced_pids(pid: str) -> list[int]:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    except OSError:  # it has ended
        return []
    return []


def _payload(directory: Path) -> Path:
    # Where nspawn made a group for what runs inside, the machine sees nothing above that.
    return directory / "payload" if (directory / "payload").is_dir() else directory
