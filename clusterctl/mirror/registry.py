"""Images from a registry that answers without a login, as registry.k8s.io, as OCI archives.

Source: the OCI distribution specification.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clusterctl.artifacts.catalog import Pin
from clusterctl.artifacts.download import Timeouts, obtain, read_small
from clusterctl.errors import InputError, IntegrityError
from clusterctl.mirror.image import write_layout

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
SMALL = 4 << 20
"""The largest manifest that a registry must take, in bytes."""


def pull(reference: str, arch: str, target: Path, tick: Callable[[], None], patience: Timeouts | None = None) -> str:
    """Write the image for linux/ARCH to ``target``; return the digest of its manifest, ``sha256:...``.

    Raises:
        IntegrityError: a manifest or a layer does not match its digest, or is no manifest (``artifact.mismatch``).
        InputError: there is no image for this architecture (``artifact.not-released``). Unreachable.
    """
    wait = patience or Timeouts()
    host, _, rest = reference.partition("/")
    name, _, tag = rest.rpartition(":")
    base = f"https://{host}/v2/{name}"
    content = _manifest(f"{base}/manifests/{tag}", wait)
    found = _parse(content, reference)
    if found.get("mediaType") in INDEXES or "manifests" in found:
        digest = _for_arch(found, arch, reference)
        content = _manifest(f"{base}/manifests/{digest}", wait)
        if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
            raise IntegrityError(f"its manifest is not {digest}", where=reference, code="artifact.mismatch",
                                 hint="does a proxy answer in place of the registry?")
        found = _parse(content, reference)
    blobs = []
    for number, entry in enumerate((found["config"], *found["layers"])):
        part = target.with_name(f"{target.name}.{number}")
        part.write_bytes(b"")
        sha256 = str(entry["digest"]).removeprefix("sha256:")
        obtain(f"{base}/blobs/{entry['digest']}", part, Pin(sha256, int(entry["size"])), wait, lambda done, total: tick())
        blobs.append((sha256, part))
    write_layout(target, reference, arch, content, str(found.get("mediaType", MANIFESTS[0])), blobs)
    for _, part in blobs:
        part.unlink()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _manifest(url: str, patience: Timeouts) -> bytes:
    return read_small(url, SMALL, patience, {"Accept": ", ".join((*INDEXES, *MANIFESTS))})


def _parse(content: bytes, reference: str) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not ({"manifests"} <= found.keys() or {"config", "layers"} <= found.keys()):
        raise IntegrityError(f"the registry's answer is no manifest; it begins with {content[:40].decode(errors='replace')!r}",
                             where=reference, code="artifact.mismatch", hint="does a login page answer in place of the registry?")
    return found


def _for_arch(index: Mapping[str, Any], arch: str, reference: str) -> str:
    for entry in index["manifests"]:
        platform = entry.get("platform") or {}
        if (platform.get("os"), platform.get("architecture")) == ("linux", arch):
            return str(entry["digest"])
    raise InputError(f"there is no image for linux/{arch}", where=reference, code="artifact.not-released",
                     hint="another version of it: cluster.versions")
