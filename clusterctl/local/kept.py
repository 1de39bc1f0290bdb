"""Answers that follow from the questions alone, kept in the user's cache: who asks nothing new need not load what makes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from clusterctl.local.storage import make_folder, user_cache, write_whole

Answer = TypeVar("Answer")


def cache_folder(name: str) -> Path | None:
    """A folder of the user's cache, None where it is not the user's alone: what is in it is believed, or run."""
    place = user_cache() / name
    with contextlib.suppress(OSError):
        make_folder(place)
        found = place.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & 0o022:
            return place
    return None


class Kept:
    """Answers of one kind, as JSON. ``source``: what they follow from beside the questions; with another one none is known."""

    MOST = 5000

    def __init__(self, name: str, source: str) -> None:
        place = cache_folder("kept")
        self._path = place / f"{name}.json" if place else None
        self._source = source
        self._known: dict[str, object] = {}
        self._used: dict[str, object] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
            kept = json.loads(self._path.read_bytes()) if self._path else {}
            if kept.get("source") == self._source:
                self._known = dict(kept["answers"])

    def get(self, question: object, kind: type[Answer], make: Callable[[], Answer]) -> Answer:
        """The answer to a question, which is told apart by its repr(). What ``make`` raises is no answer."""
        key = hashlib.sha256(repr(question).encode()).hexdigest()
        known = self._known.get(key)
        answer = known if isinstance(known, kind) else make()
        self._used[key] = answer
        return answer

    def keep(self) -> None:
        """For the next run, where there is anything new. No answer may be a secret."""
        if self._path is None or self._used.keys() <= self._known.keys():
            return
        self._known = {**(self._known if len(self._known) < self.MOST else {}), **self._used}
        with contextlib.suppress(OSError):
            write_whole(self._path, json.dumps({"source": self._source, "answers": self._known}).encode())
