"""Requests over connections that break, to a real server with a certificate of ours."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clusterctl.pki import Authority, CertificateSpec
from clusterctl.ssh.https import ApiError, Broken, Https

AUTHORITY = Authority.create("test")
SPEC = CertificateSpec(authority="kubernetes", common_name="server", addresses=("127.0.0.1",), server=True, client=True)


class Server(ThreadingHTTPServer):
    """Breaks off the first ``breaks`` requests, each in the midst of its answer or before it."""

    def __init__(self, folder: Path, breaks: int, midst: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.midst = breaks, midst
        self.asked: list[str] = []
        certificate, key = AUTHORITY.issue(SPEC)
        (folder / "server.pem").write_bytes(certificate + key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        self.socket = context.wrap_socket(self.socket, server_side=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(self.command)
        broken = len(self.server.asked) <= self.server.breaks
        if not broken or self.server.midst:
            self.send_response(200)
            self.send_header("Content-Length", "10" if broken else "9")
            self.end_headers()
            self.wfile.write(b'{"ok": 1}')
        self.close_connection = broken

    do_GET = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def served(folder: Path, breaks: int, midst: bool) -> Iterator[tuple[Server, Https]]:
    server = Server(folder, breaks, midst)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    certificate, key = AUTHORITY.issue(SPEC)
    client = Https(server.server_address[1], authority=AUTHORITY.pem, certificate=certificate, key=key)
    try:
        yield server, client
    finally:
        client.close()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("midst", [False, True], ids=["before the answer", "in its midst"])
def test_what_only_reads_is_asked_once_more(tmp_path: Path, midst: bool) -> None:
    with served(tmp_path, 1, midst) as (server, client):
        assert client.read("GET", "/") == {"ok": 1}
        assert client.read("POST", "/v3/kv/range", {}) == {"ok": 1}
        assert server.asked == ["GET", "GET", "POST"]


@pytest.mark.parametrize("midst", [False, True], ids=["before the answer", "in its midst"])
def test_and_never_more_often(tmp_path: Path, midst: bool) -> None:
    with served(tmp_path, 9, midst) as (server, client):
        with pytest.raises(ApiError) as error:
            client.read("GET", "/")
        assert error.value.status == 0 and len(server.asked) == 2


def test_what_changes_something_is_asked_once(tmp_path: Path) -> None:
    with served(tmp_path, 1, False) as (server, client):
        with pytest.raises(Broken):
            client.request("POST", "/", {})
        assert server.asked == ["POST"]
