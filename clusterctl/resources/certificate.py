"""A certificate and its key, issued on this side when the machine's is not right. No leaf key is ever kept here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from clusterctl.pki import Authority, CertificateSpec
from clusterctl.resources.base import Change, Resource, State
from clusterctl.resources.file import parse_stat
from clusterctl.shell import Blob, Call, Observation, Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate(Resource):
    """A pair PATH.crt (0644) and PATH.key (0600).

    A machine without openssl cannot tell whether key and certificate belong together: when they are installed, both digests are
    stamped, and what the certificate says. Any other content is drift. ``now``: the time of issue, decided by the plan.
    """

    path: str
    spec: CertificateSpec
    authority: Authority
    owner: str = "root:root"
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0), compare=False, repr=False)
    _issued: list[tuple[bytes, bytes]] = field(default_factory=list, compare=False, repr=False)

    @property
    def id(self) -> str:
        return f"certificate:{self.path}"

    @property
    def _stamp(self) -> str:
        return f"/var/lib/clusterctl/stamps/pair-{self.path.strip('/').replace('/', '-')}"

    def paths(self) -> Sequence[str]:
        return (f"{self.path}.crt", f"{self.path}.key", self._stamp)

    def desired(self) -> State:
        return {"subject": self.spec.subject, "names": self.spec.names, "usages": self.spec.usages, "validity": "long enough",
                "issuer": self.authority.fingerprint, "pair": "intact", "certificate_mode": f"644 {self.owner}",
                "key_mode": f"600 {self.owner}"}

    def probes(self) -> Sequence[Probe]:
        paths = (f"{self.path}.crt", f"{self.path}.key")
        looks = tuple((kind, path) for kind in ("stat", "sha") for path in paths)
        return (*looks, ("text", paths[0]), ("text", self._stamp))

    def observed(self, seen: Observation) -> State | None:
        text = seen.get("text", f"{self.path}.crt")
        key = parse_stat(seen, f"{self.path}.key")
        if text is None or key is None:
            return None
        certificate = parse_stat(seen, f"{self.path}.crt") or ("", "", "")
        pem = "\n".join(text) + "\n"
        digests = " ".join((seen.get("sha", f"{self.path}.{kind}") or ["none"])[0] for kind in ("crt", "key"))
        stamp = [*(seen.get("text", self._stamp) or ()), "", ""]
        pair = "intact" if stamp[0] == digests else "not what was installed"
        if not (certificate[0].startswith("regular") and key[0].startswith("regular")):
            pair = "not two files"
        fingerprint = digests.split()[0]
        return {**self.authority.describe(pem, stamp[1], fingerprint), "pair": pair, "fingerprint": fingerprint,
                "certificate_mode": " ".join(certificate[1:]), "key_mode": " ".join(key[1:])}

    def apply(self, change: Change) -> Sequence[Call]:
        if self._modes_only(change):
            return (("put_mode", f"{self.path}.crt", "644", self.owner), ("put_mode", f"{self.path}.key", "600", self.owner))
        return (("put_pair", self.path, self.owner, self._blob, self._stamp, self.authority.note(self.issue()[0])),)

    def payload(self, change: Change) -> Mapping[str, Blob]:
        if self._modes_only(change):
            return {}
        certificate, key = self.issue()
        return {f"{self._blob}.crt": certificate, f"{self._blob}.key": key}

    @staticmethod
    def _modes_only(change: Change) -> bool:
        return change.action == "update" and set(change.fields) <= {"certificate_mode", "key_mode"}

    def issue(self) -> tuple[bytes, bytes]:
        """The new pair, made when it is first asked for."""
        if not self._issued:
            self._issued.append(self.authority.issue(self.spec, self.now))
        return self._issued[0]

    @property
    def _blob(self) -> str:
        return self.path.strip("/").replace("/", "-")

    def digest(self, seen: State | None = None, change: Change | None = None) -> str:
        """Return the digest of the certificate that is installed, or that this change will issue. No plan makes keys."""
        found = seen or {}
        if change is not None and not self._modes_only(change):
            found = {**self.desired(), "ends": self.authority.end_of(self.spec, self.now)}
        words = [found.get(name, "") for name in ("subject", "names", "usages", "issuer", "ends")]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()
