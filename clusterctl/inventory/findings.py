"""Diagnostics of an inventory: places, problems, notes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from clusterctl.errors import ClusterctlError, InputError, Problems

MOST_PROBLEMS = 50
_CREDENTIALS = re.compile(r"://.*@", re.DOTALL)
_SECRET_NAME = re.compile(r"pass(word|phrase|wd)?$|pass_|secret|token|credential|private_key$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a file; lines and columns count from 1, 0 is the file as a whole."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(slots=True)
class Diagnostics:
    """Collects all problems, so that one correction of a file is enough."""

    problems: list[tuple[Place, InputError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    unaddressed: list[tuple[Place, str]] = field(default_factory=list)
    """Hosts without an IPv4 address, which are reported together."""
    decrypt: Callable[[bytes, str], bytes | None] = lambda content, where: None
    """Returns what is inside a text of ansible-vault; None where no password is given. Raises InputError."""
    sealed: int = 0
    """Values and files that are encrypted and not decrypted."""

    def refuse(self, place: Place, message: str, hint: str = "", *, code: str = "") -> None:
        """Add a problem, once. ``code``: ``inventory.value`` where none is given."""
        problem = InputError(message, where=str(place), hint=hint, code=code or "inventory.value")
        if all(str(problem) != str(known) for _, known in self.problems[-MOST_PROBLEMS:]):
            self.problems.append((place, problem))

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def raise_problems(self) -> None:
        """Raise what was found, in the order of the files and lines."""
        if self.unaddressed:
            names = ", ".join(name for _, name in self.unaddressed)
            self.refuse(self.unaddressed[0][0], f"no IPv4 address is known of {names}",
                        "set ansible_host of each host to an IPv4 address, or clusterctl_address to its address in the machines' "
                        "network (DNS names are not resolved)")
            self.unaddressed = []
        found = [problem for _, problem in sorted(self.problems, key=lambda entry: entry[0])]
        if len(found) == 1:
            raise found[0]
        if found:
            told: list[ClusterctlError] = list(found[:MOST_PROBLEMS])
            if len(found) > MOST_PROBLEMS:
                told.append(InputError(f"and {len(found) - MOST_PROBLEMS} more problems", code="inventory.more-problems"))
            raise Problems(told)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`` (did you mean 'pods'?)``, or nothing where no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f" (did you mean {close[0]!r}?)" if close else ""


def distance(one: str, other: str) -> int:
    """Return how many letters have to be added, left out, replaced or exchanged with the next one to get another word."""
    if abs(len(one) - len(other)) > 2:
        return 3
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        older, before, row = before, row, [i + 1]
        for j, wanted in enumerate(other):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (letter != wanted)))
            if i and j and letter == other[j - 1] and one[i - 1] == wanted:
                row[-1] = min(row[-1], older[j - 1] + 1)
    return row[-1]


def looks_secret(name: str) -> bool:
    """Whether a variable of that name, or an item of it, may hold what must never be shown."""
    return bool(_SECRET_NAME.search(name.partition("[")[0]))


def without_credentials(text: str) -> str:
    """Return a text in which the user and password of a URL are hidden."""
    return _CREDENTIALS.sub("://(hidden)@", text)
