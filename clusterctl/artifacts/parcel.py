"""Parcels: the programs of an artifact without the rest of its archive, compressed once and kept in the cache."""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from clusterctl.artifacts.pack import file_entry
from clusterctl.errors import IntegrityError
from clusterctl.local.storage import whole

LEVEL = 3
"""zstd's own default: programs shrink to a third at several hundred MB a second."""
_HINT = "its sha256 is the pinned one: is another file pinned by mistake? see cluster.artifacts.pins"


@dataclass(frozen=True, slots=True)
class Parcel:
    """A ``tar.zst`` of programs, and ``sums``: the digest of each as ``sha256sum --binary`` prints it, in the order of names."""

    path: Path
    sums: bytes


def write_parcel(source: Path, target: Path, programs: Mapping[str, str], *, archive: bool) -> bytes:
    """Write the programs of a verified artifact to ``target``, whole or not at all; returns their sums.

    ``programs``: what each is called in the archive -> on machines; an artifact that is no archive is its only program.
    Raises IntegrityError where the archive does not hold them as regular files, and OSError.
    """
    import zstandard

    sums: dict[str, str] = {}
    compressor = zstandard.ZstdCompressor(level=LEVEL, threads=-1)
    try:
        with (whole(target, 0o644) as out, compressor.stream_writer(out, closefd=False) as packed,
              tarfile.open(fileobj=packed, mode="w|") as tar):
            for name, size, stream in _programs(source, programs, archive=archive):
                hashed = _Hashed(stream)
                tar.addfile(file_entry(name, size), hashed)
                sums[name] = hashed.digest.hexdigest()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise IntegrityError(f"is no whole archive: {error}", where=str(source), code="artifact.archive-damaged",
                             hint=_HINT) from None
    return "".join(f"{sums[name]} *{name}\n" for name in sorted(sums, key=os.fsencode)).encode()


def _programs(source: Path, programs: Mapping[str, str], *, archive: bool) -> Iterator[tuple[str, int, IO[bytes]]]:
    """(name on machines, size, content) of each, in the order that they are found in."""
    if not archive:
        with source.open("rb") as stream:
            yield next(iter(programs.values())), source.stat().st_size, stream
        return
    missing = dict(programs)
    with tarfile.open(source, "r|*") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() and member.name in missing else None
            if content is not None:
                yield missing.pop(member.name), member.size, content
    if missing:
        raise IntegrityError(f"holds no file {min(missing)}", where=str(source), hint=_HINT, code="artifact.archive-incomplete")


class _Hashed:
    """A stream whose bytes are hashed as they are read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self.digest.update(piece)
        return piece
