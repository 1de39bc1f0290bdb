"""Downloads from hostile and broken servers, the cache, and mirrors in folders."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from artifact_web import CONTENT, IMPATIENT, Answer, Web, artifact, left_in, send, whole

from clusterctl.artifacts.download import Timeouts, TransferInterrupted, read_small
from clusterctl.artifacts.store import Location, Store, prefetch
from clusterctl.errors import ClusterctlError, IntegrityError, Problems, Refused, Unreachable


def status(code: int, body: bytes = b"", **headers: str) -> Answer:
    return lambda handler: send(handler, code, body, **headers)


def short(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, CONTENT[:300_000], length=len(CONTENT))


def stalled(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, CONTENT[:1000], length=len(CONTENT))
    handler.wfile.flush()
    time.sleep(0.8)


def flipped(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, CONTENT[:-1] + b"X")


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    try:
        for _ in range(1000):
            handler.wfile.write(CONTENT)
    except OSError:
        pass


def other_range(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 206, CONTENT[5:], Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}")


def unasked_range(handler: BaseHTTPRequestHandler) -> None:
    send(handler, 206, CONTENT)


@pytest.mark.parametrize(("answer", "kind"), [
    (status(404), Unreachable), (status(403), Unreachable), (status(500), Unreachable), (status(204), Unreachable),
    (status(200, b"<html>sign in</html>"), IntegrityError), (flipped, IntegrityError), (short, Unreachable),
    (stalled, Unreachable), (endless, IntegrityError), (other_range, Unreachable), (unasked_range, Unreachable),
    (status(302, Location="ftp://127.0.0.1/x"), Unreachable), (status(302, Location="file:///etc/passwd"), Unreachable),
    (status(302, Location="/again"), Unreachable), (lambda handler: handler.connection.close(), Unreachable),
])
def test_a_bad_answer_leaves_no_file(web: Web, store: Store, answer: Answer, kind: type[ClusterctlError]) -> None:
    web.answers = [answer]
    wanted = artifact(store)
    with pytest.raises(kind) as caught:
        wanted.fetch()
    assert caught.value.exit_code == (7 if kind is IntegrityError else 6)
    assert wanted.sha256 not in left_in(store)
    assert wanted.path in str(caught.value) and web.url in str(caught.value) and caught.value.hint
    if kind is IntegrityError:
        assert left_in(store) == []
        assert wanted.sha256 in str(caught.value)


@pytest.mark.parametrize("first", [status(500), status(503), short, stalled, flipped, status(200, b"<html/>"), other_range])
def test_one_bad_answer_is_made_good(web: Web, store: Store, first: Answer) -> None:
    web.answers = [first, whole]
    found = artifact(store).fetch()
    assert found.read_bytes() == CONTENT
    assert left_in(store) == [found.name]


def test_what_broke_off_is_gone_on_with(web: Web, store: Store) -> None:
    web.answers = [short, whole]
    told: list[int] = []
    store = Store(store.cache, store.mirror, lambda path, done, total: told.append(done), IMPATIENT, store.upstream)
    assert artifact(store).fetch().read_bytes() == CONTENT
    assert web.asked == ["", "bytes=300000-"]
    assert told == sorted(told) and told[-1] == len(CONTENT)


def test_a_later_run_goes_on_with_it(web: Web, store: Store) -> None:
    web.answers = [short, status(500)]
    with pytest.raises(Unreachable):
        artifact(store).fetch()
    assert left_in(store) == [f"{artifact(store).sha256}.part"]
    web.answers = [whole]
    assert artifact(store).fetch().read_bytes() == CONTENT
    assert web.asked[-1] == "bytes=300000-"


@pytest.mark.parametrize("size", [None, 0])
def test_a_wrong_beginning_is_thrown_away(web: Web, store: Store, size: int | None) -> None:
    wanted = artifact(store, size=size)
    part = store.cache / "artifacts" / "sha256" / f"{wanted.sha256}.part"
    part.parent.mkdir(parents=True)
    for beginning in (b"X" * 5000, b"X" * len(CONTENT), b"X" * (len(CONTENT) + 9)):
        part.write_bytes(beginning)
        found = wanted.fetch()
        assert found.read_bytes() == CONTENT
        found.unlink()


def test_a_server_without_ranges_sends_it_all_again(web: Web, store: Store) -> None:
    web.answers = [short, lambda handler: send(handler, 200, CONTENT)]
    assert artifact(store).fetch().read_bytes() == CONTENT


def test_a_small_file_that_comes_byte_by_byte_is_not_waited_for(web: Web) -> None:
    """Each byte in time, of the headers even, and the whole never."""
    def drip(handler: BaseHTTPRequestHandler) -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 20:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.1)

    web.answers = [drip]
    begin = time.monotonic()
    with pytest.raises(TransferInterrupted, match="took longer than 0 s"):
        read_small(f"{web.url}/catalog.json", 1000, Timeouts(stall=0.4, small=0.3))
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize("place", ["http://[::1", "http://a..b/"])
def test_a_redirect_to_nowhere(web: Web, place: str) -> None:
    web.answers = [status(302, Location=place)]
    with pytest.raises(TransferInterrupted, match="cannot be reached"):
        read_small(f"{web.url}/catalog.json", 1000, IMPATIENT)


def test_a_redirect_is_followed(web: Web, store: Store) -> None:
    web.answers = [status(302, Location="/elsewhere"), whole]
    assert artifact(store).fetch().read_bytes() == CONTENT
    assert web.paths == ["/github.com/x/runc.amd64", "/elsewhere"]


def test_upstream_is_asked_for_what_the_mirror_lacks_or_has_wrong(web: Web, tmp_path: Path) -> None:
    for first in (status(404), flipped):
        web.answers = [first, whole]
        store = Store(tmp_path / first.__name__, Location(url=f"{web.url}/mirror"), patience=IMPATIENT, upstream=f"{web.url}/up")
        assert artifact(store).fetch().read_bytes() == CONTENT
    assert web.paths[1] == "/up/github.com/x/runc.amd64"


def test_one_download_serves_all_that_want_the_file(web: Web, store: Store) -> None:
    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.1)
        whole(handler)

    web.answers = [slow]
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: artifact(store).fetch(), range(8)))
    assert len(found) == 1 and len(web.asked) == 1


def test_a_download_survives_that_another_one_fails(web: Web, store: Store) -> None:
    gate = threading.Event()

    def failing(handler: BaseHTTPRequestHandler) -> None:
        gate.wait(5)
        send(handler, 404, b"")

    web.answers = [failing, whole]
    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(artifact(store).fetch) for _ in range(2)]
        time.sleep(0.1)
        gate.set()
        errors = [result.exception() for result in results]
    assert sum(isinstance(error, Unreachable) for error in errors) == 1
    assert left_in(store) == [artifact(store).sha256]


def test_a_changed_file_in_the_cache_is_fetched_again(web: Web, store: Store) -> None:
    found = artifact(store).fetch()
    found.write_bytes(CONTENT[:-1] + b"X")
    assert artifact(store).fetch().read_bytes() == CONTENT
    assert len(web.asked) == 2


def test_nothing_is_asked_for_what_is_in_the_cache(web: Web, store: Store) -> None:
    artifact(store).fetch()
    web.close()
    assert artifact(store).fetch().read_bytes() == CONTENT


def test_a_file_in_a_mirror_s_folder_is_used_where_it_lies_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clusterctl.artifacts import store as module

    store = Store(tmp_path / "cache", Location(folder=tmp_path / "mirror"), patience=IMPATIENT, upstream="http://127.0.0.1:9")
    place = tmp_path / "mirror" / artifact(store).path
    place.parent.mkdir(parents=True)
    place.write_bytes(CONTENT)
    read: list[Path] = []
    digest = module.digest
    monkeypatch.setattr(module, "digest", lambda path: read.append(path) or digest(path))
    assert [artifact(store).fetch() for _ in range(3)] == [place] * 3
    assert read == [place]
    os.utime(place)
    artifact(store).fetch()
    assert read == [place, place]
    place.write_bytes(b"X" + CONTENT[1:])
    with pytest.raises(IntegrityError) as caught:
        artifact(store).fetch()
    assert caught.value.exit_code == 7 and str(place) in str(caught.value) and place.exists()


def test_what_a_folder_lacks_is_unreachable_when_upstream_is(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    store = Store(tmp_path / "cache", Location(folder=tmp_path / "mirror"), patience=IMPATIENT, upstream="http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        artifact(store).fetch()
    assert left_in(store) == []


def test_all_errors_of_a_prefetch_are_told(web: Web, store: Store) -> None:
    def by_path(handler: BaseHTTPRequestHandler) -> None:
        whole(handler) if "runc" in handler.path else send(handler, 404, b"")

    web.answers = [by_path]
    good, bad, wrong = (artifact(store, content) for content in (CONTENT, b"other", b"third"))
    with pytest.raises(Problems) as caught:
        prefetch([good, bad, wrong, good])
    assert caught.value.exit_code == 7 and len(caught.value.errors) == 2
    assert good.sha256 in left_in(store)
    prefetch([good])


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, web: Web) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(Refused) as caught:
        artifact(Store(tmp_path / "cache", Location(url=web.url), patience=IMPATIENT)).fetch()
    assert "cluster.artifacts.cache" in caught.value.hint


def test_a_killed_download_leaves_no_half_file(web: Web, store: Store) -> None:
    def dripping(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        for start in range(0, len(CONTENT), 65536):
            handler.wfile.write(CONTENT[start:start + 65536])
            time.sleep(0.05)

    web.answers = [dripping]
    wanted = artifact(store)
    program = f"""if True:
        from pathlib import Path
        from clusterctl.artifacts.catalog import Artifact
        from clusterctl.artifacts.store import Location, Store
        store = Store(Path({str(store.cache)!r}), Location(url={web.url!r}))
        Artifact("runc", "1", "amd64", {wanted.path!r}, {wanted.sha256!r}, {wanted.size}, (), store.fetch).fetch()
    """
    process = subprocess.Popen([sys.executable, "-c", program])
    part = store.cache / "artifacts" / "sha256" / f"{wanted.sha256}.part"
    deadline = time.monotonic() + 10
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert left_in(store) == [part.name]
    web.answers = [whole]
    assert wanted.fetch().read_bytes() == CONTENT
    assert web.asked[-1].startswith("bytes=")
