"""Default folders of the cache and of the mirror."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from clusterctl.errors import Refused
from clusterctl.local.storage import user_cache

_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def default_mirror() -> Path:
    """``$CLUSTERCTL_MIRROR``, else /var/cache/clusterctl/mirror for root and ``mirror`` in the user's cache for others."""
    chosen = os.environ.get("CLUSTERCTL_MIRROR")
    if chosen:
        return Path(chosen)
    return Path("/var/cache/clusterctl/mirror") if os.geteuid() == 0 else user_cache() / "mirror"


def filled_mirror() -> Path | None:
    """Return the mirror of this machine; None where it was never filled."""
    place = default_mirror().absolute()
    return place if (place / "catalog.json").is_file() else None


def own_architecture() -> str:
    """This machine's architecture as releases name it. Raises Refused for one that Kubernetes is not released for."""
    found = _ARCHITECTURES.get(platform.machine())
    if found is None:
        raise Refused(f"programs for {platform.machine()} cannot be built here", where="mirror", code="mirror.architecture",
                      hint="use amd64 or arm64")
    return found
