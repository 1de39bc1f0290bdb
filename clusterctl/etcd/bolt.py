"""Read-only access to etcd's database file: bbolt pages and the key-value records in them.

Formats: go.etcd.io/bbolt/internal/common (page.go, meta.go) and etcd's api/mvccpb/kv.proto. No etcd program is needed, so that a
snapshot can be identified where none is installed.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

PAGE = struct.Struct("<QHHI")
META = struct.Struct("<IIIIQQQQQQ")
BRANCH = struct.Struct("<IIQ")
LEAF = struct.Struct("<IIII")
REVISION = struct.Struct(">QcQ")
MAGIC, VERSION = 0xED0CDAED, 2
IS_BRANCH, IS_LEAF = 0x01, 0x02
TOMBSTONE = ord("t")


class Damaged(ValueError):
    """The file is not a database, or its pages do not fit together."""


@dataclass(slots=True)
class Content:
    """The content of a database. ``revision``: the last; ``keys``: their number; ``values``: the latest of the requested keys."""

    revision: int = 0
    keys: int = 0
    values: dict[bytes, bytes] = field(default_factory=dict)


def read(path: Path, wanted: frozenset[bytes] = frozenset()) -> Content:
    """Read a database from end to end, once. Raises Damaged, OSError."""
    with _mapped(path) as data:
        try:
            return _content(data, wanted)
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            raise Damaged(f"its pages do not fit together: {error}") from None


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise Damaged("it is empty") from None
        with data:
            yield data


def _content(data: mmap.mmap, wanted: frozenset[bytes]) -> Content:
    size, root = _meta(data)
    found, live = Content(), set()
    buckets = {key: value for _, key, value in _pairs(data, size, root)}
    if b"key" not in buckets:
        raise Damaged("it has no bucket of keys")
    for _, revision, record in _bucket(data, size, buckets[b"key"]):
        key, value = _key_value(record)
        found.revision = max(found.revision, REVISION.unpack_from(revision)[0])
        if revision[-1] == TOMBSTONE and len(revision) > REVISION.size:
            live.discard(key)
            found.values.pop(key, None)
            continue
        live.add(key)
        if key in wanted:
            found.values[key] = value
    found.keys = len(live)
    return found


def _meta(data: mmap.mmap) -> tuple[int, int]:
    """(size of a page, page of the root bucket) of the later of the two meta pages that are whole."""
    first = META.unpack_from(data, PAGE.size)
    metas = [META.unpack_from(data, place + PAGE.size) for place in (0, first[2]) if place + PAGE.size + META.size <= len(data)]
    whole = [meta for meta in metas if meta[:2] == (MAGIC, VERSION)]
    if not whole:
        raise Damaged("it is no database of etcd")
    meta = max(whole, key=lambda one: one[8])
    return meta[2], meta[4]


def _bucket(data: mmap.mmap, size: int, header: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The pairs of a bucket: pages of its own, or one page inside its header where it is small."""
    root, _ = struct.unpack_from("<QQ", header)
    yield from _pairs(data, size, root) if root else _leaf(header, 16)


def _pairs(data: mmap.mmap, size: int, root: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(flags, key, value) below a page, in the order of the keys."""
    left, seen = [root], set()
    while left:
        page = left.pop()
        _, flags, count, _ = PAGE.unpack_from(data, page * size)
        if page in seen or not flags & (IS_BRANCH | IS_LEAF):
            raise Damaged(f"page {page} is not the branch or leaf that it should be")
        seen.add(page)
        if flags & IS_LEAF:
            yield from _leaf(data, page * size)
            continue
        places = range(page * size + PAGE.size, page * size + PAGE.size + count * BRANCH.size, BRANCH.size)
        left += [BRANCH.unpack_from(data, place)[2] for place in reversed(places)]


def _leaf(data: mmap.mmap | bytes, start: int) -> Iterator[tuple[int, bytes, bytes]]:
    _, _, count, _ = PAGE.unpack_from(data, start)
    for index in range(count):
        place = start + PAGE.size + index * LEAF.size
        flags, offset, key, value = LEAF.unpack_from(data, place)
        begin = place + offset
        if begin + key + value > len(data):
            raise Damaged("a record reaches beyond the end")
        yield flags, data[begin:begin + key], data[begin + key:begin + key + value]


def _key_value(record: bytes) -> tuple[bytes, bytes]:
    """Key and value of a ``mvccpb.KeyValue``: fields 1 and 5, of bytes; the others are numbers."""
    key = value = b""
    place = 0
    while place < len(record):
        tag = record[place]
        length, place = _varint(record, place + 1)
        if tag & 7 == 2:
            if tag >> 3 == 1:
                key = record[place:place + length]
            elif tag >> 3 == 5:
                value = record[place:place + length]
            place += length
        elif tag & 7:
            raise Damaged("a record is no key and value")
    return key, value


def _varint(record: bytes, place: int) -> tuple[int, int]:
    """A number and the place after it."""
    number = shift = 0
    while True:
        byte = record[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place
