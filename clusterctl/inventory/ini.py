"""INI inventories by Ansible's rules: sections of hosts, children and variables; values are Python literals or text."""

from __future__ import annotations

import ast
import re
import shlex
import warnings

from clusterctl.inventory.document import Node, decode, python_node
from clusterctl.inventory.findings import Diagnostics, Place
from clusterctl.inventory.groups import Group, Tree, Variables, add_child, add_hosts

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_ANY_SECTION = re.compile(r"\[[^\[\]]*\]\s*([#;].*)?")
_GROUP = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_YAML = re.compile(r"""[{\[&*!|>%@`?]|-(\s|$|--)|("[^"]*"|'[^']*'|[^\s"']+|[^\s"'\[=][^#\[=]*?)\s*:(\s|$)""")
_LONGEST = 32 * 1024
_KINDS = ("hosts", "children", "vars")


def looks_like_ini(text: str) -> bool:
    """Return whether a text is INI and not YAML, by its first line that is neither empty nor a comment."""
    for line in text.removeprefix("\ufeff").splitlines():
        if (line := line.strip()) and line[0] != "#":
            return line[0] == ";" or bool(_ANY_SECTION.fullmatch(line[:1000])) or not _YAML.match(line[:1000])
    return False


def read_ini(tree: Tree, content: bytes, file: str, findings: Diagnostics) -> None:
    """Add the groups and hosts of an INI inventory to a tree. Raises InputError; most problems are collected."""
    reader = _Reader(tree, file, findings)
    for number, line in enumerate(decode(content, file).splitlines(), 1):
        reader.line(line, number)
    reader.end()


class _Reader:
    """Reads line by line, as in Ansible's plugin ``ini``: hosts before the first section belong to ``ungrouped``."""

    def __init__(self, tree: Tree, file: str, findings: Diagnostics) -> None:
        self.tree, self.file, self.findings = tree, file, findings
        self.declared = {"all", "ungrouped", *tree.groups}
        self.awaited: dict[str, tuple[Place, str]] = {}
        self.group = tree.group("ungrouped", Place(file))
        self.kind = "hosts"

    def line(self, line: str, number: int) -> None:
        text = line.strip()
        place = Place(self.file, number, len(line) - len(line.lstrip()) + 1)
        if not text or text[0] in "#;":
            return
        if text[0] == "[" and (text[-1] == "]" or _SECTION.fullmatch(text)):
            self._section(text, place)
        elif self.kind == "hosts":
            self._hosts(text, place)
        elif self.kind == "vars":
            self._variable(text, place)
        else:
            self._child(text, place)

    def end(self) -> None:
        """Refuse sections of variables and children whose group is declared nowhere."""
        for name, (place, problem) in self.awaited.items():
            if name not in self.declared:
                self.findings.refuse(place, f"{problem}; no section [{name}] declares it", f"add [{name}], or correct the name",
                                     code="inventory.ini-undeclared-group")

    def _section(self, text: str, place: Place) -> None:
        found = _SECTION.fullmatch(text)
        name, kind = found.groups() if found else ("", None)
        if not found or (kind or "hosts") not in _KINDS:
            self.findings.refuse(place, f"{text[:80]!r} is no section", "sections are [GROUP], [GROUP:children] and [GROUP:vars]",
                                 code="inventory.ini-section")
            self.group = Group("", place)  # Its lines are read, and belong nowhere.
            self.kind = kind if kind in _KINDS else "hosts"
            return
        self.kind = kind or "hosts"
        self.group = self.tree.group(name, place)
        if self.kind == "vars":
            self.awaited.setdefault(name, (place, f"[{name}:vars] is for a group that does not exist"))
        else:
            self.declared.add(name)

    def _child(self, text: str, place: Place) -> None:
        found = _GROUP.fullmatch(text)
        if found is None:
            self.findings.refuse(place, "one name of a group is wanted in this line", code="inventory.ini-child")
            return
        if self.group.name:
            self.awaited.setdefault(found[1], (place, f"[{self.group.name}:children] names the group {found[1]}"))
            add_child(self.tree, self.group, found[1], place, self.findings)

    def _variable(self, text: str, place: Place) -> None:
        name, equals, value = text.partition("=")
        if not equals:
            self.findings.refuse(place, "key=value is wanted in this line", code="inventory.ini-variable")
            return
        at = Place(self.file, place.line, place.column + len(text) - len(value.lstrip()))
        name = name.strip()
        self.group.variables[name] = self._value(value.strip(), at, f"{self.group.name}.vars.{name}", place)

    def _hosts(self, text: str, place: Place) -> None:
        if len(text) > _LONGEST:  # Time that shlex takes grows with the square of it.
            self.findings.refuse(place, f"is longer than {_LONGEST} characters", code="inventory.ini-host")
            return
        try:
            words = shlex.split(text, comments=True)
        except ValueError as error:
            self.findings.refuse(place, f"cannot be split into words: {error}", "quote values: key='a b'",
                                 code="inventory.ini-host")
            return
        if not words or not words[0] or words[0].endswith(":") or words[0] == "---":
            self.findings.refuse(place, "a host's name is wanted at the beginning of this line", code="inventory.ini-host")
            return
        variables: Variables = {}
        position = len(words[0])
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if not equals:
                self.findings.refuse(place, f"word {len(variables) + 2} of this line is not key=value",
                                     "write no spaces around '=', and quote values that have some", code="inventory.ini-host")
                return
            position = max(position, text.find(f"{name}=", position))
            key = Place(self.file, place.line, place.column + position)
            at = Place(self.file, place.line, key.column + len(name) + 1)
            variables[name] = self._value(value, at, f"{self.group.name}.hosts.{words[0][:253]}.{name}", key)
            variables[name].word = True
        if self.group.name:
            add_hosts(self.tree, self.group, words[0], (place, variables), self.findings)

    def _value(self, text: str, place: Place, path: str, key: Place) -> Node:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, of odd text such as '1is'.
                value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        except (TypeError, MemoryError, RecursionError):
            self.findings.refuse(place, f"{path}: is no value that Python can read", code="inventory.ini-value")
            value = text
        return python_node(value, place, path, key, text)
