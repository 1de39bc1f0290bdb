"""``ansible_connection: local``: the same programs on this computer itself, in a mount namespace of their own."""

from __future__ import annotations

import json
import platform
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


LOOK = """
import sys
from clusterctl.engine.observe import look
from clusterctl.inventory import load
from clusterctl.ssh.transport import Transport
from pathlib import Path
found = look(Transport(load(Path(sys.argv[1])).hosts[0]))
print(found.facts.hostname, found.facts.arch, found.facts.memory_mib > 0)
"""


def covered(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with words in a mount namespace in which /var/lib, /etc and /run are others."""
    (folder / "cluster.yaml").write_text(INVENTORY)
    return subprocess.run(["unshare", "--mount", "sh", "-c", COVERED.format(base=folder), "sh", sys.executable, *words],
                          capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL)


def run(folder: Path, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    return covered(folder, "-m", "clusterctl", *verb.split(), "-i", str(folder / "cluster.yaml"), *words)


def test_a_command_s_output_and_exit_code(tmp_path: Path) -> None:
    done = run(tmp_path, "exec all -o json", "--", "echo it is $(id -u); yes | head -c 3000000 | wc -c; exit 3")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["exit_code"], answer["output"]) == (3, 3, "it is 0\n3000000"), done.stderr


def test_it_is_looked_at_like_any_other(tmp_path: Path) -> None:
    """Nothing is left."""
    done = covered(tmp_path, "-c", LOOK, str(tmp_path / "cluster.yaml"))
    assert done.stdout.split() == [platform.node(), "amd64" if platform.machine() == "x86_64" else "arm64", "True"], done.stderr
    assert not list((tmp_path / "state").glob("clusterctl*"))


def test_it_has_no_host_key(tmp_path: Path) -> None:
    assert "[trust.local]" in run(tmp_path, "trust", "here").stderr
    assert run(tmp_path, "trust", "--all").returncode == 0


def test_two_hosts_cannot_be_this_computer(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(INVENTORY + "workers: {hosts: {there: {ansible_connection: local, clusterctl_address: 192.0.2.2}}}\n")
    done = subprocess.run([sys.executable, "-m", "clusterctl", "inventory", "-i", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "[inventory.local-twice]" in done.stderr
