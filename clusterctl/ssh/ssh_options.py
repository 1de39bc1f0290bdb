"""Options of ssh on a command line, as ``ansible_ssh_common_args`` has them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from clusterctl.errors import InputError
from clusterctl.ssh.sockets import hops

HONOURED = frozenset({"certificatefile", "hostkeyalias", "hostname", "identityfile", "port", "proxycommand", "proxyjump", "user",
                      "userknownhostsfile"})
"""Options of ssh_config(5) that decide how a machine is reached, by which this program goes."""

_FLAGS = "46AaCfGgKkMNnqsTtVvXxYy"
_LETTERS = {"J": "proxyjump", "i": "identityfile", "p": "port", "l": "user"}
"""Flags without and letters with a value in ssh(1); those letters are options of ssh_config."""
_OTHER_LETTERS = "BbcDEeILmOPQRSWw"
_OPTION = re.compile(r"\s*(\w+)\s*[=\s]\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class SshOptions:
    """Options that are honoured, by their lower-case names, and the names of those that change nothing here."""

    honoured: dict[str, str]
    ignored: tuple[str, ...]


def parse(words: tuple[str, ...]) -> SshOptions:
    """Return the options of ssh's arguments; of several the first holds, as in ssh. Raises InputError, ValueError."""
    honoured: dict[str, str] = {}
    ignored: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if len(word) > 1 and word[0] == "-" and set(word[1:]) <= set(_FLAGS):
            ignored.append(word)
            continue
        letter = word[1:2] if word.startswith("-") else ""
        if not letter or letter not in "oF" + _OTHER_LETTERS + "".join(_LETTERS):
            raise InputError(f"{word!r} is not an option of ssh", code="ssh.unknown-option", hint="see ssh(1)")
        value = word[2:] or (rest.pop(0) if rest else "")
        name, value = _option(letter, value)
        if name in HONOURED:
            _check(name, value)
            honoured.setdefault(name, value)
        else:
            ignored.append(name)
    return SshOptions(honoured, tuple(ignored))


def _option(letter: str, value: str) -> tuple[str, str]:
    """The lower-case name and the value of one option. Raises InputError."""
    if letter == "F":
        raise InputError(f"-F {value}: another configuration file is not read", code="ssh.unsupported-option",
                         hint="write its options into ~/.ssh/config, or give them with -o")
    if letter != "o":
        name = _LETTERS.get(letter, f"-{letter}")
    elif match := _OPTION.fullmatch(value):
        name, value = match[1].lower(), match[2]
    else:
        raise InputError(f"-o {value!r} is not NAME=VALUE", code="ssh.malformed-option",
                         hint="for instance -o ProxyJump=ops@bastion")
    if not value:
        raise InputError(f"{name} has no value", code="ssh.malformed-option")
    return name, value


def _check(name: str, value: str) -> None:
    if name == "proxycommand":
        shlex.split(value)
    elif name == "proxyjump" and value != "none":
        hops(value)
    elif name == "port" and not (value.isdigit() and 1 <= int(value) <= 65535):
        raise InputError(f"{value!r} is not a port", code="ssh.malformed-option")
