"""Archives and images: their members, their digests, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from clusterctl.artifacts.pack import write_archive
from clusterctl.cluster.versions import known_versions
from clusterctl.components.products import RELEASES
from clusterctl.mirror.image import ImageSpec, write_docker_archive, write_oci_archive
from clusterctl.mirror.recipes import recipes

SPEC = ImageSpec("registry.k8s.io/coredns/coredns:v1.14.0", ("/coredns",), ("-conf", "x"), "65532:65532", ("53/udp",), True)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF" + bytes(5000))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("product", sorted(name for name, release in RELEASES.items() if release.members))
def test_archives_hold_what_the_catalog_takes_out_of_them(product: str, tmp_path: Path, program: Path) -> None:
    versions = known_versions()
    version = getattr(versions, product.replace("-", "_"))
    output = next(output for recipe in recipes([versions], "arm64") for output in recipe.outputs
                  if output.label == f"{product} {version}")
    archive = tmp_path / "x.tgz"
    write_archive(archive, {name: program for name in output.members})
    with gzip.open(archive) as plain:
        content = plain.read()
    for name in RELEASES[product].members:
        member = name.format(version=version, arch="arm64")
        assert member in output.members
        assert member.encode() + b"\0" in content
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
    assert all(member.mtime == 0 and member.uid == 0 and member.mode == 0o755 for member in members)


def test_archives_are_the_same_bytes_each_time(tmp_path: Path, program: Path) -> None:
    for name in ("a.tgz", "b.tgz"):
        write_archive(tmp_path / name, {"./x": program, "./y": program})
        write_oci_archive(tmp_path / f"{name}.oci", SPEC, program, "amd64")
        program.touch()
    assert (tmp_path / "a.tgz").read_bytes() == (tmp_path / "b.tgz").read_bytes()
    assert (tmp_path / "a.tgz.oci").read_bytes() == (tmp_path / "b.tgz.oci").read_bytes()


def _blob(tar: tarfile.TarFile, described: dict[str, Any]) -> bytes:
    algorithm, value = described["digest"].split(":")
    stream = tar.extractfile(f"blobs/{algorithm}/{value}")
    assert stream is not None
    content = stream.read()
    assert hashlib.sha256(content).hexdigest() == value and len(content) == described["size"]
    return content


def _json(tar: tarfile.TarFile, name: str) -> Any:
    stream = tar.extractfile(name)
    assert stream is not None
    return json.load(stream)


def test_an_oci_archive_holds_together(tmp_path: Path, program: Path) -> None:
    write_oci_archive(tmp_path / "image.tar", SPEC, program, "arm64")
    with tarfile.open(tmp_path / "image.tar") as tar:
        assert _json(tar, "oci-layout") == {"imageLayoutVersion": "1.0.0"}
        (described,) = _json(tar, "index.json")["manifests"]
        assert described["annotations"]["io.containerd.image.name"] == SPEC.reference
        manifest = json.loads(_blob(tar, described))
        config = json.loads(_blob(tar, manifest["config"]))
        (layer,) = manifest["layers"]
        assert layer["mediaType"].endswith("+zstd")
        plain = zstandard.decompress(_blob(tar, layer))
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(plain).hexdigest()}"]
    assert (config["architecture"], config["os"]) == ("arm64", "linux")
    assert config["config"] == {"Entrypoint": ["/coredns"], "Cmd": ["-conf", "x"], "User": "65532:65532", "WorkingDir": "/",
                                "ExposedPorts": {"53/udp": {}}, "Env": ["PATH=/"]}
    with tarfile.open(fileobj=io.BytesIO(plain)) as rootfs:
        member = rootfs.getmember("coredns")
        assert member.mode == 0o755 and member.size == program.stat().st_size
        capability = member.pax_headers["SCHILY.xattr.security.capability"].encode()
        assert capability[:8] == (0x02000001).to_bytes(4, "little") + (1 << 10).to_bytes(4, "little") and len(capability) == 20
        assert rootfs.getmember("tmp").mode == 0o1777


def test_a_docker_archive_holds_together(tmp_path: Path, program: Path) -> None:
    write_docker_archive(tmp_path / "image.tar", SPEC, program, "amd64")
    with tarfile.open(tmp_path / "image.tar") as tar:
        (manifest,) = _json(tar, "manifest.json")
        config = _json(tar, manifest["Config"])
        layer = tar.extractfile(manifest["Layers"][0])
        assert layer is not None
        assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer.read()).hexdigest()}"]
    assert manifest["RepoTags"] == [SPEC.reference]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
