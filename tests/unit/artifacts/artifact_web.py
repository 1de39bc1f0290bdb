"""A web server that behaves as a test tells it to, and what is asked of it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clusterctl.artifacts.catalog import Artifact
from clusterctl.artifacts.download import Timeouts
from clusterctl.artifacts.store import Store

CONTENT = bytes(range(256)) * 4096
IMPATIENT = Timeouts(stall=0.4, whole=20, attempts=2, pause=0.01)
Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """``answers`` are given in turn, the last one for ever. ``asked`` holds the Range of each request, or ''."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [whole]
        self.asked: list[str] = []
        self.paths: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append(self.headers.get("Range", ""))
                web.paths.append(self.path)
                (web.answers.pop(0) if len(web.answers) > 1 else web.answers[0])(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True


def whole(handler: BaseHTTPRequestHandler) -> None:
    """Serve the content, or the part of it that is asked for."""
    asked = handler.headers.get("Range")
    start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
    if start >= len(CONTENT):
        send(handler, 416, b"")
    elif asked:
        send(handler, 206, CONTENT[start:], Content_Range=f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    else:
        send(handler, 200, CONTENT)


def artifact(store: Store, content: bytes = CONTENT, size: int | None = None) -> Artifact:
    return Artifact("runc", "1.0.0", "amd64", "github.com/x/runc.amd64", hashlib.sha256(content).hexdigest(),
                    len(content) if size is None else size, (), store.fetch)


def left_in(store: Store) -> list[str]:
    folder = store.cache / "artifacts" / "sha256"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
