"""The sources of ``-i``: files, folders and stdin, in order; a later one wins."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterctl.errors import InputError
from clusterctl.inventory.vault import Passwords

STDIN = Path("-")
_MOST_DEPTH = 5
_MOST_FILES = 1000
# Ansible's INVENTORY_IGNORE_EXTS, what it ignores in any case, files of clusterctl, and folders that kubespray makes.
_IGNORED = re.compile(r"\..*|artifacts|credentials|patches|host_vars|group_vars|vars_plugins|clusterctl\.lock|"
                      r".*(\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.cfg|\.retry)", re.DOTALL)


def shown(path: Path) -> str:
    """How messages name a source."""
    return "stdin" if path == STDIN else str(path)


def is_pipe(path: Path) -> bool:
    """Whether a source can be read once: stdin, or what a shell gives by ``<(...)``."""
    return path == STDIN or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


@dataclass(frozen=True)
class Sources:
    """Inventories that are read as one.

    ``passwords``: those of ansible-vault; ``instead``: contents in place of files'; ``once``: those of stdin and pipes.
    """

    paths: tuple[Path, ...]
    passwords: Passwords = field(default_factory=Passwords)
    instead: Mapping[Path, bytes] = field(default_factory=dict)
    once: dict[Path, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Path | Sources) -> Sources:
        return given if isinstance(given, Sources) else cls((given,))

    def __str__(self) -> str:
        return ", ".join(map(shown, self.paths))

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folder of each source: its group_vars and host_vars are there, and of the first one also the state folder."""
        return tuple(Path() if is_pipe(path) else path if os.path.isdir(path) else path.parent for path in self.paths)

    def files(self) -> list[Path]:
        """Return all files, those of folders in the order of their names. Raises InputError."""
        return [file for path in self.paths for file in _files(path)]


def _files(path: Path) -> Iterator[Path]:
    if path == STDIN or not os.path.isdir(path):
        yield path
        return
    found = list(_inside(path, 0))
    if not found:
        raise InputError("is a folder without inventories", where=str(path), code="inventory.folder-empty",
                         hint="files whose names begin with '.' or end in .md, .txt, .cfg, .bak ... are not read")
    yield from found


def _inside(folder: Path, depth: int) -> Iterator[Path]:
    if depth > _MOST_DEPTH:
        raise InputError(f"is nested more than {_MOST_DEPTH} deep", where=str(folder), code="inventory.folder-depth")
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(folder), code="inventory.unreadable") from None
    if len(names) > _MOST_FILES:
        raise InputError(f"holds more than {_MOST_FILES} files", where=str(folder), code="inventory.folder-size")
    for name in names:
        if not _IGNORED.fullmatch(name):
            path = folder / name
            yield from _inside(path, depth + 1) if path.is_dir() else (path,)
