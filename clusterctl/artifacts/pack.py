"""Files packed as upstream packs them, the same bytes each time: no times, no owners, members in order."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def folder_entry(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    """The member for a folder."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry


def file_entry(name: str, size: int, mode: int = 0o755) -> tarfile.TarInfo:
    """The member for a file."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size, mode
    return entry


def add_file(tar: tarfile.TarFile, name: str, source: Path, pax: Mapping[str, str] | None = None) -> None:
    """Add a program to an archive under a name."""
    entry = file_entry(name, source.stat().st_size, 0o755 if source.stat().st_mode & 0o100 else 0o644)
    entry.pax_headers = dict(pax or {})
    with source.open("rb") as stream:
        tar.addfile(entry, stream)


def add_bytes(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Add a file of this content to an archive."""
    tar.addfile(file_entry(name, len(content), mode), io.BytesIO(content))


def write_archive(path: Path, members: Mapping[str, Path]) -> None:
    """Write a ``tar.gz`` of these files under these names; the folders that they lie in come first."""
    folders = sorted({name.rsplit("/", 1)[0] for name in members if "/" in name and not name.startswith("./")})
    if any(name.startswith("./") for name in members):
        folders.insert(0, ".")
    # The header of the compressed data has neither name nor time.
    with (path.open("wb") as raw, gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
          tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar):
        for folder in folders:
            tar.addfile(folder_entry(f"{folder}/"))
        for name, source in members.items():
            add_file(tar, name, source)
