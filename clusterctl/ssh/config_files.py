"""Evaluates ssh_config files for one host, in the order and by the rules of ssh (readconf.c of OpenSSH 9.2)."""

from __future__ import annotations

import fnmatch
import getpass
import glob
import os
import re
import shlex
import socket
import subprocess
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from clusterctl.ssh.sockets import environment
from clusterctl.ssh.ssh_options import HONOURED

DEEPEST = 16
"""Includes within each other (READCONF_MAX_DEPTH)."""
EXEC_SECONDS = 60
_LISTS = frozenset({"identityfile", "certificatefile"})
_LINE = re.compile(r"([^\s=]+)(?:\s*=\s*|\s+|$)(.*)")
_WITHOUT_VALUE = frozenset({"all", "final", "canonical"})


class Malformed(ValueError):
    """A line that ssh refuses as well."""


@dataclass
class Evaluation:
    """The options of one host. ``address``: as it stands on ssh's command line, with its options in ``found``.

    ``user``: the login user where the inventory names one; ``found``: values by lower-case option, of several the first, and
    lists of files; ``ignored``: options, and criteria of Match that are not evaluated: their blocks hold for no host.
    Raises OSError, and Malformed with the file and the line.
    """

    address: str
    user: str | None = None
    found: dict[str, Any] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    _final: bool = False
    _wants_final: bool = False

    def read(self, *paths: Path) -> dict[str, Any]:
        """Evaluate the files one after the other, and once more where a ``Match final`` asks for it; return the options."""
        for self._final in (False, True):
            for path in paths:
                if path.is_file():
                    self._file(path, path.parent, 0, True)
            self.found["hostname"] = self._hostname()
            if not self._wants_final:
                break
        found = self.found
        for name in {"proxyjump", "userknownhostsfile"} & found.keys():
            found[name] = self.expand(found[name])
        for name in _LISTS & found.keys():
            found[name] = [os.path.expanduser(self.expand(file)) for file in found[name] if file.lower() != "none"]
        return found

    def _file(self, path: Path, folder: Path, depth: int, holds: bool) -> None:
        """``folder``: of the first file, to which relative includes refer; ``holds``: False where an inactive block includes it.

        Such a file is read as well, because a ``Match final`` in it requires a second pass.
        """
        if depth > DEEPEST:
            raise Malformed(f"{path}: files include each other")
        active = holds
        for number, line in enumerate(_lines(path), 1):
            try:
                keyword, rest, words = _split(line)
                if keyword == "host":
                    active = _matches(self._hostname() if self._final else self.address, words) and holds
                elif keyword == "match":
                    active = self._match(words) and holds
                elif keyword == "include":
                    self._include(words, folder, depth, active)
                elif active and keyword:
                    self._set(keyword, rest if keyword == "proxycommand" else " ".join(words))
            except ValueError as error:
                raise error if isinstance(error, Malformed) else Malformed(f"{path}:{number}: {error}") from None

    def _include(self, words: list[str], folder: Path, depth: int, holds: bool) -> None:
        for word in words:
            for name in sorted(glob.glob(str(folder / Path(word).expanduser()))):
                self._file(Path(name), folder, depth + 1, holds)

    def _set(self, keyword: str, value: str) -> None:
        if keyword not in HONOURED:
            self.ignored.add(keyword)
        elif keyword == "port" and not (value.isdigit() and 1 <= int(value) <= 65535):
            raise ValueError(f"{value!r} is not a port")
        elif keyword in _LISTS:
            files = self.found.setdefault(keyword, [])
            if value not in files:
                files.append(value)
        elif not self._is_passed_over(keyword):
            self.found.setdefault(keyword, value)

    def _is_passed_over(self, keyword: str) -> bool:
        """Whether the other one of ProxyJump and ProxyCommand is set already: the first one holds, except ``ProxyJump none``."""
        if keyword == "proxycommand":
            return str(self.found.get("proxyjump", "none")).lower() != "none"
        return keyword == "proxyjump" and "proxycommand" in self.found

    def _match(self, words: list[str]) -> bool:
        """Whether all criteria of a Match line hold."""
        result, rest = True, list(words)
        while rest:
            name, equals, value = rest.pop(0).partition("=")
            wanted, name = not name.startswith("!"), name.removeprefix("!").lower()
            if name not in _WITHOUT_VALUE and not equals:
                if not rest:
                    raise ValueError(f"Match {name} has no value")
                value = rest.pop(0)
            self._wants_final |= name == "final"
            # A command of a block that does not hold anyway is not run.
            result = result and self._holds(name, value) is wanted
        return result

    def _holds(self, name: str, value: str) -> bool | None:
        """Whether one criterion holds; None, which is neither, for one that is not evaluated."""
        if name == "all":
            return True
        if name in ("final", "canonical"):
            return self._final
        if name == "exec":
            done = subprocess.run(self.expand(value), shell=True, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                  timeout=EXEC_SECONDS, env=environment())
            return done.returncode == 0
        subjects = {"host": self._hostname, "originalhost": lambda: self.address, "user": self._user,
                    "localuser": getpass.getuser}
        if name not in subjects:
            self.ignored.add(f"match {name}")
            return None
        patterns = value.lower() if name in ("host", "originalhost") else value
        return _matches(subjects[name](), patterns.split(","))

    def _hostname(self) -> str:
        return str(self.found.get("hostname", "%h")).replace("%h", self.address).replace("%%", "%")

    def _user(self) -> str:
        return str(self.user or self.found.get("user") or getpass.getuser())

    def expand(self, text: str) -> str:
        """Replace ssh's tokens (ssh_config(5), "TOKENS"). Raises ValueError for one that is not known."""
        local = socket.gethostname()
        values = {"%": "%", "d": os.path.expanduser("~"), "h": self._hostname(), "i": str(os.getuid()),
                  "L": local.partition(".")[0], "l": local, "n": self.address, "p": str(self.found.get("port", 22)),
                  "r": self._user(), "u": getpass.getuser()}

        def value(match: re.Match[str]) -> str:
            if match[1] not in values:
                raise ValueError(f"{match[0]!r} is not a token that clusterctl knows, in {text!r}")
            return values[match[1]]

        return re.sub("%(.?)", value, text)


def _matches(subject: str, patterns: list[str]) -> bool:
    """Whether a pattern list with ``*``, ``?`` and ``!`` holds: one that is negated and matches ends it."""
    found = False
    for pattern in patterns:
        # ssh's patterns have no character sets.
        if fnmatch.fnmatchcase(subject, pattern.removeprefix("!").replace("[", "[[]")):
            if pattern.startswith("!"):
                return False
            found = True
    return found


@lru_cache(maxsize=1024)
def _split(line: str) -> tuple[str, str, list[str]]:
    """Return the lower-case keyword of a line, the rest, and its words up to a comment; nothing of a line without an option.

    Raises ValueError for a keyword without a value and for a quote that is not closed.
    """
    match = _LINE.fullmatch(line)
    if match is None or line.startswith("#"):
        return "", "", []
    words = shlex.split(match[2])
    comment = next((place for place, word in enumerate(words) if word.startswith("#")), len(words))
    if not words[:comment]:
        raise ValueError("a value is missing")
    return match[1].lower(), match[2], words[:comment]


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
