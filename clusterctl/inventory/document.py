"""YAML with positions: a restricted reading of a file that nobody trusts.

PyYAML's own loading is not used, for its habits: the last of two equal keys wins, ``1.30`` becomes 1.3, ``0644`` 420,
``22:30`` 1350 and ``no`` False, aliases multiply and deep nesting ends the interpreter. Its parser's events are.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from clusterctl.errors import InputError
from clusterctl.inventory.findings import Findings, Place, looks_secret

MOST_BYTES = 1024 * 1024
MOST_DEPTH = 20
_TAG = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVERS: dict[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
_TRUE = frozenset({"yes", "true", "on"})
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{0,18}([eE][-+]?[0-9]{1,3})?")
_BIDI = "\u202a-\u202e\u2066-\u2069"  # may make a line look like another one
_FORBIDDEN = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f{_BIDI}\ufffe\uffff\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|.)", re.IGNORECASE | re.DOTALL)
_INI_SECTION = re.compile(r"^\[[\w:.-]+\]\s*$", re.MULTILINE)
_ORDINARY_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))
VAULT_HINT = ("secrets stay out of the inventory: give the sudo password by CLUSTERCTL_SUDO_PASSWORD, --sudo-password-fd, "
              "--sudo-password-command or --ask-sudo-password")

Scalar = str | int | float | bool | None


@dataclass(slots=True)
class Node:
    """A value, where it stands, and its path in words. ``odd``: YAML 1.1 takes the text for something else."""

    value: Scalar | list[Node] | dict[str, Node]
    place: Place
    path: str
    key: Place
    written: str = ""
    odd: bool = False

    @property
    def shown(self) -> str:
        """The value as people may see it in a message."""
        if looks_secret(self.path.rpartition(".")[2]):
            return "(hidden)"
        if isinstance(self.value, dict | list):
            return "a map" if isinstance(self.value, dict) else "a list"
        text = self.written if len(self.written) <= 80 else self.written[:77] + "..."
        return repr(text) if isinstance(self.value, str) and not self.odd else text or "nothing"

    @property
    def kind(self) -> str:
        """What YAML takes the value for, in words."""
        if self.odd:
            return "something other than text"
        names = {dict: "a map", list: "a list", bool: "true or false", int: "a number", float: "a number", str: "text"}
        return names.get(type(self.value), "nothing")


def bare(node: Node) -> object:
    """Return the values of a tree without their positions."""
    if isinstance(node.value, dict):
        return {key: bare(item) for key, item in node.value.items()}
    return [bare(item) for item in node.value] if isinstance(node.value, list) else node.value


def read_bytes(path: Path) -> bytes:
    """A file's content; more than 1 MiB is refused without reading it, and so is a FIFO, which may never be written to."""
    try:
        # Those in /dev and /proc are a shell's own: -i <(...)
        if stat.S_ISFIFO(path.stat().st_mode) and not str(path).startswith(("/dev/", "/proc/")):
            raise InputError("is a FIFO; a regular file is wanted", where=str(path), code="inventory.not-a-file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read: {reason}", where=str(path), hint="is its path right, and may you read it?") from None
    if len(content) > MOST_BYTES:
        raise InputError("is larger than 1 MiB, and thus no inventory", where=str(path))
    return content


def parse(content: bytes, file: str, findings: Findings, root: str = "") -> Node | None:
    """The tree of a document, or None where it is empty; syntax errors are raised, other problems collected."""
    text = _joined(_decode(content, file))
    try:
        return _Builder(yaml.parse(text, Loader=_LOADER), file, findings).document(root)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, file) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is not YAML: {str(error).splitlines()[0]}", where=file) from None


def _decode(content: bytes, file: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_of(content[:error.start].decode("utf-8", "replace"), file)
        raise InputError(f"byte 0x{content[error.start]:02x} is not UTF-8", where=str(place),
                         hint="save the file as UTF-8") from None
    if found := _FORBIDDEN.search(text):
        place = _place_of(text[:found.start()], file)
        raise InputError(f"character U+{ord(found.group()):04X} is not allowed", where=str(place))
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
    if _INI_SECTION.search(text):
        return InputError("is an INI inventory; clusterctl reads YAML", where=str(place),
                          hint="ansible-inventory -i FILE --list --yaml > inventory.yaml")
    if "\t" in line[:len(line) - len(line.lstrip())]:
        return InputError("is indented with a tab; YAML wants spaces", where=str(place))
    problem = error.problem or "cannot be parsed"
    if "nesting depth" in problem:
        # libyaml has a limit of its own, and comes to it first where a document is one long line.
        return InputError(f"is nested more than {MOST_DEPTH} deep", where=str(place))
    return InputError(f"is not YAML: {problem}" + (f" ({error.context})" if error.context else ""), where=str(place))


class _Builder:
    """Turns parser events into nodes."""

    def __init__(self, events: Iterator[Any], file: str, findings: Findings) -> None:
        self.events = events
        self.file = file
        self.findings = findings

    def document(self, root: str) -> Node | None:
        result = None
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                if result is not None:
                    raise InputError("holds a second document; one is wanted", where=str(self.place(event)))
                result = self.node(next(self.events), root, 0, None)
        return None if result is not None and result.value is None else result

    def place(self, event: Any) -> Place:
        mark = event.start_mark
        return Place(self.file, mark.line + 1, mark.column + 1)

    def node(self, event: Any, path: str, depth: int, key: Place | None) -> Node:
        place = self.place(event)
        if depth > MOST_DEPTH:
            raise InputError(f"is nested more than {MOST_DEPTH} deep", where=str(place))
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            mark = "*" if isinstance(event, yaml.AliasEvent) else "&"
            raise InputError(f"{mark}{event.anchor}: anchors and aliases are refused", where=str(place),
                             hint="write the value out, or set it once in a group's vars")
        self.check_tag(event, path, place)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path, place, key or place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path, depth, place, key or place)
        return self.mapping(path, depth, place, key or place)

    def check_tag(self, event: Any, path: str, place: Place) -> None:
        if event.tag is None or event.tag == "!" or event.tag in _ORDINARY_TAGS:
            return
        tag = event.tag.replace(_TAG, "!!")
        vault = event.tag.startswith("!vault")
        self.findings.refuse(place, f"{path}: the tag {tag} is refused", VAULT_HINT if vault else "write a plain value")

    def scalar(self, event: Any, path: str, place: Place, key: Place) -> Node:
        if found := _FORBIDDEN.search(event.value):
            self.findings.refuse(place, f"{path}: character U+{ord(found.group()):04X} is not allowed")
        plain = not event.style and event.tag in (None, _TAG + "int", _TAG + "float", _TAG + "bool", _TAG + "null")
        value, odd = _resolve(event.value) if plain else (event.value, False)
        return Node(value, place, path, key, event.value, odd)

    def sequence(self, path: str, depth: int, place: Place, key: Place) -> Node:
        items: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(event, f"{path}[{len(items)}]", depth + 1, None))
        return Node(items, place, path, key)

    def mapping(self, path: str, depth: int, place: Place, key: Place) -> Node:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            name, where = self.key(event, path)
            inner = f"{path}.{name}" if path else name
            value = self.node(next(self.events), inner, depth + 1, where)
            if name in entries:
                self.findings.refuse(where, f"{inner}: this key is here twice, first in line {entries[name].key.line}")
            else:
                entries[name] = value
        return Node(entries, place, path, key)

    def key(self, event: Any, path: str) -> tuple[str, Place]:
        place = self.place(event)
        if isinstance(event, yaml.AliasEvent) or not isinstance(event, yaml.ScalarEvent) or event.anchor is not None:
            raise InputError(f"{path or 'document'}: a key must be plain text", where=str(place))
        if event.value == "<<" and not event.style:
            raise InputError(f"{path or 'document'}: merge keys (<<) are refused", where=str(place), hint="write the values out")
        if found := _FORBIDDEN.search(event.value):
            raise InputError(f"{path}: a key holds the character U+{ord(found.group()):04X}", where=str(place))
        return event.value, place


def _resolve(text: str) -> tuple[Scalar, bool]:
    """What a plain scalar is to YAML 1.1, and whether it is one of the odd readings that nobody means."""
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
    return json.dumps(node.written, ensure_ascii=False)
