"""Files that a machine fetches by itself, or from another machine, before anything is changed on it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from shell_box import Box, Result

from clusterctl.shell import Script, functions

Answer = Callable[[BaseHTTPRequestHandler], None]
CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def send(handler: BaseHTTPRequestHandler, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


def fetch(box: Box, *lines: str, without: tuple[str, ...] = (), proxy: str | None = None) -> Result:
    """Fetch under the programs that the machine has. ``without``: those that it lacks; ``proxy``: the environment of a proxy."""
    text = functions("delivery").replace("stall_seconds=60", "stall_seconds=2")
    for name in without:
        text = text.replace(f"command -v {name}", "command -v no-such-program")
    blobs = {} if proxy is None else {"proxy": proxy.encode()}
    return box.run(Script(probes=[("delivery", line) for line in lines], functions=text, blobs=blobs))


def kinds(result: Result) -> list[str]:
    return [words[0] for words in result.records if words[0] not in ("arriving", "end")]


def line(url: str, name: str = SHA256) -> str:
    return f"{name} {SHA256} {url}/file"


@pytest.mark.parametrize("without", [(), ("curl",), ("curl", "wget"), ("curl", "wget", "python3")], ids=len)
def test_a_file_comes_through_the_proxy_of_the_machine(dash: Box, without: tuple[str, ...]) -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append((handler.path, handler.headers.get("Proxy-Authorization")))
        send(handler, CONTENT)

    with server(answer) as url:
        environment = f"http_proxy='{url.replace('//', '//user:secret@')}'\nHTTP_PROXY='{url}'\nno_proxy='192.0.2.1'\n"
        result = fetch(dash, line("http://mirror.invalid"), without=without, proxy=environment)
        assert kinds(result) == ["brought"], (result.records, result.errors)
        assert asked[-1] == ("http://mirror.invalid/file", "Basic dXNlcjpzZWNyZXQ=")
        assert kinds(fetch(dash, line(f"{url}", "other"), proxy=environment.replace("192.0.2.1", "127.0.0.1"))) == ["brought"]
        assert asked[-1][0] == "/file"


def test_a_proxy_that_was_written_to_the_machine_is_used_unless_another_is_sent(dash: Box) -> None:
    paths = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        paths.append(handler.path)
        send(handler, CONTENT)

    with server(answer) as url:
        (dash.etc / "clusterctl").mkdir()
        (dash.etc / "clusterctl/proxy.env").write_text(f"http_proxy='{url}'\n")
        assert kinds(fetch(dash, line("http://mirror.invalid"))) == ["brought"]
        assert kinds(fetch(dash, line(url, "other"), proxy="")) == ["brought"]
        assert paths == ["http://mirror.invalid/file", "/file"]


@pytest.mark.parametrize("without", [(), ("curl",), ("curl", "wget"), ("curl", "wget", "python3")], ids=len)
def test_a_file_is_fetched_with_what_the_machine_has(dash: Box, without: tuple[str, ...]) -> None:
    with server(lambda handler: send(handler, CONTENT)) as url:
        result = fetch(dash, line(url), without=without)
        assert kinds(result) == ["brought"], (result.records, result.errors)
        assert (dash.root / ".incoming" / SHA256).read_bytes() == CONTENT
        assert os.listdir(dash.root / ".incoming") == [SHA256]


def test_a_shell_of_each_kind(box: Box) -> None:
    asked = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        send(handler, CONTENT)

    with server(answer) as url:
        left = box.root / ".incoming" / "left"
        left.parent.mkdir()
        left.write_text("of an earlier run")
        assert kinds(fetch(box, line(url), line(url, "second"))) == ["brought", "brought"]
        assert kinds(fetch(box, line(url), line(url, "second"))) == ["brought", "brought"]
        assert len(asked) == 2, "a verified file is not fetched again"
        assert sorted(os.listdir(left.parent)) == sorted([SHA256, "second"])


LIES: dict[str, tuple[Answer, str]] = {
    "another file": (lambda handler: send(handler, b"<html>log in</html>"), "altered"),
    "a byte more": (lambda handler: send(handler, CONTENT + b"x"), "altered"),
    "truncated": (lambda handler: send(handler, CONTENT[:1000], length=len(CONTENT)), "unfetched"),
    "missing": (lambda handler: send(handler, b"", 404), "unfetched"),
    "a redirect to itself": (lambda handler: send(handler, b"", 302, Location=handler.path), "unfetched"),
    "silent": (lambda handler: threading.Event().wait(20) and None, "unfetched"),
}


@pytest.mark.parametrize("tool", ["curl", "wget", "apt-helper"])
@pytest.mark.parametrize("name", LIES)
def test_a_lie_leaves_nothing(dash: Box, name: str, tool: str) -> None:
    answer, kind = LIES[name]
    without = {"curl": (), "wget": ("curl",), "apt-helper": ("curl", "wget", "python3")}[tool]
    with server(answer) as url:
        result = fetch(dash, line(url), line(url, "second"), without=without)
    assert kinds(result) == [kind], (result.records, result.errors)
    assert not dash.root.exists()


def test_a_server_that_refuses_is_named_with_the_reason(dash: Box) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        result = fetch(dash, line(f"http://127.0.0.1:{closed.getsockname()[1]}"))
    [record] = [words for words in result.records if words[0] == "unfetched"]
    assert record[1] == SHA256 and record[2].endswith("/file") and record[3]


def test_the_wget_of_busybox_is_passed_over(dash: Box) -> None:
    text = functions("delivery").replace("command -v curl", "command -v no-such-program")
    assert "wget --version" in text
    with server(lambda handler: send(handler, CONTENT)) as url:
        result = dash.run(Script(probes=[("delivery", line(url))], functions=text.replace("wget --version", "busybox wget --version")))
    assert kinds(result) == ["brought"], (result.records, result.errors)


def test_without_any_program_to_fetch_with(dash: Box) -> None:
    text = functions("delivery").replace("/usr/lib/apt/apt-helper", "/nonexistent")
    for name in ("curl", "wget", "python3"):
        text = text.replace(f"command -v {name}", "command -v no-such-program")
    result = dash.run(Script(probes=[("delivery", line("http://127.0.0.1:1"))], functions=text))
    assert kinds(result) == ["unfetched"]


def steps(box: Box, *calls: tuple[str, ...], blobs: dict[str, bytes] | None = None) -> Result:
    return box.run(Script(steps=calls, blobs=blobs or {}, functions=functions("delivery")))


def test_what_is_sent_is_kept_only_if_it_is_whole(box: Box) -> None:
    assert steps(box, ("store_incoming", "a.parcel", SHA256), blobs={"a.parcel": CONTENT}).failure is None
    assert (box.root / ".incoming/a.parcel").read_bytes() == CONTENT
    failed = steps(box, ("store_incoming", "b.parcel", SHA256), blobs={"b.parcel": b"half"})
    assert failed.failure is not None and "integrity" in failed.failure.output
    assert os.listdir(box.root / ".incoming") == ["a.parcel"]
    box.run(Script(probes=[("drop", "all")], functions=functions("delivery")))
    assert not box.root.exists()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_relay_answers_for_its_own_files_alone(box: Box, method: str) -> None:
    """The program that the relay runs for each connection, under the shells that machines have."""
    folder = box.root / ".incoming"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    (box.root / "secret").write_text("secret")
    found = re.search(r"<<'END'\n(.*?)\nEND\n", functions("delivery"), re.DOTALL)
    assert found
    (folder / ".serve").write_text(found[1])
    shell = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}[box.shell]
    for path, there in (("/file", True), ("/../secret", False), ("/", False), ("/none", False)):
        request = f"{method} {path} HTTP/1.1\r\nHost: relay\r\n\r\n".encode()
        answer = subprocess.run([*shell, folder / ".serve"], input=request, capture_output=True, check=True, timeout=10).stdout
        head, _, body = answer.partition(b"\r\n\r\n")
        assert (b" 200 OK" in head and body == CONTENT) if there and method == "GET" else (b" 404 " in head and not body)


def test_a_relay_serves_until_it_is_stopped(dash: Box) -> None:
    """With the machine's own systemd-socket-activate; systemd-run is replaced, as no systemd runs here."""
    assert shutil.which("systemd-socket-activate")
    folder, marker = dash.root / ".incoming", uuid.uuid4().hex
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    dash.command("systemd-run", f'while [ "${{1#--}}" != "$1" ]; do shift; done; setsid "$@" >/dev/null 2>&1 & echo $! >{dash.path}/pid')
    dash.command("systemctl", f"""case $1 in
stop) [ ! -e {dash.path}/pid ] || kill "$(cat {dash.path}/pid)"; rm -f {dash.path}/pid ;;
is-active) kill -0 "$(cat {dash.path}/pid)" ;;
status) echo {marker} ;;
esac""")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert steps(dash, ("serve_incoming", "127.0.0.1", str(port))).failure is None
    try:
        (dash.path / "other").mkdir()
        other = Box(dash.path / "other", "dash")
        result = fetch(other, f"file {SHA256} http://127.0.0.1:{port}/file", f"again {SHA256} http://127.0.0.1:{port}/file")
        assert kinds(result) == ["brought", "brought"], result.records
        busy = steps(dash, ("serve_incoming", "192.0.2.77", str(port)))
        assert busy.failure is not None and marker in busy.failure.output
    finally:
        stopped = steps(dash, ("stop_serving",))
    assert stopped.failure is None and not (folder / ".serve").exists()
