"""Hosts that are cheap enough for hundreds: a real sshd each, in namespaces of the lab, without systemd.

Each has its own network, process, mount and host name namespace, and its own layer over one shared tree: host key, machine id,
/etc and /var are its own. A lab removes them like its other machines, also after a kill.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

from clusterctl.lab.base import Base, ensure_base
from clusterctl.lab.lab import Lab, silent
from clusterctl.lab.machine import Upper, start
from clusterctl.lab.nspawn import Nspawn
from clusterctl.lab.state import LabSpec, Machine, State

MOST_WORKERS = 189
"""Addresses that a lab has for workers; further hosts get those of etcd members."""

PYTHON = ("python3", "python3-apt")
"""What Ansible requires of a host beside the lab's packages."""

STAND_IN = r"""#!/bin/sh
# In place of systemctl, as these hosts have no systemd: a unit that has a file is active and enabled.
describe() {
	if [ -e "/etc/systemd/system/$1" ] || [ -e "/lib/systemd/system/$1" ]; then
		set -- "$1" loaded active running enabled
	else
		set -- "$1" not-found inactive dead ''
	fi
	printf 'Id=%s\nLoadState=%s\nActiveState=%s\nSubState=%s\nUnitFileState=%s\nNeedDaemonReload=no\n\n' "$@"
}
case " $* " in
	*" show "*)
		for word; do
			case $word in *.service) describe "$word" ;; esac
		done ;;
	*" is-enabled "*) echo enabled ;;
	*" is-active "*) echo active ;;
esac
"""

BOOT = """set -eu
mount -t overlay overlay -o "lowerdir=$LAB_LOWER,upperdir=$LAB_DIRECTORY/upper,workdir=$LAB_DIRECTORY/work" "$LAB_DIRECTORY/root"
cd "$LAB_DIRECTORY/root"
mount -t proc proc proc
mount --rbind /sys sys
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/sshd run/systemd
echo systemd-nspawn > run/systemd/container
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 kmsg:1:11; do
  IFS=: read -r name major minor <<< "$node"
  mknod -m 666 "dev/$name" c "$major" "$minor"
done
cat proc/sys/kernel/random/uuid > run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id
hostname "$LAB_MACHINE"
pivot_root . .
umount -l .
exec /usr/sbin/sshd -D -e
"""


@cache
def base() -> Base:
    """Return the tree that all hosts share: a lab's machine with Python."""
    return ensure_base(silent, replace(Nspawn.recipe, packages=(*Nspawn.recipe.packages, *PYTHON)))


class Sshd(Nspawn):
    """Runs one sshd as process 1 of a host."""

    def install(self, machine: Machine, base: Base) -> None:
        for name in ("work", "root"):
            (machine.directory / name).mkdir(parents=True, exist_ok=True)
        Upper(machine.directory / "upper", base.tree).put("usr/bin/systemctl", STAND_IN, 0o755)

    def launch(self, machine: Machine, base_of_lab: Base, spec: LabSpec) -> None:
        self._new_group(machine)
        template = template_of(machine.directory.parent)
        lower = [str(path) for path in (template, base().tree) if path.is_dir()]
        start("program", machine.directory / "console.log", "nsenter", f"--net=/run/netns/{machine.namespace}",
              "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "bash", "-c", BOOT,
              LAB_CGROUP=machine.cgroup, LAB_DIRECTORY=str(machine.directory), LAB_MACHINE=machine.name,
              LAB_LOWER=":".join(lower))


def template_of(lab: Path) -> Path:
    """Where a lab has the layer that is laid between the shared tree and each host's own."""
    return lab / "template"


class Hosts(Lab):
    """A lab of such hosts: one that stands for the control plane, and workers."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.driver = Sshd()

    def make_template(self, name: str, own: tuple[str, ...]) -> None:
        """Turn what was installed on a host into the layer of all hosts that come after it, and give it a new disk.

        ``own``: paths of the host alone, which are left out. Files keep their inodes, which the stat cache of programs compares.
        """
        upper, template = self.machine(name).directory / "upper", template_of(self.directory)
        self.kill(name)
        upper.rename(template)
        for path in own:
            if (template / path).is_dir():
                shutil.rmtree(template / path)
        self.reinstall(name)

    def grow(self, workers: int) -> None:
        """Add hosts until there are so many beside the control plane."""
        lacking = workers - (len(self.machines) - 1)
        for role, most in (("worker", MOST_WORKERS), ("etcd", workers)):
            has = sum(machine.role == role for machine in self.machines.values())
            if (count := min(lacking, most - has)) > 0:
                self.add(count, role)
                lacking -= count
