"""Plans as text: what changes where, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from clusterctl.local.text import shown_hosts

MOST_CHANGES = 12
"""Of a host in a stage that are listed without ``-v``."""

SIGNS = {"create": "+", "update": "~", "remove": "-", "restart": "!", "start": ">", "stop": "x"}


class Line(Protocol):
    """Prints one line in a style of rich."""

    def __call__(self, text: str, style: str | None = None) -> None: ...


class PlanText:
    """Prints plans from what their ``as_dict`` returns. ``verbose``: every change is listed."""

    def __init__(self, line: Line, *, verbose: bool) -> None:
        self.line, self.verbose = line, verbose

    def show(self, kind: str, content: Mapping[str, Any]) -> None:
        """Print a plan. ``kind``: the name of its event in JSON."""
        match kind:
            case "drain-plan":
                self._drains(content["drains"])
            case "os-update-plan":
                self._os_updates(content)
            case "restore-plan":
                self._restore(content)
            case "progress":
                self.line(f"  {content['text']}")
            case _:
                self._plan(content)

    def _drains(self, drains: Sequence[Mapping[str, Any]]) -> None:
        for drain in drains:
            self._drain(drain)

    def _drain(self, drain: Mapping[str, Any]) -> None:
        by_hand = ", cordoned by an operator: stays cordoned" if drain["cordoned_by_hand"] else ""
        self.line(f"drain {drain['node']}: {len(drain['evict'])} pods leave, {len(drain['stay'])} stay{by_hand}", "bold")
        for name in drain["evict"]:
            self.line(f"    - {name}", "yellow")
        for entry in drain["blocked"]:
            self.line(f"    ! {entry['pod']} cannot be evicted now: budget {', '.join(entry['budgets'])}", "red")
        for entry in drain["refused"]:
            self.line(f"    x {entry['pod']}: {entry['why']}", "red")
        for text in drain["warnings"]:
            self.line(f"    warning: {text}", "yellow")

    def _os_updates(self, fields: Mapping[str, Any]) -> None:
        for part in fields["machines"]:
            self._os_update(part)
        for name, operation in fields["forgotten"].items():
            self.line(f"{name}: pods may come to it again first: {operation}, which did not end, had cordoned it", "yellow")
        for text in fields["warnings"]:
            self.line(f"warning: {text}", "yellow")
        order = [" and ".join(batch) for batch in fields["batches"]]
        if fields["markers"]:
            order.append(f"the markers of reboots go from {', '.join(fields['markers'])}")
        self.line(f"plan: {'; then '.join(order) or 'no changes'}", "bold")

    def _os_update(self, part: Mapping[str, Any]) -> None:
        if not part["work"]:
            self.line(f"{part['host']}: nothing to do ({part['why']})")
            return
        again = ", goes on where the last run ended" if part["resumed"] else ""
        self.line(f"{part['host']}: {len(part['updates'])} updates, reboot: {part['reboot']} ({part['why']}){again}", "bold")
        if part["interrupted"]:
            self.line("    ! its package manager was interrupted: that is finished first", "red")
        for package in part["updates"]:
            self.line(f"    ~ {package['package']} {package['from'] or '(new)'} -> {package['to']}")
        for package in part["held_back"]:
            self.line(f"    = {package['package']} is the cluster's own: {package['to']} is held back")
        if part["drain"]:
            self._drain(part["drain"])
        self.line(f"    safe because: {part['safe']}")

    def _restore(self, fields: Mapping[str, Any]) -> None:
        for text in fields["warnings"]:
            self.line(f"warning: {text}", "yellow")
        if fields["begun"]:
            self.line(f"continues {fields['id']}, which did not end", "bold")
        self.line(f"etcd on {', '.join(fields['members'])} starts anew from {fields['source']}", "bold")
        if fields["revision"]:
            self.line(f"  revision {fields['revision']}, {fields['keys']} keys")
        self.line(f"  lost: {fields['lost']}", "yellow")
        self.line(f"  stopped meanwhile: the control planes on {', '.join(fields['control_planes'])}, and etcd", "yellow")
        self.line(f"  moved aside, never deleted: the old data, to {fields['moved_to']} on each of them")
        for name in fields["leaving"]:
            self.line(f"  {name}: its data is moved aside as well; it joins anew with clusterctl apply", "yellow")

    def _upgrade(self, fields: Mapping[str, Any]) -> None:
        for text in fields["warnings"]:
            self.line(f"warning: {text}", "yellow")
        for product, pair in fields["versions"].items():
            self.line(f"{product.replace('_', '-')}: {pair['from']} -> {pair['to']}", "bold")
        if len(fields["hops"]) > 1:
            self.line(f"after that, each as an upgrade of its own: {', '.join(fields['hops'][1:])}")
        if fields["etcd_snapshot"]:
            self.line("a snapshot of etcd is saved and verified before anything is interrupted")

    def _plan(self, fields: Mapping[str, Any]) -> None:
        if "hops" in fields:
            self._upgrade(fields)
        self._departures(fields.get("departures", ()))
        self._machines(fields["changes"], fields.get("safe", {}))
        for name in fields.get("gone", ()):
            self.line(f"  {name} is no part of the cluster any more; nothing is done to it")
        for name in fields.get("clean", ()):
            self.line(f"  {name}: nothing of clusterctl is on it; nothing is done to it")
        for change in fields["objects"]:
            self.line(
                f"  {SIGNS[change['action']]} {change['object']}  {change['action']} {', '.join(change['fields'][:4])}".rstrip()
            )
        for node in fields["nodes"]:
            self.line(f"  ~ node {node['node']}: {', '.join(node['fields'])}")
        for entry in fields.get("etcd_members", ()):
            self.line(f"  - etcd member {entry['member']}  {entry['action']} ({entry['reason']})", "yellow")
        self._pins(fields.get("pins", ()))
        self._drains(fields.get("drains", ()))
        count = Counter(change["action"] for kind in ("changes", "objects", "etcd_members") for change in fields.get(kind, ()))
        count.update("update" for _ in fields["nodes"])
        self.line(
            "plan: " + (", ".join(f"{number} to {action}" for action, number in sorted(count.items())) or "no changes"), "bold"
        )

    def _pins(self, pins: Sequence[dict[str, Any]]) -> None:
        for entry in pins:
            files = entry["files"]
            products = list(dict.fromkeys(file.split(" ", 1)[0] for file in files))
            more = f" and {len(products) - 3} more (-v)" if len(products) > 3 else ""
            named = ", ".join(files) if self.verbose else ", ".join(products[:3]) + more
            self.line(f"pins that are not clusterctl's own: {len(files)} from {entry['source']}: {named}")

    def _departures(self, departures: Sequence[dict[str, Any]]) -> None:
        for one in departures:
            words = "drained, and what was installed undone"
            if one["offline"]:
                words = "never contacted" + (", and kept out from now on" if one["keep_out"] else "")
            roles = f" ({', '.join(one['roles'])})" if one["roles"] else ""
            self.line(f"{one['node']}{roles} leaves: {words}", "yellow")
            self.line(f"    safe because {one['why_safe']}")
            if one["drain"]:
                self._drains([one["drain"]])

    def _machines(self, changes: Sequence[dict[str, Any]], safe: Mapping[str, str]) -> None:
        """Hosts with the same changes are shown together. Many changes are counted; ``-v`` lists them."""
        stages: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for change in changes:
            stages.setdefault(change["stage"], {}).setdefault(change["host"], []).append(change)
        for stage, by_host in stages.items():
            self.line(f"stage {stage}", "bold")
            alike: dict[tuple[object, ...], list[str]] = {}
            for host, own in by_host.items():
                what = ((change["resource"], change["action"], change["reason"], change.get("diff")) for change in own)
                alike.setdefault((safe.get(host), *what), []).append(host)
            for hosts in alike.values():
                why = safe.get(hosts[0])
                self.line(f"  {shown_hosts(hosts)}" + (f" ({why})" if why else ""))
                self._changes(by_host[hosts[0]])

    def _changes(self, changes: Sequence[dict[str, Any]]) -> None:
        few = self.verbose or len(changes) <= MOST_CHANGES
        if not few:
            count = Counter(change["action"] for change in changes if not change["disruptive"])
            counted = ", ".join(f"{SIGNS[action]} {number} {action}" for action, number in sorted(count.items()))
            self.line(f"    {counted} (-v lists them)")
        for change in changes:
            if few or change["disruptive"] or change.get("diff"):
                style = "yellow" if change["disruptive"] else None
                self.line(f"    {SIGNS[change['action']]} {change['resource']}  {change['action']} ({change['reason']})", style)
            for line in change.get("diff", "").splitlines():
                self.line(f"        {line}", {"+": "green", "-": "red"}.get(line[:1]))
