"""Checksums from upstream, as it publishes them, and the lock file that keeps them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml
from lock_runs import APISERVER, FLANNEL, locked, paths, run, text
from upstream_double import Answer, Upstream, reply

from clusterctl.artifacts.catalog import built_in
from clusterctl.artifacts.lock_file import LockFile
from clusterctl.artifacts.store import open_catalog
from clusterctl.artifacts.upstream import parse_checksums
from clusterctl.components.products import RELEASES
from clusterctl.errors import InputError, IntegrityError
from clusterctl.inventory import load


def test_everything_that_is_not_built_in_is_locked(upstream: Upstream, inventory: Path) -> None:
    done = run(upstream, "lock", "-i", str(inventory))
    assert done.returncode == 0, done.stderr
    wanted = [path for path in paths(load(inventory)) if path not in built_in()]
    entries = locked(inventory)
    assert list(entries) == sorted(wanted)
    for path, entry in entries.items():
        served = entry.get("url", path)
        assert entry["sha256"] == upstream.digest(served) and entry["size"] == len(upstream.files[served])  # type: ignore[arg-type]
        assert entry["from"].startswith("https://") and entry["taken"]
        assert ("url" in entry) == ("cni-plugin" in path)
    before = (inventory.parent / "clusterctl.lock").read_bytes()
    upstream.asked.clear()
    again = run(upstream, "lock", "-i", str(inventory))
    assert again.returncode == 0 and not upstream.asked and (inventory.parent / "clusterctl.lock").read_bytes() == before


def test_a_product_is_locked_anew_with_what_changed(upstream: Upstream, inventory: Path) -> None:
    run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    before = locked(inventory)[APISERVER]["sha256"]
    upstream.files[APISERVER] = b"another one"
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", "--update", "kube-apiserver")
    assert f"- {before}  {APISERVER}" in done.stdout and f"+ {upstream.digest(APISERVER)}  {APISERVER}" in done.stdout
    assert run(upstream, "lock", "-i", str(inventory), "--update", "nothing").returncode == 2


def test_pins_of_another_architecture_do_not_count(upstream: Upstream, inventory: Path) -> None:
    """A machine with arm64 is refused the files of amd64; locking for it adds what is missing."""
    run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    cluster = load(inventory)
    settings, version = cluster.settings.artifacts, cluster.versions.kubernetes
    catalog = open_catalog(settings, inventory.parent)
    assert catalog.artifact(RELEASES["kube-apiserver"], version, "amd64").arch == "amd64"
    with pytest.raises(InputError) as caught:
        catalog.artifact(RELEASES["kube-apiserver"], version, "arm64")
    assert caught.value.code == "artifact.not-pinned"
    run(upstream, "lock", "-i", str(inventory), "--arch", "arm64")
    path = RELEASES["kube-apiserver"].at(version, "arm64")
    assert open_catalog(settings, inventory.parent).artifact(RELEASES["kube-apiserver"], version, "arm64").sha256 == upstream.digest(path)


def test_verify_downloads_and_compares(upstream: Upstream, inventory: Path) -> None:
    run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    good = run(upstream, "lock", "verify", "-i", str(inventory))
    assert good.returncode == 0, good.stderr
    upstream.files[APISERVER] = b"another build"
    # The cache has the file that was locked: it does not count.
    bad = run(upstream, "lock", "verify", "-i", str(inventory))
    assert bad.returncode == 7 and locked(inventory)[APISERVER]["sha256"] in bad.stderr and upstream.digest(APISERVER) in bad.stderr


@pytest.mark.parametrize(("place", "lie", "code", "exit_code"), [
    pytest.param(f"{APISERVER}.sha256", text(200, b"<html>Sign in</html>"), "artifact.checksum-unreadable", 7, id="html"),
    pytest.param(f"{APISERVER}.sha256", text(200, b""), "artifact.checksum-unreadable", 7, id="empty"),
    pytest.param(f"{APISERVER}.sha256", text(404, b""), "artifact.not-released", 2, id="404"),
    pytest.param(f"{APISERVER}.sha256", text(503, b""), "artifact.upstream-unreachable", 6, id="503"),
    pytest.param(f"{APISERVER}.sha256", lambda handler: reply(handler, 302, b"", Location="http://dl.k8s.io/x"),
                 "artifact.upstream-unreachable", 6, id="plain-http"),
    pytest.param(f"{APISERVER}.sha256", lambda handler: reply(handler, 302, b"", Location=f"https://dl.k8s.io{handler.path}"),
                 "artifact.upstream-unreachable", 6, id="loop"),
    pytest.param(f"{APISERVER}.sha256", lambda handler: reply(handler, 200, b"0" * 10, length=64), "artifact.checksum-unreadable", 7, id="truncated"),
    pytest.param(FLANNEL, text(200, b"[]"), "artifact.checksum-unreadable", 7, id="no-release"),
    pytest.param(FLANNEL, text(200, b'{"assets": []}'), "artifact.not-released", 2, id="no-assets"),
    pytest.param(FLANNEL, text(200, b'{"assets": [{"name": "flannel-v0.28.10-linux-amd64.tar.gz", "digest": null}]}'), "artifact.no-checksum", 2,
                 id="no-digest"),
])
def test_lies_lock_nothing_of_theirs(upstream: Upstream, inventory: Path, place: str, lie: Answer, code: str, exit_code: int) -> None:
    upstream.lies[place] = lie
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    assert (done.returncode, f"[{code}]" in done.stderr) == (exit_code, True), done.stderr
    entries = locked(inventory)
    assert (APISERVER in entries) == (place == FLANNEL) and "Traceback" not in done.stderr
    del upstream.lies[place]
    assert run(upstream, "lock", "-i", str(inventory), "--arch", "amd64").returncode == 0, "what is left is locked by the next run"


def test_a_version_that_was_not_released_names_the_newest(upstream: Upstream, inventory: Path) -> None:
    done = run(upstream, "lock", "-i", str(inventory), "--kubernetes", "1.36.77")
    assert done.returncode == 2 and "[artifact.not-released]" in done.stderr and "1.36.9" in done.stderr


def versions(inventory: Path) -> tuple[object, set[str]]:
    """What a minor was locked to, and the versions of Kubernetes that have locked files."""
    content = yaml.safe_load((inventory.parent / "clusterctl.lock").read_text())
    return content.get("kubernetes"), {path.split("/")[2] for path in content["files"] if path.startswith("dl.k8s.io/release/")}


def test_a_minor_is_locked_to_its_newest_patch_release(upstream: Upstream, inventory: Path) -> None:
    upstream.newest = "1.36.7"
    content = yaml.safe_load(inventory.read_text())
    content["all"]["vars"]["cluster"]["kubernetes"] = "1.36"
    inventory.write_text(yaml.safe_dump(content))
    done = run(upstream, "lock", "-i", str(inventory))
    assert done.returncode == 0, done.stderr
    assert versions(inventory) == ({"1.36": "1.36.7"}, {"v1.36.7"})
    # A newer release changes nothing until it is asked for.
    upstream.newest = "1.36.8"
    upstream.files |= {path.replace("1.36.7", "1.36.8"): f"newer {path}".encode() for path in list(upstream.files)}
    assert run(upstream, "lock", "-i", str(inventory)).returncode == 0
    assert versions(inventory) == ({"1.36": "1.36.7"}, {"v1.36.7"})
    assert run(upstream, "lock", "-i", str(inventory), "--update", "kubernetes").returncode == 0
    assert versions(inventory) == ({"1.36": "1.36.8"}, {"v1.36.7", "v1.36.8"})


def test_a_first_plan_locks_a_minor(upstream: Upstream, inventory: Path) -> None:
    """Before any machine is asked: this one does not exist."""
    upstream.newest = "1.36.7"
    inventory.write_text("all: {vars: {cluster: {kubernetes: '1.36'}}}\n"
                         "control_plane: {hosts: {a: {ansible_host: 127.0.0.1, ansible_port: 9, clusterctl_address: 192.0.2.1}}}\n")
    assert run(upstream, "plan", "-i", str(inventory)).returncode == 6
    assert versions(inventory) == ({"1.36": "1.36.7"}, {"v1.36.7"})


def test_an_unknown_authority_is_not_believed(upstream: Upstream, inventory: Path) -> None:
    done = run(upstream, "lock", "-i", str(inventory), SSL_CERT_FILE="/etc/ssl/certs/ca-certificates.crt")
    assert done.returncode == 6 and "[download.not-trusted]" in done.stderr and not (inventory.parent / "clusterctl.lock").exists()


def test_the_rate_limit_and_the_token(upstream: Upstream, inventory: Path) -> None:
    """The token goes to GitHub's API alone, never where it redirects to."""
    upstream.anonymous = 0
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    assert done.returncode == 6 and "[artifact.rate-limited]" in done.stderr and "GITHUB_TOKEN" in done.stderr and "UTC" in done.stderr
    upstream.lies[FLANNEL] = lambda handler: reply(handler, 302, b"", Location="https://objects.githubusercontent.com/elsewhere")
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", GITHUB_TOKEN="not-to-be-told")
    assert {host for host, _ in upstream.tokens} == {"api.github.com"} and "not-to-be-told" not in done.stdout + done.stderr
    del upstream.lies[FLANNEL]
    assert run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", GITHUB_TOKEN="not-to-be-told").returncode == 0


@pytest.mark.parametrize(("token", "exit_code"), [
    ("not-to-be-told\n", 0), (" not-to-be-told\r\n", 0), (" \n", 0), ("not-to\nbe-told", 2), ("not-to-be-tøld", 2), ("not-to be-told", 2)])
def test_a_token_is_stripped_or_refused_and_never_printed(upstream: Upstream, inventory: Path, token: str, exit_code: int) -> None:
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", GITHUB_TOKEN=token)
    assert (done.returncode, "[artifact.token-malformed]" in done.stderr) == (exit_code, exit_code == 2), done.stderr
    assert not any(part in done.stdout + done.stderr for part in ("not-to", "be-t"))
    assert {word for _, word in upstream.tokens} == ({"Bearer not-to-be-told"} if exit_code == 0 and token.strip() else set())


def test_plan_takes_what_is_missing_unless_it_may_not(upstream: Upstream, inventory: Path) -> None:
    """Before any machine is asked: these machines do not exist."""
    started = time.monotonic()
    refused = run(upstream, "plan", "-i", str(inventory), "--locked")
    assert refused.returncode == 2 and "[artifact.not-locked]" in refused.stderr and not upstream.asked
    assert time.monotonic() - started < 20
    content = yaml.safe_load(inventory.read_text())
    for group in content["all"]["children"].values():
        for host in group["hosts"]:
            number = len(host)
            group["hosts"][host] = {"ansible_host": f"127.0.0.{number}", "ansible_port": 9, "clusterctl_address": f"192.0.2.{number}"}
    inventory.write_text(yaml.safe_dump(content))
    done = run(upstream, "plan", "-i", str(inventory))
    assert done.returncode == 6 and "pins taken from api.github.com and dl.k8s.io, written to clusterctl.lock" in done.stdout + done.stderr
    assert set(locked(inventory)) == {path for path in paths(load(inventory)) if path not in built_in()}
    upstream.asked.clear()
    assert run(upstream, "plan", "-i", str(inventory), "--locked").returncode == 6 and not upstream.asked


@pytest.mark.parametrize(("content", "code", "exit_code"), [
    ("files: {x: {sha256: abc}}", "lock.unreadable", 2), ("files: [", "lock.unreadable", 2), ("[]", "lock.unreadable", 2),
    ("files: {x: 1}", "lock.unreadable", 2), ("{files: {}, kubernetes: {'1.36': 1.37.1}}", "lock.unreadable", 2),
    ("{files: {}, kubernetes: [1]}", "lock.unreadable", 2), (f"files: {{x: {{sha256: {'a' * 64}, size: -1}}}}", "lock.unreadable", 2),
    (f"files: {{{next(iter(built_in()))}: {{sha256: {'a' * 64}}}}}", "artifact.pin-conflict", 7)])
def test_a_lock_file_that_was_edited(upstream: Upstream, inventory: Path, content: str, code: str, exit_code: int) -> None:
    (inventory.parent / "clusterctl.lock").write_text(content)
    done = run(upstream, "plan", "-i", str(inventory))
    assert (done.returncode, f"[{code}]" in done.stderr) == (exit_code, True), done.stderr
    assert code != "artifact.pin-conflict" or ("a" * 64 in done.stderr and next(iter(built_in().values())).sha256 in done.stderr)


@pytest.mark.parametrize(("content", "name", "found"), [
    ("a" * 64, "x", "a" * 64), (f"{'A' * 64}\n", "x", "a" * 64), (f"{'a' * 64}  x\n{'b' * 64}  y\n", "y", "b" * 64),
    (f"{'a' * 64} *runc.amd64\n", "runc.amd64", "a" * 64), (f"{'a' * 64}  ./x\n", "x", "a" * 64),
    (f"{'a' * 64}  y\n", "x", ""), (f"{'a' * 64}\n{'b' * 64}\n", "x", ""), ("a" * 63, "x", ""), (f"{'a' * 64}  x\n{'b' * 64}  x\n", "x", "")])
def test_texts_of_checksums(content: str, name: str, found: str) -> None:
    if found:
        assert parse_checksums(content.encode(), name, "https://x/y") == found
        return
    with pytest.raises(IntegrityError):
        parse_checksums(content.encode(), name, "https://x/y")


def test_the_lock_file_reads_what_it_wrote(upstream: Upstream, inventory: Path) -> None:
    run(upstream, "lock", "-i", str(inventory))
    read = LockFile.read(inventory.parent)
    read.add(())
    assert LockFile.read(inventory.parent) == read and (inventory.parent / "clusterctl.lock").stat().st_mode & 0o777 == 0o644
