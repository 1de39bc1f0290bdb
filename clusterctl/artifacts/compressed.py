"""Compressed copies of what travels to many machines: made once, kept in the cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LEVEL = 3
"""zstd's own default: programs shrink to a third at several hundred MB a second."""


def compress(source: Path, target: Path) -> None:
    """Write ``source`` to ``target`` as one zstd frame, whole or not at all, on all processors. Raises OSError."""
    import zstandard

    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out, source.open("rb") as stream:
            zstandard.ZstdCompressor(level=LEVEL, threads=-1).copy_stream(stream, out, size=source.stat().st_size)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
