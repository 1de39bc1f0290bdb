"""ssh_config is read as ssh reads it: random files, compared with ``ssh -G``."""

from __future__ import annotations

import getpass
import random
import subprocess
from pathlib import Path

import pytest

from clusterctl.ssh.config_files import Evaluation

HOSTS = ("n1", "n2", "n2.example.com", "10.0.0.7")
BLOCKS = (
    "Host *", "Host n1", "Host n? !n2", "Host *.example.com 10.*", "Host n[12]", "Match all", "Match host n1,n2.example.com",
    "Match originalhost n2 user bob", "Match user bob", "Match !user bob", "Match host *.example.com", "Match final all",
    "Match exec true", 'Match exec "test %n = n1"', "Match host n* !exec false", f"Match localuser {getpass.getuser()}",
    "Match canonical all", "Match final host *.example.com", "host N1", "Match host=n1",
)
OPTIONS = (
    "User bob", "User carol", "Port 2201", "Port=2202", "port = 2203", "HostName %h.example.com", "HostName 192.0.2.1", "ProxyJump gate",
    "ProxyJump none", "ProxyJump ops@gate:22", "ProxyCommand nc %h %p", "ProxyCommand none", "IdentityFile ~/.ssh/one",
    "IdentityFile /keys/%r@%h # comment", 'IdentityFile "/keys/with space"', "HostKeyAlias alias", "ForwardAgent yes", "Compression no",
    "UserKnownHostsFile ~/.ssh/known_%n", "# a comment", "", "Include more/*.conf", "Include more/one.conf missing", "CertificateFile /c/%u",
)
NAMES = ("hostname", "user", "port", "proxyjump", "proxycommand", "identityfile", "hostkeyalias", "certificatefile")


def written(chance: random.Random, *, includes: bool) -> str:
    lines: list[str] = []
    for _ in range(chance.randint(1, 5)):
        if chance.random() < 0.8:
            lines.append(chance.choice(BLOCKS))
        options = [one for one in OPTIONS if includes or not one.startswith("Include")]
        lines += ["  " + chance.choice(options) for _ in range(chance.randint(0, 4))]
    return "\n".join(lines) + "\n"


def by_ssh(config: Path, host: str, user: str | None) -> dict[str, list[str]]:
    words = ["ssh", "-G", "-F", str(config), *(["-l", user] if user else []), host]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=20)
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("seed", range(150))
def test_random_files_are_read_as_ssh_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("HOME", "/root")
    chance = random.Random(seed)
    (tmp_path / "more").mkdir()
    config = tmp_path / "config"
    config.write_text(written(chance, includes=True).replace("Include more", f"Include {tmp_path}/more"))
    for name in ("one", "two"):
        (tmp_path / f"more/{name}.conf").write_text(written(chance, includes=False))
    for host in HOSTS:
        user = chance.choice([None, "bob", "dave"])
        theirs, ours = by_ssh(config, host, user), Evaluation(host, user).read(config)
        where = f"{host} as {user}:\n{config.read_text()}"
        assert theirs["hostname"] == [ours.get("hostname", host)], where
        assert theirs["port"] == [ours.get("port", "22")], where
        assert theirs["user"] == [user or ours.get("user", getpass.getuser())], where
        for name in ("proxyjump", "hostkeyalias"):
            value = ours.get(name)
            assert theirs.get(name, []) == ([value] if value and value != "none" else []), (name, where)
        assert theirs.get("proxycommand", ["none"]) == [ours.get("proxycommand", "none")], where
