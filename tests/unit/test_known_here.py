"""Input that can be checked here is refused before any machine is contacted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest


@pytest.fixture
def machine() -> Iterator[socket.socket]:
    """A machine's SSH port: a connection to it stays in the queue."""
    with socket.create_server(("", 0)) as server:
        server.settimeout(0.1)
        yield server


@pytest.fixture
def inventory(tmp_path: Path, machine: socket.socket) -> Path:
    path = tmp_path / "cluster.yaml"
    port = machine.getsockname()[1]
    path.write_text(f"""
all:
  vars: {{cluster: {{name: prod}}}}
  children:
    kube_control_plane: {{hosts: {{cp-1: {{ansible_host: 127.0.0.1, ansible_port: {port}, ip: 192.0.2.1}}}}}}
    kube_node: {{hosts: {{w-1: {{ansible_host: 127.0.0.2, ansible_port: {port}, ip: 192.0.2.2}}}}}}
    etcd: {{hosts: {{cp-1: }}}}
""")
    return path


def run(inventory: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLUSTERCTL_CACHE": str(inventory.parent / "cache")}
    return subprocess.run([sys.executable, "-m", "clusterctl", *words, "-i", str(inventory)], capture_output=True, text=True,
                          env=environment, stdin=subprocess.DEVNULL, timeout=60, check=False)


@pytest.mark.parametrize(("words", "code"), [
    ("node drain nodeX --yes", "inventory.no-host"),
    ("node remove nodeX --yes", "inventory.no-host"),
    ("node replace nodeX --yes", "inventory.no-host"),
    ("node replace w-1 nodeX --yes", "inventory.no-host"),
    ("upgrade plan --to 1.99.0", "version.unsupported"),
    ("upgrade apply --to 1.37.2 --through 1.99.0 --yes", "version.unsupported"),
    *((f"{verb} --max-unavailable {value}", "cli.max-unavailable") for verb in ("os-update --yes", "upgrade plan", "upgrade apply --yes")
      for value in ("5%%", "0", "1.5", "%", "many")),
    ("reset --yes", "cli.not-confirmed"),
    ("reset --yes --confirm prof", "cli.not-confirmed"),
    ("reset --confirm prod", "cli.not-confirmed"),
    ("trust cp-1 --fingerprint banana", "trust.malformed-fingerprint"),
])
def test_wrong_input_is_refused_without_a_connection(inventory: Path, machine: socket.socket, words: str, code: str) -> None:
    done = run(inventory, words.split())
    assert done.returncode == 2 and f"[{code}]" in done.stderr, done.stderr
    with pytest.raises(TimeoutError):
        machine.accept()


def test_a_host_that_left_the_inventory_is_removed_offline(inventory: Path, machine: socket.socket) -> None:
    """Whether the cluster has it is for the machines to say: this contacts them."""
    machine.close()
    done = run(inventory, ["node", "remove", "nodeX", "--offline", "--yes"])
    assert done.returncode == 6, done.stderr


def test_the_removal_of_a_host_that_left_the_inventory_is_continued(inventory: Path, machine: socket.socket) -> None:
    state = inventory.parent / ".clusterctl" / "prod"
    state.mkdir(parents=True, mode=0o700)
    (state / "removed").write_text("nodeX\n")
    (state / "removed").chmod(0o600)
    machine.close()
    done = run(inventory, ["node", "remove", "nodeX", "--yes"])
    assert done.returncode == 6, done.stderr


def test_words_of_a_remote_command_are_no_inventories(inventory: Path, machine: socket.socket) -> None:
    machine.close()
    done = subprocess.run([sys.executable, "-m", "clusterctl", "exec", "-i", str(inventory), "cp-1", "--", "grep", "-i", "x", "-i", "y"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == 6, done.stderr
