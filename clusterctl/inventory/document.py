"""YAML with positions: a restricted reading of an untrusted file.

PyYAML's own loading is not used, for its habits: the last of two equal keys wins, ``1.30`` becomes 1.3, ``0644`` 420,
``22:30`` 1350 and ``no`` False, aliases multiply and deep nesting ends the interpreter. Its parser's events are.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from clusterctl.errors import InputError
from clusterctl.inventory.findings import Diagnostics, Place, looks_secret, without_credentials

MOST_BYTES = 1024 * 1024
MOST_OF_A_LISTING = 64 * 1024 * 1024
MOST_DEPTH = 20
MOST_NODES = 1_000_000
"""Values of a document with each alias written out."""
_TAG = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
_TRUE = frozenset({"yes", "true", "on"})
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{0,18}([eE][-+]?[0-9]{1,3})?")
_BIDI = "\u202a-\u202e\u2066-\u2069"  # may make a line look like another one
_FORBIDDEN = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f{_BIDI}\ufffe\uffff\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|.)", re.IGNORECASE | re.DOTALL)
_ORDINARY_TAGS = frozenset((*(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq")), "!unsafe"))
_VAULT_TAGS = frozenset(("!vault", "!vault-encrypted"))
VAULT_HINT = "give --vault-password-file FILE, --vault-id LABEL@FILE or --ask-vault-pass, or write the value itself"

Scalar = str | int | float | bool | None


@dataclass(slots=True)
class Node:
    """A value, where it stands, and its path in words.

    ``odd``: YAML 1.1 takes the text for something else; ``sealed``: encrypted, and not known; ``secret``: it was decrypted;
    ``word``: it stands in a line of INI that is split into words, which loses quotes.
    """

    value: Scalar | list[Node] | dict[str, Node]
    place: Place
    path: str
    key: Place
    written: str = ""
    odd: bool = False
    sealed: bool = False
    secret: bool = False
    word: bool = False

    @property
    def shown(self) -> str:
        """The value as people may see it in a message, without the user and password of a URL."""
        if self.secret or (looks_secret(self.path.rpartition(".")[2]) and not isinstance(self.value, bool)):
            return "(hidden)"
        if isinstance(self.value, dict | list):
            return "a map" if isinstance(self.value, dict) else "a list"
        text = without_credentials(self.written)
        text = text if len(text) <= 80 else text[:77] + "..."
        return repr(text) if isinstance(self.value, str) and not self.odd else text or "nothing"

    @property
    def kind(self) -> str:
        """The YAML type of the value, in words."""
        if self.odd:
            return "something other than text"
        names = {dict: "a map", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
        return names.get(type(self.value), "nothing")


def leaves(node: Node) -> Iterator[Node]:
    """Yield the values of a tree that are neither maps nor lists."""
    if isinstance(node.value, dict | list):
        for item in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from leaves(item)
    else:
        yield node


def decrypted(node: Node | None) -> list[Node]:
    """Return the texts and numbers of a tree that ansible-vault decrypted."""
    return [leaf for leaf in (leaves(node) if node else ()) if leaf.secret and not isinstance(leaf.value, bool | None)]


def bare(node: Node) -> object:
    """Return the values of a tree without their positions."""
    if isinstance(node.value, dict):
        return {key: bare(item) for key, item in node.value.items()}
    return [bare(item) for item in node.value] if isinstance(node.value, list) else node.value


def python_node(value: object, place: Place, path: str, key: Place, written: str | None = None,
                findings: Diagnostics | None = None) -> Node:
    """Return a Python value as a tree; all of it stands at one place. ``findings``: it is from a listing, and may have marks."""
    if written is None:
        written = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    if isinstance(value, dict):
        entries = {str(name): python_node(item, place, f"{path}.{name}", place, None, findings) for name, item in value.items()}
        node = Node(entries, place, path, key)
        return unmarked(node, findings) if findings else node
    if isinstance(value, list | tuple | set):
        items = [python_node(item, place, f"{path}[{number}]", place, None, findings) for number, item in enumerate(value)]
        return Node(items, place, path, key)
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return Node(value, place, path, key, written)
    return Node(written, place, path, key, written, odd=True)


def unmarked(node: Node, findings: Diagnostics) -> Node:
    """Return the text of a map that ansible-inventory's JSON marks (ansible/parsing/ajson.py), any other node as it is."""
    match node.value:
        case {"__ansible_vault": Node(value=str(text))}:
            return vaulted(text, node, findings)
        case {"__ansible_unsafe": Node(value=str()) as inner}:
            return replace(inner, path=node.path, key=node.key)
    return node


def vaulted(text: str, node: Node, findings: Diagnostics) -> Node:
    """Return an encrypted value in the place of ``node``: decrypted where a password is known, else sealed."""
    opened = findings.decrypt(text.encode(), f"{node.place}: {node.path}")
    if opened is None:
        findings.sealed += 1
        return Node("", node.place, node.path, node.key, "", sealed=True, secret=True)
    text = decode(opened, str(node.place))
    return Node(text, node.place, node.path, node.key, text, secret=True)


def read_bytes(path: Path, *, listing: bool = False) -> bytes:
    """A file's content; more than 1 MiB is refused without reading it, and so is a FIFO, which may never be written to.

    ``listing``: up to 64 MiB where it begins as JSON does.
    """
    try:
        # Those in /dev and /proc are a shell's own: -i <(...)
        if stat.S_ISFIFO(path.stat().st_mode) and not str(path).startswith(("/dev/", "/proc/")):
            raise InputError("is a FIFO; a regular file is wanted", where=str(path), code="inventory.not-a-file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
            if listing and content.lstrip()[:1] == b"{":
                content += file.read(MOST_OF_A_LISTING + 1 - len(content))
                return content
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=str(path), hint="is its path right, and may you read it?",
                         code="inventory.unreadable") from None
    if len(content) > MOST_BYTES:
        raise too_large(str(path), MOST_BYTES)
    return content


def too_large(where: str, most: int) -> InputError:
    return InputError(f"is larger than {most // 2**20} MiB, and thus no inventory", where=where, code="inventory.too-large",
                      hint="the JSON of ansible-inventory --list may have 64 MiB" if most == MOST_BYTES else "")


def parse(content: bytes, file: str, findings: Diagnostics, root: str = "", *, secret: bool = False) -> Node | None:
    """The tree of a document, or None where it is empty; syntax errors are raised, other problems collected.

    ``secret``: the document was decrypted.
    """
    text = _joined(decode(content, file))
    try:
        return _Builder(yaml.parse(text, Loader=_LOADER), file, findings, secret).document(root)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, file) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is not YAML: {str(error).splitlines()[0]}", where=file, code="inventory.not-yaml") from None


def decode(content: bytes, file: str) -> str:
    """Return the text of a file. Raises InputError where it is no UTF-8, or holds a control character."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_of(content[:error.start].decode("utf-8", "replace"), file)
        raise InputError(f"byte 0x{content[error.start]:02x} is not UTF-8", where=str(place),
                         hint="save the file as UTF-8", code="inventory.not-utf8") from None
    if found := _FORBIDDEN.search(text):
        place = _place_of(text[:found.start()], file)
        raise InputError(f"character U+{ord(found.group()):04X} is not allowed", where=str(place),
                         code="inventory.control-character")
    return text


def _joined(text: str) -> str:
    """JSON with each pair of escapes for a character beyond U+FFFF as that character: YAML does not know such pairs."""
    def join(found: re.Match[str]) -> str:
        return bytes.fromhex(found[1] + found[2]).decode("utf-16-be") if found[1] else found[0]

    if (joined := _ESCAPE.sub(join, text)) != text:
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(text)
            return joined
    return text


def _place_of(before: str, file: str) -> Place:
    return Place(file, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


def _syntax_error(error: yaml.MarkedYAMLError, text: str, file: str) -> InputError:
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    lines = text.split("\n")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if "\t" in line[:len(line) - len(line.lstrip())]:
        return InputError("is indented with a tab; YAML wants spaces", where=str(place), code="inventory.not-yaml")
    problem = error.problem or "cannot be parsed"
    if "nesting depth" in problem:
        # libyaml has a limit of its own, and comes to it first where a document is one long line.
        return InputError(f"is nested more than {MOST_DEPTH} deep", where=str(place), code="inventory.too-deep")
    return InputError(f"is not YAML: {problem}" + (f" ({error.context})" if error.context else ""), where=str(place),
                      code="inventory.not-yaml")


class _Builder:
    """Turns parser events into nodes. The node of an alias is shared, and counted at each use."""

    def __init__(self, events: Iterator[Any], file: str, findings: Diagnostics, secret: bool) -> None:
        self.events, self.file, self.findings, self.secret = events, file, findings, secret
        self.anchors: dict[str, tuple[Node, int, int] | None] = {}
        """Node, number of nodes in it, and levels of it; None while it is being read."""
        self.count = 0
        self.deepest = 0

    def document(self, root: str) -> Node | None:
        result = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if result is not None:
                    raise InputError("holds a second document; one is wanted", where=str(self.place(event)),
                                     code="inventory.several-documents")
                result = self.node(next(self.events), root, 0, None)
        return None if result is not None and result.value is None else result

    def place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def node(self, event: Any, path: str, depth: int, key: Place | None) -> Node:
        if event.__class__ is yaml.AliasEvent:
            return self.alias(event, path, depth, key)
        if event.anchor is None:
            return self.plain(event, path, depth, key)
        before, deepest, self.deepest = self.count, self.deepest, depth
        self.anchors[event.anchor] = None
        node = self.plain(event, path, depth, key)
        self.anchors[event.anchor] = node, self.count - before, self.deepest - depth
        self.deepest = max(self.deepest, deepest)
        return node

    def alias(self, event: Any, path: str, depth: int, key: Place | None) -> Node:
        """Return the node of an alias, at the place of the alias."""
        place = self.place(event)
        if event.anchor not in self.anchors:
            raise InputError(f"*{event.anchor}: nothing before it is called &{event.anchor}", where=str(place),
                             code="inventory.alias-unknown")
        known = self.anchors[event.anchor]
        if known is None:
            raise InputError(f"*{event.anchor}: is a part of what it stands for", where=str(place),
                             code="inventory.alias-recursive")
        node, count, levels = known
        self.reach(depth + levels, place, count)
        return replace(node, path=path, key=key or place)

    def reach(self, depth: int, place: Place, count: int = 1) -> None:
        """Count nodes, and how deep they are. Raises InputError beyond the limits."""
        self.count += count
        self.deepest = max(self.deepest, depth)
        if depth > MOST_DEPTH:
            raise InputError(f"is nested more than {MOST_DEPTH} deep", where=str(place), code="inventory.too-deep")
        if self.count > MOST_NODES:
            raise InputError(f"holds more than {MOST_NODES} values with its aliases written out", where=str(place),
                             code="inventory.aliases-too-many")

    def plain(self, event: Any, path: str, depth: int, key: Place | None) -> Node:
        place = self.place(event)
        self.reach(depth, place)
        if event.tag is not None:
            if event.tag in _VAULT_TAGS and isinstance(event, yaml.ScalarEvent):
                return vaulted(event.value, Node(None, place, path, key or place), self.findings)
            self.check_tag(event, path, place)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path, place, key or place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path, depth, place, key or place)
        return self.mapping(path, depth, place, key or place)

    def check_tag(self, event: Any, path: str, place: Place) -> None:
        if event.tag == "!" or event.tag in _ORDINARY_TAGS:
            return
        tag = event.tag.replace(_TAG, "!!")
        self.findings.refuse(place, f"{path}: the tag {tag} is refused", "write a plain value", code="inventory.tag")

    def scalar(self, event: Any, path: str, place: Place, key: Place) -> Node:
        if found := _FORBIDDEN.search(event.value):
            self.findings.refuse(place, f"{path}: character U+{ord(found.group()):04X} is not allowed",
                                 code="inventory.control-character")
        plain = not event.style and event.tag in (None, _TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null")
        value, odd = _resolve(event.value) if plain else (event.value, False)
        return Node(value, place, path, key, event.value, odd, secret=self.secret)

    def sequence(self, path: str, depth: int, place: Place, key: Place) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, f"{path}[{len(items)}]", depth + 1, None))
        return Node(items, place, path, key, secret=self.secret)

    def mapping(self, path: str, depth: int, place: Place, key: Place) -> Node:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name, where = self.key(event, path)
            if name == "<<" and not event.style:
                merged |= self.merged(self.node(next(self.events), path, depth + 1, where), where)
                continue
            inner = f"{path}.{name}" if path else name
            value = self.node(next(self.events), inner, depth + 1, where)
            if name in entries:
                self.findings.refuse(where, f"{inner}: this key is here twice, first in line {entries[name].key.line}")
            else:
                entries[name] = value
        return unmarked(Node(merged | entries if merged else entries, place, path, key, secret=self.secret), self.findings)

    def merged(self, node: Node, place: Place) -> dict[str, Node]:
        """The entries that a merge key brings: of several maps the first wins."""
        maps = node.value if isinstance(node.value, list) else [node]
        found: dict[str, Node] = {}
        for one in reversed(maps):
            if isinstance(one.value, dict):
                found |= one.value
                self.reach(0, place, len(one.value))
            else:
                self.findings.refuse(place, f"{node.path}: << is for a map or a list of maps, not for {one.kind}",
                                     code="inventory.merge-key")
        return found

    def key(self, event: Any, path: str) -> tuple[str, Place]:
        place = self.place(event)
        if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
            raise InputError(f"{path or 'document'}: a key must be plain text", where=str(place), code="inventory.key")
        if found := _FORBIDDEN.search(event.value):
            raise InputError(f"{path}: a key holds the character U+{ord(found.group()):04X}", where=str(place),
                             code="inventory.control-character")
        return event.value, place


def _resolve(text: str) -> tuple[Scalar, bool]:
    """Return the YAML 1.1 type of a plain scalar, and whether it is a surprising one (octal, sexagesimal, yes and no)."""
    tag = _implicit_tag(text)
    if tag == "null":
        return None, False
    if tag == "bool":
        return text.lower() in _TRUE, False
    if tag == "int" and _DECIMAL.fullmatch(text):
        return int(text), False
    if tag == "float" and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text), False
    return text, tag != "str"


def _implicit_tag(text: str) -> str:
    for tag, pattern in _RESOLVERS.get(text[:1], []):
        if pattern.match(text):
            return tag.removeprefix(_TAG)
    return "str"


def quoted(node: Node) -> str:
    """The value in quotes, as it should be written."""
    text = "..." if node.secret else node.written
    return shlex.quote(json.dumps(text, ensure_ascii=False)) if node.word else json.dumps(text, ensure_ascii=False)
