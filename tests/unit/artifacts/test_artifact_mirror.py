"""Filling a mirror: what is made, what is kept, what a kill leaves; with stand-ins for go and gcc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from clusterctl.artifacts.catalog import Pin
from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.cli.mirror import register
from clusterctl.cluster.versions import known_versions
from clusterctl.errors import InputError, IntegrityError, Locked, Problems, Refused, Stopped
from clusterctl.local.storage import user_cache
from clusterctl.mirror import mirror as module
from clusterctl.mirror.build import Builder, check_tools, run
from clusterctl.mirror.mirror import Mirror, fill
from clusterctl.mirror.progress import Progress
from clusterctl.mirror.recipes import Output, Recipe, recipes


def test_a_catalog_without_sizes(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps({"a": {"sha256": "0" * 64}}))
    (tmp_path / "a").write_text("x")
    assert not Mirror(tmp_path).has("a")
    (tmp_path / "catalog.json").write_text('{"a": {}}')
    with pytest.raises(InputError, match="not a catalog"):
        Mirror(tmp_path).verify()


@pytest.mark.parametrize("version", ["1.36.x", ""])
def test_a_version_that_is_none_is_said_in_a_line(version: str) -> None:
    with pytest.raises(ValueError, match="is not a version such as") as caught:
        known_versions(version)
    assert len(str(caught.value).splitlines()) == 1


def recipe(name: str = "tool", version: str = "1.2.3", printed: str = "v1.2.3") -> Recipe:
    output = Output(f"{name} {version}", f"example.com/{name}", {name: f"example.com/cmd/{name}"}, 10, checks={name: ()})
    return Recipe(f"example.com/{name}", version, (output,), stamps={"x.Version": "v1.2.3", "x.Time": "{time}"}, printed=printed)


def silent(line: str) -> None:
    pass


def test_what_is_missing_is_built_once(tmp_path: Path, tools: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    lines: list[str] = []
    filled = fill(mirror, [recipe()], "amd64", lines.append, upstream=False)
    assert filled.added == ["example.com/tool"]
    entry = json.loads((mirror.folder / "catalog.json").read_text())["example.com/tool"]
    assert entry["built_from"] == {"module": "example.com/tool@v1.2.3", "go": "go1.26.8"}
    assert entry["size"] == (mirror.folder / "example.com/tool").stat().st_size
    assert "s left" in lines[0]
    again = fill(mirror, [recipe()], "amd64", silent, upstream=False)
    assert (again.present, again.added) == (1, [])
    assert sorted(path.name for path in mirror.folder.iterdir()) == [".lock", "catalog.json", "example.com"]


def test_a_file_that_is_gone_or_short_is_built_again(tmp_path: Path, tools: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    fill(mirror, [recipe()], "amd64", silent, upstream=False)
    (mirror.folder / "example.com/tool").write_text("short")
    assert not mirror.has("example.com/tool")
    assert fill(mirror, [recipe()], "amd64", silent, upstream=False).added


def test_a_file_that_was_changed_is_found_by_reading_it(tmp_path: Path, tools: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    fill(mirror, [recipe()], "amd64", silent, upstream=False)
    place = mirror.folder / "example.com/tool"
    place.write_bytes(place.read_bytes()[:-1] + b"X")
    assert fill(mirror, [recipe()], "amd64", silent, upstream=False).added == []
    assert fill(mirror, [recipe()], "amd64", silent, upstream=False, verify=True).added == ["example.com/tool"]


def test_the_wrapper_has_what_go_install_refuses(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "go.mod"))
    kubernetes = recipes([known_versions("1.36.4")], "amd64")[0]
    (tmp_path / "work").mkdir()
    Builder(kubernetes, tmp_path / "work").build(kubernetes.outputs[:1])
    lines = (tmp_path / "go.mod").read_text().splitlines()
    assert lines[:5] == ["module example.invalid/programs", "go 1.26.0", "godebug default=go1.26",
                         "require k8s.io/kubernetes v1.36.4", "replace k8s.io/api => k8s.io/api v0.36.4"]
    assert "tool k8s.io/kubernetes/cmd/kubelet" in lines


def test_stand_ins_are_copied(tmp_path: Path, tools: Path) -> None:
    flannel = next(one for one in recipes([known_versions()], "amd64") if one.module.endswith("/flannel"))
    Builder(flannel, tmp_path).build([Output("x", "x", {"flannel": flannel.module}, 1)])
    text = (tmp_path / "go.mod").read_text()
    for name, folder in flannel.replaced.items():
        assert f"replace {name} => ./stand-in/{folder}" in text
        assert (tmp_path / "stand-in" / folder / "go.mod").read_text().startswith(f"module {name}\n")


def test_a_program_of_another_version_is_not_published(tmp_path: Path, tools: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    with pytest.raises(Stopped, match=r"instead of v9"):
        fill(mirror, [recipe(printed="v9")], "amd64", silent, upstream=False)
    assert mirror.entries() == {}


def test_one_failure_does_not_hold_up_the_rest(tmp_path: Path, tools: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    with pytest.raises(Stopped, match="this module is not available"):
        fill(mirror, [recipe("refused"), recipe()], "amd64", silent, upstream=False)
    assert list(mirror.entries()) == ["example.com/tool"]
    with pytest.raises(Problems):
        fill(mirror, [recipe("refused"), recipe("refused-too")], "amd64", silent, upstream=False)


def family(*names: str) -> Recipe:
    outputs = tuple(Output(f"{name} 1.2.3", f"example.com/{name}", {name: f"example.com/cmd/{name}"}, 10, checks={name: ()}) for name in names)
    return Recipe("example.com/family", "1.2.3", outputs, stamps={"x.Version": "v1.2.3"}, printed="v1.2.3")


def test_the_programs_of_a_module_are_built_by_one_compiler(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_BUILDS", str(tmp_path / "builds"))
    mirror = Mirror(tmp_path / "mirror")
    fill(mirror, [family("one", "two")], "amd64", silent, upstream=False)
    fill(mirror, [family("one", "two", "three", "four")], "amd64", silent, upstream=False)
    assert sorted(mirror.entries()) == [f"example.com/{name}" for name in ("four", "one", "three", "two")]
    assert (tmp_path / "builds").read_text().splitlines() == [
        "example.com/cmd/one example.com/cmd/two", "example.com/cmd/three example.com/cmd/four"]


def test_modules_are_built_at_the_same_time(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two builds waits until the other has begun; a third one begins after the first end."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setenv("FAKE_TOGETHER", str(tmp_path))
    lines: list[str] = []
    fill(Mirror(tmp_path / "mirror"), [recipe("one"), recipe("two"), recipe("three")], "amd64", lines.append, upstream=False)
    order = [(line.split()[1], "built in" in line) for line in lines]
    assert {name for name, _ in order[:2]} == {"one", "two"} and order.index(("three", False)) > 2, lines


def test_an_interruption_ends_the_builds(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "building"
    monkeypatch.setenv("FAKE_SLOW", str(marker))

    def interrupt(line: str) -> None:
        if "so far" in line:
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "Progress", lambda weights, say: Progress(weights, say, interval=0))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fill(Mirror(tmp_path / "mirror"), [recipe("one"), recipe("two"), recipe("three")], "amd64", interrupt, upstream=False)
    assert time.monotonic() - started < 20 and not (tmp_path / "mirror/.work").exists()


def test_upstream_s_release_is_preferred(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def obtain(url: str, part: Path, pin: Pin, patience: object, tell: Callable[[int, int | None], None]) -> None:
        if "bad" in url:
            raise IntegrityError("not what it should be", code="artifact.mismatch")
        part.write_bytes(b"upstream's")

    monkeypatch.setattr(module, "built_in", lambda: {"example.com/tool": Pin("1" * 64), "example.com/bad": Pin("2" * 64)})
    monkeypatch.setattr(module, "answers", lambda host: True)
    monkeypatch.setattr(module, "obtain", obtain)
    mirror = Mirror(tmp_path / "mirror")
    fill(mirror, [recipe(), recipe("bad")], "amd64", silent)
    origins = {path: entry.get("downloaded_from", "built") for path, entry in mirror.entries().items()}
    assert origins == {"example.com/tool": "https://example.com/tool", "example.com/bad": "built"}


def test_two_do_not_fill_one_mirror(tmp_path: Path, tools: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    with mirror.locked(), pytest.raises(Locked):
        fill(mirror, [recipe()], "amd64", silent)


def test_a_killed_run_leaves_nothing_half(tmp_path: Path, tools: Path) -> None:
    mirror, marker = Mirror(tmp_path / "mirror"), tmp_path / "building"
    fill(mirror, [recipe("first")], "amd64", silent, upstream=False)
    program = f"""if True:
        import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})
        from pathlib import Path
        from clusterctl.mirror.mirror import Mirror, fill
        from clusterctl.mirror.recipes import Output, Recipe
        output = Output("tool", "example.com/tool", {{"tool": "example.com/cmd/tool"}}, 10)
        recipe = Recipe("example.com/tool", "1.2.3", (output,))
        fill(Mirror(Path({str(mirror.folder)!r})), [recipe], "amd64", print, upstream=False)
    """
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "FAKE_SLOW": str(marker)},
                               stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not marker.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(mirror.entries()) == ["example.com/first"]
    assert not (mirror.folder / "example.com/tool").exists()
    assert list((mirror.folder / ".work").iterdir())
    fill(mirror, [recipe("first"), recipe()], "amd64", silent, upstream=False)
    assert not (mirror.folder / ".work").exists() and mirror.has("example.com/tool")


def test_what_a_build_needs_is_named(tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_GO", "go1.19.8")
    with pytest.raises(Refused, match=r"1\.26"):
        check_tools([recipe()])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="go, gcc") as caught:
        check_tools([recipe()])
    assert "libseccomp-dev" in caught.value.hint and caught.value.exit_code == 3


def test_a_build_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(Stopped, match="too long"):
        run(["sleep", "60"], tmp_path, deadline=0)


def test_a_broken_catalog_is_not_overwritten(tmp_path: Path, tools: Path) -> None:
    (tmp_path / "catalog.json").write_text("{")
    with pytest.raises(InputError):
        fill(Mirror(tmp_path), [recipe()], "amd64", silent)
    assert (tmp_path / "catalog.json").read_text() == "{"


def test_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLUSTERCTL_CACHE", "CLUSTERCTL_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "clusterctl"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_mirror() == tmp_path / "clusterctl" / "mirror"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_mirror() == Path("/var/cache/clusterctl/mirror")
    monkeypatch.setenv("CLUSTERCTL_MIRROR", "/m")
    assert default_mirror() == Path("/m")


def test_the_command(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    app.command("other")(silent)
    listed = CliRunner().invoke(app, ["mirror", "--list", "--directory", str(tmp_path), "--kubernetes", "1.36.4"])
    assert listed.exit_code == 0 and "missing  dl.k8s.io/release/v1.36.4/" in listed.output
    assert list(tmp_path.iterdir()) == []
    refused = CliRunner().invoke(app, ["mirror", "--directory", str(tmp_path), "--kubernetes", "1.20.0"])
    assert isinstance(refused.exception, InputError)


def test_other_versions_of_products(tmp_path: Path) -> None:
    """Beside those that belong to Kubernetes, and each as often as it is named."""
    arch, app = own_architecture(), typer.Typer()
    register(app)
    app.command("other")(silent)
    words = ["mirror", "--list", "--directory", str(tmp_path), "--kubernetes", "1.36.4"]
    plain = CliRunner().invoke(app, words).output.splitlines()
    more = ["--component", "etcd=3.6.16", "--component", "etcd=3.6.15", "--component", "cni-plugins=1.9.0", "--component", "coredns=1.14.7"]
    listed = CliRunner().invoke(app, [*words, *more]).output.splitlines()
    assert listed[: len(plain)] == plain
    assert [line.split()[-1].rsplit("/", 1)[1] for line in listed[len(plain):]] == [
        f"etcd-v3.6.16-linux-{arch}.tar.gz", f"etcd-v3.6.15-linux-{arch}.tar.gz", f"cni-plugins-linux-{arch}-v1.9.0.tgz",
        f"coredns-1.14.7-{arch}.tar"]


def test_other_versions_bring_no_other_kubernetes(tmp_path: Path) -> None:
    app = typer.Typer()
    register(app)
    app.command("other")(silent)
    words = ["mirror", "--list", "--directory", str(tmp_path), "--kubernetes", "1.35.8", "--component", "etcd=3.6.16"]
    assert "1.36.4" not in CliRunner().invoke(app, words).output


@pytest.mark.parametrize(("component", "needle"), [
    ("etcd", "is not NAME=VERSION"), ("etcd=v3.6.16", "is no version"), ("etc=3.6.16", "no product is called 'etc'"),
    ("kubernetes=1.36.4", "no product is called 'kubernetes'"), ("pause=x", "is no version"), ("pause=3.10.x", "is no version")])
def test_what_is_no_component(tmp_path: Path, component: str, needle: str) -> None:
    app = typer.Typer()
    register(app)
    app.command("other")(silent)
    refused = CliRunner().invoke(app, ["mirror", "--list", "--directory", str(tmp_path), "--component", component])
    assert isinstance(refused.exception, InputError) and needle in refused.exception.message and refused.exception.hint
