"""Commands of the inventory that run on the controller."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.cluster.machine_settings import Hook
from clusterctl.cluster.model import Host
from clusterctl.components.additions import STAGES
from clusterctl.engine.engine import Gate
from clusterctl.errors import InputError, Stopped
from clusterctl.inventory.command import run
from clusterctl.plan.planner import StagePlan
from clusterctl.plan.stages import AFTER, BEFORE
from clusterctl.resources.additions import Command
from clusterctl.session.session import Session

_MOST_BYTES = 1024 * 1024


def gates(session: Session) -> dict[str, Gate]:
    """Return what runs the commands of the controller, by stage: before a host records them as done."""
    def carry_out(stage: StagePlan, batch: Sequence[Host]) -> None:
        names = {host.name for host in batch}
        for part in stage.hosts:
            for change in part.changes if part.host.name in names else ():
                if isinstance(change.resource, Command):
                    _carry_out(session, part.host, change.resource.hook)

    return {f"{when}{stage}": carry_out for when in (BEFORE, AFTER) for stage in STAGES}


def _carry_out(session: Session, host: Host, hook: Hook) -> None:
    environment = ["env", f"CLUSTERCTL_HOST={host.name}", f"CLUSTERCTL_ADDRESS={host.address}"]

    def shell(command: str) -> None:
        run([*environment, "sh", "-c", command], what=f"hook {hook.name} for {host.name}", deadline=float(hook.timeout),
            most_bytes=_MOST_BYTES, cwd=session.cluster.base)

    try:
        if hook.when is not None:
            shell(hook.when)
    except InputError:
        return
    try:
        shell(hook.run)
    except InputError as error:
        raise Stopped(error.message, where=error.where, code="hook.failed",
                      hint="correct what it does, then run the same command again") from None
