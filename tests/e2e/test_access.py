"""Ways in: an ordinary user with sudo, with and without a password, and through a bastion."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import CLI, Cluster

from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

BASTION = "w-1"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane that only its user admin may enter, whose sudo wants a password; and a machine that will be a bastion."""
    spec = LabSpec(name="e2eaccess", machines=2, user="admin", sudo_password=True)
    made = Cluster.up(spec, Path(tmp_path_factory.mktemp("access")))
    home = made.work / "home"
    home.mkdir(exist_ok=True)
    made.env = {"HOME": str(home)}

    def alone(content: dict[str, Any]) -> None:
        content["all"]["children"]["workers"]["hosts"].pop(BASTION, None)
        content["all"]["vars"]["cluster"]["schedule_on_control_plane"] = True

    made.edit(alone)
    try:
        yield made
    finally:
        made.down()


def password(cluster: Cluster) -> str:
    return cluster.lab.sudo_password_file.read_text().strip()


def sudo_log(cluster: Cluster, pattern: str) -> int:
    """How often sudo wrote of this in the machine's journal."""
    return int(cluster.on("cp-1", f"journalctl --output cat -t sudo | grep -c '{pattern}' || :"))


class Watch(threading.Thread):
    """Looks at all command lines and environments of this host, on which the machines' processes run too, for a secret."""

    def __init__(self, secret: str) -> None:
        super().__init__(daemon=True)
        self._secret, self._ended = secret.encode(), threading.Event()
        self.found: list[str] = []

    def run(self) -> None:
        while not self._ended.wait(0.02):
            for entry in os.scandir("/proc"):
                if entry.name.isdigit():
                    self._look(Path(entry.path))

    def _look(self, process: Path) -> None:
        try:
            if self._secret in (process / "cmdline").read_bytes():
                self.found.append(f"{process}: {(process / 'cmdline').read_bytes()!r}")
        except OSError:
            return

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()


def test_no_password(cluster: Cluster) -> None:
    output = cluster.cli("apply", "--yes", code=6)
    assert re.search(r"cp-1 \(admin\): sudo cannot be used: .*password", output), output
    assert "CLUSTERCTL_SUDO_PASSWORD" in output
    assert not cluster.on("cp-1", "ls /var/lib/clusterctl 2>/dev/null; :")


def test_wrong_password(cluster: Cluster) -> None:
    """One attempt, so that nobody is locked out; nothing is changed, and the password is nowhere to be read."""
    before = sudo_log(cluster, "incorrect password attempt")
    output = cluster.cli("apply", "--yes", code=6, CLUSTERCTL_SUDO_PASSWORD="wrong-and-secret")
    assert "cp-1 (admin): sudo refuses the password" in output
    assert "--ask-sudo-password" in output
    assert "wrong-and-secret" not in output
    assert sudo_log(cluster, "1 incorrect password attempt") == before + 1
    assert not cluster.on("cp-1", "ls /var/lib/clusterctl 2>/dev/null; grep -rl wrong-and-secret /var/log /run/log /tmp 2>/dev/null; :")


def test_sudo_with_a_password(cluster: Cluster) -> None:
    """A whole cluster; the password is in no command line, no output, no file."""
    secret = password(cluster)
    with Watch(secret) as watch:
        output = cluster.cli("apply", "--yes", "-o", "json", "-v", CLUSTERCTL_SUDO_PASSWORD=secret)
    assert not watch.found
    assert secret not in output
    checks.nodes_ready(cluster, {"cp-1"})
    kept = cluster.inventory.parent / ".clusterctl"
    assert not [path for path in kept.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
    assert not cluster.on("cp-1", f"grep -rlF -e {secret} /var/log /etc /run/log /tmp /var/lib/clusterctl 2>/dev/null; :")
    assert not cluster.apply(CLUSTERCTL_SUDO_PASSWORD=secret)["changed"]


def test_other_ways_to_give_the_password(cluster: Cluster) -> None:
    assert "plan: no changes" in cluster.cli("plan", "--sudo-password-command", f"cat {cluster.lab.sudo_password_file}")
    with cluster.lab.sudo_password_file.open() as stream:
        done = subprocess.run([*CLI, "plan", "-i", str(cluster.inventory), "--sudo-password-fd", str(stream.fileno())], timeout=60,
                              pass_fds=[stream.fileno()], capture_output=True, text=True, check=False, env={**os.environ, **cluster.env})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no changes" in done.stdout


def test_sudo_without_a_password(cluster: Cluster) -> None:
    cluster.on("cp-1", "echo 'admin ALL=(ALL:ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin")
    assert not cluster.apply()["changed"]
    cluster.on("cp-1", "chmod 644 /etc/kubernetes/admin.conf")
    assert cluster.apply()["hosts"] == {"cp-1": {"update": 1}}
    # A password that is not needed does no harm.
    assert not cluster.apply(CLUSTERCTL_SUDO_PASSWORD="whatever")["changed"]
    done = cluster.cli("exec", "cp-1", "whoami")
    assert "root" in done


def test_through_a_bastion(cluster: Cluster) -> None:
    """The control plane is reached through the other machine alone, whose host key must be known."""
    bastion = cluster.lab.machines[BASTION]

    def through(content: dict[str, Any]) -> None:
        content["all"]["vars"]["ansible_ssh_common_args"] = f"-o ProxyJump=root@{bastion.address}"

    cluster.edit(through)
    cluster.lab.cut("cp-1", peer="controller")
    try:
        output = cluster.cli("plan", code=6)
        listed = subprocess.run(["ssh-keygen", "-lf", "-"], input=bastion.host_key, capture_output=True, text=True, check=True)
        command = f"clusterctl trust {bastion.address} --fingerprint {listed.stdout.split()[1]}"
        assert f"bastion {bastion.address}" in output
        assert command in output
        cluster.cli(*command.split()[1:])
        assert "no changes" in cluster.cli("plan")
        cluster.on("cp-1", "chmod 644 /etc/kubernetes/admin.conf; systemctl stop kube-scheduler")
        assert cluster.apply()["hosts"] == {"cp-1": {"update": 1, "start": 1}}
        assert not cluster.apply()["changed"]
        assert "healthy" in cluster.cli("status")
    finally:
        cluster.lab.heal("cp-1")


def test_a_bastion_with_another_key(cluster: Cluster) -> None:
    """Nothing goes through it; both fingerprints are told."""
    known = cluster.inventory.parent / ".clusterctl" / "e2eaccess" / "known_hosts"
    target = cluster.lab.machines["cp-1"]
    bastion = cluster.lab.machines[BASTION]
    known.write_text(f"{bastion.address} {target.host_key}\n")
    output = cluster.cli("plan", code=6)
    assert f"through bastion {bastion.address}" in output and "host key has changed" in output
    assert output.count("SHA256:") >= 2
    assert f"clusterctl trust {bastion.address} --fingerprint" in output
