"""The pins, which of them hold, and what has none."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from artifact_web import IMPATIENT, Web, send
from hypothesis import given
from hypothesis import strategies as st

from clusterctl.artifacts.catalog import built_in, image_path, parse_pins
from clusterctl.artifacts.store import open_catalog
from clusterctl.cluster.model import ArtifactSettings, Versions
from clusterctl.cluster.versions import known_versions
from clusterctl.components.products import IMAGES, RELEASES
from clusterctl.errors import InputError, IntegrityError, Unreachable
from clusterctl.mirror.recipes import AGNHOST, MIRRORED, recipes

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
KUBELET = RELEASES["kubelet"].at("1.36.4", "amd64")
SCHEDULER = RELEASES["kube-scheduler"].at("1.36.4", "amd64")


def settings(mirror: object = None, cache: Path | None = None, **pins: str) -> ArtifactSettings:
    return ArtifactSettings(mirror=None if mirror is None else str(mirror), cache=cache, pins=pins)


def test_the_built_in_pins_are_of_paths_that_products_have() -> None:
    patterns = [re.escape(release.path).replace(r"\{version\}", r"\d+\.\d+\.\d+").replace(r"\{arch\}", "(amd64|arm64)")
                for release in RELEASES.values()]
    assert built_in()
    for path, pin in built_in().items():
        assert any(re.fullmatch(pattern, path) for pattern in patterns), path
        assert re.fullmatch("[0-9a-f]{64}", pin.sha256)
    assert len({pin.sha256 for pin in built_in().values()}) == len(built_in())


def test_both_architectures_are_pinned() -> None:
    amd64 = {path.replace("amd64", "ARCH") for path in built_in() if "amd64" in path}
    assert amd64 == {path.replace("arm64", "ARCH") for path in built_in() if "arm64" in path}


def test_what_nothing_pins_is_refused(tmp_path: Path) -> None:
    catalog = open_catalog(settings(), tmp_path)
    with pytest.raises(InputError) as caught:
        catalog.artifact(RELEASES["kube-scheduler"], "1.36.4", "amd64")
    assert caught.value.exit_code == 2
    assert SCHEDULER in caught.value.hint


def test_pins_are_built_in_or_added_by_the_inventory_and_the_mirror(tmp_path: Path) -> None:
    image = image_path("pause", "3.10.2", "amd64")
    write_catalog(tmp_path, {KUBELET: ONE, image: THREE})
    catalog = open_catalog(ArtifactSettings(mirror=str(tmp_path), pins={SCHEDULER: TWO}), tmp_path)
    assert catalog.artifact(RELEASES["kubelet"], "1.36.4", "amd64").sha256 == ONE  # The folder is this user's own.
    assert catalog.artifact(RELEASES["kubelet"], "1.36.4", "amd64").size == 7
    assert catalog.artifact(RELEASES["kube-scheduler"], "1.36.4", "amd64").sha256 == TWO
    assert catalog.artifact(RELEASES["kubelet"], "1.36.4", "arm64").sha256 == built_in()[KUBELET.replace("amd64", "arm64")].sha256
    assert catalog.sources == {KUBELET: str(tmp_path), image: str(tmp_path), SCHEDULER: "the inventory"}


def write_catalog(folder: Path, pins: dict[str, str]) -> bytes:
    content = json.dumps({path: {"sha256": sha256, "size": 7, "built_from": {"module": "x@v1"}}
                          for path, sha256 in pins.items()}).encode()
    (folder / "catalog.json").write_bytes(content)
    (folder / "catalog.json").chmod(0o644)
    return content


def test_the_inventory_does_not_change_a_built_in_pin(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_catalog(ArtifactSettings(pins={KUBELET: ONE}), tmp_path)
    assert caught.value.exit_code == 2 and caught.value.code == "artifact.inventory-pin-conflict"
    assert KUBELET in str(caught.value) and ONE in str(caught.value) and built_in()[KUBELET].sha256 in str(caught.value)
    same = open_catalog(ArtifactSettings(pins={KUBELET: built_in()[KUBELET].sha256}), tmp_path)
    assert same.pins == built_in() and same.sources == {}


@pytest.mark.parametrize("loosened", ["folder", "catalog.json"])
def test_a_folder_that_others_may_write_to_changes_no_built_in_pin(tmp_path: Path, loosened: str) -> None:
    mirror = tmp_path / "folder"
    mirror.mkdir(mode=0o755)
    write_catalog(mirror, {KUBELET: ONE, SCHEDULER: TWO})
    assert open_catalog(settings(mirror), tmp_path).pins[KUBELET].sha256 == ONE
    (mirror if loosened == "folder" else mirror / loosened).chmod(0o777)
    with pytest.raises(IntegrityError) as caught:
        open_catalog(settings(mirror), tmp_path)
    assert caught.value.exit_code == 7 and caught.value.code == "artifact.pin-conflict"
    assert KUBELET in str(caught.value) and ONE in str(caught.value) and built_in()[KUBELET].sha256 in str(caught.value)
    write_catalog(mirror, {KUBELET: built_in()[KUBELET].sha256, SCHEDULER: TWO})
    found = open_catalog(settings(mirror), tmp_path)
    assert found.pins[SCHEDULER].sha256 == TWO and found.sources == {SCHEDULER: str(mirror)}


def test_a_mirror_does_not_contradict_the_inventory(tmp_path: Path) -> None:
    write_catalog(tmp_path, {SCHEDULER: ONE})
    with pytest.raises(IntegrityError) as caught:
        open_catalog(ArtifactSettings(mirror=str(tmp_path), pins={SCHEDULER: TWO}), tmp_path)
    assert caught.value.code == "artifact.pin-conflict"
    assert open_catalog(ArtifactSettings(mirror=str(tmp_path), pins={SCHEDULER: ONE}), tmp_path).sources == {SCHEDULER: "the inventory"}


def test_a_plain_http_mirror_s_catalog_is_used_where_the_inventory_pins_it(tmp_path: Path, web: Web) -> None:
    body = json.dumps({KUBELET: {"sha256": THREE}}).encode()
    sha256 = hashlib.sha256(body).hexdigest()
    web.answers = [lambda handler: send(handler, 200, body), lambda handler: send(handler, 200, body), lambda handler: send(handler, 500, b"")]
    for _ in range(3):  # The last one is the catalog that was kept.
        with pytest.raises(InputError) as caught:
            open_catalog(settings(web.url, tmp_path / "cache"), tmp_path, patience=IMPATIENT)
        assert caught.value.exit_code == 2 and caught.value.code == "artifact.catalog-not-pinned"
        assert sha256 in caught.value.hint
    pinned = settings(web.url, tmp_path / "cache", **{"catalog.json": sha256})
    assert open_catalog(pinned, tmp_path, patience=IMPATIENT).pins[KUBELET].sha256 == THREE
    web.answers = [lambda handler: send(handler, 200, body + b" ")]
    with pytest.raises(IntegrityError) as changed:
        open_catalog(pinned, tmp_path, patience=IMPATIENT)
    assert changed.value.code == "artifact.catalog-changed"


@pytest.mark.parametrize(("pinned", "vouched"), [(False, False), (True, True)])
def test_an_https_mirror_changes_no_built_in_pin_by_itself(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pinned: bool, vouched: bool) -> None:
    from clusterctl.artifacts import store

    body = write_catalog(tmp_path, {KUBELET: ONE, SCHEDULER: TWO})
    monkeypatch.setattr(store, "read_small", lambda url, limit, patience: body)
    pins = {"catalog.json": hashlib.sha256(body).hexdigest()} if pinned else {}
    wanted = settings("https://mirror.test", tmp_path / "cache", **pins)
    if vouched:
        assert open_catalog(wanted, tmp_path).sources == {KUBELET: "https://mirror.test", SCHEDULER: "https://mirror.test"}
        return
    with pytest.raises(IntegrityError) as caught:
        open_catalog(wanted, tmp_path)
    assert caught.value.exit_code == 7 and caught.value.code == "artifact.pin-conflict"
    assert KUBELET in str(caught.value) and ONE in str(caught.value) and built_in()[KUBELET].sha256 in str(caught.value)


def test_a_relative_mirror_starts_at_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "catalog.json").write_text(json.dumps({image_path("pause", "3.10.2", "amd64"): {"sha256": ONE}}))
    catalog = open_catalog(settings("mirror"), tmp_path)
    image = catalog.image("pause", "3.10.2", "amd64")
    assert image is not None and image.sha256 == ONE
    assert catalog.image("pause", "3.10.1", "amd64") is None
    assert image is not None and image.url is None


@pytest.mark.parametrize("mirror, words", [
    ("no-such-folder", "cannot be used: No such file"), ("x" * 300, "cannot be used: File name too long"), ("file", "cannot be used: Not a directory"),
    ("closed/mirror", "cannot be used: Permission denied"), ("open", "catalog.json: cannot be read: Permission denied"),
])
def test_a_mirror_that_cannot_be_one_is_refused(theirs: Path, mirror: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_catalog(settings(mirror), theirs)


@pytest.fixture
def theirs() -> Iterator[Path]:
    """A folder in which some things are closed to us, who are not root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "file").touch()
        (folder / "open").mkdir()
        (folder / "open" / "catalog.json").touch(0)
        (folder / "closed" / "mirror").mkdir(parents=True)
        (folder / "closed").chmod(0)
        us = os.geteuid()
        os.seteuid(us or 65534)
        yield folder
        os.seteuid(us)
        (folder / "closed").chmod(0o755)


def test_the_catalog_of_an_http_mirror_is_kept_for_when_it_is_down(tmp_path: Path, web: Web) -> None:
    body = json.dumps({KUBELET: {"sha256": THREE}}).encode()
    web.answers = [lambda handler: send(handler, 200, body), lambda handler: send(handler, 500, b"")]
    for _ in range(2):
        pinned = settings(f"{web.url}/base/", tmp_path / "cache", **{"catalog.json": hashlib.sha256(body).hexdigest()})
        catalog = open_catalog(pinned, tmp_path, patience=IMPATIENT)
        found = catalog.artifact(RELEASES["kubelet"], "1.36.4", "amd64")
        assert found.sha256 == THREE
        assert found.url == f"{web.url}/base/{KUBELET}"
    assert set(web.paths) == {"/base/catalog.json"}


def test_a_mirror_without_a_catalog_has_ours(tmp_path: Path, web: Web) -> None:
    web.answers = [lambda handler: send(handler, 404, b"")]
    catalog = open_catalog(settings(web.url, tmp_path / "cache"), tmp_path, patience=IMPATIENT)
    assert catalog.pins == built_in()


def test_a_mirror_that_never_answered_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        open_catalog(settings("http://127.0.0.1:9", tmp_path / "cache"), tmp_path, patience=IMPATIENT)
    assert caught.value.exit_code == 6


def test_the_catalog_of_a_mirror_can_be_pinned(tmp_path: Path) -> None:
    content = json.dumps({KUBELET: {"sha256": ONE}}).encode()
    (tmp_path / "catalog.json").write_bytes(content)
    pinned = ArtifactSettings(mirror=str(tmp_path), pins={"catalog.json": hashlib.sha256(content).hexdigest()})
    assert open_catalog(pinned, tmp_path).pins[KUBELET].sha256 == ONE
    (tmp_path / "catalog.json").write_bytes(content.replace(b"1", b"4", 1))
    with pytest.raises(IntegrityError):
        open_catalog(pinned, tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b'{"a": 1}', b'{"a": {"sha256": "x"}}', b'{"a": {}}', b"\xff",
                                     b'{"a": {"sha256": "' + b"1" * 64 + b'", "size": -1}}', b"[" * 100_000])
def test_what_is_no_catalog_is_refused(content: bytes) -> None:
    with pytest.raises(InputError):
        parse_pins(content, "mirror/catalog.json")


@given(st.binary(max_size=200))
def test_a_catalog_is_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(InputError):
        parse_pins(content, "x")


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_a_mirror_gets_all_that_a_cluster_needs(arch: str) -> None:
    everything = [known_versions(version) for version in MIRRORED]
    outputs = {output.path for recipe in recipes(everything, arch) for output in recipe.outputs}
    for versions in everything:
        assert outputs >= _needed(versions, arch)


def _needed(versions: Versions, arch: str) -> set[str]:
    def version(name: str, other: str) -> str:
        return str(getattr(versions, name.replace("-", "_"), other))

    programs = {RELEASES[name].at(version(name, versions.kubernetes), arch) for name in RELEASES}
    return programs | {image_path(name, version(name, AGNHOST), arch) for name in (*IMAGES, "agnhost")}
