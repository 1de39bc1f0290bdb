"""The one path of all verbs that change a cluster: lock, plan, show, confirm, open the journal, run, summarise."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from clusterctl.cli import Interrupted, unforeseen
from clusterctl.cli.prompts import Consent
from clusterctl.errors import ClusterctlError, IntegrityError, Problems, Stopped, raise_all

if TYPE_CHECKING:
    from clusterctl.cli.options import Invocation
    from clusterctl.cluster.model import Host
    from clusterctl.plan.planner import OperationPlan
    from clusterctl.session.session import Session
    from clusterctl.views.junit import Failure
    from clusterctl.views.report import Report

P = TypeVar("P", bound="OperationPlan")


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[P]):
    """The declaration of a changing verb; ``drive`` calls the functions in the order in which they stand here.

    ``connect``: hosts that must be reachable together; ``dead``: control planes that need not hold the lock.
    """

    connect: Sequence[Host] = ()
    dead: Collection[str] = ()
    plans: Callable[[], Iterable[P]]
    """Gives one plan after the other; of an iterator each is made when those before it have been carried out."""
    show: Callable[[P], None] | None = None
    """Prints a plan; by default the report does."""
    check: Callable[[P], None] = lambda plan: None
    """Raises Refused for a plan that must not be carried out, once it is shown."""
    asks_once: bool = False
    """Whether the consent to the first plan covers the plans that follow from it."""
    journal: str
    prepare: Callable[[P], Callable[[], None]]
    """Does what changes nothing yet, such as downloads, and returns the function that carries the plan out."""
    finish: Callable[[P], Sequence[str]] = lambda plan: ["clusterctl status"]
    """Does what comes after the last plan, and returns the next steps for the operator."""


def drive(call: Invocation, name: str, begin: Callable[[Session, Report], Operation[Any]], consent: Consent,
          timeout: int | None = None, summary: Path | None = None) -> None:
    """Carry out an operation: the plan object that is shown is the one that is run.

    ``name``: of the operation, for the lock and the summary file; ``begin``: checks what needs no lock; ``timeout`` in seconds.
    """
    from clusterctl.session.operator_lock import locked

    report = call.report()
    with limited(report, name, timeout, summary), call.session(report) as session, closing(report):
        transports = session.engine.transports
        report.bytes_sent = lambda: sum(transport.statistics.sent for transport in transports.values())
        consent.refuse_incomplete(session.cluster.name)
        operation = begin(session, report)
        with locked(session, name, dead=operation.dead, connect=operation.connect):
            changed, next_steps = carry_out(operation, session, report, consent)
            summarise(report, session, changed=changed, next_steps=next_steps)


def carry_out(operation: Operation[P], session: Session, report: Report, consent: Consent) -> tuple[bool, Sequence[str]]:
    """Show, confirm and run each plan; return whether there were changes, and the next steps."""
    last, changed, plans = None, False, iter(operation.plans())
    while True:
        with as_stopped() if changed else nullcontext():
            plan = next(plans, None)
            if plan is None:
                return changed, operation.finish(last) if last is not None else []
            last = plan
            (operation.show or report.plan)(plan)
            operation.check(plan)
            if not plan:
                continue
            if not (changed and operation.asks_once):
                consent.obtain(session.cluster.name)
            if not changed:
                begin_journal(report, session, operation.journal)
            run = operation.prepare(plan)
        changed = True
        with as_stopped():
            run()


def begin_journal(report: Report, session: Session, operation: str) -> None:
    """Write all events from now on to the journal, too."""
    from clusterctl.local.storage import Journal

    session.state.prepare()
    report.journal = Journal(session.state, f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{operation}")


@contextmanager
def as_stopped() -> Iterator[None]:
    """After the first change, report every error as Stopped (exit 4): other exit codes promise that nothing was changed.

    Bugs and wrong digests keep their own codes.
    """
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


def summarise(report: Report, session: Session, *, changed: bool, next_steps: Sequence[str]) -> None:
    """Report what changed where, what it cost and what to do next."""
    with as_stopped() if changed else nullcontext():
        report.summary(
            changed=changed,
            trips=sum(transport.statistics.trips for transport in session.engine.transports.values()),
            sent=report.bytes_sent(),
            next_steps=next_steps if changed else [],
        )


TimeLimitOption = Annotated[
    int | None, typer.Option("--timeout", metavar="SECONDS", min=1, max=10_000_000,
                             help="Time limit of the whole run; then it stops as at an interrupt, with exit code 4.")
]
SummaryOption = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="Write the result for a CI: FILE.xml is JUnit, FILE.json JSON.")
]


@contextmanager
def limited(report: Report, operation: str, timeout: int | None, summary: Path | None) -> Iterator[None]:
    """End a run within ``timeout`` seconds, and write a file with its result, whichever way it ends.

    Raises InputError where no summary can be written, before anything is done, and Stopped where that fails at the end.
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
            # The cause of the failure matters more than the missing summary file.
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
