"""Every way in which clusterctl says no, each with the exit code that scripts may rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from clusterctl.text import printable


class ClusterctlError(Exception):
    """Base of all errors that people see: where, why and what to do next, never a traceback.

    ``message`` is the why, ``where`` a place (``file:line:column``, a host, a stage and a resource),
    ``hint`` the next thing to do, ``code`` a stable name of the cause (``etcd.no-quorum``) that scripts and tests may compare.
    None of them may hold a secret. Control characters, which a machine may have printed, are escaped.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = printable(message)
        self.code = code
        self.where = printable(where)
        self.hint = printable(hint)

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        text += f" [{self.code}]" if self.code else ""
        return f"{text}\n  next: {self.hint}" if self.hint else text

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
    """Somebody else is operating on this cluster."""

    exit_code = 5


class Unreachable(ClusterctlError):
    """A machine cannot be reached, does not prove its identity, or does not let us in."""

    exit_code = 6


class AccessRefused(Unreachable):
    """A machine's host key, or our login or sudo password, is refused. A retry would fail again, and may lock an account."""


class IntegrityError(ClusterctlError):
    """Something that was fetched does not match its pinned sha256."""

    exit_code = 7


class Problems(ClusterctlError):
    """Several errors of one kind, told together; the exit code is that of the first."""

    def __init__(self, errors: Sequence[ClusterctlError]) -> None:
        if not errors:
            raise ValueError("no errors given")
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)
        self.exit_code = errors[0].exit_code  # type: ignore[misc]

    def as_dict(self) -> dict[str, object]:
        return {"error": "Problems", "exit_code": self.exit_code, "errors": [error.as_dict() for error in self.errors]}
