"""One machine, whatever it runs on: the files that make it itself, how one logs in, and waiting until it is up."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from clusterctl.lab import network, repository
from clusterctl.lab.base import Base
from clusterctl.lab.cgroup import Cgroup, hierarchies
from clusterctl.lab.host import LabError, environment, run
from clusterctl.lab.state import Machine

HERE = Path(__file__).parent
BEGINNING = 10
"""Seconds without any process after which a machine counts as ended: a process of a new one joins its control group at once."""


def new_key(path: Path, comment: str) -> str:
    """Write an ed25519 key pair to ``path`` (0600) and ``path.pub``; the public half is returned."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.with_name(f"{path.name}.pub").write_text(f"{public}\n")
    return f"{public} {comment}"


def prepare(machine: Machine, base: Base, *, gateway: str, authorized_key: str, sudo_password: bool) -> None:
    """Write what makes the machine different from the base, its keys, names and addresses, into its directory ``upper``."""
    (machine.directory / "upper").mkdir(parents=True, exist_ok=True)
    (machine.directory / "upper").chmod(0o755)
    new_key(machine.directory / "host_key", machine.name)
    put = Upper(machine.directory / "upper", base.tree).put
    put("etc/ssh/ssh_host_ed25519_key", (machine.directory / "host_key").read_text(), 0o600)
    put("etc/ssh/ssh_host_ed25519_key.pub", f"{machine.host_key}\n", 0o644)
    put("etc/hostname", f"{machine.name}\n", 0o644)
    put("etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    put("etc/hosts", f"127.0.0.1 localhost\n{machine.address} {machine.name}\n::1 localhost ip6-localhost\n", 0o644)
    put(*repository.source_file(gateway, base.repository), 0o644)
    put("root/.ssh/authorized_keys", f"{authorized_key}\n", 0o600)
    put("home/admin/.ssh/authorized_keys", f"{authorized_key}\n", 0o600, owner=1000)
    if sudo_password:
        put("etc/sudoers.d/admin", "admin ALL=(ALL:ALL) ALL\n", 0o440)


class Upper:
    """The writable layer of a machine, filled before it is laid over the base."""

    def __init__(self, upper: Path, tree: Path) -> None:
        self.upper = upper
        self.tree = tree

    def put(self, name: str, content: str, mode: int, *, owner: int = 0) -> None:
        """Write a file; its directories look as in the base, or are private where the base has none."""
        target = self.upper / name
        for parent in reversed(Path(name).parents[:-1]):
            self._directory(parent, owner)
        target.write_text(content)
        target.chmod(mode)
        os.chown(target, owner, owner)

    def _directory(self, relative: Path, owner: int) -> None:
        directory = self.upper / relative
        if directory.is_dir():
            return
        directory.mkdir(mode=0o700)
        if (self.tree / relative).is_dir():
            status = (self.tree / relative).stat()
            directory.chmod(status.st_mode & 0o7777)
            os.chown(directory, status.st_uid, status.st_gid)
        else:
            os.chown(directory, owner, owner)


def launch_server(lab: str, directory: Path, address: str, base: Base) -> None:
    """Start the lab's package server in the lab's namespace, as a session of its own."""
    group = Cgroup(f"{network.namespace_of(lab)}/server")
    group.create()
    start("program", directory / "server.log", "nsenter", f"--net={network.NAMESPACES / network.namespace_of(lab)}",
          sys.executable, "-I", str(HERE / "server.py"), str(base.repository), address, str(repository.PORT),
          LAB_CGROUP=group.path)


def start(what: str, log: Path, *program: str, **variables: str) -> None:
    """Run a part of ``start.bash`` as a session of its own. Raises :class:`LabError`."""
    script = (HERE / "start.bash").read_text()
    roots = " ".join(map(str, hierarchies()))
    with log.open("ab") as output:
        # setsid forks and ends: the process has no parent here that would have to reap it.
        done = subprocess.run(["setsid", "--fork", "bash", "-c", script, "start", what, *program], stdin=subprocess.DEVNULL,
                              stdout=output, stderr=output, timeout=30, check=False, close_fds=False, cwd="/",
                              env=environment(LAB_SCRIPT=script, LAB_HIERARCHIES=roots, **variables))
    if done.returncode != 0:
        raise LabError(f"cannot start {variables['LAB_CGROUP']}: setsid ended with {done.returncode}", where="lab",
                       code="lab.not-started")


def ssh_command(machine: Machine, user: str, options: Iterable[str] = ()) -> list[str]:
    """Return a command line of this host that logs in to a machine over the lab's network with its pinned host key."""
    lab = machine.directory.parent
    return ["nsenter", f"--net={network.NAMESPACES / network.namespace_of(machine.lab)}", "ssh", "-F", "none",
            "-i", str(lab / "id_ed25519"), "-oIdentitiesOnly=yes", f"-oUserKnownHostsFile={lab / 'known_hosts'}",
            "-oGlobalKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=yes", "-oConnectTimeout=10", "-oLogLevel=ERROR",
            *options, f"{user}@{machine.address}"]


def wait_until_ready(machine: Machine, *, deadline: float, not_boot: str = "") -> None:
    """Wait until ``admin`` can log in to it with its pinned key, and it is another boot than ``not_boot``.

    Raises :class:`LabError` with what was last seen after ``deadline`` seconds, or once all processes of the machine have ended.
    """
    end = time.monotonic() + deadline
    alive, seen = time.monotonic(), "nothing"
    while time.monotonic() < min(end, alive + BEGINNING):
        seen = _look(machine, not_boot)
        if not seen:
            return
        if Cgroup(machine.cgroup).pids():
            alive = time.monotonic()
        time.sleep(0.1)
    why = "has ended" if time.monotonic() < end else f"is not up after {deadline:g} s"
    raise LabError(f"{machine.name} {why}; last seen: {seen}\n{console_tail(machine)}", where="lab", code="lab.not-up",
                   hint=f"its console is in {machine.directory / 'console.log'}")


def _look(machine: Machine, not_boot: str) -> str:
    try:
        said = network.banner(network.namespace_of(machine.lab), machine.address, 22)
    except OSError as error:
        return f"port 22: {error}"
    if not said.startswith("SSH-"):
        return f"port 22 says {said!r}"
    ssh = ssh_command(machine, "admin", ("-oBatchMode=yes",))
    login = run([*ssh, "cat /proc/sys/kernel/random/boot_id"], timeout=60, check=False)
    if login.returncode != 0:
        return f"ssh: {login.stderr.strip()[-300:]}"
    return "still the old boot" if not_boot and login.stdout.strip() == not_boot else ""


def console_tail(machine: Machine, lines: int = 15) -> str:
    """The last lines of the machine's console."""
    log = machine.directory / "console.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
