"""What machines print that is no record of ours: login shells, machines that never end, control characters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import NOPASSWD, PASSWORD, SUDOERS, USER, Server, keygen

from clusterctl.errors import Locked, Unreachable
from clusterctl.operations import lock
from clusterctl.operations.lock import OperatorLock
from clusterctl.shell import Program
from clusterctl.transport import Transport

pytestmark = pytest.mark.lab

Connect = Callable[..., Transport]
WHO = Program(probes=[("who", "x")], functions='observe_who() { emit who "$(id -u)"; }')


@pytest.fixture
def noisy(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    sudoers, bashrc = request.param
    made = Server(tmp_path, sudoers=sudoers, bashrc=bashrc)
    yield made
    made.stop()


@pytest.mark.parametrize("noisy", [
    (NOPASSWD, "echo Welcome to cp-1\n"), (NOPASSWD, "printf 'no end of line'\n"), (NOPASSWD, "yes busy | head -c 300000\n"),
    (SUDOERS, "echo Here we go\necho Welcome >&2\n"),
], indirect=True, ids=["one line", "part of a line", "300 kB", "go, with a password"])
def test_a_login_shell_that_prints(noisy: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def transport() -> Transport:
        return connect(noisy.host(user=USER, become=True), sudo_password=lambda: PASSWORD)

    assert list(transport().stream(WHO)) == [["who", "0"]]
    host = noisy.host()
    first, second = OperatorLock({host.name: transport()}), OperatorLock({host.name: transport()})
    try:
        first.take([host], "apply")
        first.check()
        with monkeypatch.context() as patch, pytest.raises(Locked, match="apply, since"):
            patch.setattr(lock, "PATIENCE", 0.0)  # The holder is this process.
            second.take([host], "upgrade")
    finally:
        first.release()
    # The machine may take a moment to end the first holder.
    second.take([host], "upgrade")
    second.release()


def forced(tmp_path: Path, command: str) -> Server:
    return Server(tmp_path, more=f"ForceCommand {command}")


@pytest.mark.parametrize(("command", "code"), [
    ("while printf x && sleep 0.2; do :; done", "ssh.no-output"),
    ("while echo x && sleep 0.2; do :; done", "ssh.no-output"),
    ("cat /dev/zero", "ssh.unreadable-output"),
    ("yes", "ssh.no-output"),
])
def test_a_machine_that_never_ends(tmp_path: Path, connect: Connect, command: str, code: str) -> None:
    server = forced(tmp_path, command)
    try:
        transport, started = connect(server.host()), time.monotonic()
        with pytest.raises(Unreachable) as raised:
            list(transport.stream(WHO, silence=1.5))
        assert raised.value.code == code and time.monotonic() - started < 6
        assert transport._connection is None, "the connection is dropped"
    finally:
        transport.close()
        server.stop()


def test_records_without_an_end_meet_the_deadline(server: Server, connect: Connect) -> None:
    program = Program(probes=[("forever", "x")], functions='observe_forever() { while emit tick x; do sleep 0.2; done; }')
    started = time.monotonic()
    with pytest.raises(Unreachable, match="did not end within 2 s"):
        list(connect().stream(program, silence=10, total=2))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("record", ['ok', 'ok x', 'ok 7', 'failed 0', 'failed 0 1 A', 'exit', 'who', 'lines'])
def test_a_malformed_record(server: Server, connect: Connect, record: str) -> None:
    words = "\\t".join(["%s", *record.split()])
    program = Program(probes=[("odd", "x")], functions=f"observe_odd() {{ printf '{words}\\n' \"$nonce\" >&3; }}")
    with pytest.raises(Unreachable) as raised:
        list(connect().stream(program))
    assert raised.value.code == "ssh.unreadable-output"


def test_a_large_blob_may_take_longer_than_silence_between_records(server: Server, connect: Connect) -> None:
    program = Program(blobs={"x": b"x" * (8 << 20)}, steps=[("true",)])
    assert list(connect().stream(program, silence=2)) == [["ok", "0"]]


def test_control_characters_of_a_machine_are_escaped(tmp_path: Path, connect: Connect) -> None:
    server = forced(tmp_path, r"""printf '\033]52;c;bWluZQ==\a\302\233' >&2; exit 3""")
    try:
        transport = connect(server.host())
        with pytest.raises(Unreachable) as raised:
            list(transport.stream(WHO))
        assert "\\x1b]52;c;bWluZQ==\\x07\\x9b" in str(raised.value) and "\x1b" not in str(raised.value)
    finally:
        transport.close()
        server.stop()


def test_a_refusal_is_not_tried_again(server: Server, as_operator: Callable[..., Transport]) -> None:
    """pam_faillock counts attempts: one for each machine and run."""
    def attempts() -> int:
        return server.log.count("Starting session: command for operator")

    transport, before = as_operator("wrong-canary"), attempts()
    for _ in range(3):
        with pytest.raises(Unreachable, match="sudo refuses the password"):
            list(transport.stream(WHO))
    assert attempts() - before == 1


def test_a_refused_login_is_not_tried_again(another: Server, connect: Connect, tmp_path: Path) -> None:
    transport = connect(another.host(private_key=keygen(tmp_path / "wrong")))
    for _ in range(3):
        with pytest.raises(Unreachable, match="SSH authentication failed"):
            transport.connect()
    assert another.log.count("SSH2_MSG_NEWKEYS received") == 1, "one connection"

