"""The verbs ``upgrade plan`` and ``upgrade apply``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clusterctl.cli import words
from clusterctl.cli.options import (
    ComponentOption,
    Invocation,
    LimitOption,
    LockedOption,
    YesOption,
    components_of,
    draining_verb,
    refuse_releases,
)
from clusterctl.cli.steps import SummaryOption, TimeLimitOption, begin_journal, begun, confirm, limits, summarise

if TYPE_CHECKING:
    from clusterctl.commands.plan_file import Reviewed
    from clusterctl.commands.upgrade import UpgradePlan, UpgradeRequest
    from clusterctl.kube.disruption import DrainPolicy
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report

ToOption = Annotated[str | None, typer.Option(
    "--to", metavar="X.Y[.Z]", autocompletion=words.versions,
    help="Of Kubernetes, a minor for its newest patch release; by default the inventory's.")]
ThroughOption = Annotated[
    list[str] | None, typer.Option("--through", metavar="X.Y.Z", help="A minor in between; may be given again.")
]
UnavailableOption = Annotated[
    str | None, typer.Option("--max-unavailable", metavar="N|P%", help="Workers at once; else what the inventory says.")
]
PauseOption = Annotated[
    str | None, typer.Option("--pause-after", metavar="STAGE", help="Stop after this: staging, etcd, control-plane.")
]
FileArgument = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="What `upgrade plan --out` wrote: that or nothing.")]


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
    upgrade = typer.Typer(help="Other versions for a cluster that runs.", no_args_is_help=True, rich_markup_mode=None)
    upgrade.command("plan")(plan)
    upgrade.command("apply")(apply)
    app.add_typer(upgrade, name="upgrade")


def _wish(to: str | None, through: list[str] | None, component: list[str] | None, unavailable: str | None, pause: str | None,
          policy: DrainPolicy) -> UpgradeRequest:
    from clusterctl.commands.upgrade import PAUSES, UpgradeRequest
    from clusterctl.errors import InputError

    if pause is not None and pause not in PAUSES:
        raise InputError(f"there is no stage {pause!r}", where="--pause-after", code="upgrade.unknown-stage",
                         hint=f"stages: {', '.join(PAUSES)}")
    refuse_releases("--to", [to] if to is not None else [], minors=True)
    refuse_releases("--through", through or ())
    return UpgradeRequest(to=to, through=tuple(through or ()), components=dict(components_of(component or ())), unavailable=unavailable,
                          pause_after=pause, policy=policy)


@draining_verb
def plan(
    call: Invocation,
    to: ToOption = None,
    through: ThroughOption = None,
    component: ComponentOption = None,
    max_unavailable: UnavailableOption = None,
    pause_after: PauseOption = None,
    limit: LimitOption = None,
    locked: LockedOption = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there, for `upgrade apply FILE`.")] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 10 where there is something to do.")] = False,
) -> None:
    """Show what an upgrade would do, and why it may not be done. Nothing is changed."""
    from clusterctl.commands import lock, plan_file
    from clusterctl.commands.apply import gather
    from clusterctl.commands.upgrade import make

    wish = _wish(to, through, component, max_unavailable, pause_after, call.policy)
    report = call.report()
    with call.session(report) as opened:
        facts, warnings = gather(opened)
        found = make(opened, facts, warnings, wish)
        report.upgrade(found)
        newer = [] if to or locked else lock.newer_releases(facts)
        if newer:
            report.progress(f"upstream has released {', '.join(newer)}: clusterctl upgrade plan --to X.Y[.Z]")
        if out is not None:
            plan_file.write(out, opened, wish, found)
            report.progress(f"wrote {out}: clusterctl upgrade apply {out}")
    if exit_code and found:
        raise typer.Exit(10)


@draining_verb
def apply(
    call: Invocation,
    file: FileArgument = None,
    to: ToOption = None,
    through: ThroughOption = None,
    component: ComponentOption = None,
    max_unavailable: UnavailableOption = None,
    pause_after: PauseOption = None,
    limit: LimitOption = None,
    locked: LockedOption = False,
    yes: YesOption = False,
    timeout: TimeLimitOption = None,
    summary: SummaryOption = None,
) -> None:
    """Upgrade the cluster to other versions.

    Stages all machines, saves a snapshot, then etcd, control planes one by one, nodes drained in batches. Run it again to go on.
    """
    from clusterctl.commands import plan_file
    from clusterctl.session.operator_lock import locked as operator_lock

    report = call.report()
    with limits(report, "upgrade", timeout, summary):
        wish = _wish(to, through, component, max_unavailable, pause_after, call.policy)
        with call.session(report) as opened:
            reviewed = plan_file.read(file, opened, wish) if file is not None else None
            with operator_lock(opened, "upgrade", connect=opened.chosen):
                _all(report, opened, reviewed.wish if reviewed else wish, yes, reviewed)


def _all(report: Report, opened: Session, wish: UpgradeRequest, yes: bool, reviewed: Reviewed | None) -> None:
    """One upgrade after the other, each planned when it is its turn; of a plan that was reviewed, the one that it is about."""
    from clusterctl.commands.apply import gather
    from clusterctl.commands.upgrade import make

    changed = False
    while True:
        # An upgrade that is refused after another one was done is a stop.
        with begun() if changed else nullcontext():
            found = make(opened, *gather(opened), wish)
            report.upgrade(found)
            if reviewed is not None:
                reviewed.refuse_other(found)
            if found:
                confirm(yes)
        if found:
            if not changed:
                begin_journal(report, opened, "upgrade")
            changed = True
            _run(report, opened, found, wish, reviewed)
        if reviewed is not None or wish.pause_after is not None or len(found.hops) == 1:
            break
        opened.forget_versions()
    summarise(report, opened, changed=changed, next_steps=_next_steps(opened, found, wish, reviewed))


def _run(report: Report, opened: Session, found: UpgradePlan, wish: UpgradeRequest, reviewed: Reviewed | None) -> None:
    from clusterctl.commands.upgrade import Upgrade

    operation = Upgrade(opened, found, wish, report.progress)
    operation.deliver()
    with begun():
        try:
            operation.run()
        except BaseException:
            if reviewed is not None:
                report.progress(f"what is left is another plan: clusterctl upgrade plan --out {reviewed.path}")
            raise


def _next_steps(opened: Session, found: UpgradePlan, wish: UpgradeRequest, reviewed: Reviewed | None) -> list[str]:
    if reviewed is not None and (wish.pause_after is not None or len(found.hops) > 1):
        return [f"what comes after it is a plan of its own: clusterctl upgrade plan --out {reviewed.path}"]
    if wish.pause_after is not None:
        return [f"the same command without --pause-after {wish.pause_after} goes on"]
    from clusterctl.cluster.model import MINOR
    from clusterctl.cluster.versions import minor

    settings, wanted = opened.cluster.settings, opened.cluster.versions
    said = settings.kubernetes or ""
    runs = minor(wanted.kubernetes) if MINOR.fullmatch(said) else wanted.kubernetes
    named = {"cluster.kubernetes": (said, runs)} if said else {}
    named |= {f"cluster.versions.{name}": (str(said), getattr(wanted, name)) for name, said in settings.versions.items()}
    inventory = [f"in the inventory: {key}: \"{runs}\" (it says {said})" for key, (said, runs) in named.items() if said != runs]
    return [*inventory, "clusterctl status"]
