"""What verbs that change something do alike: ask, keep a journal, say what was done."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clusterctl.operations.base import Session
    from clusterctl.report import Report


def confirm(yes: bool) -> None:
    """Ask whether the plan that was shown is to be carried out. Raises Refused unless somebody says so."""
    from clusterctl.errors import Refused

    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused("nobody is there to ask", hint="say --yes to carry the plan out")
    if not typer.confirm("Carry this out?"):
        raise Refused("you said no; nothing was changed")


def begin_journal(report: Report, opened: Session, operation: str) -> None:
    """From now on events are written down, too."""
    from clusterctl.storage import Journal

    opened.state.prepare()
    report.journal = Journal(opened.state, f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{operation}")


def summarise(report: Report, opened: Session, *, changed: bool, next_steps: Sequence[str]) -> None:
    """Tell what changed where, what it cost and what to do next."""
    statistics = [transport.statistics for transport in opened.engine.transports.values()]
    report.summary(
        changed=changed,
        trips=sum(entry.trips for entry in statistics),
        sent=sum(entry.sent for entry in statistics),
        next_steps=next_steps if changed else [],
    )


TimeLimitOption = Annotated[
    float | None, typer.Option("--timeout", min=1, help="Seconds that the whole run may take; then it stops as at an interrupt.")
]
SummaryOption = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="How it ended, for a CI: JUnit where it ends in .xml, else JSON.")
]


@contextmanager
def limit_time(seconds: float | None) -> Iterator[None]:
    """Stop as at an interrupt once a run has taken so long; None: however long it takes."""
    if seconds is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def summary_file(path: Path | None, report: Report, operation: str) -> Iterator[None]:
    """Write how a run ended, whichever way. Raises InputError where that cannot be written, before anything is done."""
    from clusterctl.errors import ClusterctlError, InputError
    from clusterctl.operations import outcome

    if path is None:
        yield
        return
    if not path.parent.is_dir():
        raise InputError("the folder for the summary does not exist", where=str(path), hint=f"mkdir -p {path.parent}")
    failure: outcome.Failure | None = outcome.Failure("Interrupted", "interrupted, or its time was over", 4)
    try:
        yield
        failure = None
    except ClusterctlError as error:
        failure = outcome.Failure(type(error).__name__, str(error), error.exit_code)
        raise
    except Exception as error:
        failure = outcome.Failure(type(error).__name__, str(error), 1)
        raise
    finally:
        outcome.write(path, operation, report.stages, report.done, failure)
