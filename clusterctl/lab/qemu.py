"""Machines as virtual machines of QEMU: Debian's own kernel, with KVM where it works, else by software emulation."""

from __future__ import annotations

import functools
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clusterctl.lab import base as common
from clusterctl.lab import network
from clusterctl.lab.base import Base, Files, Recipe
from clusterctl.lab.cgroup import Cgroup
from clusterctl.lab.driver import Driver
from clusterctl.lab.host import LabError, remove_tree, run
from clusterctl.lab.machine import ssh_command, start
from clusterctl.lab.state import LabSpec, Machine

QEMU = "qemu-system-x86_64"
MEMORY = 2 << 30
"""Of a machine where none is asked for."""
DISK = 16 << 30
CPUS = 2
SSH_FAILED = 255

PACKAGES = ("apparmor", "initramfs-tools", "linux-image-cloud-amd64", "systemd-timesyncd", "udev", "zstd")
FILES: Files = {
    "etc/fstab": (0o644, "/dev/vda / ext4 errors=remount-ro 0 1\n"),
    "etc/network/interfaces": (0o644, ""),
}
ENABLED = {"multi-user.target.wants": "systemd-networkd.service",
           "network-online.target.wants": "systemd-networkd-wait-online.service"}
# The modules that find the disk, and no others: an initrd of a few MB is unpacked in a second also without KVM.
EARLY = """set -e
mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"
echo MODULES=list >"$1/etc/initramfs-tools/conf.d/lab"
printf '%s\\n' virtio_pci virtio_blk ext4 >"$1/usr/share/initramfs-tools/modules.d/lab"
"""

FIRMWARE_SIZE, RESET_VECTOR, EXIT_PORT, EXIT_VALUE = 1 << 16, 0xFFF0, 0xF4, 0x10
# mov al, EXIT_VALUE; out EXIT_PORT, al; hlt; jmp to the hlt
EXITS = bytes((0xB0, EXIT_VALUE, 0xE6, EXIT_PORT, 0xF4, 0xEB, 0xFD))


@functools.cache
def accelerator() -> tuple[str, ...]:
    """Return QEMU's options for KVM if a machine runs with it, else those for software emulation.

    That /dev/kvm exists proves little: a firmware of three instructions is run, which ends QEMU with a status of its own.
    """
    with tempfile.NamedTemporaryFile() as file:
        firmware = bytearray(FIRMWARE_SIZE)
        firmware[RESET_VECTOR:RESET_VECTOR + len(EXITS)] = EXITS
        file.write(firmware)
        file.flush()
        kvm = ("-accel", "kvm", "-cpu", "host")
        try:
            tried = run([QEMU, *kvm, "-m", "16", "-nodefaults", "-no-user-config", "-display", "none", "-bios", file.name,
                         "-device", f"isa-debug-exit,iobase={EXIT_PORT},iosize=1"], timeout=10, check=False)
        except LabError:  # it hangs
            works = False
        else:
            works = tried.returncode == EXIT_VALUE << 1 | 1
    return kvm if works else ("-accel", "tcg,thread=multi", "-cpu", "max")


class Qemu(Driver):
    """Virtual machines: a kernel, a disk and a memory of their own."""

    recipe = Recipe(common.COMMON_PACKAGES + PACKAGES, {**common.COMMON_FILES, **FILES},
                    {f"etc/systemd/system/{wants}/{unit}": f"/lib/systemd/system/{unit}" for wants, unit in ENABLED.items()},
                    common.COMMON_MASKED, early=EARLY, disk=DISK)
    packages = {QEMU: "qemu-system-x86", "mke2fs": "e2fsprogs"}
    deadline = 900  # by software emulation, with others on the same processors
    kubelet = {}
    rules = "bridge"

    def connect(self, machine: Machine, gateway: str) -> None:
        network.create_machine_network(machine.lab, machine.name, machine.address)
        network.add_tap(machine.namespace)

    def install(self, machine: Machine, base: Base) -> None:
        """As :meth:`Driver.install`. The disk is mounted where no other process sees it; the mount ends with its script."""
        link = ("[Match]\nName=eth0\n\n[Network]\nLinkLocalAddressing=no\n"
                f"Address={machine.address}/24\nGateway={machine.gateway}\n")
        (machine.directory / "upper/etc/systemd/network").mkdir(parents=True)
        (machine.directory / "upper/etc/systemd/network/10-lab.network").write_text(link)
        new = machine.directory / "disk.new"
        run(["cp", "--sparse=always", "--reflink=auto", str(base.disk), str(new)], timeout=300)
        mount = machine.directory / "root"
        mount.mkdir(exist_ok=True)
        script = 'set -e; mount -o loop "$1" "$2"; cp -a "$3/." "$2/"; umount "$2"'
        run(["unshare", "--mount", "sh", "-c", script, "sh", str(new), str(mount), str(machine.directory / "upper")], timeout=120)
        new.rename(machine.directory / "disk.raw")

    def wipe(self, machine: Machine) -> None:
        remove_tree(machine.directory / "upper")

    def launch(self, machine: Machine, base: Base, spec: LabSpec) -> None:
        self._new_group(machine)
        [kernel], [initrd] = (base.tree / "boot").glob("vmlinuz-*"), (base.tree / "boot").glob("initrd.img-*")
        mac = ":".join(("52", "54", *(f"{int(octet):02x}" for octet in machine.address.split("."))))
        start("program", machine.directory / "console.log", "nsenter", f"--net={network.NAMESPACES / machine.namespace}", QEMU,
              "-name", f"{machine.lab}-{machine.name}", *accelerator(), "-smp", str(min(CPUS, os.cpu_count() or 1)),
              "-m", f"{(spec.memory or MEMORY) >> 20}M", "-nodefaults", "-no-user-config", "-display", "none",
              "-chardev", f"file,id=console,append=on,path={machine.directory / 'console.log'}", "-serial", "chardev:console",
              "-kernel", str(kernel), "-initrd", str(initrd), "-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0",
              # A flush would wait for this host's disk. The host's page cache outlives the virtual machine.
              "-drive", f"file={machine.directory / 'disk.raw'},if=virtio,format=raw,cache=unsafe,discard=unmap",
              "-netdev", f"tap,id=net,ifname={network.TAP},script=no,downscript=no",
              "-device", f"virtio-net-pci,netdev=net,mac={mac}", "-device", "virtio-rng-pci", LAB_CGROUP=machine.cgroup)

    def leader(self, machine: Machine) -> int | None:
        """The process of QEMU."""
        return next((pid for pid in sorted(Cgroup(machine.cgroup).pids()) if _program(pid) == QEMU), None)

    def execute(self, machine: Machine, argv: Sequence[str], *, stdin: str = "", timeout: float = 60,
                check: bool = False) -> subprocess.CompletedProcess[str]:
        """As :meth:`Driver.execute`, with ssh: it needs the machine's network."""
        self.require_leader(machine)
        ssh = ssh_command(machine, "root", ("-oBatchMode=yes",))
        done = run([*ssh, shlex.join(argv)], stdin=stdin, timeout=timeout, check=False)
        if check and done.returncode not in (0, SSH_FAILED):
            raise LabError(f"{machine.name}: `{shlex.join(argv)}` ended with {done.returncode}: {done.stderr.strip()}",
                           where="lab", code="lab.command-failed")
        if done.returncode == SSH_FAILED:
            raise LabError(f"cannot log in to {machine.name}: {done.stderr.strip()}", where="lab", code="lab.no-login",
                           hint=f"its console is in {machine.directory / 'console.log'}")
        return done

    def ask_for_reboot(self, machine: Machine) -> None:
        self.execute(machine, ["systemctl", "--no-block", "reboot"], check=True)


def _program(pid: int) -> str:
    try:
        return Path(os.readlink(f"/proc/{pid}/exe")).name
    except OSError:  # it has ended
        return ""
