"""The ways to machines without any: host keys that are known, keys and secrets of ours, what ssh_config says."""

from __future__ import annotations

import base64
import os
import socket
from pathlib import Path
from typing import Any

import paramiko
import pytest
import typer
from typer.testing import CliRunner

from clusterctl.cli import trust as trust_verb
from clusterctl.cluster.model import Host, Ssh
from clusterctl.commands import trust
from clusterctl.errors import InputError, Unreachable
from clusterctl.local.storage import StateFolder
from clusterctl.ssh import login, transport
from clusterctl.ssh.host_certificates import Marked
from clusterctl.ssh.host_keys import expect
from clusterctl.ssh.sockets import proxy
from clusterctl.ssh.ssh_config import resolve

BLOBS = [b"\0\0\0\x0bssh-ed25519\0\0\0 " + bytes([number]) * 32 for number in (1, 2)]
ONE, TWO = (f"ssh-ed25519 {base64.b64encode(blob).decode()}" for blob in BLOBS)
HASHED = paramiko.HostKeys.hash_host("192.0.2.1")
UNMARKED = Marked((), frozenset(), frozenset())


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".ssh"


def machine(**ssh: Any) -> Host:
    return Host(name="a", address="192.0.2.1", roles=frozenset({"worker"}), ssh=Ssh(address="192.0.2.1", **ssh))  # type: ignore[arg-type]


@pytest.mark.parametrize("ours, users, known", [
    ("", "", None),
    ("", f"192.0.2.1 {ONE}\n", ONE),
    ("", f"{HASHED} {ONE} bob@x\n", ONE),
    ("", f"192.0.2.1 ssh-ed25519 AAA\n|1|x {ONE}\n\\xff\\xfe\n@revoked x ssh-rsa AAAA\n#\n\n192.0.2.1\t  {ONE}\n", ONE),
    ("", f"192.0.2.2 {ONE}\n[192.0.2.1]:2222 {TWO}\n", None),
    (f"192.0.2.1 {TWO}\n", f"192.0.2.1 {ONE}\n", TWO),
    (f"192.0.2.2 {TWO}\n", f"192.0.2.1 {ONE}\n", ONE),
])
def test_known_hosts(tmp_path: Path, home: Path, ours: str, users: str, known: str | None) -> None:
    """Of the user's own, bad lines are skipped as ssh does."""
    (home / "known_hosts").write_bytes(users.encode().replace(b"\\xff\\xfe", b"\xff\xfe"))
    (tmp_path / "known_hosts").write_text(ours)
    with paramiko.SSHClient() as client:
        expect(client, resolve(machine().ssh), tmp_path / "known_hosts", UNMARKED)
        found = client.get_host_keys().lookup("192.0.2.1") or {}
        assert [f"{kind} {key.get_base64()}" for kind, key in found.items()] == ([known] if known else [])


@pytest.mark.parametrize("line", [b"192.0.2.9 ssh-ed25519 AAA", b"\xff\xfe", b"x", b"192.0.2.9 ssh-what AAAA"])
def test_a_bad_line_in_our_own_known_hosts(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "known_hosts").write_bytes(b"# ours\n" + line + b"\n")
    with paramiko.SSHClient() as client, pytest.raises(InputError, match=r"known_hosts:2: is no host key"):
        expect(client, resolve(machine().ssh), tmp_path / "known_hosts", UNMARKED)


def test_trust_leaves_other_lines_as_they_are(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "state")
    state.prepare()
    state.write("known_hosts", b"x \xff\xfe\n192.0.2.1 old\n")
    trust.accept(state, machine(), paramiko.PKey.from_type_string("ssh-ed25519", BLOBS[1]), None)
    assert state.read("known_hosts") == f"x \xff\xfe\n192.0.2.1 {TWO}\n".encode("latin-1")


def test_a_bad_line_in_ssh_config(home: Path) -> None:
    (home / "config").write_text("Host\n")
    with pytest.raises(InputError) as found:
        list(transport.bastions(machine()))
    assert found.value.code == "ssh.config-unreadable" and f"{home}/config:1: " in found.value.message


def test_a_bastion_of_ssh_config_that_is_none(home: Path) -> None:
    (home / "config").write_text("Host *\n  ProxyJump b:99999\n")
    with pytest.raises(InputError, match="'b:99999' is no bastion"):
        transport.Transport(machine()).connect()


def test_a_key_that_is_not_there_is_told_before_anybody_is_contacted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "open_socket", lambda *_: pytest.fail("somebody was contacted"))
    for ways in ((), ("-J", "b")):
        host = machine(private_key=tmp_path / "no", common_args=ways)
        with pytest.raises(InputError, match=r"a: ansible_ssh_private_key_file .*/no cannot be read: No such file"):
            transport.Transport(host).connect()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        transport.offered_key(host)


def test_a_proxy_command_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_SUDO_PASSWORD", "hunter2")
    monkeypatch.setenv("CLUSTERCTL_KEY_PASSPHRASE", "hunter2")
    monkeypatch.setenv("CLUSTERCTL_CACHE", "/cache")
    with proxy("env", address="x", port=1, user="u") as end, end.makefile() as lines:
        assert "hunter2" not in (said := lines.read()) and "CLUSTERCTL_CACHE=/cache" in said


def test_trust_takes_the_passphrase_and_leaves_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the machines before a host it has to log in."""
    asked: list[str | None] = []

    def connect(self: paramiko.SSHClient, **given: Any) -> None:
        asked.append(given["auth_strategy"]._passphrase())
        assert not {"CLUSTERCTL_SUDO_PASSWORD", "CLUSTERCTL_KEY_PASSPHRASE"} & os.environ.keys()
        raise paramiko.AuthenticationException("no")

    monkeypatch.setattr(paramiko.SSHClient, "connect", connect)
    monkeypatch.setattr(login, "open_socket", lambda *_: socket.socket())
    monkeypatch.setenv("CLUSTERCTL_SUDO_PASSWORD", "hunter2")
    monkeypatch.setenv("CLUSTERCTL_KEY_PASSPHRASE", "hunter3")
    (tmp_path / "i.yaml").write_text("control_plane: {hosts: {a: {ansible_host: 192.0.2.1, ansible_ssh_common_args: -J b}}}")
    app = typer.Typer()
    app.callback()(lambda: None)
    trust_verb.register(app)
    result = CliRunner().invoke(app, ["trust", "a", "-i", str(tmp_path / "i.yaml")])
    assert isinstance(result.exception, Unreachable) and "SSH authentication failed" in str(result.exception)
    assert asked == ["hunter3"]


def test_an_encrypted_key_on_the_way_is_said_as_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def route(*_: object) -> None:
        raise paramiko.PasswordRequiredException("Private key file is encrypted")

    monkeypatch.setattr(login.Login, "open", route)
    with pytest.raises(Unreachable, match="CLUSTERCTL_KEY_PASSPHRASE"):
        transport.offered_key(machine())
