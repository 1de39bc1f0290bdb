"""The verb that updates the machines' own packages and reboots them."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli.driver import Operation, SummaryOption, TimeLimitOption, drive
from clusterctl.cli.options import DrainInvocation, LimitOption, UnavailableOption, YesOption, verb
from clusterctl.cli.prompts import Consent

if TYPE_CHECKING:
    from clusterctl.commands.os_update import UpdatePlan
    from clusterctl.kube.disruption import DrainPolicy
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report


class Reboot(StrEnum):
    """When machines are rebooted."""

    auto = "auto"
    always = "always"
    never = "never"


RebootOption = Annotated[Reboot, typer.Option("--reboot", help="auto: reboot if an update or the machine requires it.")]
RebootTimeoutOption = Annotated[
    float, typer.Option("--reboot-timeout", metavar="SECONDS", min=1, max=7200, help="Timeout of each machine's reboot.")
]


def register(app: typer.Typer) -> None:
    """Add the verb of this file."""
    app.command("os-update")(os_update)


@verb
def os_update(
    call: DrainInvocation,
    limit: LimitOption = None,
    yes: YesOption = False,
    reboot: RebootOption = Reboot.auto,
    max_unavailable: UnavailableOption = None,
    reboot_timeout: RebootTimeoutOption = 900,
    timeout: TimeLimitOption = None,
    summary: SummaryOption = None,
) -> None:
    """Update the machines' packages and reboot them. Nodes are drained in batches; the cluster's own packages are held back."""
    begin = partial(_operation, policy=call.policy, mode=reboot.value, at_once=max_unavailable, reboot_seconds=reboot_timeout)
    drive(call, "os-update", begin, Consent(yes), timeout, summary)


def _operation(session: Session, report: Report, *, policy: DrainPolicy, mode: str, at_once: str | None,
               reboot_seconds: float) -> Operation[UpdatePlan]:
    from clusterctl.commands.os_reboot import OsUpdateRun, await_rebooting
    from clusterctl.commands.os_update import look
    from clusterctl.kube.disruption import Unavailable
    from clusterctl.kube.drain import refuse_unsafe

    unavailable = Unavailable.parse(at_once) if at_once is not None else None
    patient = await_rebooting(session, report.progress, reboot_seconds)
    late: set[str] = set()
    return Operation(
        connect=session.chosen, plans=lambda: [look(session, mode=mode, at_once=unavailable, policy=policy, patient=patient)],
        check=lambda plan: refuse_unsafe(plan.drains), journal="os-update",
        prepare=lambda plan: OsUpdateRun(session, plan, policy, late, report.progress, reboot_seconds).run,
        finish=lambda plan: ["clusterctl status", *_again(late)])


def _again(late: set[str]) -> list[str]:
    return [f"clusterctl os-update --limit {','.join(sorted(late))}  (they still want a reboot)"] if late else []
