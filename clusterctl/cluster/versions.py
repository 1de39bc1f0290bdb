"""The tables of versions: which products belong to which Kubernetes minor.

Sources: kubernetes.io/releases/version-skew-policy, the CHANGELOG of each minor, etcd's and containerd's release notes.
Only versions that the catalog pins are the defaults here and in ``Versions``.
"""

from __future__ import annotations

from clusterctl.cluster.model import MINOR, VERSION, Versions

DEFAULT_KUBERNETES = "1.36.4"
SUPPORTED_MINORS = ("1.35", "1.36", "1.37")

_BY_MINOR = {
    "1.35": {"kubernetes": "1.35.8", "crictl": "1.36.0", "pause": "3.10.1"},
    "1.36": {"kubernetes": "1.36.4", "crictl": "1.36.0", "pause": "3.10.2"},
    "1.37": {"kubernetes": "1.37.2", "crictl": "1.36.0", "pause": "3.10.2"},
}


def minor(version: str) -> str:
    """``1.36`` of ``1.36.4``."""
    return ".".join(version.split(".")[:2])


def order(version: str) -> tuple[tuple[int, ...], bool, str]:
    """A key that sorts versions: 1.36.4 before 1.36.10, 1.37.0-rc.1 before 1.37.0."""
    release, _, pre = version.partition("-")
    return tuple(int(part) for part in release.split(".") if part.isdigit()), not pre, pre


def known_versions(kubernetes: str | None = None, **overrides: str) -> Versions:
    """The versions that belong to a Kubernetes version, with overrides by product name.

    A minor such as ``1.36`` is the patch release that is pinned here. Raises ValueError for what is no version, for a minor that
    is not supported and for a product that does not exist.
    """
    wanted = DEFAULT_KUBERNETES if kubernetes is None else kubernetes
    if MINOR.fullmatch(wanted) and wanted in _BY_MINOR:
        wanted = _BY_MINOR[wanted]["kubernetes"]
    if not VERSION.fullmatch(wanted) and not MINOR.fullmatch(wanted):
        raise ValueError(f"{wanted!r} is not a version such as {DEFAULT_KUBERNETES}")
    row = _BY_MINOR.get(minor(wanted))
    if row is None:
        raise ValueError(f"Kubernetes {wanted} is not supported; supported are {', '.join(SUPPORTED_MINORS)}")
    unknown = sorted(set(overrides) - set(Versions.model_fields) | {"kubernetes"} & set(overrides))
    if unknown:
        names = ", ".join(sorted(set(Versions.model_fields) - {"kubernetes"}))
        raise ValueError(f"no product named {unknown[0]!r} (known: {names})")
    return Versions.model_validate({**row, "kubernetes": wanted, **overrides})
