"""Becoming root with sudo: with and without a password, and every way in which it can refuse."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from ssh_server import NOPASSWD, PASSWORD, SUDOERS, USER, Server, name_of, until

from clusterctl.conversation import Conversation
from clusterctl.errors import AccessRefused, Unreachable
from clusterctl.inventory.sources import Sources
from clusterctl.inventory.vault import Passwords
from clusterctl.login import Login
from clusterctl.operations.lock import OperatorLock
from clusterctl.operations.opening import Opening, Options
from clusterctl.shell import Program
from clusterctl.transport import Transport

pytestmark = pytest.mark.lab

WHO = Program(probes=[("who", "x")], functions='observe_who() { emit who "$(id -u)"; }')


def server_with(tmp_path: Path, sudoers: str) -> Server:
    return Server(tmp_path, sudoers=sudoers)


def test_the_right_password(server: Server, as_operator: Callable[..., Transport]) -> None:
    transport = as_operator()
    for _ in range(2):
        assert list(transport.stream(WHO)) == [["who", "0"]]


def test_a_wrong_password_is_tried_once(server: Server, as_operator: Callable[..., Transport]) -> None:
    with pytest.raises(Unreachable, match="sudo refuses the password") as raised:
        list(as_operator("wrong-canary").stream(WHO))
    assert raised.value.exit_code == 6 and "wrong-canary" not in str(raised.value)


def test_no_password_where_one_is_needed(server: Server, as_operator: Callable[..., Transport]) -> None:
    with pytest.raises(Unreachable, match="password is required"):
        list(as_operator(None).stream(WHO))


def test_a_refusal_that_is_there_before_the_lock_is_asked_for(
        server: Server, as_operator: Callable[..., Transport], monkeypatch: pytest.MonkeyPatch) -> None:
    """sudo has ended, and its channel is closed, when the operator's name is to be sent."""
    transport, start = as_operator(None), Conversation.start

    def start_and_wait(self: Conversation, command: str) -> None:
        start(self, command)
        until(lambda: self.channel.closed, "sudo has ended")

    monkeypatch.setattr(Conversation, "start", start_and_wait)
    with pytest.raises(AccessRefused) as raised:
        OperatorLock({"machine": transport}).take([server.host(user=USER, become=True)], "apply")
    assert raised.value.code == "sudo.unusable"


def test_the_password_that_ansible_vault_keeps_in_the_inventory(tmp_path: Path, server: Server) -> None:
    content = VaultLib().encrypt(f"ansible_become_password: {PASSWORD}".encode(), secret=VaultSecret(b"vault"))
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/a").write_bytes(content)
    (tmp_path / "password").write_text("vault\n")
    (tmp_path / "hosts.ini").write_text(
        f"[control_plane]\na ansible_host=127.0.0.1 ansible_port={server.port} ansible_user={USER} ansible_ssh_private_key_file={server.key} "
        f"clusterctl_host_key='{server.public}' clusterctl_address=192.0.2.1\n")
    opening = Opening(Options(inventory=Sources((tmp_path / "hosts.ini",), Passwords([tmp_path / "password"]))))
    with contextlib.closing(opening.transports["a"]) as transport:
        assert list(transport.stream(WHO)) == [["who", "0"]]
    opening.login.close()
    opening.close()


@pytest.fixture
def odd(tmp_path: Path, request: pytest.FixtureRequest) -> object:
    made = Server(tmp_path, sudoers=request.param)
    yield made
    made.stop()


@pytest.mark.parametrize("odd", [SUDOERS.replace(f"{USER} ALL=(ALL:ALL) ALL", f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL")], indirect=True)
@pytest.mark.parametrize("password", [None, "not needed"])
def test_no_password_is_needed(odd: Server, connect: Callable[..., Transport], password: str | None) -> None:
    transport = connect(odd.host(user=USER, become=True), sudo_password=lambda: password)
    assert list(transport.stream(WHO)) == [["who", "0"]]


@pytest.mark.parametrize(("odd", "said"), [
    ("root ALL=(ALL:ALL) ALL", "not in the sudoers file"),
    (SUDOERS + "\nDefaults requiretty", "tty"),
], indirect=["odd"])
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_sudo_says_no(odd: Server, connect: Callable[..., Transport], said: str, password: str | None) -> None:
    transport = connect(odd.host(user=USER, become=True), sudo_password=lambda: password)
    with pytest.raises(Unreachable, match="sudo") as raised:
        list(transport.stream(WHO))
    assert said in str(raised.value) or (password is None and "password is required" in str(raised.value))


FAKE = """#!/bin/sh
for word; do case $word in clusterctl-asks*) prompt=$word ;; esac; done
while :; do
	printf %s "$prompt" >&2
	IFS= read -r given || {{ echo "sudo: no password was provided" >&2; exit 1; }}
	printf 'attempt\\n' >>{log}
done
"""


@pytest.mark.parametrize("sudo", ["never satisfied", "missing", "silent"])
def test_pretended_sudo(tmp_path: Path, connect: Callable[..., Transport], sudo: str) -> None:
    commands, log = tmp_path / "commands", tmp_path / "attempts"
    commands.mkdir()
    if sudo != "missing":
        (commands / "sudo").write_text(FAKE.format(log=log) if sudo == "never satisfied" else "#!/bin/sh\nexec sleep 10\n")
        (commands / "sudo").chmod(0o755)
    server = Server(tmp_path, more=f"SetEnv PATH={commands}:/nowhere" if sudo == "missing" else f"SetEnv PATH={commands}:/usr/bin:/bin")
    try:
        started = time.monotonic()
        transport = connect(server.host(become=True, connect_timeout=1.5 if sudo == "silent" else 5), sudo_password=lambda: "given")
        with pytest.raises(Unreachable) as raised:
            list(transport.stream(WHO))
        assert time.monotonic() - started < 6
        expected = {"never satisfied": "refuses the password", "missing": "not found", "silent": "did not answer"}[sudo]
        assert expected in str(raised.value)
        if sudo == "never satisfied":
            until(lambda: not [pid for pid in server.descendants() if name_of(pid) == "sudo"], "sudo has ended")
            assert log.read_text() == "attempt\n", "one attempt, and no byte of the program"
        else:
            assert not log.exists()
        if sudo == "missing":
            transport = connect(server.host(become=True))
            with pytest.raises(Unreachable, match="not found"):
                list(transport.stream(WHO))
    finally:
        transport.close()
        server.stop()


@pytest.mark.parametrize("kind", ["PasswordAuthentication yes", "PasswordAuthentication no\nKbdInteractiveAuthentication yes\nUsePAM yes"])
def test_a_login_by_password(tmp_path: Path, kind: str) -> None:
    """Also where sshd asks for it by keyboard-interactive. A wrong one is refused, and never shown."""
    if "UsePAM" in kind and not Path("/etc/pam.d/sshd").exists():
        pytest.fail("/etc/pam.d/sshd is missing: apt-get install openssh-server")
    server = Server(tmp_path, sudoers=NOPASSWD, more=kind)
    try:
        host = server.host(user=USER, become=True, private_key=None)
        with contextlib.closing(Login(None, lambda: None, lambda: PASSWORD)) as login, contextlib.closing(Transport(host, login=login)) as way:
            assert list(way.stream(Program(steps=[("true",)]))) == [["ok", "0"]]
        with contextlib.closing(Login(None, lambda: None, lambda: "wrong-canary")) as login, \
                contextlib.closing(Transport(host, login=login)) as way, pytest.raises(AccessRefused) as raised:
            way.connect()
        assert raised.value.code == "ssh.authentication-failed" and "canary" not in str(raised.value)
    finally:
        server.stop()
