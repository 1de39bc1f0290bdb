"""Secrets that people give: from the environment, a file descriptor, a command or a prompt, never from a file of ours."""

from __future__ import annotations

import getpass
import hmac
import os
import select
import shlex
import time
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NoReturn

from clusterctl.cluster.access_settings import Reference
from clusterctl.errors import InputError
from clusterctl.inventory.command import run

DEADLINE = 30.0
MOST_BYTES = 4096


class Secret:
    """A text that shows itself as ``***`` wherever it is printed, and only ``reveal`` gives away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not written down")


@dataclass(frozen=True, slots=True)
class Source:
    """Where to look: at most one of a descriptor, a command and a prompt; else in the environment."""

    fd: int | None = None
    command: str | None = None
    ask: bool = False


def sudo_password(source: Source | None = None) -> Secret | None:
    """The password for sudo on the machines, or None where none is given."""
    return _obtain(source or Source(), "CLUSTERCTL_SUDO_PASSWORD", "sudo password")


def ssh_password(source: Source | None = None) -> Secret | None:
    """Return the password for SSH logins, or None where none is given."""
    return _obtain(source or Source(), "CLUSTERCTL_SSH_PASSWORD", "SSH password")


def key_passphrase(source: Source | None = None) -> Secret | None:
    """The passphrase of the SSH key, or None where none is given."""
    return _obtain(source or Source(), "CLUSTERCTL_KEY_PASSPHRASE", "passphrase of the SSH key")


@cache
def reveal(reference: Reference, base: Path) -> str:
    """Return a secret that an inventory names. A variable leaves the environment, and each is asked for once.

    ``base``: folder of the inventory. Raises InputError.
    """
    if reference.env is not None:
        found = os.environ.pop(reference.env, "").encode("utf-8", "surrogateescape")
        if not found:
            raise InputError("is not set", where=f"variable {reference.env}", hint="the inventory names it for a secret",
                             code="inventory.secret-missing")
        return _checked(found, f"variable {reference.env}").reveal()
    if reference.file is not None:
        path = base / Path(reference.file).expanduser()
        try:
            with path.open("rb") as file:
                return _checked(file.read(MOST_BYTES + 1), str(path)).reveal()
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=str(path), hint="the inventory names it for a secret",
                             code="inventory.secret-missing") from None
    return _checked(_run_command(reference.command or "", "secret of the inventory", base), "command for a secret").reveal()


def _obtain(source: Source, variable: str, what: str) -> Secret | None:
    """Look in the one place that is named. The variable leaves the environment in any case: children must not inherit it."""
    from_environment = os.environ.pop(variable, "")
    if sum((source.fd is not None, source.command is not None, source.ask)) > 1:
        raise InputError("is given in several ways at once", where=what, code="secret.several",
                         hint="name one of descriptor, command, prompt")
    if source.fd is not None:
        return _checked(_read_descriptor(source.fd, what), what)
    if source.command is not None:
        return _checked(_run_command(source.command, what), what)
    if source.ask:
        return _checked(_prompt(what, variable).encode(), what)
    return _checked(from_environment.encode("utf-8", "surrogateescape"), variable) if from_environment else None


def _checked(content: bytes, where: str) -> Secret:
    """The first line, which must be text."""
    line = content.split(b"\n", 1)[0].removesuffix(b"\r")
    if not line:
        raise InputError("is empty", where=where, code="secret.empty")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise InputError("is not UTF-8", where=where, code="secret.malformed") from None
    if "\0" in text or len(line) > MOST_BYTES:
        raise InputError("holds a NUL byte or is too long", where=where, code="secret.malformed")
    return Secret(text)


def _read_descriptor(fd: int, what: str) -> bytes:
    end = time.monotonic() + DEADLINE
    content = bytearray()
    try:
        while b"\n" not in content and len(content) <= MOST_BYTES:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise InputError(f"descriptor {fd} gave no line within {DEADLINE:g} s", where=what, code="secret.descriptor")
            block = os.read(fd, MOST_BYTES)
            if not block:
                break
            content += block
    except (OSError, ValueError, OverflowError):
        raise InputError(f"descriptor {fd} cannot be read", where=what, code="secret.descriptor",
                         hint="for number 3, redirect it: 3<file") from None
    return bytes(content)


def _run_command(command: str, what: str, cwd: Path | None = None) -> bytes:
    try:
        arguments = shlex.split(command)
    except ValueError as error:
        raise InputError(f"the command cannot be split into arguments: {error}", where=what, code="secret.command") from None
    if not arguments:
        raise InputError("the command is empty", where=what, code="secret.command")
    return run(arguments, what=f"command for the {what}", deadline=DEADLINE, most_bytes=65536, cwd=cwd)


def _prompt(what: str, variable: str) -> str:
    """Ask on the terminal, and only there: elsewhere the answer would be visible. Raises EOFError without an answer."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass(f"{what}: ")
    except (getpass.GetPassWarning, OSError):
        raise InputError("there is no terminal to ask on", where=what, code="secret.no-terminal",
                         hint=f"set {variable} or name a descriptor") from None
