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
from clusterctl.artifacts.download import NotFound, Timeouts, TransferInterrupted, length_of, read_small
from clusterctl.cluster.model import VERSION
from clusterctl.cluster.versions import minor, order
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Unreachable

SMALL, LARGEST_LIST = 1 << 20, 16 << 20
"""The largest file of checksums and the largest list of releases that are read, in bytes."""
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
        except (NotFound, TransferInterrupted) as error:
            if error.status != 404:
                raise _no_answer(error) from None
            hint = self._nearest(release, version) or "choose a version that upstream has released"
            raise InputError(f"upstream has no {release} {version}", where=error.where, hint=hint,
                             code="artifact.not-released") from None
        return Found(path, Pin(sha256, length_of(f"{self.scheme}/{path}", self.patience)), source)

    def _asset(self, wanted: Release, version: str, arch: str, asset: tuple[str, str]) -> Found:
        (repository, pattern), path = asset, wanted.at(version, arch)
        source = f"{self.scheme}/{API}/repos/{repository}/releases/tags/v{version}"
        content = read_small(source, SMALL, self.patience, _authorization())
        name = re.compile(pattern.format(version=re.escape(version), arch=arch))
        for found in _objects(_json(content, source).get("assets") or (), content, source):
            if not name.fullmatch(str(found.get("name"))):
                continue
            digest, url, size = str(found.get("digest") or ""), found.get("browser_download_url"), found.get("size")
            if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
                raise InputError(f"GitHub knows no digest of {found['name']}: the release is older than June 2025",
                                 where=source, code="artifact.no-checksum",
                                 hint="a newer version, or its sha256 in cluster.artifacts.pins")
            if not isinstance(url, str) or not re.fullmatch(r"https://[a-z0-9.-]+/(?!/)[!-~]+", url):
                raise _not_readable(f"holds no address of {found['name']}", content, source)
            url = url.removeprefix("https://")
            known = size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else 0
            return Found(path, Pin(digest.removeprefix("sha256:"), known, "" if url == path else url), source)
        raise InputError(f"the release v{version} of {wanted} has no file for {arch}", where=source,
                         code="artifact.not-released", hint="another version of it: cluster.versions")

    def _nearest(self, release: Release, version: str) -> str:
        """Return a hint with the releases that come next to a version, empty where upstream does not name them."""
        if release.field == "kubernetes":
            newest = self.newest_if_known(minor(version))
            return f"the newest of {minor(version)} is {newest}" if newest else ""
        repository = re.match(r"github\.com/([^/]+/[^/]+)/", release.path)
        source = f"{self.scheme}/{API}/repos/{repository[1] if repository else ''}/releases"
        try:
            content = read_small(f"{source}?per_page=100", LARGEST_LIST, self.patience, _authorization())
            tags = [str(one.get("tag_name")).removeprefix("v") for one in _objects(json.loads(content), content, source)]
        except (ClusterctlError, ValueError, RecursionError):
            return ""
        known = sorted((tag for tag in tags if VERSION.fullmatch(tag) and not re.search("-(alpha|beta|rc)", tag)), key=order)
        below = [tag for tag in known if order(tag) < order(version)]
        near = known[max(len(below) - 1, 0):len(below) + 1]
        return f"the nearest releases: {', '.join(near)}" if near else ""

    def newest(self, of_minor: str) -> str:
        """Return the newest patch of a minor of Kubernetes. Raises Unreachable, IntegrityError."""
        source = f"{self.scheme}/dl.k8s.io/release/stable-{of_minor}.txt"
        try:
            content = read_small(source, SMALL, self.patience)
        except (NotFound, TransferInterrupted) as error:
            raise _no_answer(error) from None
        found = re.fullmatch(r"v([0-9.]+)\s*", content.decode(errors="replace"))
        if not found or not VERSION.fullmatch(found[1]) or minor(found[1]) != of_minor:
            raise _not_readable(f"names no release of {of_minor}", content, source)
        return found[1]

    def newest_if_known(self, of_minor: str) -> str:
        """Return the newest patch of a minor of Kubernetes, empty where upstream does not name it."""
        try:
            return self.newest(of_minor)
        except (Unreachable, IntegrityError):
            return ""


def _no_answer(error: NotFound | TransferInterrupted) -> ClusterctlError:
    """Return the error for an answer without a file."""
    if error.where.partition("//")[2].startswith(f"{API}/") and error.status in (401, 403, 429):
        token, wait = bool(_authorization()), error.headers.get("retry-after", "")
        if error.status == 401 and token:
            return InputError("is refused by GitHub", where="GITHUB_TOKEN", code="artifact.token-refused",
                              hint="set GITHUB_TOKEN to a token that is valid, or unset it")
        if error.headers.get("x-ratelimit-remaining") == "0":
            reset = error.headers.get("x-ratelimit-reset", "")
            known = re.fullmatch("[0-9]{1,11}", reset)  # More digits are beyond the calendar.
            when = f"{datetime.fromtimestamp(int(reset), UTC):%H:%M} UTC" if known else "an hour from now"
            why = "the limit of GITHUB_TOKEN is used up" if token else "GitHub answers no more requests without a token"
            return Unreachable(why, where=error.where, code="artifact.rate-limited",
                               hint=f"{'' if token else 'set GITHUB_TOKEN, or '}run the same command after {when}")
        if wait or error.status == 429:
            seconds = f"{wait} s" if re.fullmatch(r"\d{1,5}", wait) else "a minute"
            return Unreachable("GitHub answers no requests for a while: too many came at once", where=error.where,
                               code="artifact.rate-limited", hint=f"wait {seconds}, then run the same command again")
    return Unreachable(error.message, where=error.where, hint=error.hint or REACH,
                       code=error.code if error.hint else "artifact.upstream-unreachable")


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


def _objects(found: object, content: bytes, source: str) -> list[Mapping[str, Any]]:
    """Return a list of objects from an answer of GitHub's API. Raises IntegrityError for anything else."""
    if not isinstance(found, list | tuple) or not all(isinstance(one, dict) for one in found):
        raise _not_readable("is not as GitHub's API describes a release", content, source)
    return list(found)


def _json(content: bytes, source: str) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
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
