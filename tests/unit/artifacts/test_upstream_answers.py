"""What upstream, GitHub's API or a proxy answers in place of a checksum, and what the error names."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from lock_runs import APISERVER, FLANNEL, locked, run, text
from upstream_double import Upstream, reply

ASSET = "flannel-v0.28.10-linux-amd64.tar.gz"


@pytest.mark.parametrize("answer", [
    {"assets": [1]}, {"assets": {"a": 1}}, {"assets": 7}, {"assets": [{"name": ASSET, "digest": "sha256:" + "a" * 64}]},
    {"assets": [{"name": ASSET, "digest": "sha256:" + "a" * 64, "browser_download_url": 1}]}])
def test_a_release_of_another_shape_is_refused(upstream: Upstream, inventory: Path, answer: object) -> None:
    upstream.lies[FLANNEL] = text(200, json.dumps(answer).encode())
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    assert (done.returncode, "[artifact.checksum-unreadable]" in done.stderr) == (7, True), done.stderr
    assert APISERVER in locked(inventory), "what was found before is locked"


LIMIT = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1800000000"}


@pytest.mark.parametrize(("status", "headers", "token", "code", "exit_code", "named"), [
    (403, {**LIMIT, "x-ratelimit-reset": "9" * 17}, "", "artifact.rate-limited", 6, "an hour"),
    (403, LIMIT, "", "artifact.rate-limited", 6, "set GITHUB_TOKEN"),
    (403, LIMIT, "t", "artifact.rate-limited", 6, "limit of GITHUB_TOKEN"),
    (401, {}, "t", "artifact.token-refused", 2, "GITHUB_TOKEN"),
    (429, {"Retry-After": "17"}, "t", "artifact.rate-limited", 6, "17 s"),
    (403, {"Retry-After": "17"}, "", "artifact.rate-limited", 6, "17 s"),
    (403, {}, "", "artifact.upstream-unreachable", 6, "403")])
def test_refusals_of_github(upstream: Upstream, inventory: Path, status: int, headers: dict[str, str], token: str, code: str,
                            exit_code: int, named: str) -> None:
    upstream.lies[FLANNEL] = text(status, b"{}", **headers)
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", GITHUB_TOKEN=token)
    assert (done.returncode, f"[{code}]" in done.stderr) == (exit_code, True), done.stderr
    assert named in done.stderr and ("set GITHUB_TOKEN, or" in done.stderr) == (not token and "x-ratelimit-reset" in headers)
    assert upstream.asked.count(f"GET {FLANNEL}") == 1


def test_a_version_that_upstream_lacks_is_one_line_with_the_nearest_ones(upstream: Upstream, inventory: Path) -> None:
    done = run(upstream, "lock", "-i", str(inventory), "--kubernetes", "1.36.77")
    assert done.returncode == 2 and done.stderr.count("[artifact.not-released]") == 1 and done.stderr.count("kube-proxy") == 1
    releases = [{"tag_name": tag} for tag in ("v3.6.5", "v3.7.0-rc.0", "v3.7.1", "v3.6.12", "api/v3.6.98")]
    upstream.lies["api.github.com/repos/etcd-io/etcd/releases"] = text(200, json.dumps(releases).encode())
    inventory.write_text(inventory.read_text().replace("kubernetes: 1.36.7", "kubernetes: 1.36.7\n      versions: {etcd: 3.6.99, containerd: 2.3.99}"))
    done = run(upstream, "lock", "-i", str(inventory))
    assert done.returncode == 2 and done.stderr.count("[artifact.not-released]") == 2, done.stderr
    assert "3.6.12, 3.7.1" in done.stderr and "3.6.5" not in done.stderr


@pytest.mark.parametrize("version", ["1.36.04", "01.36.4", "v1.36.7"])
def test_a_version_has_no_leading_zeros_and_no_v(upstream: Upstream, inventory: Path, version: str) -> None:
    done = run(upstream, "lock", "-i", str(inventory), "--kubernetes", version)
    assert done.returncode == 2 and "[version.malformed]" in done.stderr and not upstream.asked
    inventory.write_text(inventory.read_text().replace("1.36.7", version))
    assert run(upstream, "lock", "-i", str(inventory)).returncode == 2 and not upstream.asked


def test_a_missing_inventory_is_wrong_usage(upstream: Upstream, inventory: Path) -> None:
    for words in (["lock"], ["lock", "verify"]):
        done = run(upstream, *words, CLUSTERCTL_INVENTORY="")
        assert done.returncode == 2 and "[cli.usage]" in done.stderr and "-i" in done.stderr


def test_a_transient_error_of_a_server_is_retried(upstream: Upstream, inventory: Path) -> None:
    left = [502, 503]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, left.pop(), b"") if left else reply(handler, 200, b"a" * 64)

    upstream.lies[f"{APISERVER}.sha256"] = answer
    upstream.lies[f"{APISERVER.replace('amd64', 'arm64')}.sha256"] = text(404, b"")
    done = run(upstream, "lock", "-i", str(inventory))
    assert done.returncode == 2 and locked(inventory)[APISERVER]["sha256"] == "a" * 64, done.stderr
    assert sum("amd64/kube-apiserver.sha256" in line for line in upstream.asked) == 3
    assert sum("arm64/kube-apiserver.sha256" in line for line in upstream.asked) == 1


def test_retries_are_bounded(upstream: Upstream, inventory: Path) -> None:
    upstream.lies[f"{APISERVER}.sha256"] = text(503, b"")
    assert run(upstream, "lock", "-i", str(inventory), "--arch", "amd64").returncode == 6
    assert sum("kube-apiserver.sha256" in line for line in upstream.asked) == 3


@pytest.mark.parametrize("content", [None, "no certificates"])
def test_a_file_of_authorities_that_cannot_be_used_is_refused(upstream: Upstream, inventory: Path, tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "ca.pem").write_text(content)
    done = run(upstream, "lock", "-i", str(inventory), SSL_CERT_FILE=str(tmp_path / "ca.pem"))
    assert (done.returncode, done.stderr.count("[download.no-authorities]")) == (2, 1), done.stderr
    assert not upstream.asked


@pytest.fixture
def proxy() -> Iterator[Callable[[bytes], str]]:
    """A function that starts a proxy, which gives one answer to all requests, and returns its address."""
    listening: list[socket.socket] = []

    def start(answer: bytes) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(1 << 16)
                    client.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return f"http://user:not-to-be-told@127.0.0.1:{server.getsockname()[1]}"

    yield start
    for server in listening:
        server.close()


@pytest.mark.parametrize(("answer", "code"), [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "download.proxy-login"),
    (b"HTTP/1.1 302 Found\r\nLocation: http://login/\r\n\r\n", "download.no-tls"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Sign in</html>", "download.no-tls"),
    (b"HTTP/1.1 500 a\x1b[2Kb\x07c\r\n\r\n", "artifact.upstream-unreachable"),
    (b"\x00\x01junk\x1b[2K\r\nmore\r\n\r\n", "artifact.upstream-unreachable")])
def test_answers_of_a_proxy(upstream: Upstream, inventory: Path, proxy: Callable[[bytes], str], answer: bytes, code: str) -> None:
    address = proxy(answer)
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", HTTPS_PROXY=address, https_proxy=address)
    assert (done.returncode, f"[{code}]" in done.stderr) == (6, True), done.stderr
    assert "not-to-be-told" not in done.stderr and "\x1b" not in done.stderr and "\\x" not in done.stderr
    assert len(done.stderr.splitlines()) == 2 and "_ssl.c" not in done.stderr


@pytest.mark.parametrize("scheme", ["socks5", "foo", "https"])
def test_a_proxy_of_another_kind_is_refused(upstream: Upstream, inventory: Path, scheme: str) -> None:
    address = f"{scheme}://user:not-to-be-told@127.0.0.1:1"
    done = run(upstream, "lock", "-i", str(inventory), HTTPS_PROXY=address, https_proxy=address)
    assert (done.returncode, done.stderr.count("[download.proxy-unsupported]")) == (2, 1), done.stderr
    assert "not-to-be-told" not in done.stderr
