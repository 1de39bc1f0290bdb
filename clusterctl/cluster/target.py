"""The target of an operation: the desired cluster, and the part of it that the operation concerns."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clusterctl.cluster.model import Cluster, Host, Versions


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The desired state of one operation. A plan holds the target that it was made for.

    ``limit``: the names of ``--limit``, none for all hosts; ``leaving``: hosts that are being removed, not in ``cluster``.
    """

    cluster: Cluster
    limit: tuple[str, ...] = ()
    leaving: frozenset[str] = frozenset()

    @property
    def versions(self) -> Versions:
        """The versions of all products."""
        return self.cluster.versions

    @property
    def chosen(self) -> tuple[Host, ...]:
        """The hosts that ``limit`` leaves."""
        return tuple(host for host in self.cluster.hosts if not self.limit or host.name in self.limit)

    def of(self, cluster: Cluster) -> Target:
        """Return the same part of another cluster."""
        return replace(self, cluster=cluster)
