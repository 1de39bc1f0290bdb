"""Every way in which clusterctl says no, each with the exit code that scripts may rely on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import ClassVar

from clusterctl.local.text import printable


class ClusterctlError(Exception):
    """Base of all errors that people see: where, why and what to do next, never a traceback.

    ``message`` is the why, ``where`` a place (``file:line:column``, a host, a stage and a resource),
    ``hint`` the next thing to do, ``code`` a stable name of the cause (``etcd.no-quorum``), which ``error_codes`` explains.
    None of them may hold a secret. Control characters, which a machine may have printed, are escaped.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "", code: str) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.code = code
        self.where = printable(where)
        self.hint = printable(hint)

    def __str__(self) -> str:
        return f"{self.line}\n  next: {self.hint}" if self.hint else self.line

    @property
    def line(self) -> str:
        """The error without its hint."""
        return _line(self.where, self)

    def as_dict(self) -> dict[str, object]:
        """The error as an event for ``-o json``."""
        return {"error": type(self).__name__, "exit_code": self.exit_code, "code": self.code, "where": self.where,
                "message": self.message, "hint": self.hint}


class InputError(ClusterctlError):
    """The inventory, an option or a file that was given is wrong. Nothing was contacted or changed."""

    exit_code = 2


class Refused(ClusterctlError):
    """The input is well-formed, but carrying it out would be unsafe or the machines are unfit. Nothing was changed."""

    exit_code = 3


class Stopped(ClusterctlError):
    """The work stopped midway; running the same command again continues it."""

    exit_code = 4


class Locked(ClusterctlError):
    """Another operator holds the lock of this cluster."""

    exit_code = 5


class Unreachable(ClusterctlError):
    """A machine cannot be reached, does not prove its identity, or refuses the login."""

    exit_code = 6


class AccessRefused(Unreachable):
    """A machine's host key, or our login or sudo password, is refused. A retry would fail again, and may lock an account."""


class IntegrityError(ClusterctlError):
    """Something that was fetched does not match its pinned sha256."""

    exit_code = 7


class Problems(ClusterctlError):
    """Several errors of one kind, reported together and grouped by cause; exit code and code are those of the first."""

    def __init__(self, errors: Sequence[ClusterctlError]) -> None:
        if not errors:
            raise ValueError("no errors given")
        super().__init__("\n".join(grouped(errors)), code=errors[0].code)
        self.errors = tuple(errors)
        self.exit_code = errors[0].exit_code  # type: ignore[misc]

    @property
    def line(self) -> str:
        """The errors' own lines, which have their codes."""
        return self.message

    def as_dict(self) -> dict[str, object]:
        return {"error": "Problems", "exit_code": self.exit_code, "code": self.code,
                "errors": [error.as_dict() for error in self.errors]}


def raise_all(errors: Sequence[ClusterctlError]) -> None:
    """Raise the one error, or all of them as Problems; return where there is none."""
    if errors:
        raise errors[0] if len(errors) == 1 else Problems(errors)


MOST_LINES, MOST_NAMES = 5, 20
"""Of one cause: errors whose messages differ, and hosts that are named."""

_OWN = re.compile(r"SHA256:\S+|\d+")


def grouped(errors: Sequence[ClusterctlError]) -> Iterator[str]:
    """Yield errors as text, with one line for each cause and one hint for consecutive lines that share it.

    Errors in a file keep its order, a line each.
    """
    causes: dict[object, list[ClusterctlError]] = {}
    for number, error in enumerate(errors):
        causes.setdefault(number if isinstance(error, InputError | Problems) else _cause(error), []).append(error)
    for hint, group in groupby(causes.values(), key=_common_hint):
        for alike in group:
            yield from _lines(alike)
        if hint:
            yield f"  next: {hint}"


def _cause(error: ClusterctlError) -> object:
    """Return the common text of errors of one cause on different hosts: all but names, numbers and fingerprints."""
    texts = (text.replace(_host(error) or "\0", "HOST") for text in (error.message, error.hint))
    return (type(error), error.code, *(_OWN.sub("#", text) for text in texts))


def _host(error: ClusterctlError) -> str:
    return re.split(r" \(|, |: ", error.where, maxsplit=1)[0]


def _common_hint(alike: Sequence[ClusterctlError]) -> str:
    first = alike[0]
    same = all(error.hint == first.hint for error in alike)
    return first.hint if same else f"{first.hint} ({_host(first)}; likewise the others)"


def _lines(alike: Sequence[ClusterctlError]) -> Iterator[str]:
    if len(alike) > 1 and all(error.message == alike[0].message for error in alike):
        yield _line(_names(alike), alike[0])
        return
    several = len(alike) > MOST_LINES + 1
    for error in alike[:MOST_LINES] if several else alike:
        yield error.line
    if several:
        yield f"and {len(alike) - MOST_LINES} more of this kind: {_names(alike[MOST_LINES:])}"


def _names(alike: Sequence[ClusterctlError]) -> str:
    names = list(dict.fromkeys(_host(error) for error in alike))
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more (-o json lists all)" if more > 0 else "")


def _line(where: str, error: ClusterctlError) -> str:
    return (f"{where}: " if where else "") + error.message + (f" [{error.code}]")
