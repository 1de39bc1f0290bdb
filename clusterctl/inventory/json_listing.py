"""A large listing: JSON whose hosts' variables are read by the json library, and all stand where their host does."""

from __future__ import annotations

import json
import re
from bisect import bisect_right

from clusterctl.errors import InputError
from clusterctl.inventory.document import Node, decode, python_node
from clusterctl.inventory.dynamic import read_listing
from clusterctl.inventory.findings import Diagnostics, Place
from clusterctl.inventory.groups import Tree
from clusterctl.inventory.names import is_read

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


def read_large(tree: Tree, content: bytes, name: str, findings: Diagnostics) -> None:
    """Add the groups of a listing to a tree. Variables that mean nothing here are named in the findings, and not kept."""
    reader = _Reader(decode(content, name), name, findings)
    try:
        root = reader.entries(0, "", ("_meta", "hostvars"))
        if rest := reader.text[reader.position:].strip():
            raise json.JSONDecodeError(f"{rest[:1]!r} follows the end", "", len(reader.text) - len(rest))
    except RecursionError:
        raise InputError("is nested too deep", where=name, code="inventory.too-deep") from None
    except (ValueError, IndexError) as error:
        at = error.pos if isinstance(error, json.JSONDecodeError) else reader.position
        message = error.msg if isinstance(error, json.JSONDecodeError) else "it ends too early"
        raise InputError(f"is not JSON: {message}", where=str(reader.place(at)), code="inventory.json") from None
    assert isinstance(root.value, dict)
    read_listing(tree, root, root.value, findings)


class _Reader:
    def __init__(self, text: str, file: str, findings: Diagnostics) -> None:
        self.text, self.file, self.findings = text, file, findings
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.position = 0

    def place(self, position: int) -> Place:
        line = bisect_right(self.lines, position)
        return Place(self.file, line, position - self.lines[line - 1] + 1)

    def skip(self, mark: str = "") -> str:
        """Go to the next character that is no space; past it where it must be a certain one. Return it."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        letter = self.text[self.position]
        if mark and letter not in mark:
            raise json.JSONDecodeError(f"one of {mark} is wanted", "", self.position)
        self.position += bool(mark)
        return letter

    def entries(self, start: int, path: str, way: tuple[str, ...]) -> Node:
        """Read a map whose entries have places of their own; below ``way`` those are hosts, whose variables have none."""
        self.position = start
        self.skip("{")
        node: dict[str, Node] = {}
        begin = self.place(self.position - 1)
        ended = self.skip() == "}"
        self.position += ended
        while not ended:
            self.skip()
            key = self.place(self.position)
            name, self.position = _DECODER.raw_decode(self.text, self.position)
            self.skip(":")
            self.skip()
            inner = f"{path}.{name}" if path else str(name)
            node[str(name)] = self.value(inner, key, path == "_meta.hostvars", way if way and name == way[0] else ())
            ended = self.skip(",}") == "}"
        return Node(node, begin, path, begin)

    def value(self, path: str, key: Place, host: bool, way: tuple[str, ...]) -> Node:
        at = self.position
        if way and self.text[at] == "{":
            return self.entries(at, path, way[1:])
        value, self.position = _DECODER.raw_decode(self.text, at)
        place = self.place(at)
        if not host or not isinstance(value, dict):
            return python_node(value, place, path, key, None, self.findings)
        self.findings.ignored.update(name for name in value if not is_read(name))
        known = {name: item for name, item in value.items() if is_read(name)}
        return python_node(known, place, path, key, None, self.findings)
