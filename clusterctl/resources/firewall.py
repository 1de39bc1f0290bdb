"""The cluster's ports in whatever firewall is active on a machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from clusterctl.resources.base import Change, Resource, State
from clusterctl.shell import Blob, Call, Observation, Probe, functions

RULES = "/etc/clusterctl/firewall"
SCRIPT = "/etc/clusterctl/firewall.sh"
UNIT = "/etc/systemd/system/clusterctl-firewall.service"
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

    def desired(self) -> State | None:
        return {IN_FORCE: "yes", **dict(self.rules), **{path: sha256(text).hexdigest() for path, text in self._files.items()}} \
            if self.rules else None

    @property
    def _files(self) -> Mapping[str, bytes]:
        return {SCRIPT: (functions("boot", "firewall") + "assert_firewall\nrevive_proxies\n").encode(), UNIT: self.unit_file}

    def probes(self) -> Sequence[Probe]:
        return (("text", RULES), *((("firewall", "rules"), ("sha", SCRIPT), ("sha", UNIT)) if self.rules else ()))

    def observed(self, seen: Observation) -> State | None:
        active, force = (*(seen.get("firewall", "rules") or ()), "", "")[:2]
        if self.rules and not active:
            return self.desired()
        lines = seen.get("text", RULES)
        if lines is None:
            return None
        rules = {words: sources for words, _, sources in (line.rpartition(" ") for line in lines)}
        files = {path: (seen.get("sha", path) or [""])[0] for path in (SCRIPT, UNIT) if self.rules}
        return {**rules, **files, IN_FORCE: force if rules.keys() <= dict(self.rules).keys() else "no: more than is wanted"}

    def apply(self, change: Change) -> Sequence[Call]:
        if change.action == "remove":
            return (("drop_firewall",),)
        files = ((RULES, "644", "firewall"), (SCRIPT, "700", "firewall.sh"), (UNIT, "600", "firewall.service"))
        return (*(("put_file", path, mode, "root:root", blob, "any") for path, mode, blob in files), ("put_firewall",))

    def payload(self, change: Change) -> Mapping[str, Blob]:
        if change.action == "remove":
            return {}
        rules = "".join(f"{words} {sources}\n" for words, sources in self.rules)
        return {"firewall": rules.encode(), "firewall.sh": self._files[SCRIPT], "firewall.service": self.unit_file}
