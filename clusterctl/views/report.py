"""What people and programs see while clusterctl works: text with or without a terminal, or events as JSON lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clusterctl.cluster.model import Host
from clusterctl.engine.engine import Events
from clusterctl.local.storage import Journal
from clusterctl.local.text import printable, shown_hosts
from clusterctl.resources.base import Change

if TYPE_CHECKING:
    from rich.console import Console

    from clusterctl.plan.planner import OperationPlan


MOST_CHANGES = 12
"""Of a host in a stage that are listed without ``-v``."""
MOST_NOTES = 8
"""On the inventory that are printed above a plan."""

SIGNS = {"create": "+", "update": "~", "remove": "-", "restart": "!", "start": ">", "stop": "x"}


class Report(Events):
    """Reports events. ``journal``, once there is one, gets the same events; ``bytes_sent``: to all machines until now."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.verbose = verbose
        self.journal: Journal | None = None
        self.started = time.monotonic()
        self.done: dict[str, Counter[str]] = defaultdict(Counter)
        self.stages: list[tuple[str, float]] = []
        self.bytes_sent: Callable[[], int] = lambda: 0
        self._told = 0.0

    def emit(self, event: str, **fields: Any) -> None:
        """Show one event."""

    def close(self) -> None:
        """End what is being drawn, before a question or an error."""

    def _tell(self, event: str, **fields: Any) -> None:
        if self.journal is not None:
            self.journal.write(event, **fields)
        self.emit(event, **fields)

    def looked(self, host: Host, what: str, seconds: float) -> None:
        self.emit("looked", host=host.name, what=what, seconds=round(seconds, 3))

    def stage_started(self, stage: str, hosts: Sequence[str]) -> None:
        self._tell("stage-started", stage=stage, hosts=list(hosts))

    def change_done(self, stage: str, host: Host, change: Change, seconds: float) -> None:
        self.done[host.name][change.action] += 1
        self._tell(
            "changed",
            stage=stage,
            host=host.name,
            resource=change.resource.id,
            action=change.action,
            reason=change.reason,
            seconds=round(seconds, 3),
        )

    def change_failed(self, stage: str, host: Host, change: Change, message: str) -> None:
        self._tell("failed", stage=stage, host=host.name, resource=change.resource.id, action=change.action, message=message)

    def stage_ended(self, stage: str, seconds: float) -> None:
        self.stages.append((stage, seconds))
        self._tell("stage-ended", stage=stage, seconds=round(seconds, 3))

    def note(self, text: str) -> None:
        self._tell("note", text=text)

    def fetched(self, path: str, done: int, total: int | None) -> None:
        """Report the progress of a download, every two seconds and at its end."""
        now = time.monotonic()
        if done == total or now - self._told > 2:
            self._told = now
            self.emit("fetched", path=path, done=done, total=total)

    def acted(self, host: str, action: str, count: int = 1) -> None:
        """What was done to a host beside the changes of a plan: the summary counts it."""
        self.done[host][action] += count

    def progress(self, text: str) -> None:
        """Something that people want to follow."""
        self._tell("progress", text=text)

    def inventory_notes(self, notes: Sequence[str]) -> None:
        """Report what an inventory says that means something else here."""
        if notes:
            self.emit("inventory-notes", count=len(notes), notes=list(notes))

    def warn(self, text: str) -> None:
        self.emit("warning", text=text)

    def warn_of_hosts(self, warnings: Sequence[str], hosts: Sequence[Host]) -> None:
        """Report warnings of a plan, of which those of hosts begin with their names."""
        for text in warnings:
            self.warn(text)

    def plan(self, plan: OperationPlan) -> None:
        """Show what an operation will do."""
        self.emit(plan.event, **plan.as_dict())

    def summary(self, *, changed: bool, trips: int, sent: int, next_steps: Sequence[str]) -> None:
        self._tell(
            "summary",
            changed=changed,
            hosts={name: dict(count) for name, count in self.done.items()},
            stages=[{"stage": name, "seconds": round(seconds, 3)} for name, seconds in self.stages],
            seconds=round(time.monotonic() - self.started, 3),
            trips=trips,
            bytes_sent=sent,
            next=list(next_steps),
        )


class JsonReport(Report):
    """Events as JSON lines on stdout."""

    def emit(self, event: str, **fields: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **fields}, default=str) + "\n")
        sys.stdout.flush()


class TextReport(Report):
    """Plain lines; rich gives them colour on a terminal."""

    def __init__(self, *, verbose: bool = False) -> None:
        super().__init__(verbose=verbose)
        self._console: Console | None = None
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            from rich.console import Console

            self._console = Console(highlight=False, soft_wrap=True)

    def _line(self, text: str, style: str | None = None) -> None:
        text = printable(text)
        if self._console is None:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        else:
            self._console.print(text, style=style, markup=False)

    def _clock(self) -> str:
        return f"{time.monotonic() - self.started:7.1f}s"

    def emit(self, event: str, **fields: Any) -> None:
        show = getattr(self, f"_show_{event.replace('-', '_')}", None)
        if show is not None:
            show(fields)

    def _show_looked(self, fields: dict[str, Any]) -> None:
        if self.verbose:
            self._line(f"{self._clock()}  {fields['host']}: looked at {fields['what']} in {fields['seconds']:.2f} s", "dim")

    def _show_stage_started(self, fields: dict[str, Any]) -> None:
        self._line(f"{self._clock()}  {fields['stage']}: {', '.join(fields['hosts'])}", "bold")

    def _show_changed(self, fields: dict[str, Any]) -> None:
        if self.verbose or fields["action"] in ("restart", "start", "stop") or fields["seconds"] > 2:
            self._line(
                f"{self._clock()}    {fields['host']}: {fields['resource']} {fields['action']} ({fields['seconds']:.1f} s)"
            )

    def _show_failed(self, fields: dict[str, Any]) -> None:
        self._line(f"{self._clock()}    {fields['host']}: {fields['resource']} FAILED", "bold red")

    def _show_stage_ended(self, fields: dict[str, Any]) -> None:
        self._line(f"{self._clock()}  {fields['stage']}: done in {fields['seconds']:.1f} s", "green")

    def _show_note(self, fields: dict[str, Any]) -> None:
        if self.verbose:
            self._line(f"{self._clock()}    {fields['text']}", "dim")

    def _show_inventory_notes(self, fields: dict[str, Any]) -> None:
        notes = fields["notes"]
        for note in notes[:MOST_NOTES]:
            self._line(f"note: {note}", "dim")
        if len(notes) > MOST_NOTES:
            self._line(f"note: {len(notes) - MOST_NOTES} more notes on the inventory: clusterctl inventory", "dim")

    def _show_progress(self, fields: dict[str, Any]) -> None:
        self._line(f"{self._clock()}    {fields['text']}")

    def _show_drain_plan(self, fields: dict[str, Any]) -> None:
        for drain in fields["drains"]:
            self._show_drain(drain)

    def _show_drain(self, drain: dict[str, Any]) -> None:
        by_hand = ", cordoned by somebody: it stays so" if drain["cordoned_by_hand"] else ""
        self._line(f"drain {drain['node']}: {len(drain['evict'])} pods leave, {len(drain['stay'])} stay{by_hand}", "bold")
        for name in drain["evict"]:
            self._line(f"    - {name}", "yellow")
        for entry in drain["blocked"]:
            self._line(f"    ! {entry['pod']} cannot be evicted now: budget {', '.join(entry['budgets'])}", "red")
        for entry in drain["refused"]:
            self._line(f"    x {entry['pod']}: {entry['why']}", "red")
        for text in drain["warnings"]:
            self._line(f"    warning: {text}", "yellow")

    def _show_os_update_plan(self, fields: dict[str, Any]) -> None:
        for part in fields["machines"]:
            self._show_os_update(part)
        for name, operation in fields["forgotten"].items():
            self._line(f"{name}: pods may come to it again first: {operation}, which did not end, had cordoned it", "yellow")
        for text in fields["warnings"]:
            self._line(f"warning: {text}", "yellow")
        order = [" and ".join(batch) for batch in fields["batches"]]
        if fields["markers"]:
            order.append(f"the markers of reboots go from {', '.join(fields['markers'])}")
        self._line(f"plan: {'; then '.join(order) or 'no changes'}", "bold")

    def _show_os_update(self, part: dict[str, Any]) -> None:
        if not part["work"]:
            self._line(f"{part['host']}: nothing to do ({part['why']})")
            return
        again = ", goes on where the last run ended" if part["resumed"] else ""
        self._line(f"{part['host']}: {len(part['updates'])} updates, reboot: {part['reboot']} ({part['why']}){again}", "bold")
        if part["interrupted"]:
            self._line("    ! its package manager was interrupted: that is finished first", "red")
        for package in part["updates"]:
            self._line(f"    ~ {package['package']} {package['from'] or '(new)'} -> {package['to']}")
        for package in part["held_back"]:
            self._line(f"    = {package['package']} is the cluster's own: {package['to']} is held back")
        if part["drain"]:
            self._show_drain(part["drain"])
        self._line(f"    safe because: {part['safe']}")

    def _show_restore_plan(self, fields: dict[str, Any]) -> None:
        for text in fields["warnings"]:
            self._line(f"warning: {text}", "yellow")
        if fields["begun"]:
            self._line(f"continues {fields['id']}, which did not end", "bold")
        self._line(f"etcd on {', '.join(fields['members'])} starts anew from {fields['source']}", "bold")
        if fields["revision"]:
            self._line(f"  revision {fields['revision']}, {fields['keys']} keys")
        self._line(f"  lost: {fields['lost']}", "yellow")
        self._line(f"  stopped meanwhile: the control planes on {', '.join(fields['control_planes'])}, and etcd", "yellow")
        self._line(f"  moved aside, never deleted: the old data, to {fields['moved_to']} on each of them")
        for name in fields["leaving"]:
            self._line(f"  {name}: its data is moved aside as well; it joins anew with clusterctl apply", "yellow")

    def _show_fetched(self, fields: dict[str, Any]) -> None:
        total = f" of {fields['total'] / 2**20:.0f}" if fields["total"] else ""
        self._line(f"{self._clock()}  fetching {fields['path'].rsplit('/', 1)[-1]}: {fields['done'] / 2**20:.0f}{total} MiB")

    def warn_of_hosts(self, warnings: Sequence[str], hosts: Sequence[Host]) -> None:
        """Print the same warning of several hosts once."""
        names, alike = {host.name for host in hosts}, defaultdict[str, list[str]](list)
        for text in warnings:
            name, _, rest = text.partition(": ")
            alike[rest if name in names else text].extend([name] if name in names else [])
        for text, of in alike.items():
            self.warn(f"{shown_hosts(of)}: {text}" if of else text)

    def _show_warning(self, fields: dict[str, Any]) -> None:
        self._line(f"warning: {fields['text']}", "yellow")

    def _show_upgrade(self, fields: dict[str, Any]) -> None:
        for text in fields["warnings"]:
            self._line(f"warning: {text}", "yellow")
        for product, pair in fields["versions"].items():
            self._line(f"{product.replace('_', '-')}: {pair['from']} -> {pair['to']}", "bold")
        if len(fields["hops"]) > 1:
            self._line(f"after that, each as an upgrade of its own: {', '.join(fields['hops'][1:])}")
        if fields["etcd_snapshot"]:
            self._line("a snapshot of etcd is saved and verified before anything is interrupted")

    def _show_plan(self, fields: dict[str, Any]) -> None:
        if "hops" in fields:
            self._show_upgrade(fields)
        self._show_departures(fields.get("departures", ()))
        self._show_machines(fields["changes"], fields.get("safe", {}))
        for name in fields.get("gone", ()):
            self._line(f"  {name} is no part of the cluster any more; nothing is done to it")
        for name in fields.get("clean", ()):
            self._line(f"  {name}: nothing of clusterctl is on it; nothing is done to it")
        for change in fields["objects"]:
            self._line(
                f"  {SIGNS[change['action']]} {change['object']}  {change['action']} {', '.join(change['fields'][:4])}".rstrip()
            )
        for node in fields["nodes"]:
            self._line(f"  ~ node {node['node']}: {', '.join(node['fields'])}")
        for entry in fields.get("etcd_members", ()):
            self._line(f"  - etcd member {entry['member']}  {entry['action']} ({entry['reason']})", "yellow")
        self._show_pins(fields.get("pins", ()))
        self._show_drain_plan({"drains": fields.get("drains", ())})
        count = Counter(change["action"] for kind in ("changes", "objects", "etcd_members") for change in fields.get(kind, ()))
        count.update("update" for _ in fields["nodes"])
        self._line(
            "plan: " + (", ".join(f"{number} to {action}" for action, number in sorted(count.items())) or "no changes"), "bold"
        )

    def _show_pins(self, pins: Sequence[dict[str, Any]]) -> None:
        for entry in pins:
            files = entry["files"]
            products = list(dict.fromkeys(file.split(" ", 1)[0] for file in files))
            more = f" and {len(products) - 3} more (-v)" if len(products) > 3 else ""
            named = ", ".join(files) if self.verbose else ", ".join(products[:3]) + more
            self._line(f"pins that are not clusterctl's own: {len(files)} from {entry['source']}: {named}")

    def _show_departures(self, departures: Sequence[dict[str, Any]]) -> None:
        for one in departures:
            words = "drained, and what was installed undone"
            if one["offline"]:
                words = "never contacted" + (", and kept out from now on" if one["keep_out"] else "")
            roles = f" ({', '.join(one['roles'])})" if one["roles"] else ""
            self._line(f"{one['node']}{roles} leaves: {words}", "yellow")
            self._line(f"    safe because {one['why_safe']}")
            if one["drain"]:
                self._show_drain_plan({"drains": [one["drain"]]})

    def _show_machines(self, changes: Sequence[dict[str, Any]], safe: Mapping[str, str]) -> None:
        """Hosts with the same changes are shown together. Many changes are counted; ``-v`` lists them."""
        stages: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for change in changes:
            stages.setdefault(change["stage"], {}).setdefault(change["host"], []).append(change)
        for stage, by_host in stages.items():
            self._line(f"stage {stage}", "bold")
            alike: dict[tuple[object, ...], list[str]] = {}
            for host, own in by_host.items():
                what = ((change["resource"], change["action"], change["reason"], change.get("diff")) for change in own)
                alike.setdefault((safe.get(host), *what), []).append(host)
            for hosts in alike.values():
                why = safe.get(hosts[0])
                self._line(f"  {shown_hosts(hosts)}" + (f" ({why})" if why else ""))
                self._show_changes(by_host[hosts[0]])

    def _show_changes(self, changes: Sequence[dict[str, Any]]) -> None:
        few = self.verbose or len(changes) <= MOST_CHANGES
        if not few:
            count = Counter(change["action"] for change in changes if not change["disruptive"])
            counted = ", ".join(f"{SIGNS[action]} {number} {action}" for action, number in sorted(count.items()))
            self._line(f"    {counted} (-v lists them)")
        for change in changes:
            if few or change["disruptive"] or change.get("diff"):
                style = "yellow" if change["disruptive"] else None
                self._line(f"    {SIGNS[change['action']]} {change['resource']}  {change['action']} ({change['reason']})", style)
            for line in change.get("diff", "").splitlines():
                self._line(f"        {line}", {"+": "green", "-": "red"}.get(line[:1]))

    def _show_summary(self, fields: dict[str, Any]) -> None:
        for name, actions in sorted(fields["hosts"].items()):
            self._line(f"  {name}: " + ", ".join(f"{number} {action}" for action, number in sorted(actions.items())))
        if fields["stages"]:
            self._line("  stages: " + ", ".join(f"{entry['stage']} {entry['seconds']:.1f} s" for entry in fields["stages"]))
        what = "done" if fields["changed"] else "no changes"
        self._line(
            f"{what} in {fields['seconds']:.1f} s, {fields['trips']} trips, {fields['bytes_sent'] / 2**20:.1f} MiB sent",
            "bold green",
        )
        for step in fields["next"]:
            self._line(f"  next: {step}")
