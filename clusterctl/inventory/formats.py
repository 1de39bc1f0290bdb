"""From sources to one tree of groups: the format of each file, as Ansible decides it."""

from __future__ import annotations

import sys
from pathlib import Path

from clusterctl.errors import InputError
from clusterctl.inventory import vault
from clusterctl.inventory.document import MOST_BYTES, MOST_OF_A_LISTING, decode, parse, read_bytes, too_large
from clusterctl.inventory.dynamic import is_program, read_listing, run_program
from clusterctl.inventory.findings import Diagnostics, Place
from clusterctl.inventory.groups import Tree, read_groups, settle
from clusterctl.inventory.ini import looks_like_ini, read_ini
from clusterctl.inventory.json_listing import read_large
from clusterctl.inventory.names import GROUP_KEYS, ROLE_GROUPS
from clusterctl.inventory.sources import STDIN, Sources, is_pipe, shown

_LARGE = 64 * 1024
"""Bytes from which on a listing is read without the place of each variable."""


def read_tree(sources: Sources, findings: Diagnostics) -> tuple[Tree, Place]:
    """Return the groups of all sources, and where the first one begins. Raises InputError."""
    files = sources.files()
    start = Place(shown(files[0]))
    tree = Tree()
    for name in ("all", "ungrouped"):
        tree.group(name, start)
    empty = []
    for path in files:
        if path not in sources.paths and _is_foreign(path, sources):
            findings.note(f"{path} is no inventory, and is not read")
            empty.append(path)
            continue
        findings.files.append(shown(path))
        if not _read(path, sources, tree, findings):
            empty.append(path)
    if empty == files:
        raise InputError("is empty", where=start.file, hint="make one with: clusterctl init HOST...",
                         code="inventory.empty")
    settle(tree, findings)
    return tree, start


def _is_foreign(path: Path, sources: Sources) -> bool:
    """Whether a file in a folder is none of an inventory, of which Ansible only warns: binary, or YAML without groups."""
    if is_program(path):
        return False
    content = _content(path, sources)
    if content.startswith(vault.HEADER):
        return False
    try:
        text = content.decode("utf-8-sig")
        root = None if b'"_meta"' in content or looks_like_ini(text) else parse(content, str(path), Diagnostics())
    except UnicodeDecodeError:
        return True
    except InputError:
        return False  # It is reported where the file is read.
    if root is None or not isinstance(root.value, dict):
        return root is not None
    used = {key for one in root.value.values() if isinstance(one.value, dict) for key in one.value}
    empty = all(one.value in (None, {}) for one in root.value.values())
    return not empty and not used & {*GROUP_KEYS} and not root.value.keys() & {"plugin", "cluster", "all", *ROLE_GROUPS}


def _read(path: Path, sources: Sources, tree: Tree, findings: Diagnostics) -> bool:
    """Read one file; False where nothing is in it."""
    name = shown(path)
    if path != STDIN and path not in sources.instead and is_program(path):
        name = f"{path} --list"
        content = run_program(path)
        if not content.lstrip().startswith(b"{"):
            raise InputError("printed no JSON object", where=name, hint="run it by hand and look at its output",
                             code="inventory.program-output")
        return _read_json(content, name, tree, findings, program=True)
    content = vault.opened(_content(path, sources), name, findings)
    if content.lstrip().startswith(b"{"):
        return _read_json(content, name, tree, findings)
    if looks_like_ini(decode(content, name)):
        read_ini(tree, content, name, findings)
        return True
    root = parse(content, name, findings)
    if root is not None:
        read_groups(tree, root, findings)
    return root is not None


def _content(path: Path, sources: Sources) -> bytes:
    """Return a file's content, of at most 1 MiB; 64 MiB where it is a listing."""
    content = sources.instead.get(path, sources.once.get(path))
    if content is None:
        content = sys.stdin.buffer.read(MOST_OF_A_LISTING + 1) if path == STDIN else read_bytes(path, listing=True)
        if is_pipe(path):
            sources.once[path] = content
    most = MOST_OF_A_LISTING if content.lstrip()[:1] == b"{" and b'"_meta"' in content else MOST_BYTES
    if len(content) > most:
        raise too_large(shown(path), most)
    return content


def _read_json(content: bytes, name: str, tree: Tree, findings: Diagnostics, *, program: bool = False) -> bool:
    """Read a map in braces: a listing by ``ansible-inventory`` or a program where it has ``_meta``, else groups."""
    if len(content) > _LARGE and (program or b'"_meta"' in content):
        read_large(tree, content, name, findings)
        return True
    root = parse(content, name, findings)
    if root is None or not isinstance(root.value, dict):
        raise InputError("printed no JSON object" if program else "a map is wanted", where=name, code="inventory.program-output")
    if program or "_meta" in root.value:
        read_listing(tree, root, root.value, findings)
    else:
        read_groups(tree, root, findings)
    return True
