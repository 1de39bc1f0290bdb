"""Questions at the terminal, and the options that answer them beforehand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import typer

from clusterctl.cli import Interrupted
from clusterctl.errors import InputError, Refused


@contextmanager
def asking() -> Iterator[None]:
    """Report Ctrl-C or EOF at a prompt as a refusal, not as an interruption. Raises Refused."""
    try:
        yield
    except (typer.Abort, EOFError, Interrupted):
        typer.echo(err=True)
        raise Refused("the question was not answered: nothing was changed", code="cli.cancelled",
                      hint="run it again") from None


def ask(question: str, hint: str) -> str:
    """Return the answer that is typed at the terminal. ``hint``: how to do without. Raises Refused where there is no terminal."""
    if not sys.stdin.isatty():
        raise Refused("stdin is not a terminal: there is no answer", hint=hint, code="cli.no-terminal")
    with asking():
        return str(typer.prompt(question, default="", show_default=False))


def confirm(yes: bool, question: str = "Carry this out?", hint: str = "say --yes to carry the plan out") -> None:
    """Ask a question unless ``yes``. Raises Refused unless the answer is yes."""
    if not yes and ask(f"{question} [y/N]", hint).strip().lower() not in ("y", "yes"):
        raise Refused("cancelled: nothing was changed", hint=hint, code="cli.cancelled")


@dataclass(frozen=True, slots=True)
class Consent:
    """How the operator agrees to a plan.

    ``command``: of a verb that requires the cluster's name in place of a yes; ``name``: the value of ``--confirm``.
    """

    yes: bool
    command: str = ""
    name: str | None = None

    def refuse_incomplete(self, cluster: str) -> None:
        """Raise InputError unless --yes comes with --confirm and the cluster's name, or neither is given."""
        given = self.name
        if self.command and (self.yes != (given is not None) or (given is not None and given != cluster)):
            why = ("--confirm requires --yes" if not self.yes else "--yes requires --confirm with the cluster's name"
                   if given is None else f"{given!r} is not the name of this cluster")
            raise InputError(f"{why}; nothing was changed", where="--confirm", code="cli.not-confirmed", hint=self._hint(cluster))

    def obtain(self, cluster: str) -> None:
        """Ask, unless the answer is given. Raises Refused."""
        if not self.command:
            confirm(self.yes)
        elif not self.yes and (typed := ask("Type the cluster's name to carry this out", self._hint(cluster))) != cluster:
            raise Refused(f"{typed!r} is not the name of this cluster; nothing was changed", code="cli.wrong-name",
                          hint=f"its name is {cluster}")

    def _hint(self, cluster: str) -> str:
        return f"clusterctl {self.command} --yes --confirm {cluster}"
