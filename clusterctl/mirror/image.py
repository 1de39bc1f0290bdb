"""Images of one static program, written as an OCI archive or as ``docker save`` writes one."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clusterctl.artifacts.pack import add_bytes, add_file, folder_entry

OCI = "application/vnd.oci.image"
LEVEL = 9
"""zstd's: made once, sent to every machine, and unpacked there several times faster than gzip."""
NET_BIND_SERVICE = {"SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}
"""The file capability cap_net_bind_service=ep: an ordinary user binds port 53 with it."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """The description of an image. ``reference`` is its full name, as manifests write it."""

    reference: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()
    user: str = ""
    ports: tuple[str, ...] = ()
    bind_low_ports: bool = False
    temporary_folder: bool = True

    def config(self, arch: str, diff_id: str) -> bytes:
        """The image's configuration, for one layer."""
        body: dict[str, Any] = {"Entrypoint": list(self.entrypoint), "Env": ["PATH=/"], "WorkingDir": "/"}
        if self.command:
            body["Cmd"] = list(self.command)
        if self.user:
            body["User"] = self.user
        if self.ports:
            body["ExposedPorts"] = {port: {} for port in self.ports}
        return _json({"architecture": arch, "os": "linux", "config": body, "created": "1970-01-01T00:00:00Z",
                      "rootfs": {"type": "layers", "diff_ids": [diff_id]},
                      "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "clusterctl mirror"}]})


def write_oci_archive(path: Path, spec: ImageSpec, program: Path, arch: str) -> None:
    """Write an OCI image layout as one tar; ``ctr images import`` gives the image exactly ``spec.reference``."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain, packed = _layer(Path(folder), spec, program)
        config = spec.config(arch, _digest(plain))
        manifest = _json({
            "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "config": _described(config, f"{OCI}.config.v1+json"),
            "layers": [{"mediaType": f"{OCI}.layer.v1.tar+zstd", "digest": _digest(packed), "size": packed.stat().st_size}]})
        kept = Path(folder) / "config"
        kept.write_bytes(config)
        write_layout(path, spec.reference, arch, manifest, f"{OCI}.manifest.v1+json", [
            (hashlib.sha256(config).hexdigest(), kept), (_digest(packed).removeprefix("sha256:"), packed)])


def write_layout(path: Path, reference: str, arch: str, manifest: bytes, media_type: str,
                 blobs: Sequence[tuple[str, Path]]) -> None:
    """Write an OCI image layout as one tar. ``blobs``: configuration and layers with their sha256."""
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference.rsplit(":", 1)[1]}
    index = _json({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": [
        {**_described(manifest, media_type), "annotations": names, "platform": {"architecture": arch, "os": "linux"}}]})
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        add_bytes(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        add_bytes(tar, "index.json", index)
        tar.addfile(folder_entry("blobs/"))
        tar.addfile(folder_entry("blobs/sha256/"))
        add_bytes(tar, _blob(hashlib.sha256(manifest).hexdigest()), manifest)
        for sha256, blob in blobs:
            blob.chmod(0o644)
            add_file(tar, _blob(sha256), blob)


def write_docker_archive(path: Path, spec: ImageSpec, program: Path, arch: str) -> None:
    """Write an image as ``docker save`` does: ``manifest.json``, a configuration and a plain layer."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        plain, _ = _layer(Path(folder), spec, program)
        config = spec.config(arch, _digest(plain))
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
            add_bytes(tar, name, config)
            plain.chmod(0o644)
            add_file(tar, "layer.tar", plain)
            add_bytes(tar, "manifest.json", _json([{"Config": name, "RepoTags": [spec.reference], "Layers": ["layer.tar"]}]))


def _layer(folder: Path, spec: ImageSpec, program: Path) -> tuple[Path, Path]:
    """The image's one layer, plain and compressed."""
    import zstandard

    plain, packed = folder / "layer.tar", folder / "layer.tar.zst"
    with tarfile.open(plain, "w", format=tarfile.PAX_FORMAT) as tar:
        if spec.temporary_folder:
            tar.addfile(folder_entry("tmp/", 0o1777))
        add_file(tar, spec.entrypoint[0].lstrip("/"), program, NET_BIND_SERVICE if spec.bind_low_ports else None)
    with plain.open("rb") as source, packed.open("wb") as target:
        zstandard.ZstdCompressor(level=LEVEL, threads=-1).copy_stream(source, target, size=plain.stat().st_size)
    return plain, packed


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _described(content: bytes, media_type: str) -> Mapping[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
