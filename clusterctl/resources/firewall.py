"""The cluster's ports in whatever firewall is active on a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clusterctl.resources.base import Change, Resource, State
from clusterctl.shell import Blob, Call, Observation, Probe, functions

RULES = "/etc/clusterctl/firewall"
IN_FORCE = "in force"


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewall(Resource):
    """Rules that accept the cluster's ports. Nothing is planned where no firewall that clusterctl manages is active.

    ``rules``: sources, separated by commas, by such words as ``tcp 2379`` and ``forward pods``; none: what is there goes.
    ``unit_file``: of the unit that asserts the rules at boot.
    """

    rules: tuple[tuple[str, str], ...] = ()
    unit_file: bytes = b""

    @property
    def id(self) -> str:
        return "firewall:rules"

    def wanted(self) -> State | None:
        return {IN_FORCE: "yes", **dict(self.rules)} if self.rules else None

    def probes(self) -> Sequence[Probe]:
        return (("text", RULES), *((("firewall", "rules"),) if self.rules else ()))

    def parse(self, seen: Observation) -> State | None:
        active, force = (*(seen.get("firewall", "rules") or ()), "", "")[:2]
        if self.rules and not active:
            return self.wanted()
        lines = seen.get("text", RULES)
        if lines is None:
            return None
        rules = {words: sources for words, _, sources in (line.rpartition(" ") for line in lines)}
        return {**rules, IN_FORCE: force if rules.keys() <= dict(self.rules).keys() else "no: more than is wanted"}

    def apply(self, change: Change) -> Sequence[Call]:
        if change.action == "remove":
            return (("drop_firewall",),)
        return (("put_firewall", "firewall", "firewall.sh", "firewall.service"),)

    def payload(self, change: Change) -> Mapping[str, Blob]:
        if change.action == "remove":
            return {}
        rules = "".join(f"{words} {sources}\n" for words, sources in self.rules)
        script = functions("boot", "firewall") + "assert_firewall\n"
        return {"firewall": rules.encode(), "firewall.sh": script.encode(), "firewall.service": self.unit_file}
