"""One machine: the files that make it itself, its start, and commands inside it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from clusterctl.lab import network, repository
from clusterctl.lab.base import Base
from clusterctl.lab.cgroup import UNIFIED, Cgroup, hierarchies
from clusterctl.lab.host import LabError, environment, run
from clusterctl.lab.state import Machine

HERE = Path(__file__).parent
DATA = ("containerd", "etcd", "kubelet")
REBOOT_SIGNAL = signal.SIGRTMIN + 5  # systemd's: start reboot.target
IN_MACHINE = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8",
              "TERM": "dumb"}


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
    """Write what makes the machine different from the base: its keys, names and addresses, and where its data goes."""
    for name in ("upper", "work", "root", "data"):
        (machine.directory / name).mkdir(parents=True, exist_ok=True)
    (machine.directory / "upper").chmod(0o755)
    for name in DATA:
        (machine.directory / "data" / name).mkdir(exist_ok=True)
    shutil.copytree(base.tree / "var/log", machine.directory / "data/log", symlinks=True)
    new_key(machine.directory / "host_key", machine.name)
    put = Upper(machine.directory / "upper", base.tree).put
    put("etc/ssh/ssh_host_ed25519_key", (machine.directory / "host_key").read_text(), 0o600)
    put("etc/ssh/ssh_host_ed25519_key.pub", f"{machine.host_key}\n", 0o644)
    put("etc/hostname", f"{machine.name}\n", 0o644)
    put("etc/machine-id", f"{uuid.uuid4().hex}\n", 0o444)
    put("etc/hosts", f"127.0.0.1 localhost\n{machine.address} {machine.name}\n::1 localhost ip6-localhost\n", 0o644)
    put("etc/apt/sources.list", repository.source_line(gateway), 0o644)
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


def launch(machine: Machine, base: Base, *, memory: int | None) -> None:
    """Start the machine as a session of its own that outlives this process. It must not be running."""
    group = Cgroup(machine.cgroup)
    group.remove()
    group.create(memory=memory)
    unified_only = set(hierarchies().values()) == {UNIFIED}
    if unified_only:  # there a group with processes cannot hand controllers on
        Cgroup(f"{machine.cgroup}/starter").create()
    _start("enter", machine.directory / "console.log", LAB_CGROUP=machine.cgroup, LAB_DIRECTORY=str(machine.directory),
           LAB_TREE=str(base.tree), LAB_MACHINE=machine.name, LAB_NAMESPACE=machine.namespace,
           LAB_LOOP="starter" if unified_only else ".")


def launch_server(lab: str, directory: Path, address: str, base: Base) -> None:
    """Start the lab's package server in the lab's namespace, as a session of its own."""
    group = Cgroup(f"{network.namespace_of(lab)}/server")
    group.create()
    _start("server", directory / "server.log", LAB_CGROUP=group.path, LAB_TREE=str(base.repository), LAB_ADDRESS=address,
           LAB_PORT=str(repository.PORT), LAB_NAMESPACE=network.namespace_of(lab), LAB_PYTHON=sys.executable,
           LAB_SERVER=str(HERE / "server.py"))


def _start(what: str, log: Path, **variables: str) -> None:
    script = (HERE / "start.bash").read_text()
    roots = " ".join(map(str, hierarchies()))
    with log.open("ab") as output:
        # setsid forks and ends: the process has no parent here that would have to reap it.
        done = subprocess.run(["setsid", "--fork", "bash", "-c", script, "start", what], stdin=subprocess.DEVNULL, stdout=output,
                              stderr=output, timeout=30, check=False, close_fds=False, cwd="/",
                              env=environment(LAB_SCRIPT=script, LAB_HIERARCHIES=roots, **variables))
    if done.returncode != 0:
        raise LabError(f"cannot start {variables['LAB_CGROUP']}: setsid ended with {done.returncode}", where="lab")


def leader(machine: Machine) -> int | None:
    """The process of this host that is process 1 of the machine, or None while it is not running."""
    depth = len(_namespaced_pids("self"))
    for pid in sorted(Cgroup(machine.cgroup).pids()):
        numbers = _namespaced_pids(str(pid))
        if len(numbers) == depth + 1 and numbers[-1] == 1:
            return pid
    return None


def _namespaced_pids(pid: str) -> list[int]:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return [int(word) for word in line.split()[1:]]
    except OSError:  # it has ended
        return []
    return []


def inside(machine: Machine, argv: Sequence[str]) -> list[str]:
    """A command line of this host that runs ``argv`` in the machine as root, as a process of the machine."""
    pid = leader(machine)
    if pid is None:
        raise LabError(f"{machine.name} is not running", where="lab",
                       hint=f"clusterctl lab start {machine.name} --name {machine.lab}")
    groups = [_payload(directory) / "cgroup.procs" for directory in Cgroup(machine.cgroup).directories()]
    join = "".join(f"echo $$ > {file}; " for file in groups)
    return ["bash", "-c", f'{join}exec "$@"', "bash", "nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid",
            "--cgroup", *argv]


def _payload(directory: Path) -> Path:
    # Where nspawn made a group for what runs inside, the machine sees nothing above that.
    return directory / "payload" if (directory / "payload").is_dir() else directory


def execute(machine: Machine, argv: Sequence[str], *, stdin: str = "", timeout: float = 60,
            check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` in the machine and return what it said; raises :class:`LabError` if it is down or too slow."""
    return run(inside(machine, argv), stdin=stdin, timeout=timeout, check=check, env=IN_MACHINE)


def boot_id(machine: Machine) -> str:
    """Which boot of the machine this is; empty while it is not running."""
    try:
        return execute(machine, ["cat", "/proc/sys/kernel/random/boot_id"], timeout=10).stdout.strip()
    except LabError:
        return ""


def ask_for_reboot(machine: Machine) -> None:
    """Ask the machine's systemd to reboot, as ``systemctl reboot`` would."""
    pid = leader(machine)
    if pid is not None:
        os.kill(pid, REBOOT_SIGNAL)


def wait_until_ready(machine: Machine, lab_namespace: str, ssh: Sequence[str], *, deadline: float, not_boot: str = "") -> None:
    """Wait until ``admin`` can log in to it with its pinned key, and it is another boot than ``not_boot``.

    ``ssh`` is the command line that logs in. Raises :class:`LabError` with what was last seen after ``deadline`` seconds.
    """
    end = time.monotonic() + deadline
    seen = "nothing"
    while time.monotonic() < end:
        seen = _look(machine, lab_namespace, ssh, not_boot)
        if not seen:
            return
        time.sleep(0.1)
    raise LabError(f"{machine.name} is not up after {deadline:g} s; last seen: {seen}\n{console_tail(machine)}", where="lab",
                   hint=f"its console is in {machine.directory / 'console.log'}")


def _look(machine: Machine, lab_namespace: str, ssh: Sequence[str], not_boot: str) -> str:
    try:
        said = network.banner(lab_namespace, machine.address, 22)
    except OSError as error:
        return f"port 22: {error}"
    if not said.startswith("SSH-"):
        return f"port 22 says {said!r}"
    login = run([*ssh, "cat /proc/sys/kernel/random/boot_id"], timeout=30, check=False)
    if login.returncode != 0:
        return f"ssh: {login.stderr.strip()[-300:]}"
    return "still the old boot" if not_boot and login.stdout.strip() == not_boot else ""


def console_tail(machine: Machine, lines: int = 15) -> str:
    """The last lines of the machine's console."""
    log = machine.directory / "console.log"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""
