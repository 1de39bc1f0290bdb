"""The checksums that upstream publishes for its releases, and which releases of Kubernetes there are.

Sources: the download pages of the products, kubespray's ``component_hash_update`` for their addresses, and GitHub's REST API for
the digests of release assets (``assets[].digest``, set for assets uploaded since June 2025).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from clusterctl.artifacts.catalog import Pin, Release
from clusterctl.artifacts.download import NotFound, Timeouts, length_of, read_small
from clusterctl.cluster.versions import minor
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Unreachable

SMALL = 1 << 20
"""The largest file of checksums that is read, in bytes."""
LINE = re.compile(r"([0-9a-fA-F]{64})(?:[ \t]+\*?(\S+))?")
API = "api.github.com"


@dataclass(frozen=True, slots=True)
class Found:
    """A pin as upstream publishes it. ``source``: the address of the checksum."""

    path: str
    pin: Pin
    source: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """Upstream's servers over HTTPS. ``scheme`` goes before each path, whose first part is the host."""

    patience: Timeouts = field(default_factory=Timeouts)
    scheme: str = "https:/"

    def find(self, release: Release, version: str, arch: str) -> Found:
        """Return the published checksum of a release's file.

        Raises:
            InputError: upstream has no such version (``artifact.not-released``).
            Unreachable: a server does not answer, or GitHub's rate limit is reached.
            IntegrityError: the answer holds no checksum (``artifact.checksum-unreadable``), as a proxy's login page.
        """
        path = release.at(version, arch)
        try:
            if release.asset:
                return self._asset(release, version, arch, release.asset)
            source = f"{self.scheme}/{release.checksums.format(path=path, version=version)}"
            sha256 = parse_checksums(read_small(source, SMALL, self.patience), path.rpartition("/")[2], source)
        except NotFound as error:
            raise self._not_there(error, release.name, version) from None
        return Found(path, Pin(sha256, length_of(f"{self.scheme}/{path}", self.patience)), source)

    def _asset(self, wanted: Release, version: str, arch: str, asset: tuple[str, str]) -> Found:
        (repository, pattern), path = asset, wanted.at(version, arch)
        source = f"{self.scheme}/{API}/repos/{repository}/releases/tags/v{version}"
        release = _json(read_small(source, SMALL, self.patience, _authorization()), source)
        name = re.compile(pattern.format(version=re.escape(version), arch=arch))
        for found in release.get("assets") or ():
            digest = str(found.get("digest") or "")
            if name.fullmatch(str(found.get("name"))):
                if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                    raise InputError(f"GitHub knows no digest of {found['name']}: the release is older than June 2025",
                                     where=source, code="artifact.no-checksum",
                                     hint="a newer version, or its sha256 in cluster.artifacts.pins")
                url = str(found["browser_download_url"]).removeprefix("https://")
                size = found.get("size")
                pin = Pin(digest.removeprefix("sha256:"), size if isinstance(size, int) else 0, "" if url == path else url)
                return Found(path, pin, source)
        raise InputError(f"the release v{version} of {wanted} has no file for {arch}", where=source,
                         code="artifact.not-released", hint="another version of it: cluster.versions")

    def _not_there(self, error: NotFound, product: str, version: str) -> ClusterctlError:
        """Return the error for an answer without a file."""
        if error.status in (403, 429) and error.headers.get("x-ratelimit-remaining") == "0":
            reset = error.headers.get("x-ratelimit-reset", "")
            when = f"{datetime.fromtimestamp(int(reset), UTC):%H:%M} UTC" if reset.isdigit() else "an hour from now"
            return Unreachable("GitHub answers no more requests without a token", where=error.where, code="artifact.rate-limited",
                               hint=f"set GITHUB_TOKEN, or run the same command after {when}")
        if error.status != 404:
            return Unreachable(error.message, where=error.where, code="artifact.upstream-unreachable", hint=REACH)
        newest = self.newest(minor(version)) if product.startswith("kube") else ""
        hint = f"the newest of {minor(version)} is {newest}" if newest else "choose a version that upstream has released"
        return InputError(f"upstream has no {product} {version}", where=error.where, hint=hint, code="artifact.not-released")

    def newest(self, of_minor: str) -> str:
        """Return the newest patch of a minor of Kubernetes, empty where upstream does not say."""
        try:
            text = read_small(f"{self.scheme}/dl.k8s.io/release/stable-{of_minor}.txt", 100, self.patience)
        except Unreachable:
            return ""
        found = re.fullmatch(r"v(\d+\.\d+\.\d+)\s*", text.decode(errors="replace"))
        return found[1] if found and minor(found[1]) == of_minor else ""


REACH = ("connect this machine to the internet (HTTPS_PROXY and NO_PROXY are used), name a mirror that has the files "
         "(cluster.artifacts.mirror), or give their sha256 in cluster.artifacts.pins")


def parse_checksums(content: bytes, name: str, source: str) -> str:
    """Return the sha256 of a file from a text of checksums. Raises IntegrityError."""
    matches = [match for line in content.decode(errors="replace").splitlines() if (match := LINE.fullmatch(line.strip()))]
    named = {match[1].lower() for match in matches if match[2] and match[2].rpartition("/")[2] == name}
    bare = {match[1].lower() for match in matches if not match[2]}
    found = named or bare
    if len(found) != 1:
        raise _not_readable(f"holds no checksum of {name}", content, source)
    return found.pop()


def _not_readable(what: str, content: bytes, source: str) -> IntegrityError:
    return IntegrityError(f"{what}; it begins with {content[:40].decode(errors='replace')!r}", where=source,
                          code="artifact.checksum-unreadable", hint="does a proxy or a login page answer in place of the server?")


def _json(content: bytes, source: str) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _not_readable("is no JSON object", content, source)
    return found


def _authorization(environment: Callable[[str], str | None] = os.environ.get) -> Mapping[str, str]:
    """Return the header with GITHUB_TOKEN, none where that is empty. Raises InputError, which does not quote the token."""
    token = (environment("GITHUB_TOKEN") or "").strip()
    if not re.fullmatch(r"[!-~]*", token):
        raise InputError("has a character that no token has (printable ASCII without spaces is allowed)", where="GITHUB_TOKEN",
                         code="artifact.token-malformed", hint="set GITHUB_TOKEN to the token alone, or unset it")
    return {"Authorization": f"Bearer {token}"} if token else {}
