"""Programs over a real sshd: what arrives, who is let in, and that every wait has an end."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import itertools
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
import pytest
from ssh_server import PASSWORD, Server, keygen, until

from clusterctl.errors import Refused, Stopped, Unreachable
from clusterctl.shell import Script
from clusterctl.ssh.transport import ConnectionLost, Transport, offered_key

pytestmark = pytest.mark.lab

Connect = Callable[..., Transport]


def steps(transport: Transport, *calls: tuple[str, ...], **more: object) -> list[list[str]]:
    return list(transport.stream(Script(steps=calls, **more)))  # type: ignore[arg-type]


def test_a_large_blob(server: Server, connect: Connect, tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(1 << 20) * 60)
    digest = hashlib.sha256(blob.read_bytes()).hexdigest()
    functions = 'observe_blob() { emit blob x "$(sha256 "$work/blobs/large" | cut -d " " -f 1)"; }'
    transport = connect()
    found = list(transport.stream(Script(probes=[("blob", "x")], functions=functions, blobs={"large": blob})))
    assert found == [["blob", "x", digest]]
    assert transport.statistics.trips == 1 and transport.statistics.sent > 60 << 20
    assert steps(transport, ("true",)) == [["ok", "0"]]
    assert transport.statistics.trips == 2
    until(server.idle, "nothing is left on the machine")


def test_failure_and_output(connect: Connect) -> None:
    found = steps(connect(), ("true",), ("die", "why"), ("true",))
    assert [words[0] for words in found] == ["ok", "failed"]


def test_state_is_private(server: Server, connect: Connect) -> None:
    functions = 'observe_modes() { stat -c "%a" /var/lib/clusterctl /var/lib/clusterctl/run "$work" "$work/run.sh" | emit_lines mode; }'
    found = list(connect().stream(Script(probes=[("modes", "x")], functions=functions)))
    assert found == [["mode", "700"], ["mode", "700"], ["mode", "700"], ["mode", "600"]]


def test_leftovers_of_dead_programs_go_and_those_of_living_ones_stay(server: Server, connect: Connect) -> None:
    steps(connect(), ("true",))
    until(server.idle, "the first has ended")
    dead, living = server.state / "run" / "4194304", server.state / "run" / str(server.pid)
    dead.mkdir(parents=True)
    living.mkdir()
    steps(connect(), ("true",))
    assert not dead.exists() and living.exists()
    living.rmdir()


@pytest.mark.parametrize("spelling", ["public", "fingerprint", "with a comment"])
def test_pinned(server: Server, connect: Connect, spelling: str) -> None:
    pin = {"public": server.public, "fingerprint": server.fingerprint, "with a comment": f"{server.public} root@x"}[spelling]
    assert steps(connect(server.host(host_key=pin)), ("true",)) == [["ok", "0"]]


def test_known_by_our_own_file(server: Server, connect: Connect, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {server.public}\n")
    assert steps(connect(server.host(host_key=None), known_hosts=known), ("true",)) == [["ok", "0"]]
    assert offered_key(server.host()).get_base64() == server.public.split()[1]


@pytest.mark.parametrize("how", ["unknown", "known as another", "pinned key", "pinned fingerprint"])
def test_a_wrong_host_key_is_refused_before_authentication(another: Server, connect: Connect, tmp_path: Path, how: str) -> None:
    other = " ".join((keygen(tmp_path / "other").with_suffix(".pub")).read_text().split()[:2])
    known, pin = tmp_path / "known_hosts", None
    if how == "known as another":
        known.write_text(f"[127.0.0.1]:{another.port} {other}\n")
    elif how == "pinned key":
        pin = other
    elif how == "pinned fingerprint":
        pin = "SHA256:" + "A" * 43
    transport = connect(another.host(host_key=pin), known_hosts=known)
    with pytest.raises(Unreachable) as raised:
        transport.connect()
    assert raised.value.exit_code == 6 and another.fingerprint in str(raised.value)
    assert "clusterctl trust machine" in raised.value.hint
    if how != "unknown":
        assert str(raised.value).count("SHA256:") >= 3, "both fingerprints, and one in the hint"
    until(lambda: "Connection closed" in another.log or "Connection reset" in another.log, "sshd saw the end")
    assert "userauth-request" not in another.log and "Accepted" not in another.log


def test_wrong_key(server: Server, connect: Connect, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="SSH authentication failed") as raised:
        connect(server.host(private_key=keygen(tmp_path / "wrong"))).connect()
    assert raised.value.exit_code == 6 and "ssh -p" in raised.value.hint


def test_refused_and_silent(server: Server, connect: Connect) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        with pytest.raises(Unreachable, match="refused"):
            connect(server.host(port=port)).connect()
        one.listen()
        started = time.monotonic()
        with pytest.raises(Unreachable, match="cannot be reached"):
            connect(server.host(port=port, connect_timeout=1)).connect()
        assert time.monotonic() - started < 4
        with pytest.raises(Unreachable, match="cannot be reached"):
            offered_key(server.host(port=port, connect_timeout=1))


def test_what_cannot_be_sent_is_told_and_does_not_hang(server: Server, connect: Connect, tmp_path: Path) -> None:
    for program in (Script(blobs={"x": tmp_path / "nothing"}), Script(steps=[("echo", "\0")]), Script(blobs={"n" * 120: b"x"})):
        with pytest.raises(Stopped, match="cannot be sent"):
            list(connect().stream(program))
    until(server.idle, "the machine waits for nothing")


def test_cut_where_the_end_cannot_be_told_either(another: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A channel that is closed says so to the machine, over a connection that is no more."""
    transport = connect(another.host())
    stream = transport.stream(Script(steps=[("true",), ("sleep", "30")]))
    assert next(stream) == ["ok", "0"]

    def close(channel: paramiko.Channel) -> None:
        raise EOFError

    monkeypatch.setattr(paramiko.Channel, "close", close)
    another.signal(signal.SIGKILL)
    with pytest.raises(ConnectionLost):
        list(stream)


def test_cut_and_the_step_that_runs_on(another: Server, connect: Connect, tmp_path: Path) -> None:
    """The connection dies in a step: that step ends, the next does not begin, and a new program waits for it."""
    log, go = tmp_path / "steps", tmp_path / "go"
    first = ("eval", f"echo begin >>{log}; while [ ! -e {go} ]; do sleep 0.02; done; echo end >>{log}")
    transport = connect(another.host())
    stream = transport.stream(Script(steps=[("true",), first, ("eval", f"echo never >>{log}")]))
    assert next(stream) == ["ok", "0"]
    until(log.exists, "the step has begun")
    another.signal(signal.SIGKILL)
    with pytest.raises(ConnectionLost):
        next(stream)
    found: list[list[str]] = []
    again = threading.Thread(target=lambda: found.extend(steps(transport, ("eval", f"echo again >>{log}"))))
    again.start()
    until(lambda: len([pid for pid in another.sessions()]) >= 1, "connected again")
    again.join(0.5)
    assert log.read_text() == "begin\n" and again.is_alive(), "it waits for the step that runs on"
    go.touch()
    again.join(10)
    assert found == [["ok", "0"]] and log.read_text() == "begin\nend\nagain\n"
    until(another.idle, "nothing is left on the machine")


def test_a_connection_that_dies_while_it_sends_holds_up_nobody(another: Server, connect: Connect) -> None:
    slow = connect(another.host())
    slow.connect()
    held = threading.Event()
    program = _Slow(steps=[("true",)], blobs={"large": b"x" * (4 << 20)}, held=held)
    errors: list[BaseException] = []

    def send() -> None:
        try:
            list(slow.stream(program))
        except (ConnectionLost, Unreachable, Stopped) as error:
            errors.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    until(lambda: not another.idle(), "the machine receives")
    started = time.monotonic()
    assert steps(connect(another.host()), ("true",)) == [["ok", "0"]]
    assert time.monotonic() - started < 5
    another.signal(signal.SIGKILL)
    held.set()
    sender.join(10)
    assert len(errors) == 1


@dataclass(frozen=True)
class _Slow(Script):
    """A program that stops in the middle of being sent."""

    held: threading.Event = field(default_factory=threading.Event)

    def chunks(self, size: int = 32768) -> Iterator[bytes]:
        yield from itertools.islice(Script.chunks(self, size), 40)
        self.held.wait(20)


def test_stopped_sshd_is_bounded_by_silence(another: Server, connect: Connect) -> None:
    transport = connect(another.host())
    stream = transport.stream(Script(steps=[("true",), ("sleep", "20")]), silence=1.5)
    assert next(stream) == ["ok", "0"]
    another.signal(signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(Unreachable, match="no output for"):
        next(stream)
    assert 1 < time.monotonic() - started < 6
    another.signal(signal.SIGCONT)


@pytest.mark.parametrize("connected", [True, False])
def test_stopped_sshd_before_the_program(another: Server, connect: Connect, connected: bool) -> None:
    transport = connect(another.host(connect_timeout=1))
    if connected:
        transport.connect()
    another.signal(signal.SIGSTOP)
    os.kill(another.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises((Unreachable, ConnectionLost)):
        steps(transport, ("true",))
    assert time.monotonic() - started < 8
    os.kill(another.pid, signal.SIGCONT)
    another.signal(signal.SIGCONT)


def test_two_programs_at_once_take_turns(server: Server, connect: Connect, tmp_path: Path) -> None:
    log = tmp_path / "log"
    call = ("eval", f"echo in >>{log}; sleep 0.1; echo out >>{log}")
    threads = [threading.Thread(target=steps, args=(connect(), call, call)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert log.read_text() == "in\nout\n" * 8


def test_a_killed_program_is_a_cut(connect: Connect) -> None:
    with pytest.raises(ConnectionLost, match="code"):
        steps(connect(), ("true",), ("eval", "kill -9 $$; sleep 5"))


def test_no_place_for_the_program(another: Server, connect: Connect) -> None:
    (another.base / "state" / "clusterctl").write_text("a file in the way")
    with pytest.raises(Refused, match="cannot write to /var/lib/clusterctl") as raised:
        steps(connect(another.host()), ("true",))
    assert "space" in raised.value.hint


def test_secrets_are_in_no_command_line(server: Server, as_operator: Callable[..., Transport], tmp_path: Path) -> None:
    content, argument = "canary-of-a-file", "canary-of-an-argument"
    ended, found = threading.Event(), set()

    def watch() -> None:
        while not ended.is_set():
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    with contextlib.suppress(OSError):
                        for name in ("cmdline", "environ"):
                            line = (entry / name).read_bytes()
                            found.update(canary for canary in (content, argument, PASSWORD) if canary.encode() in line)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        program = Script(steps=[("put_file", f"{tmp_path}/secret", "600", "root:root", "blob", "any"), ("sleep", "0.3"),
                                ("eval", f": {argument}; sleep 0.3")], blobs={"blob": content.encode()})
        assert [words[0] for words in as_operator().stream(program)] == ["ok"] * 3
    finally:
        ended.set()
        watcher.join(5)
    assert (tmp_path / "secret").read_text() == content
    assert found == set()


def test_a_command_of_the_operator_holds_up_nothing(server: Server, connect: Connect, tmp_path: Path) -> None:
    go = tmp_path / "go"
    command = Script(probes=[("command", f"echo begun; while [ ! -e {go} ]; do sleep 0.05; done")], unlocked=True)
    found: list[list[str]] = []
    runner = threading.Thread(target=lambda: found.extend(connect().stream(command)))
    runner.start()
    until(lambda: not server.idle(), "the command runs")
    started = time.monotonic()
    assert steps(connect(), ("true",)) == [["ok", "0"]]
    assert list(connect().stream(Script(probes=[("command", "echo x")], unlocked=True))) == [["output", "x"], ["exit", "0"]]
    assert time.monotonic() - started < 10 and runner.is_alive()
    go.touch()
    runner.join(10)
    assert found == [["output", "begun"], ["exit", "0"]]


def test_looks_do_not_wait_for_each_other(server: Server, connect: Connect) -> None:
    program = Script(probes=[("stat", "/etc/passwd")])
    assert "lock_machine -s" in program.text and "lock_machine -x" in Script(steps=[("true",)]).text
    assert [words[0] for words in connect().stream(program)] == ["stat"]


@pytest.mark.parametrize("looks", [True, False])
def test_a_program_that_waits_for_another_reports_its_holder(server: Server, connect: Connect, tmp_path: Path, looks: bool,
                                                             caplog: pytest.LogCaptureFixture) -> None:
    go = tmp_path / "go"
    holder = threading.Thread(target=steps, args=(connect(operation="node drain"), ("eval", f"while [ ! -e {go} ]; do sleep 0.1; done")))
    holder.start()
    until(lambda: not server.idle(), "the other program runs")
    until(lambda: "node drain" in (server.base / "state" / "clusterctl" / "lock").read_text(), "it holds the lock")
    waiting = threading.Thread(target=lambda: list(connect(operation="status").stream(
        Script(probes=[("stat", "/etc/passwd")]) if looks else Script(steps=[("true",)]))))
    waiting.start()
    until(lambda: "waiting for another clusterctl program" in caplog.text, "the holder is reported", 10)
    go.touch()
    holder.join(10)
    waiting.join(10)
    [line] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert re.search(rf"^\S+: .*: {getpass.getuser()}@\S+, pid {os.getpid()}, node drain, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC$", line), line


def test_a_killed_program_is_not_named_as_the_holder_of_a_shared_lock(another: Server, connect: Connect) -> None:
    host = another.host()
    with pytest.raises(ConnectionLost):
        steps(connect(host, operation="apply"), ("eval", "kill -9 $PPID $$"))
    lock = another.base / "state" / "clusterctl" / "lock"
    assert "apply" in lock.read_text()
    list(connect(host).stream(Script(probes=[("stat", "/etc/passwd")])))
    assert lock.read_text() == ""
