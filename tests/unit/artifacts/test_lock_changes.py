"""How the lock file changes: by hand, by several runs at once, by ``lock --update``, and by upstream's next release."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lock_runs import APISERVER, locked, run, text
from upstream_double import Upstream

from clusterctl.artifacts.catalog import Pin, built_in
from clusterctl.artifacts.lock_file import LockFile
from clusterctl.artifacts.store import open_catalog
from clusterctl.artifacts.upstream import Found
from clusterctl.cluster.model import Cluster
from clusterctl.commands import lock, upgrade
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Problems, Refused
from clusterctl.inventory import load

KUBELET = "dl.k8s.io/release/v1.36.4/bin/linux/amd64/kubelet"
PROXY = "dl.k8s.io/release/v1.36.7/bin/linux/{}/kube-proxy"
STABLE = "dl.k8s.io/release/stable-1.36.txt"


def found(path: str, sha256: str) -> Found:
    return Found(path, Pin(sha256, 7), f"https://{path}.sha256")


def edit(inventory: Path, content: str) -> Path:
    path = inventory.parent / "clusterctl.lock"
    path.write_text(content)
    return path


def name_minor(inventory: Path) -> None:
    inventory.write_text(inventory.read_text().replace("1.36.7", "'1.36'"))


class Told:
    """Events of a run."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def progress(self, text: str) -> None:
        self.lines.append(text)

    def emit(self, event: Any) -> None:
        self.lines.append(event.text)


def session_of(cluster: Cluster, **options: Any) -> Any:
    return SimpleNamespace(cluster=cluster, catalog=open_catalog(cluster.settings.artifacts, cluster.base), engine=SimpleNamespace(events=Told()),
                           options=SimpleNamespace(**{"locked": False, **options}))


@pytest.fixture
def reached(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """The double, as this process's own upstream."""
    for name, value in upstream.environment.items():
        monkeypatch.setenv(name, value)
    return upstream


@pytest.mark.parametrize("content", [None, "files: {}"])
def test_verify_without_a_locked_file_is_refused(upstream: Upstream, inventory: Path, content: str | None) -> None:
    if content is not None:
        edit(inventory, content)
    done = run(upstream, "lock", "verify", "-i", str(inventory))
    assert done.returncode == 2 and "[lock.missing]" in done.stderr and not upstream.asked


def test_verify_compares_sizes_and_reports_in_json(upstream: Upstream, inventory: Path) -> None:
    run(upstream, "lock", "-i", str(inventory), "--arch", "amd64")
    good = run(upstream, "lock", "-i", str(inventory), "verify", "-o", "json")
    events = [json.loads(line) for line in good.stdout.splitlines()]
    assert good.returncode == 0 and events[-1] == {"event": "verified", "files": len(locked(inventory))}
    assert any(event["event"] == "fetched" for event in events)
    path = inventory.parent / "clusterctl.lock"
    path.write_text(path.read_text().replace(f"size: {locked(inventory)[APISERVER]['size']}\n", "size: 5\n"))
    bad = run(upstream, "lock", "verify", "-i", str(inventory))
    assert bad.returncode == 7 and "[artifact.mismatch]" in bad.stderr and APISERVER in bad.stderr


def test_one_checksum_for_two_files_is_refused(tmp_path: Path, inventory: Path) -> None:
    """Programs are delivered by checksum: one would be installed as the other."""
    lock_file = LockFile.read(tmp_path)
    with pytest.raises(IntegrityError) as caught:
        lock_file.add([found("dl.k8s.io/a", "a" * 64), found("dl.k8s.io/b", "a" * 64)])
    assert caught.value.code == "artifact.pin-conflict"
    edit(inventory, f"files:\n  dl.k8s.io/a: {{sha256: {'a' * 64}}}\n  dl.k8s.io/b: {{sha256: {'a' * 64}}}\n")
    with pytest.raises(InputError) as refused:
        LockFile.read(tmp_path)
    assert refused.value.where.endswith("clusterctl.lock:3:3")
    edit(inventory, f"files: {{{PROXY.format('amd64')}: {{sha256: {built_in()[KUBELET].sha256}}}}}")
    with pytest.raises(IntegrityError):
        open_catalog(load(inventory).settings.artifacts, tmp_path)


def test_update_drops_a_checksum_that_contradicts_another_pin(upstream: Upstream, inventory: Path) -> None:
    edit(inventory, f"files: {{{KUBELET}: {{sha256: {'a' * 64}}}}}")
    plan = run(upstream, "plan", "-i", str(inventory))
    assert plan.returncode == 7 and "clusterctl lock -i INVENTORY --update kubelet" in plan.stderr
    assert run(upstream, "lock", "-i", str(inventory), "--update", "kubectl").returncode == 7
    done = run(upstream, "lock", "-i", str(inventory), "--update", "kubelet")
    assert done.returncode == 0 and f"- {'a' * 64}  {KUBELET}" in done.stdout.splitlines(), done.stderr
    assert KUBELET not in locked(inventory) and run(upstream, "lock", "verify", "-i", str(inventory)).returncode == 0


def test_every_problem_of_a_lock_file_has_its_line(tmp_path: Path, inventory: Path) -> None:
    path = edit(inventory, f"""files:
  dl.k8s.io/a: {{sha256: {'A' * 64}}}
  dl.k8s.io/b: {{sha256: {'b' * 64}, size: -1}}
  dl.k8s.io/c: {{sha256: {'c' * 64}, url: 'https://x/y'}}
  dl.k8s.io/d: {{sha256: {'d' * 64}, sice: 1}}
  dl.k8s.io/d: {{sha256: {'e' * 64}}}
  dl.k8s.io/f: 1
  https://dl.k8s.io/g: {{sha256: {'f' * 64}}}
kubernetes: {{'1.36': 1.37.1}}
filez: {{}}
""")
    with pytest.raises(Problems) as caught:
        LockFile.read(tmp_path)
    places = ["2:25", f"3:{25 + 64 + 8}", f"4:{25 + 64 + 7}", f"5:{25 + 64 + 2}", "6:3", "7:16", "8:3", "9:22", "10:1"]
    assert [error.where for error in caught.value.errors] == [f"{path}:{place}" for place in places]
    assert {error.code for error in caught.value.errors} == {"lock.unreadable"}
    path.write_bytes(b"files: {}\n# \xff\n")
    with pytest.raises(InputError) as refused:
        LockFile.read(tmp_path)
    assert (refused.value.where, refused.value.code) == (f"{path}:2:3", "lock.unreadable")


def test_runs_at_once_keep_each_others_pins(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "clusterctl.lock").symlink_to("real/clusterctl.lock")
    before = [LockFile.read(tmp_path) for _ in range(8)]

    def add(number: int) -> None:
        before[number].add([found(f"dl.k8s.io/{number}", str(number) * 64)], releases={f"1.3{number}": f"1.3{number}.0"})

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = LockFile.read(tmp_path)
    assert len(after.entries) == len(after.releases) == 8
    assert (tmp_path / "clusterctl.lock").is_symlink() and (tmp_path / "real" / "clusterctl.lock").is_file()


def test_an_equal_pin_keeps_its_day(tmp_path: Path) -> None:
    lock_file = LockFile.read(tmp_path)
    lock_file.add([found("dl.k8s.io/a", "a" * 64)])
    path = tmp_path / "clusterctl.lock"
    path.write_text(path.read_text().replace(lock_file.entries["dl.k8s.io/a"].taken, "2026-01-02"))
    before = path.read_bytes()
    LockFile.read(tmp_path).add([found("dl.k8s.io/a", "a" * 64)])
    assert path.read_bytes() == before


def test_a_new_patch_release_is_a_change(upstream: Upstream, inventory: Path) -> None:
    upstream.newest = "1.36.7"
    run(upstream, "lock", "-i", str(inventory))
    done = run(upstream, "lock", "-i", str(inventory), "--kubernetes", "1.36", "-o", "json")
    assert json.loads(done.stdout) == {"changes": [{"path": "Kubernetes 1.36", "before": "", "after": "1.36.7"}]}
    refused = run(upstream, "lock", "-i", str(inventory), "--update", "kubernetes")
    assert refused.returncode == 2 and "[lock.no-minor]" in refused.stderr


@pytest.mark.parametrize(("status", "body", "code", "exit_code"), [
    (200, b"<html>Sign in</html>", "artifact.checksum-unreadable", 7), (200, b"v1.35.9", "artifact.checksum-unreadable", 7),
    (200, b"x" * 200, "artifact.checksum-unreadable", 7), (404, b"", "artifact.upstream-unreachable", 6)])
def test_lock_requires_the_newest_patch_release(upstream: Upstream, inventory: Path, status: int, body: bytes, code: str, exit_code: int) -> None:
    name_minor(inventory)
    upstream.lies[STABLE] = text(status, body)
    done = run(upstream, "lock", "-i", str(inventory))
    assert (done.returncode, f"[{code}]" in done.stderr) == (exit_code, True), done.stderr
    assert not (inventory.parent / "clusterctl.lock").exists()


def test_plan_reports_a_patch_release_that_upstream_does_not_name(reached: Upstream, inventory: Path) -> None:
    name_minor(inventory)
    reached.lies[STABLE] = text(200, b"<html>")
    session = session_of(load(inventory))
    assert lock.locked_patch(session, "1.36", ask=True) == "" and len(session.engine.events.lines) == 1
    assert "1.36.4" in session.engine.events.lines[0]


@pytest.mark.parametrize(("locked_option", "expected"), [(False, "1.36.9"), (True, "1.36.4")])
def test_upgrade_to_a_minor_asks_for_its_newest_patch_release(reached: Upstream, inventory: Path, monkeypatch: pytest.MonkeyPatch,
                                                              locked_option: bool, expected: str) -> None:
    edit(inventory, "{files: {}, kubernetes: {'1.36': 1.36.4}}")
    cluster = load(inventory)
    monkeypatch.setattr(upgrade, "running", SimpleNamespace(
        versions_of=lambda facts: {"kubernetes": {"1.36.4"}}, is_bootstrapped=lambda facts: True, pin_running=lambda cluster, facts: cluster))
    asked: list[str] = []
    monkeypatch.setattr(upgrade.version_skew, "refuse_path", lambda found, to, through: asked.append(to) or "enough")
    with pytest.raises(Refused):
        upgrade.make(session_of(cluster, locked=locked_option), {}, [], upgrade.UpgradeRequest(to="1.36"))
    assert asked == [expected] and LockFile.read(cluster.base).releases == {"1.36": expected}


def test_newer_releases_name_the_minors_in_between(reached: Upstream, inventory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for minor in ("1.35", "1.36", "1.37"):
        reached.lies[f"dl.k8s.io/release/stable-{minor}.txt"] = text(200, f"v{minor}.9".encode())
    monkeypatch.setattr(lock.running, "versions_of", lambda facts: {"kubernetes": {"1.35.8"}})
    session = session_of(load(inventory))
    assert lock.newer_releases(session, {}) == ["1.35.9", "1.36.9", "1.37.9 (with --through 1.36.9)"]
    reached.asked.clear()
    assert lock.newer_releases(session_of(session.cluster, locked=True), {}) == []
    artifacts = session.cluster.settings.artifacts.model_copy(update={"mirror": str(inventory.parent)})
    settings = session.cluster.settings.model_copy(update={"artifacts": artifacts})
    assert lock.newer_releases(session_of(session.cluster.model_copy(update={"settings": settings})), {}) == [] and not reached.asked


def test_a_checksum_that_cannot_be_taken_is_reported(reached: Upstream, inventory: Path) -> None:
    path = PROXY.format("arm64")
    reached.lies[f"{path}.sha256"] = text(200, b"<html>")
    session = session_of(load(inventory))
    lock.require(session)
    assert path not in session.catalog.pins and any("[artifact.checksum-unreadable]" in line for line in session.engine.events.lines)
    # Machines with arm64 require it; the control plane, which has amd64, gets kube-proxy as well.
    facts: Any = {"cp-1": SimpleNamespace(arch="amd64"), "w-1": SimpleNamespace(arch="arm64")}
    with pytest.raises(ClusterctlError) as caught:
        lock.require(session, facts)
    assert caught.value.code == "artifact.checksum-unreadable"
    with pytest.raises(InputError) as refused:
        lock.require(session_of(session.cluster, locked=True), facts)
    assert refused.value.code == "artifact.not-locked"
    del reached.lies[f"{path}.sha256"]
    lock.require(session, facts)
    assert path in session.catalog.pins and path in LockFile.read(inventory.parent).pins


def test_what_was_found_is_locked_before_a_contradiction_ends_the_run(upstream: Upstream, inventory: Path) -> None:
    path = next(path for path in built_in() if "/etcd-v" in path and path.endswith("linux-amd64.tar.gz") and path in upstream.files)
    upstream.files[path] = b"another build"
    done = run(upstream, "lock", "-i", str(inventory), "--arch", "amd64", "--update", "etcd")
    assert done.returncode == 7 and "[artifact.pin-conflict]" in done.stderr
    assert APISERVER in locked(inventory) and path not in locked(inventory)
    assert yaml.safe_load((inventory.parent / "clusterctl.lock").read_text())
