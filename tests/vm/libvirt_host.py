"""A libvirtd of the tests' own, in a network and a mount namespace: nothing of this host's libvirt is read or written."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cluster import until

from clusterctl.lab import network, server
from clusterctl.lab.qemu import accelerator

FOLDERS = {"etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "run": "/run/libvirt", "log": "/var/log/libvirt", "cache": "/var/cache/libvirt"}
QEMU_CONF = """\
user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = [ ]
namespaces = [ ]
stdio_handler = "file"
remember_owner = 0
swtpm_user = "root"
"""
LIBVIRTD_CONF = 'unix_sock_group = "root"\nauth_unix_ro = "none"\nauth_unix_rw = "none"\n'


class LibvirtHost:
    """Runs commands beside a libvirtd. The packages of ``repository`` are served on port 80 of its networks."""

    def __init__(self, name: str, folder: Path, repository: Path) -> None:
        self.name, self.folder = name, folder
        self.processes: list[subprocess.Popen[str]] = []
        shutil.copytree("/etc/libvirt", folder / "etc", ignore=shutil.ignore_patterns("autostart"))
        for part in FOLDERS:
            (folder / part).mkdir(exist_ok=True)
        (folder / "etc/qemu.conf").write_text(QEMU_CONF)
        (folder / "etc/libvirtd.conf").write_text(LIBVIRTD_CONF)
        subprocess.run(["ip", "netns", "add", name], check=True, timeout=30)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True, timeout=30)
        net = ("nsenter", f"--net={network.NAMESPACES / name}")
        self._start(*net, sys.executable, "-I", str(server.__file__), str(repository), "0.0.0.0", "80")
        binds = [f"mkdir -p {path}; mount --bind {shlex.quote(str(folder / part))} {path}" for part, path in FOLDERS.items()]
        # libvirt takes a /dev/kvm that exists for one that works. `ip netns exec` mounts a /sys without cgroups.
        if Path("/dev/kvm").exists() and "kvm" not in accelerator():
            binds.append("mount --bind /dev/null /dev/kvm")
        script = "\n".join(("set -eu", "mount --make-rprivate /", *binds, "exec libvirtd"))
        self.daemon = self._start("ip", "netns", "exec", name, "unshare", "--mount", "bash", "-c", script)
        until(lambda: (folder / "run/libvirt-sock").exists() and self.run("virsh", "version"), "libvirtd", 60)

    def _start(self, *argv: str) -> subprocess.Popen[str]:
        with (self.folder / "output").open("a") as output:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True, start_new_session=True)
        self.processes.append(process)
        return process

    def run(self, *argv: str, code: int | None = 0, timeout: float = 120, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        """Run a command in the namespaces of libvirtd; what it printed, both streams. Fails on another exit code."""
        into = ["nsenter", f"--target={self.daemon.pid}", "--mount", "--net", f"--wd={cwd or self.folder}"]
        done = subprocess.run([*into, *argv], capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
                              env={**os.environ, "LANG": "C.UTF-8", **(env or {})})
        output = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{' '.join(argv)}: exit code {done.returncode}, expected {code}\n{output[-6000:]}"
        return output

    def end(self) -> None:
        """End all machines, dnsmasq and libvirtd: every process that is in the namespace."""
        pids = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, timeout=30, check=True).stdout.split()
        for pid in map(int, pids):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for process in self.processes:
            process.wait(30)
        subprocess.run(["ip", "netns", "delete", self.name], check=True, timeout=30)
