"""``trust --all`` against real sshds, one of them behind a bastion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ssh_server import Server

pytestmark = pytest.mark.lab


def trust(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "clusterctl", "trust", "-i", str(folder / "cluster.yaml"), *words],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


def known(folder: Path) -> list[str]:
    path = folder / ".clusterctl/kubernetes/known_hosts"
    return sorted(path.read_text().splitlines()) if path.exists() else []


def test_all_unknown_keys_after_one_question(server: Server, another: Server, tmp_path: Path) -> None:
    hosts = {"cp-1": {"ansible_port": server.port, "clusterctl_address": "10.0.0.1"},
             "w-1": {"ansible_port": another.port, "clusterctl_address": "10.0.0.2",
                     "ansible_ssh_common_args": f"-J root@127.0.0.1:{server.port}"}}
    own = {"ansible_host": "127.0.0.1", "ansible_user": "root", "ansible_ssh_private_key_file": str(server.key)}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump({"all": {"vars": own, "children": {
        "control_plane": {"hosts": {"cp-1": hosts["cp-1"]}}, "workers": {"hosts": {"w-1": hosts["w-1"]}}}}}))
    lines = sorted(f"[127.0.0.1]:{one.port} {' '.join(one.public.split()[:2])}" for one in (server, another))

    asked = trust(tmp_path, "--all")
    assert asked.returncode == 3 and server.fingerprint in asked.stdout and known(tmp_path) == []
    done = trust(tmp_path, "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert known(tmp_path) == lines and another.fingerprint in done.stdout
    again = trust(tmp_path, "--all")
    assert again.returncode == 0 and "SHA256" not in again.stdout, "no key is unknown, and no question is asked"

    another.stop()
    path = tmp_path / ".clusterctl/kubernetes/known_hosts"
    path.write_text("")
    part = trust(tmp_path, "--all", "--yes")
    assert part.returncode == 6 and "w-1" in part.stderr
    assert known(tmp_path) == [line for line in lines if f":{server.port} " in line], "the others are accepted all the same"


@pytest.mark.parametrize("words", [(), ("cp-1", "--all"), ("--all", "--fingerprint", "SHA256:x")])
def test_one_host_or_all(words: tuple[str, ...], tmp_path: Path) -> None:
    assert "[trust.one-or-all]" in trust(tmp_path, *words).stderr
