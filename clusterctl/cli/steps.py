"""What verbs that change something do alike: ask, keep a journal, say what was done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

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
