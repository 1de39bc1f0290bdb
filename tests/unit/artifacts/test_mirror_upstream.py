"""A mirror that is filled from upstream: with the checksums that it publishes, and images from its registry."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from upstream_double import Upstream

from clusterctl.cluster.versions import known_versions
from clusterctl.components.products import RELEASES
from clusterctl.mirror.mirror import Mirror, fill
from clusterctl.mirror.recipes import KUBERNETES, Recipe, recipes


def silent(line: str) -> None:
    """Report nothing."""


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """Kubernetes 1.36.7, of which no program has a built-in pin, and pause."""
    files = {RELEASES[name].at("1.36.7", "amd64"): f"content of {name}".encode() for name in KUBERNETES}
    double = Upstream(tmp_path, files)
    double.add_image("pause", "3.10.2", b'{"config": {}}', b"a layer", "amd64")
    for name, value in double.environment.items():
        monkeypatch.setenv(name, value)
    yield double
    double.close()


def kubernetes_and_pause() -> list[Recipe]:
    found = recipes([known_versions("1.36.7")], "amd64")
    return [one for one in found if one.c_source or (one.module == "k8s.io/kubernetes" and one.version == "1.36.7")]


def test_files_are_downloaded_with_the_checksums_that_upstream_publishes(tmp_path: Path, upstream: Upstream) -> None:
    mirror = Mirror(tmp_path / "mirror")
    filled = fill(mirror, kubernetes_and_pause(), "amd64", silent)
    assert len(filled.added) == len(KUBERNETES) + 1
    for path, content in upstream.files.items():
        assert (mirror.folder / path).read_bytes() == content and mirror.entries()[path]["downloaded_from"] == f"https://{path}"
    [path] = [path for path in mirror.entries() if path.startswith("images/")]
    assert mirror.entries()[path]["image"] == "registry.k8s.io/pause:3.10.2"
    with tarfile.open(mirror.folder / path) as archive:
        blobs = [archive.extractfile(member).read() for member in archive if member.isreg()]  # type: ignore[union-attr]
    assert {b'{"config": {}}', b"a layer"} <= set(blobs)


@pytest.mark.parametrize("lie", ["blob", "manifest", "html", "platform"])
def test_an_image_that_is_not_what_its_digest_says_is_built(tmp_path: Path, tools: Path, upstream: Upstream, lie: str) -> None:
    index, blobs = upstream.images["pause:3.10.2"]
    [layer] = [digest for digest, content in blobs.items() if content == b"a layer"]
    [manifest] = [digest for digest, content in blobs.items() if b'"layers"' in content]
    changed = {"blob": (layer, b"another"), "manifest": (manifest, blobs[manifest] + b" "), "html": (index, b"<html>log in</html>"),
               "platform": (index, blobs[index].replace(b'"linux"', b'"plan9"'))}[lie]
    blobs[changed[0]] = changed[1]
    mirror = Mirror(tmp_path / "mirror")
    fill(mirror, [one for one in kubernetes_and_pause() if one.c_source], "amd64", silent)
    [entry] = mirror.entries().values()
    assert "built_from" in entry and "digest" not in entry
