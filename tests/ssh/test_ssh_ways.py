"""Ways to a machine and out of it: bastions, proxy commands, forwarded ports."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import paramiko
import pytest
from ssh_server import Server, until

from clusterctl.errors import Unreachable
from clusterctl.shell import Script
from clusterctl.ssh.sockets import _may_name_a_way, open_socket
from clusterctl.ssh.transport import Transport

pytestmark = pytest.mark.lab

Connect = Callable[..., Transport]
TRUE = Script(steps=[("true",)])


def children() -> set[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may be gone by now.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def known_hosts(path: Path, *servers: Server) -> Path:
    path.write_text("".join(f"[127.0.0.1]:{server.port} {server.public}\n" for server in servers))
    return path


@pytest.mark.parametrize("words", ["-o ProxyJump=root@127.0.0.1:{port}", "-J root@127.0.0.1:{port}", "-o 'ProxyJump root@127.0.0.1:{port}'"])
def test_bastion(server: Server, another: Server, connect: Connect, tmp_path: Path, words: str) -> None:
    host = server.host(common_args=tuple(shlex.split(words.format(port=another.port))), private_key=another.key)
    transport = connect(host, known_hosts=known_hosts(tmp_path / "known", another))
    with pytest.raises(Unreachable, match="SSH authentication failed"):
        transport.connect()
    assert another.log.count("Accepted publickey") == 1, "the bastion let us through, the machine has another key"
    transport.close()
    until(lambda: len(another.sessions()) == 0, "the bastion's session has ended")


def test_two_bastions(server: Server, connect: Connect, tmp_path: Path) -> None:
    way = f"root@127.0.0.1:{server.port}"
    transport = connect(server.host(common_args=("-o", f"ProxyJump={way},{way}")), known_hosts=known_hosts(tmp_path / "known", server))
    assert list(transport.stream(TRUE)) == [["ok", "0"]]
    before = len(server.sessions())
    assert before >= 3
    transport.close()
    until(lambda: len(server.sessions()) <= before - 3, "all sessions have ended")


def test_an_unknown_bastion_is_refused(server: Server, another: Server, connect: Connect) -> None:
    transport = connect(server.host(common_args=("-o", f"ProxyJump=root@127.0.0.1:{another.port}")))
    with pytest.raises(Unreachable, match="bastion") as raised:
        transport.connect()
    assert another.fingerprint in str(raised.value) and "userauth-request" not in another.log


def test_proxy_command(server: Server, connect: Connect, tmp_path: Path) -> None:
    before = children()
    command = (f"ssh -i {server.key} -o UserKnownHostsFile={known_hosts(tmp_path / 'known', server)} -o IdentitiesOnly=yes "
               f"-p {server.port} -W %h:%p root@127.0.0.1")
    transport = connect(server.host(common_args=("-o", f"ProxyCommand={command}")))
    assert list(transport.stream(Script(steps=[("true",)], blobs={"large": os.urandom(5 << 20)}))) == [["ok", "0"]]
    assert children() - before
    transport.close()
    until(lambda: not children() - before, "the command has ended and was waited for")


@pytest.mark.parametrize("command", ["false", "no-such-command", "sleep 60", "echo nonsense"])
def test_a_proxy_command_that_fails(server: Server, connect: Connect, command: str) -> None:
    before = children()
    with pytest.raises(Unreachable, match="cannot be reached"):
        connect(server.host(common_args=("-o", f"ProxyCommand={command}"), connect_timeout=1)).connect()
    until(lambda: not children() - before, "the command has ended and was waited for")


class _Echo(socketserver.BaseRequestHandler):
    """Sends back what comes, at once; reads no more while it cannot send."""

    def handle(self) -> None:
        while piece := self.request.recv(65536):
            self.request.sendall(piece)


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])

    def log_message(self, *_: object) -> None:
        pass


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Iterator[int]:
    kind, handler = request.param
    with kind(("127.0.0.1", 0), handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made.server_address[1]
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("listener", [(ThreadingHTTPServer, _Http)], indirect=True)
def test_http_through_a_forward(listener: int, connect: Connect) -> None:
    forward = connect().forward("127.0.0.1", listener)
    body = os.urandom(8 << 20)
    with urllib.request.urlopen(f"http://127.0.0.1:{forward.port}/", data=body, timeout=20) as answer:
        assert answer.read() == body[::-1]


@pytest.mark.parametrize("listener", [(_Server, _Echo)], indirect=True)
def test_both_ways_at_once(listener: int, connect: Connect) -> None:
    """More than all buffers hold, both ways: nobody may wait for the other to read first."""
    forward = connect().forward("127.0.0.1", listener)
    body = os.urandom(24 << 20)
    with socket.create_connection(("127.0.0.1", forward.port), timeout=20) as one:
        def send() -> None:
            one.sendall(body)
            one.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        digest, count = hashlib.sha256(), 0
        while piece := one.recv(65536):
            digest.update(piece)
            count += len(piece)
        sender.join(20)
    assert count == len(body) and digest.digest() == hashlib.sha256(body).digest()


@pytest.mark.parametrize("listener", [(_Server, _Echo)], indirect=True)
def test_many_connections(listener: int, connect: Connect) -> None:
    transport = connect()
    forward = transport.forward("127.0.0.1", listener)
    answers: dict[int, bytes] = {}

    def ask(number: int) -> None:
        with socket.create_connection(("127.0.0.1", forward.port), timeout=20) as one:
            one.sendall(b"%d" % number)
            one.shutdown(socket.SHUT_WR)
            answers[number] = b"".join(iter(lambda: one.recv(100), b""))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert answers == {number: b"%d" % number for number in range(60)}
    assert list(transport.stream(TRUE)) == [["ok", "0"]], "programs go on beside"


def test_nobody_behind_the_forward(connect: Connect) -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        forward = connect().forward("127.0.0.1", one.getsockname()[1])
        with socket.create_connection(("127.0.0.1", forward.port), timeout=10) as two:
            assert two.recv(1) == b""


@pytest.mark.parametrize("listener", [(_Server, _Echo)], indirect=True)
def test_closing_ends_what_is_open(listener: int, connect: Connect) -> None:
    transport = connect()
    forward = transport.forward("127.0.0.1", listener)
    with socket.create_connection(("127.0.0.1", forward.port), timeout=10) as one:
        one.sendall(b"x")
        assert one.recv(1) == b"x"
        transport.close()
        assert one.recv(1) == b""
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", forward.port), timeout=1):
        pass


@pytest.mark.parametrize("listener", [(_Server, _Echo)], indirect=True)
@pytest.mark.parametrize("jump", [False, True], ids=["straight", "through-a-bastion"])
def test_who_sees_the_end_of_a_forward_sees_that_of_its_connection(
        jump: bool, listener: int, another: Server, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """paramiko ends channels first and itself afterwards: who asks in between, as here, must know that the way broke."""
    known_hosts(tmp_path / "known", another)
    words = ("-J", f"root@127.0.0.1:{another.port}") if jump else ()
    transport = connect(another.host(common_args=words), known_hosts=tmp_path / "known")
    forward = transport.forward("127.0.0.1", listener)
    go, unlink = threading.Event(), paramiko.Channel._unlink

    def late(channel: paramiko.Channel) -> None:
        unlink(channel)
        go.wait(10)

    with socket.create_connection(("127.0.0.1", forward.port), timeout=10) as one:
        one.sendall(b"x")
        assert one.recv(1) == b"x" and transport.connected
        monkeypatch.setattr(paramiko.Channel, "_unlink", late)
        another.signal(signal.SIGKILL)
        try:
            assert one.recv(1) == b""
            assert not transport.connected
        finally:
            go.set()
    transport.connect()
    assert transport.connected


@pytest.mark.parametrize(("text", "may"), [
    ("", False), ("Host x\n  User y\n", False), ("# ProxyJump b\n", False), ("Include /etc/ssh/ssh_config.d/*.conf\n", False),
    ("Host x\n\tProxyJump b\n", True), ("proxycommand=nc %h %p\n", True), ("Include ~/.ssh/more\n", True), ("ProxyUseFdpass no\n", True)])
def test_a_file_that_may_name_a_way(tmp_path: Path, text: str, may: bool) -> None:
    (tmp_path / "a.conf").write_text(text)
    assert _may_name_a_way(str(tmp_path / "*.conf")) is may and not _may_name_a_way(str(tmp_path / "none"))


def test_a_socket_that_was_opened_before_is_used_once(server: Server) -> None:
    host = server.host()
    begun: Future[socket.socket] = Future()
    begun.set_result(open_socket(host.ssh.address, host.ssh.port, 5))
    transport = Transport(host, begun=begun)
    transport.connect()
    assert transport.connected and transport._connection.transport.sock is begun.result()  # type: ignore[union-attr]
    transport.close()
    transport.connect()
    assert transport.connected and transport._connection.transport.sock is not begun.result()  # type: ignore[union-attr]
    transport.close()
    refused: Future[socket.socket] = Future()
    refused.set_exception(OSError("no route"))
    with pytest.raises(Unreachable, match="no route"):
        Transport(host, begun=refused).connect()
