"""``init`` against a real sshd: the inventory that it proposes is one that clusterctl reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ssh_server import Server

from clusterctl.inventory import load

pytestmark = pytest.mark.lab


def init(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "clusterctl", "init", *words], capture_output=True, text=True, cwd=folder,
                          stdin=subprocess.DEVNULL, timeout=60, check=False)


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    config = tmp_path / "home-here/.ssh/config"
    config.parent.mkdir()
    config.write_text(f"Host machine\n  HostName 127.0.0.1\n  Port {server.port}\n  User root\n  IdentityFile {server.key}\n")
    return tmp_path


def test_one_machine_of_ssh_config(server: Server, folder: Path) -> None:
    asked = init(folder, "machine")
    assert asked.returncode == 3 and server.fingerprint in asked.stderr and not (folder / "cluster.yaml").exists()
    done = init(folder, "machine", "--yes")
    assert done.returncode == 0, done.stderr
    [host] = load(folder / "cluster.yaml").hosts
    assert host.roles == {"control_plane", "etcd", "worker"} and host.ssh.address == "machine"
    assert host.ssh.host_key == " ".join(server.public.split()[:2])
    assert not host.address.is_loopback
    again = init(folder, "machine", "--yes")
    assert again.returncode == 2 and "[init.file-exists]" in again.stderr


def test_a_machine_with_another_key_than_known(server: Server, another: Server, folder: Path) -> None:
    (folder / "home-here/.ssh/known_hosts").write_text(f"[127.0.0.1]:{server.port} {another.public}\n")
    done = init(folder, "machine", "--yes")
    assert done.returncode == 6 and "[ssh.host-key-changed]" in done.stderr and not (folder / "cluster.yaml").exists()


@pytest.mark.parametrize(("words", "code"), [
    (("a", "b", "--control-planes", "2"), "init.control-planes"), (("a", "--control-planes", "3"), "init.control-planes"),
    (("a", "a"), "init.host-repeated"), (("a:b:c",), "init.malformed-host"),
])
def test_refused_before_a_machine_is_asked(words: tuple[str, ...], code: str, tmp_path: Path) -> None:
    done = init(tmp_path, *words)
    assert done.returncode == 2 and code in done.stderr
