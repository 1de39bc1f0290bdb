"""flanneld starts once its Node exists: the script that waits, in each shell, against a TLS server that answers as the API does."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from shell_box import SHELLS

from clusterctl.components.render import render
from clusterctl.pki import CertificateSpec, Pki

MISSING, BARE = 3, 2
"""How often the API answers that there is no such Node, and then that it has no part of the pod network."""
NODE = b'{"metadata":{"name":"w-1","managedFields":[{"fieldsV1":{"f:spec":{"f:podCIDR":{}}}}]},"spec":{%s}}'


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[HTTPServer, list[str]]]:
    """An API that demands a client certificate; the Node is there from the fourth request on, its part of the pod network from the sixth."""
    pki = Pki.create()
    authority = pki.authorities["kubernetes"]
    for name, server in (("server", True), ("flannel", False)):
        spec = CertificateSpec(authority="kubernetes", common_name=name, organizations=(), dns=(), addresses=("127.0.0.1",),
                               server=server, client=not server, days=1)
        certificate, key = authority.issue(spec)
        (tmp_path / f"{name}.crt").write_bytes(certificate)
        (tmp_path / f"{name}.key").write_bytes(key)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if len(asked) > MISSING else 404)
            self.end_headers()
            self.wfile.write(NODE % (b'"podCIDR":"10.244.1.0/24"' if len(asked) > MISSING + BARE else b""))

        def log_message(self, format: str, *arguments: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, asked
    server.shutdown()
    server.server_close()


def script(folder: Path, port: int, *, seconds: int = 60) -> Path:
    text = render("flannel/await-node.sh.j2", port=6443).decode()
    changed = text.replace("/etc/kubernetes/pki", str(folder)).replace(":6443", f":{port}").replace("+ 60))", f"+ {seconds}))")
    path = folder / "await-node"
    path.write_text(changed)
    return path


@pytest.mark.parametrize("shell", SHELLS)
def test_flanneld_waits_until_its_node_is_registered(shell: str, tmp_path: Path, api: tuple[HTTPServer, list[str]]) -> None:
    server, asked = api
    path = script(tmp_path, server.server_address[1])
    done = subprocess.run([*SHELLS[shell], str(path)], env={"NODE_NAME": "w-1", "PATH": "/usr/bin:/bin"}, timeout=50, check=True,
                          capture_output=True, text=True)
    assert done.stdout == "" , done.stdout
    assert asked == ["/api/v1/nodes/w-1"] * (MISSING + BARE + 1) and done.stdout == done.stderr == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_it_waits_while_the_api_answers_and_reports_what_it_said(shell: str, tmp_path: Path, api: tuple[HTTPServer, list[str]]) -> None:
    server, asked = api
    path = script(tmp_path, server.server_address[1], seconds=0)
    done = subprocess.run([*SHELLS[shell], str(path)], timeout=50, check=True,
                          env={"NODE_NAME": "w-1", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert "w-1" in done.stdout and "404" in done.stdout
    assert len(asked) == MISSING + BARE + 1


@pytest.mark.parametrize("shell", SHELLS)
def test_the_wait_ends_without_an_answer(shell: str, tmp_path: Path, api: tuple[HTTPServer, list[str]]) -> None:
    shutil.copy(tmp_path / "ca.crt", tmp_path / "flannel.crt")  # no certificate of the key: nothing can be asked
    done = subprocess.run([*SHELLS[shell], str(script(tmp_path, 1, seconds=0))], timeout=50, check=True,
                          env={"NODE_NAME": "w-1", "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert "last seen" in done.stdout
