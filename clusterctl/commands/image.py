"""``image load``: an image archive onto all nodes, so that an app that was built here runs without a registry."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterctl.cluster.model import Host
from clusterctl.engine import fleet
from clusterctl.engine.engine import Engine
from clusterctl.errors import InputError, Stopped
from clusterctl.resources.binary import ROOT
from clusterctl.session.session import Session
from clusterctl.shell import Script, step_result
from clusterctl.ssh.transport import ConnectionLost

MOST_MANIFEST = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive as ``docker save`` or buildah writes it. ``names``: the images in it."""

    path: Path
    sha256: str
    names: tuple[str, ...]


def read(path: Path) -> Archive:
    """Check an archive and read its images' names. Raises InputError."""
    try:
        with tarfile.open(path) as archive:
            members = {member.name.removeprefix("./") for member in archive}
            names = _names(archive, members)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = str(error).splitlines()[0].rstrip(":") if str(error) else type(error).__name__
        raise InputError(f"not an image archive: {why}", where=str(path),
                         hint="make one with: docker save -o FILE IMAGE", code="image.malformed") from None
    if not names:
        raise InputError(
            "the image in it has no name",
            where=str(path),
            hint="save it by its name and not by its id: docker save -o FILE NAME:TAG",
            code="image.no-name",
        )
    return Archive(path, digest, names)


def _names(archive: tarfile.TarFile, members: set[str]) -> tuple[str, ...]:
    if "manifest.json" in members:
        entries = json.loads(_member(archive, "manifest.json"))
        return tuple(name for entry in entries for name in entry.get("RepoTags") or ())
    index = json.loads(_member(archive, "index.json"))
    notes = [manifest.get("annotations", {}) for manifest in index["manifests"]]
    names = (note.get("io.containerd.image.name") or note.get("org.opencontainers.image.ref.name") for note in notes)
    return tuple(name for name in names if name)


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(name)
    if stream is None:
        raise ValueError(f"{name} is not a file")
    return stream.read(MOST_MANIFEST)


def load(session: Session, archive: Archive, hosts: Sequence[Host]) -> dict[str, str]:
    """Send it to all nodes, a few at a time, and import it; what containerd said, by host. Raises Problems of all that failed."""
    nodes = [host for host in hosts if host.is_node]
    return dict(
        fleet.each(nodes, lambda host: _import(session.engine, host, archive), limit=min(4, session.options.forks)).or_raise()
    )


def _import(engine: Engine, host: Host, archive: Archive) -> str:
    program = Script(
        steps=(("put_image", archive.sha256, "image"),),
        blobs={"image": archive.path},
        probes=(("command", f"{ROOT}/bin/ctr --namespace k8s.io images ls -q"),),
    )
    images: list[str] = []
    try:
        for words in engine.transports[host.name].stream(program):
            if words[0] == "failed":
                raise Stopped(step_result(words).output, where=f"{host.name}: image load", code="image.not-loaded",
                              hint="clusterctl status")
            if words[0] == "output":
                images.append(words[1])
    except ConnectionLost as error:
        raise error.stopped(host) from None
    return ", ".join(image for image in images if any(image.endswith(name) for name in archive.names))
