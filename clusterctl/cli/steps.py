"""What verbs that change something do alike: ask, keep a journal, say what was done."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import Interrupted, unforeseen
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Problems, Refused, Stopped, raise_all

if TYPE_CHECKING:
    from clusterctl.session.session import Session
    from clusterctl.views.junit import Failure
    from clusterctl.views.report import Report


@contextmanager
def asking() -> Iterator[None]:
    """Whoever breaks off at a question stops nothing midway. Raises Refused."""
    try:
        yield
    except (typer.Abort, EOFError, Interrupted):
        typer.echo(err=True)
        raise Refused("the question was not answered: nothing was changed", code="cli.cancelled",
                      hint="run it again") from None


def ask(question: str, hint: str) -> str:
    """What somebody at the terminal types. ``hint``: how to do without. Raises Refused where nobody answers."""
    if not sys.stdin.isatty():
        raise Refused("stdin is not a terminal: there is no answer", hint=hint, code="cli.no-terminal")
    with asking():
        return str(typer.prompt(question, default="", show_default=False))


def confirm(yes: bool, question: str = "Carry this out?", hint: str = "say --yes to carry the plan out") -> None:
    """Ask whether what was shown is to be. Raises Refused unless somebody says so."""
    if not yes and ask(f"{question} [y/N]", hint).strip().lower() not in ("y", "yes"):
        raise Refused("cancelled: nothing was changed", hint=hint, code="cli.cancelled")


def refuse_unconfirmed(command: str, name: str, *, yes: bool, given: str | None) -> None:
    """Raise InputError unless --yes comes with --confirm and the cluster's name, or neither is given."""
    if yes != (given is not None) or (given is not None and given != name):
        why = ("--confirm requires --yes" if not yes else "--yes requires --confirm with the cluster's name" if given is None
               else f"{given!r} is not the name of this cluster")
        raise InputError(f"{why}; nothing was changed", where="--confirm", code="cli.not-confirmed",
                         hint=f"clusterctl {command} --yes --confirm {name}")


def confirm_name(command: str, name: str, *, yes: bool) -> None:
    """Ask for the cluster's name, unless ``yes``. Raises Refused."""
    if yes:
        return
    typed = ask("Type the cluster's name to carry this out", f"clusterctl {command} --yes --confirm {name}")
    if typed != name:
        raise Refused(f"{typed!r} is not the name of this cluster; nothing was changed", code="cli.wrong-name",
                      hint=f"its name is {name}")


def begin_journal(report: Report, opened: Session, operation: str) -> None:
    """From now on events are written down, too."""
    from clusterctl.local.storage import Journal

    opened.state.prepare()
    report.journal = Journal(opened.state, f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{operation}")


@contextmanager
def begun() -> Iterator[None]:
    """What ends a run that has begun is Stopped: other codes promise that nothing was changed, but for a bug's and a digest's."""
    try:
        yield
    except OSError as error:
        raise Stopped(f"this side cannot go on: {error.strerror or error}", where=str(error.filename or "its output"),
                      hint="make room, or let its output be read; then run the same command again to continue",
                      code="run.local-error") from error
    except ClusterctlError as error:
        if error.exit_code in (Stopped.exit_code, IntegrityError.exit_code):
            raise
        errors = error.errors if isinstance(error, Problems) else (error,)
        raise_all([Stopped(one.message, where=one.where, hint=one.hint, code=one.code) for one in errors])


def summarise(report: Report, opened: Session, *, changed: bool, next_steps: Sequence[str]) -> None:
    """Tell what changed where, what it cost and what to do next."""
    statistics = [transport.statistics for transport in opened.engine.transports.values()]
    with begun() if changed else nullcontext():
        report.summary(
            changed=changed,
            trips=sum(entry.trips for entry in statistics),
            sent=sum(entry.sent for entry in statistics),
            next_steps=next_steps if changed else [],
        )


TimeLimitOption = Annotated[
    int | None, typer.Option("--timeout", metavar="SECONDS", min=1, max=10_000_000,
                             help="That the whole run may take; then it stops as at an interrupt, with exit code 4.")
]
SummaryOption = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="How it ended, for a CI: JUnit in FILE.xml, else FILE.json.")
]


@contextmanager
def limits(report: Report, operation: str, timeout: int | None, summary: Path | None) -> Iterator[None]:
    """What a CI asks of a run: that it ends in time, and a file that says how, whichever way it ends.

    ``timeout`` in seconds, None: however long it takes. Raises InputError where no summary can be written, before anything is
    done, and Stopped where it turns out later.
    """
    with _summary_file(summary, report, operation), _limit_time(timeout):
        yield


@contextmanager
def _limit_time(seconds: int | None) -> Iterator[None]:
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def _summary_file(path: Path | None, report: Report, operation: str) -> Iterator[None]:
    if path is None:
        yield
        return
    from clusterctl.views import junit

    def tell(failure: junit.Failure | None) -> None:
        ending = junit.RunResult(operation=operation, seconds=time.monotonic() - report.started, stages=report.stages,
                                done=report.done, failure=failure)
        junit.write(path, ending)

    junit.prepare(path)
    try:
        yield
    except BaseException as error:
        try:
            tell(_failure(error))
        except Stopped as other:
            # Why the run ended matters more than that nobody can read it in a file.
            with suppress(OSError):
                report.warn(str(other))
        raise
    tell(None)


def _failure(error: BaseException) -> Failure:
    from clusterctl.views.junit import Failure

    if isinstance(error, ClusterctlError):
        return Failure(type(error).__name__, str(error), error.exit_code, error.code)
    if isinstance(error, Exception):
        text, _, exit_code, code = unforeseen(error)
        return Failure(type(error).__name__, text, exit_code, code)
    text = str(error if isinstance(error, Interrupted) else Interrupted())
    return Failure("Interrupted", text, Interrupted.exit_code, Interrupted.code)
