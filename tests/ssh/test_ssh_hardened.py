"""Hardened and ordinary sshd_config: no forwarding, few sessions, MaxStartups; keys and ssh_config as people have them."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import Server, keygen

from clusterctl.cluster.model import Host
from clusterctl.engine import fleet
from clusterctl.engine.observe import look
from clusterctl.errors import Refused, Unreachable
from clusterctl.session.operator_lock import OperatorLock
from clusterctl.shell import Script
from clusterctl.ssh import ssh_config
from clusterctl.ssh.https import ApiError, Https
from clusterctl.ssh.login import Login
from clusterctl.ssh.transport import Transport

pytestmark = pytest.mark.lab

Connect = Callable[..., Transport]
TRUE = Script(steps=[("true",)])


@pytest.fixture
def hardened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    made = Server(tmp_path, more=request.param)
    yield made
    made.stop()


def with_roles(host: Host, *roles: str) -> Host:
    return host.model_copy(update={"roles": frozenset(roles)})


@pytest.mark.parametrize("hardened", ["AllowTcpForwarding no", "DisableForwarding yes", "PermitOpen 192.0.2.1:1"], indirect=True)
def test_forwarding_that_is_disabled_is_found_with_the_facts(hardened: Server, connect: Connect) -> None:
    for role in ("control_plane", "etcd"):
        with pytest.raises(Refused) as raised:
            look(connect(with_roles(hardened.host(), role)))
        assert raised.value.code == "ssh.forwarding-disabled" and "AllowTcpForwarding" in raised.value.hint
    assert look(connect(hardened.host())).facts.kernel, "nothing is reached through a worker"
    assert look(connect(with_roles(hardened.host(), "etcd")), forwarding=False).facts.kernel


@pytest.mark.parametrize("hardened", ["AllowTcpForwarding local", "AllowTcpForwarding no"], indirect=True)
def test_a_client_of_a_forward_is_told_why_it_broke(hardened: Server, connect: Connect) -> None:
    transport = connect(with_roles(hardened.host(), "control_plane"))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        forward = transport.forward("127.0.0.1", one.getsockname()[1])
        pem = (hardened.base / "pem").read_bytes() if (hardened.base / "pem").exists() else _pem(hardened.base)
        client = Https(forward.port, authority=pem, certificate=pem, key=pem, why_broken=lambda: forward.error)
        with pytest.raises(ApiError) as raised:
            client.read("GET", "/readyz")
        client.close()
    disabled = "AllowTcpForwarding no" in (hardened.base / "config").read_text()
    assert ("does not allow TCP forwarding" if disabled else "cannot be reached from machine") in str(raised.value)


def _pem(base: Path) -> bytes:
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
                    "-keyout", base / "key.pem", "-out", base / "cert.pem"], check=True, capture_output=True)
    return (base / "cert.pem").read_bytes() + (base / "key.pem").read_bytes()


def test_the_connection_that_was_tried_is_used(server: Server, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, transport = listener.getsockname()[1], connect()
        transport.connect()
        transport.try_forwarding(port).result(10)
        forward = transport.forward("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", forward.port), timeout=5) as one:
            one.sendall(b"x")
            far, _ = listener.accept()
            with far:
                assert far.recv(1) == b"x"
                listener.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    listener.accept()


@pytest.mark.parametrize("hardened", ["MaxSessions 1", "MaxSessions 2"], indirect=True)
def test_few_sessions_are_enough_for_the_lock_and_programs(hardened: Server, connect: Connect) -> None:
    host, transport = hardened.host(), connect(hardened.host())
    lock = OperatorLock({host.name: transport})
    lock.take([host], "apply")
    held = lock._holds[host.name]
    for _ in range(4):
        assert list(transport.stream(TRUE)) == [["ok", "0"]]
        lock.check()
    assert lock._holds[host.name] is held, "it was never lost"
    lock.release()


@pytest.mark.parametrize("hardened", ["MaxSessions 1"], indirect=True)
def test_the_lock_takes_a_connection_of_its_own_beside_a_program(hardened: Server, connect: Connect, tmp_path: Path) -> None:
    host, transport, go = hardened.host(), connect(hardened.host()), tmp_path / "go"
    stream = transport.stream(Script(steps=[("true",), ("eval", f"while [ ! -e {go} ]; do sleep 0.05; done")]))
    assert next(stream) == ["ok", "0"]
    lock = OperatorLock({host.name: transport})
    lock.take([host], "apply")
    lock.check()
    go.touch()
    assert list(stream) == [["ok", "1"]]
    lock.release()


@pytest.mark.parametrize("hardened", ["MaxSessions 0"], indirect=True)
def test_no_session_at_all_is_named(hardened: Server, connect: Connect) -> None:
    transport = connect(hardened.host(connect_timeout=1))
    with pytest.raises(Unreachable) as raised:
        list(transport.stream(TRUE))
    assert raised.value.code == "ssh.max-sessions"


@pytest.mark.parametrize("hardened", ["MaxStartups 10:30:100"], indirect=True)
def test_fifty_machines_behind_a_bastion_with_max_startups(hardened: Server, server: Server, tmp_path: Path) -> None:
    """All of them share one connection to the bastion."""
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{hardened.port} {hardened.public}\n")
    login = Login(known, lambda: None)
    jump = f"root@127.0.0.1:{hardened.port}"
    hosts = [server.host(private_key=server.key, common_args=("-J", jump), connect_timeout=20).model_copy(update={"name": f"m-{n}"})
             for n in range(50)]
    folder = Path(os.environ["HOME"]) / ".ssh"
    folder.mkdir()
    (folder / "config").write_text(f"Host 127.0.0.1\n  IdentityFile {hardened.key}\n")
    transports = {host.name: Transport(host, login=login) for host in hosts}
    try:
        fleet.each(hosts, lambda host: transports[host.name].connect(), limit=20).or_raise()
        assert hardened.log.count("Accepted publickey") == 1
    finally:
        for transport in transports.values():
            transport.close()
        login.close()


def test_a_first_connection_that_is_reset_is_tried_again(server: Server, connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve() -> None:
            for count in range(4):
                near, _ = listener.accept()
                if count < 3:
                    near.sendall(b"Exceeded MaxStartups\r\n" if count == 1 else b"")
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0) if count == 2 else struct.pack("ii", 0, 0))
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", server.port))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=pair, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        port = listener.getsockname()[1]
        transport = connect(server.host(port=port, connect_timeout=15))
        assert list(transport.stream(TRUE)) == [["ok", "0"]]
        transport.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path, str], None]]:
    """A real ssh-agent; adds keys with their passphrase."""
    out = subprocess.run(["ssh-agent", "-s", "-a", str(tmp_path / "agent")], capture_output=True, text=True, check=True).stdout
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))

    def add(key: Path, passphrase: str) -> None:
        ask = tmp_path / "ask"
        ask.write_text(f"#!/bin/sh\necho {passphrase}\n")
        ask.chmod(0o700)
        subprocess.run(["setsid", "ssh-add", str(key)], check=True, capture_output=True, stdin=subprocess.DEVNULL,
                       env={**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"})

    yield add
    os.kill(int(out.partition("SSH_AGENT_PID=")[2].partition(";")[0]), signal.SIGTERM)


def test_a_named_key_with_a_passphrase_that_the_agent_holds(another: Server, connect: Connect, tmp_path: Path, agent: Callable[[Path, str], None]) -> None:
    for number in range(7):
        agent(keygen(tmp_path / f"other-{number}"), "")
    locked = tmp_path / "locked"
    shutil.copy(another.key, locked)
    locked.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(locked)], check=True, capture_output=True)
    with pytest.raises(Unreachable) as raised:
        connect(another.host(private_key=locked)).connect()
    assert raised.value.code in ("ssh.key-passphrase", "ssh.authentication-failed")
    agent(locked, "secret")
    connect(another.host(private_key=locked)).connect()
    assert list(connect(another.host(private_key=locked), passphrase=lambda: "secret").stream(TRUE)) == [["ok", "0"]]


def test_a_fido_key_is_named(server: Server, connect: Connect, tmp_path: Path) -> None:
    def word(data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + data

    public = word(b"sk-ssh-ed25519@openssh.com") + word(b"k" * 32) + word(b"ssh:")
    whole = b"openssh-key-v1\0" + word(b"none") * 2 + word(b"") + struct.pack(">I", 1) + word(public) + word(b"x" * 64)
    (tmp_path / "sk").write_text(f"-----BEGIN OPENSSH PRIVATE KEY-----\n{base64.b64encode(whole).decode()}\n-----END OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(Unreachable) as raised:
        connect(server.host(private_key=tmp_path / "sk")).connect()
    assert raised.value.code == "ssh.fido-key" and "ssh-add" in raised.value.hint


def test_ssh_config_completes_what_the_inventory_does_not_set(server: Server, another: Server, connect: Connect, tmp_path: Path) -> None:
    folder = Path(os.environ["HOME"]) / ".ssh"
    folder.mkdir()
    (folder / "config").write_text(f"""
Host node1
  HostName 127.0.0.1
  Port {server.port}
  User root
  IdentityFile {server.key}
  ProxyJump jump
Host jump
  HostName 127.0.0.1
  User root
  Port {another.port}
  IdentityFile {another.key}
""")
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{another.port} {another.public}\n")
    host = Host(name="machine", address="192.0.2.1", roles=frozenset({"worker"}), ssh={"address": "node1", "host_key": server.public})  # type: ignore[arg-type]
    assert list(connect(host, known_hosts=known).stream(TRUE)) == [["ok", "0"]]
    assert another.log.count("Accepted publickey") == 1
    way = ssh_config.resolve(host.ssh.model_copy(update={"user": "ops", "port": 2222}))
    assert (way.ssh.user, way.ssh.port, way.ssh.address) == ("ops", 2222, "127.0.0.1")
