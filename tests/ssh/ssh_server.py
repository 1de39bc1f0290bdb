"""A real sshd on 127.0.0.1, in a mount namespace of its own: nothing of this machine is touched."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clusterctl.cluster.model import Host, Ssh

DEADLINE = 15.0
USER = "operator"
SUDOERS = f"root ALL=(ALL:ALL) ALL\n{USER} ALL=(ALL:ALL) ALL"
NOPASSWD = SUDOERS.replace(f"{USER} ALL=(ALL:ALL) ALL", f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL")

SETUP = """
set -e
mount --make-rprivate /
# Two folders of this machine are covered: what programs write there ends with the namespace.
mkdir -p {base}/state && mount --bind {base}/state /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/home /var/lib/sudo
install -m 644 {base}/authorized_keys /run/authorized_keys
for file in passwd shadow group; do cp /etc/$file {base}/$file; done
install -m 644 {base}/bashrc /run/home/.bashrc
echo '{user}:x:4242:4242::/run/home:{shell}' >>{base}/passwd
echo '{user}:x:4242:' >>{base}/group
echo '{user}:{hash}:20000:0:99999:7:::' >>{base}/shadow
chmod 600 {base}/shadow
printf '%s\\n' '{sudoers}' >{base}/sudoers
chmod 440 {base}/sudoers
for file in passwd shadow group; do mount --bind {base}/$file /etc/$file; done
[ ! -e /etc/sudoers ] || mount --bind {base}/sudoers /etc/sudoers
exec /usr/sbin/sshd -D -E {base}/log -f {base}/config
"""

CONFIG = """
{more}
ListenAddress 127.0.0.1
Port {port}
HostKey {base}/host_key
PidFile none
AuthorizedKeysFile /run/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
AllowTcpForwarding yes
LogLevel DEBUG1
MaxStartups 100
MaxSessions 100
"""

PASSWORD = "canary-of-the-sudo-password"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(condition: Callable[[], object], what: str, deadline: float = DEADLINE) -> None:
    """Look until a condition holds; fails after the deadline."""
    ends = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > ends:
            pytest.fail(f"not within {deadline} s: {what}")
        time.sleep(0.01)


def keygen(path: Path, kind: str = "ed25519") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return path


class Server:
    """One sshd with its own /var/lib, users and sudoers. ``log``: what it says; ``state``: its /var/lib/clusterctl.

    ``more``: lines of its configuration before ours, and thus over them; ``bashrc``: of the operator, whose shell is then bash.
    """

    def __init__(self, base: Path, *, sudoers: str = "", more: str = "", bashrc: str = "") -> None:
        if shutil.which("sshd", path="/usr/sbin") is None:
            pytest.fail("sshd is missing: apt-get install openssh-server")
        self.base, self.port = base, free_port()
        self.key, self.host_key = keygen(base / "key"), keygen(base / "host_key")
        (base / "authorized_keys").write_bytes((base / "key.pub").read_bytes())
        (base / "bashrc").write_text(bashrc)
        (base / "config").write_text(CONFIG.format(port=self.port, base=base, more=more))
        password = subprocess.run(["openssl", "passwd", "-6", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
        setup = SETUP.format(base=base, user=USER, shell="/bin/bash" if bashrc else "/bin/sh", hash=password, sudoers=sudoers)
        self._process = subprocess.Popen(["unshare", "--mount", "sh", "-c", setup], start_new_session=True,
                                         stdout=subprocess.DEVNULL, stderr=(base / "setup.log").open("wb"))
        until(self.listens, f"sshd listens: {(base / 'setup.log').read_text()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def state(self) -> Path:
        return self.base / "state" / "clusterctl"

    @property
    def log(self) -> str:
        return (self.base / "log").read_text(errors="replace")

    @property
    def public(self) -> str:
        return " ".join((self.base / "host_key.pub").read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        found = subprocess.run(["ssh-keygen", "-lf", str(self.base / "host_key.pub")], capture_output=True, text=True, check=True)
        return found.stdout.split()[1]

    def listens(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def host(self, **more: object) -> Host:
        ssh: dict[str, object] = {"address": "127.0.0.1", "port": self.port, "private_key": self.key, "host_key": self.public, "connect_timeout": 5}
        return Host(name="machine", address="192.0.2.1", roles=frozenset({"worker"}), ssh=Ssh(**(ssh | more)))  # type: ignore[arg-type]

    def descendants(self) -> list[int]:
        """All processes below this sshd."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except OSError:
                    continue
                children.setdefault(parent, []).append(int(entry.name))
        found, left = [], [self.pid]
        while left:
            below = children.get(left.pop(), [])
            found += below
            left += below
        return found

    def sessions(self) -> list[int]:
        """The processes of sshd that serve connections."""
        return [pid for pid in self.descendants() if name_of(pid).startswith("sshd")]

    def signal(self, number: int) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """End sshd and everything below it; its mounts end with its namespace."""
        with_children = [self.pid, *self.descendants(), *self._orphans()]
        for pid in with_children:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(DEADLINE)
        until(lambda: not self._orphans(), "everything in the namespace has ended")

    def _orphans(self) -> list[int]:
        """What outlived its connection, known by its mount namespace."""
        if not hasattr(self, "_namespace"):
            self._namespace = os.readlink(f"/proc/{self.pid}/ns/mnt")
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != self.pid:
                try:
                    if os.readlink(entry / "ns" / "mnt") == self._namespace and "Z" not in (entry / "stat").read_text().rpartition(")")[2][:3]:
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def idle(self) -> bool:
        """Whether no program is left on it, nor anything of one."""
        run = self.state / "run"
        return not run.exists() or not any(run.iterdir())


def name_of(pid: int) -> str:
    """A process's name; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
