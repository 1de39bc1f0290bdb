"""Options of ssh in inventories: those that lead to a machine are honoured, the rest is noted."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from clusterctl.cluster.model import Ssh
from clusterctl.errors import InputError
from clusterctl.ssh.ssh_config import resolve
from clusterctl.ssh.ssh_options import parse


@pytest.mark.parametrize(("words", "honoured", "ignored"), [
    ("", {}, ()),
    ("-J b", {"proxyjump": "b"}, ()), ("-Jb", {"proxyjump": "b"}, ()), ("-o ProxyJump=b", {"proxyjump": "b"}, ()),
    ("-oproxyjump=b", {"proxyjump": "b"}, ()), ("-o ProxyJump=a -J b", {"proxyjump": "a"}, ()),
    ("-o 'ProxyCommand ssh -o A=b -W %h:%p x'", {"proxycommand": "ssh -o A=b -W %h:%p x"}, ()),
    ("-o StrictHostKeyChecking=no -J b", {"proxyjump": "b"}, ("stricthostkeychecking",)),
    ("-C -o ControlMaster=auto -o ControlPersist=60s", {}, ("-C", "controlmaster", "controlpersist")),
    ("-p 2222 -l ops -i ~/key -4", {"port": "2222", "user": "ops", "identityfile": "~/key"}, ("-4",)),
    ("-o UserKnownHostsFile=/x -o ServerAliveInterval=30", {"userknownhostsfile": "/x"}, ("serveraliveinterval",)),
    ("-L 1:a:2 -vv", {}, ("-L", "-vv")),
])
def test_parsed(words: str, honoured: dict[str, str], ignored: tuple[str, ...]) -> None:
    found = parse(tuple(shlex.split(words)))
    assert (found.honoured, found.ignored) == (honoured, ignored)


@pytest.mark.parametrize(("words", "code"), [
    ("-F /x", "ssh.unsupported-option"), ("x", "ssh.unknown-option"), ("--jump b", "ssh.unknown-option"), ("-o", "ssh.malformed-option"),
    ("-J", "ssh.malformed-option"), ("-J ''", "ssh.malformed-option"), ("-o ProxyJump=", "ssh.malformed-option"),
    ("-p 70000", "ssh.malformed-option"),
])
def test_refused(words: str, code: str) -> None:
    with pytest.raises(InputError) as raised:
        parse(tuple(shlex.split(words)))
    assert raised.value.code == code


def test_the_inventory_s_options_hold_over_those_of_ssh_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    for name in ("key", "other", "key-cert.pub", "hosts"):
        (tmp_path / ".ssh" / name).touch()
    (tmp_path / ".ssh/config").write_text(
        "Host m\n HostName 192.0.2.7\n Port 2200\n User ops\n IdentityFile ~/.ssh/key\n CertificateFile ~/.ssh/key-cert.pub\n"
        " UserKnownHostsFile ~/.ssh/hosts ~/.ssh/none\n HostKeyAlias alias\n ForwardAgent yes\n"
        "Match host 192.0.2.7 user root\n ProxyJump b\n")
    way = resolve(Ssh(address="m"))
    assert way.name == "ops@192.0.2.7:2200" and way.keys == (tmp_path / ".ssh/key",) and way.ssh.become
    assert way.certificates == (tmp_path / ".ssh/key-cert.pub",) and way.known_hosts == (tmp_path / ".ssh/hosts",)
    assert way.host_key_alias == "alias" and not way.before
    own = resolve(Ssh(address="m", common_args=("-p", "22", "-l", "root", "-i", str(tmp_path / ".ssh/other"))))
    assert own.name == "root@192.0.2.7:22" and own.keys == (tmp_path / ".ssh/other",)
    assert resolve(Ssh(address="m", user="admin", port=23, common_args=("-p", "24"))).name == "admin@192.0.2.7:23"
