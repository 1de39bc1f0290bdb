"""``ansible_connection: local``: the same programs on this computer itself, in a mount namespace of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

COVERED = """
set -e
mount --make-rprivate /
mkdir -p {base}/state {base}/etc {base}/work && mount --bind {base}/state /var/lib
mount -t overlay overlay -o lowerdir=/etc,upperdir={base}/etc,workdir={base}/work /etc
mount -t tmpfs -o mode=755 tmpfs /run
exec "$@"
"""
INVENTORY = """
control_plane: {hosts: {here: {ansible_connection: local, clusterctl_address: 192.0.2.1}}}
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "cluster.yaml").write_text(INVENTORY)
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", COVERED.format(base=folder), "sh", sys.executable, "-m", "clusterctl", *words, "-i",
         str(folder / "cluster.yaml")], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def test_a_command_s_output_and_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "exec", "all", "-o", "json", "--timeout", "20")
    assert done.returncode == 2, "no command was given"
    words = ["exec", "all", "-o", "json", "-i", str(tmp_path / "cluster.yaml"), "--", "echo it is $(id -u); yes | head -c 3000000 | wc -c; exit 3"]
    done = subprocess.run(["unshare", "--mount", "sh", "-c", COVERED.format(base=tmp_path), "sh", sys.executable, "-m", "clusterctl", *words],
                          capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit_code"], answer["output"]) == (3, 3, "it is 0\n3000000"), done.stderr


def test_it_is_looked_at_like_any_other(tmp_path: Path) -> None:
    """Its facts are read and its services looked at; nothing is left."""
    before = sorted(path.name for path in Path("/var/lib").iterdir())
    done = run(tmp_path, "status", "-o", "json")
    [host] = json.loads(done.stdout)["hosts"]
    assert done.returncode == 3 and host["name"] == "here" and not host["error"], done.stdout + done.stderr
    assert not list((tmp_path / "state").glob("clusterctl*")), "observing leaves nothing"
    assert sorted(path.name for path in Path("/var/lib").iterdir()) == before


def test_it_has_no_host_key(tmp_path: Path) -> None:
    assert "[trust.local]" in run(tmp_path, "trust", "here").stderr
    assert run(tmp_path, "trust", "--all").returncode == 0


def test_two_hosts_cannot_be_this_computer(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(INVENTORY + "workers: {hosts: {there: {ansible_connection: local, clusterctl_address: 192.0.2.2}}}\n")
    done = subprocess.run([sys.executable, "-m", "clusterctl", "inventory", "-i", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "[inventory.local-twice]" in done.stderr
