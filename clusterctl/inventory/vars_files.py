"""``group_vars`` and ``host_vars`` beside an inventory: a file, or a directory of files, for each group and host."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from clusterctl.errors import InputError
from clusterctl.inventory.document import Node, parse, read_bytes
from clusterctl.inventory.findings import Diagnostics, Place
from clusterctl.inventory.vault import HEADER

_SUFFIXES = ("", ".yaml", ".yml", ".json")
_MOST_FILES = 1000
_MOST_DEPTH = 5


class VarsFiles:
    """Reads each group's and host's files at most once. ``folders``: those of the sources, of which a later one wins."""

    def __init__(self, folders: Sequence[Path], findings: Diagnostics) -> None:
        self.folders = folders
        self.findings = findings
        self._known: dict[tuple[Path, str, str], dict[str, Node]] = {}
        self._present = {(folder, kind): _entries(folder / kind) for folder in folders for kind in ("group_vars", "host_vars")}

    def of(self, kind: str, name: str) -> dict[str, Node]:
        """The variables in ``kind``/``name``; in a directory, a later file's win over an earlier one's."""
        found: dict[str, Node] = {}
        for folder in self.folders:
            found.update(self._of(folder, kind, name))
        return found

    def of_groups(self, names: Sequence[str]) -> list[dict[str, Node]]:
        """The variables of groups, from weak to strong: the folder of a later source wins over a stronger group."""
        return [self._of(folder, "group_vars", name) for folder in self.folders for name in names]

    def _of(self, folder: Path, kind: str, name: str) -> dict[str, Node]:
        if (folder, kind, name) not in self._known:
            self._known[folder, kind, name] = self._read(folder, kind, name)
        return self._known[folder, kind, name]

    def _read(self, folder: Path, kind: str, name: str) -> dict[str, Node]:
        present = [name + suffix for suffix in _SUFFIXES if name + suffix in self._present[folder, kind]]
        if len(present) > 1:
            self.findings.refuse(
                Place(str(folder / kind)), f"{' and '.join(present)} are both there, and Ansible reads only one of them",
                "keep one: a file, or a directory of files", code="inventory.vars-twice")
            return {}
        variables: dict[str, Node] = {}
        for path in _files(folder / kind / present[0]) if present else []:
            variables.update(self._read_file(path))
        return variables

    def _read_file(self, path: Path) -> dict[str, Node]:
        self.findings.files.append(str(path))
        content = read_bytes(path)
        secret = content.startswith(HEADER)
        if secret:
            opened = self.findings.decrypt(content, str(path))
            if opened is None:
                self.findings.sealed += 1
                return {}
            content = opened
        node = parse(content, str(path), self.findings, secret=secret)
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.findings.refuse(node.place, f"a map of variables is wanted, not {node.kind}")
            return {}
        return node.value


def _entries(folder: Path) -> frozenset[str]:
    try:
        return frozenset(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(folder), code="inventory.unreadable") from None


def _files(path: Path, depth: int = 0) -> list[Path]:
    """The file itself, or a directory's files in order of their names; hidden files and backups are left out."""
    if not os.path.isdir(path):
        return [path]
    if depth > _MOST_DEPTH:
        raise InputError(f"is nested more than {_MOST_DEPTH} deep", where=str(path), code="inventory.folder-depth")
    found: list[Path] = []
    for entry in (path / name for name in sorted(_entries(path))):
        if entry.name.startswith(".") or entry.name.endswith("~"):
            continue
        if os.path.isdir(entry):
            found.extend(_files(entry, depth + 1))
        elif entry.suffix in _SUFFIXES:
            found.append(entry)
    if len(found) > _MOST_FILES:
        raise InputError(f"holds more than {_MOST_FILES} files", where=str(path), code="inventory.folder-size")
    return found
