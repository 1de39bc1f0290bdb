"""The verbs ``upgrade plan`` and ``upgrade apply``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.driver import Operation, SummaryOption, TimeLimitOption, drive
from clusterctl.cli.options import (
    CHANGES,
    ComponentOption,
    DrainInvocation,
    LimitOption,
    LockedOption,
    UnavailableOption,
    YesOption,
    components_of,
    refuse_releases,
    verb,
)
from clusterctl.cli.prompts import Consent

if TYPE_CHECKING:
    from clusterctl.commands.plan_file import Reviewed
    from clusterctl.commands.upgrade import UpgradePlan, UpgradeRequest
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

ToOption = Annotated[str | None, typer.Option(
    "--to", metavar="X.Y[.Z]", autocompletion=words.versions,
    help="Kubernetes version; a minor means its newest patch release. Default: the inventory's.")]
ThroughOption = Annotated[list[str] | None, typer.Option(
    "--through", metavar="X.Y.Z", autocompletion=words.versions, help="Intermediate version; repeatable.")]
PauseOption = Annotated[
    str | None, typer.Option("--pause-after", metavar="STAGE", help="Stop after this stage: staging, etcd, control-plane.")
]
FileArgument = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A plan written by `upgrade plan --out`.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    upgrade = typer.Typer(help="Upgrade a running cluster to other versions.", no_args_is_help=True, rich_markup_mode=None)
    upgrade.command("plan")(plan)
    upgrade.command("apply")(apply)
    app.add_typer(upgrade, name="upgrade")


@dataclass(frozen=True, kw_only=True)
class UpgradeInvocation(DrainInvocation):
    """The options of both verbs."""

    to: ToOption = None
    through: ThroughOption = None
    component: ComponentOption = None
    max_unavailable: UnavailableOption = None
    pause_after: PauseOption = None

    @property
    def wish(self) -> UpgradeRequest:
        """The request of these options. Raises InputError."""
        from clusterctl.commands.upgrade import PAUSES, UpgradeRequest
        from clusterctl.errors import InputError
        from clusterctl.kube.disruption import Unavailable

        if self.pause_after is not None and self.pause_after not in PAUSES:
            raise InputError(f"there is no stage {self.pause_after!r}", where="--pause-after", code="upgrade.unknown-stage",
                             hint=f"stages: {', '.join(PAUSES)}")
        refuse_releases("--to", [self.to] if self.to is not None else [], minors=True)
        refuse_releases("--through", self.through or ())
        return UpgradeRequest(
            to=self.to, through=tuple(self.through or ()), components=dict(components_of(self.component or ())),
            unavailable=Unavailable.parse(self.max_unavailable) if self.max_unavailable is not None else None,
            pause_after=self.pause_after, policy=self.policy)


@verb
def plan(
    call: UpgradeInvocation,
    limit: LimitOption = None,
    locked: LockedOption = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it, for `upgrade apply FILE`.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 if there is something to do.")] = False,
) -> None:
    """Show what an upgrade would do. Lists everything that prevents it; nothing is changed."""
    from clusterctl.commands import lock, plan_file
    from clusterctl.commands.apply import gather
    from clusterctl.commands.upgrade import make

    wish = call.wish
    report = call.report()
    with call.session(report) as opened:
        facts, warnings = gather(opened)
        found = make(opened, facts, warnings, wish)
        report.plan(found)
        if newer := [] if call.to else lock.newer_releases(opened, facts):
            report.progress(f"upstream has released {', '.join(newer)}: clusterctl upgrade plan --to X.Y[.Z]")
        if out is not None:
            # The patch release that a minor means today is the plan's.
            plan_file.write(out, opened, replace(wish, to=found.hops[-1]) if wish.to else wish, found)
            report.progress(f"wrote {out}: clusterctl upgrade apply {out}")
    if exit_code and found:
        raise typer.Exit(CHANGES)


@verb
def apply(
    call: UpgradeInvocation,
    file: FileArgument = None,
    limit: LimitOption = None,
    locked: LockedOption = False,
    yes: YesOption = False,
    timeout: TimeLimitOption = None,
    summary: SummaryOption = None,
) -> None:
    """Upgrade the cluster to other versions.

    Stages all machines, saves a snapshot, upgrades etcd, control planes one by one, drained nodes in batches. Safe to rerun.
    """
    drive(call, "upgrade", partial(_operation, call, file), Consent(yes), timeout, summary)


def _operation(call: UpgradeInvocation, file: Path | None, session: Session, report: Report) -> Operation[UpgradePlan]:
    """One upgrade after the other; of a plan that was reviewed, the one that it is about."""
    from clusterctl.commands import plan_file
    from clusterctl.commands.apply import gather
    from clusterctl.commands.upgrade import Upgrade, make

    wish = call.wish
    reviewed = plan_file.read(file, session, wish) if file is not None else None
    if reviewed is not None:
        wish, session = reviewed.wish, session.toward(replace(session.target, limit=reviewed.limit))

    def plans() -> Iterator[UpgradePlan]:
        while True:
            found = make(session, *gather(session), wish)
            yield found
            if reviewed is not None or wish.pause_after is not None or len(found.hops) == 1:
                return

    def prepare(plan: UpgradePlan) -> Callable[[], None]:
        operation = Upgrade(session, plan, wish, report.progress).delivered()
        return partial(_run, operation.run, report, reviewed)

    return Operation(connect=session.chosen, plans=plans, check=reviewed.refuse_other if reviewed else lambda plan: None,
                     journal="upgrade", prepare=prepare, finish=lambda plan: _next_steps(plan, wish, reviewed))


def _run(run: Callable[[], None], report: Report, reviewed: Reviewed | None) -> None:
    try:
        run()
    except BaseException:
        if reviewed is not None:
            report.progress(f"what is left is another plan: clusterctl upgrade plan --out {reviewed.path}")
        raise


def _next_steps(found: UpgradePlan, wish: UpgradeRequest, reviewed: Reviewed | None) -> list[str]:
    if reviewed is not None and (wish.pause_after is not None or len(found.hops) > 1):
        return [f"what comes after it is a plan of its own: clusterctl upgrade plan --out {reviewed.path}"]
    if wish.pause_after is not None:
        return [f"the same command without --pause-after {wish.pause_after} goes on"]
    from clusterctl.cluster.model import MINOR
    from clusterctl.cluster.versions import minor

    settings, wanted = found.plan.target.cluster.settings, found.plan.target.versions
    said = settings.kubernetes or ""
    runs = minor(wanted.kubernetes) if MINOR.fullmatch(said) else wanted.kubernetes
    named = {"cluster.kubernetes": (said, runs)} if said else {}
    named |= {f"cluster.versions.{name}": (str(said), getattr(wanted, name)) for name, said in settings.versions.items()}
    inventory = [f"in the inventory: {key}: \"{runs}\" (it says {said})" for key, (said, runs) in named.items() if said != runs]
    return [*inventory, "clusterctl status"]
