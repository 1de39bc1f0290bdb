"""The verb that updates the machines' own packages and reboots them."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.options import Invocation, LimitOption, YesOption, draining_verb
from clusterctl.cli.steps import SummaryOption, TimeLimitOption, begin_journal, begun, confirm, limits, summarise

if TYPE_CHECKING:
    from clusterctl.kube.disruption import DrainPolicy
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report


class Reboot(StrEnum):
    """When machines are rebooted."""

    auto = "auto"
    always = "always"
    never = "never"


RebootOption = Annotated[Reboot, typer.Option("--reboot", help="auto: where an update or the machine asks for it.")]
UnavailableOption = Annotated[
    str, typer.Option("--max-unavailable", metavar="N|P%", help="Workers at once; by default what the inventory says.")
]


RebootTimeoutOption = Annotated[
    float, typer.Option("--reboot-timeout", metavar="SECONDS", min=30, max=7200, help="How long a machine may take to come back.")
]


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("os-update")(os_update)


@draining_verb
def os_update(
    call: Invocation,
    limit: LimitOption = None,
    yes: YesOption = False,
    reboot: RebootOption = Reboot.auto,
    max_unavailable: UnavailableOption = "",
    reboot_timeout: RebootTimeoutOption = 900,
    timeout: TimeLimitOption = None,
    summary: SummaryOption = None,
) -> None:
    """Update the machines' packages and reboot them. Nodes are drained, in batches; the cluster's own packages are held back."""
    report = call.report()
    with limits(report, "os-update", timeout, summary):
        _check(max_unavailable)
        with call.session(report) as opened:
            _run(report, opened, call.policy, yes=yes, mode=reboot.value, at_once=max_unavailable,
                 reboot_seconds=reboot_timeout)


def _run(report: Report, opened: Session, policy: DrainPolicy, *, yes: bool, mode: str, at_once: str, reboot_seconds: float) -> None:
    from clusterctl.commands.os_reboot import OsUpdateRun, await_rebooting
    from clusterctl.commands.os_update import look
    from clusterctl.kube.drain import refuse_unsafe
    from clusterctl.session.operator_lock import locked

    patient = await_rebooting(opened, report.progress, reboot_seconds)
    with locked(opened, "os-update", connect=opened.chosen) as lock:
        found = look(opened, mode=mode, at_once=at_once, policy=policy, patient=patient)
        report.os_update(found)
        refuse_unsafe(found.drains)
        late: set[str] = set()
        if found:
            confirm(yes)
            begin_journal(report, opened, "os-update")
            rollout = OsUpdateRun(opened, found, policy, lock, report.progress, reboot_seconds)
            with begun():
                rollout.run()
            late = rollout.late
        summarise(report, opened, changed=bool(found), next_steps=["clusterctl status", *_again(late)])


def _check(max_unavailable: str) -> None:
    from clusterctl.errors import InputError

    if max_unavailable and not re.fullmatch(r"[1-9]\d*%?", max_unavailable):
        raise InputError(f"{max_unavailable!r} is neither a number nor a percentage", where="--max-unavailable",
                         code="cli.max-unavailable", hint="2, or 25%")


def _again(late: set[str]) -> list[str]:
    return [f"clusterctl os-update --limit {','.join(sorted(late))}  (they still want a reboot)"] if late else []
