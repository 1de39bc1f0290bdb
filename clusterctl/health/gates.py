"""What must hold before and after each batch of a live cluster: never two control planes down, never a member too few."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from clusterctl.cluster.model import Host
from clusterctl.errors import Stopped, Unreachable
from clusterctl.etcd.client import ApiError
from clusterctl.kube.client import wait_for
from clusterctl.plan.planner import StagePlan
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts

OTHERS_SECONDS = 60.0
"""How long the others may take to be well before the next one is interrupted, in seconds."""


class ClusterGates:
    """Asks the control planes and members that serve already.

    ``fleet``: facts of the hosts that were looked at. One that was not, as it is of no
    concern or cannot be reached, counts as serving.
    """

    def __init__(self, session: Session, fleet: Mapping[str, Facts]) -> None:
        self.session = session
        cluster = session.cluster
        self._served = False
        self.start_seconds: float = cluster.settings.timeouts.start
        self.members = [host for host in cluster.etcd_members if host.name not in fleet or fleet[host.name].etcd == "formed"]
        self.control_planes = [
            host for host in cluster.control_planes if host.name not in fleet or "kube-apiserver" in fleet[host.name].running]

    def before_etcd(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """A member that serves is interrupted only while all others do, and never two of them at once. Raises Stopped."""
        names = {host.name for host in batch}
        own = [host for host in self.members if host.name in names]
        others = [host for host in self.members if host.name not in names]
        self._served = any(self._answers(host) == "True" for host in own)
        if self._served and len(own) > 1:
            raise Stopped("a majority answers again, which it did not when this was planned", where="etcd",
                          hint="run the same command again", code="etcd.quorum-returned")
        joins = any(host.is_etcd and host not in self.members for host in batch)
        if self._served or (joins and others):
            # A member that joins adds a vote: one that fails beside another that is down would take the majority.
            self._wait("etcd", others, self._answers)

    def after_etcd(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """The batch's members answer again, and the API servers that talk to them: else the next one takes another API away.

        Where no member served there was no API to take. Raises Stopped.
        """
        limit = OTHERS_SECONDS if self._served else self.start_seconds
        self._wait("etcd", [host for host in self.members if host in batch], self._answers, limit)
        if self._served:
            self._wait("the API", [host for host in self.control_planes if host in batch], self._ready, limit)

    def before_control_plane(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """An API server that serves is interrupted only while all others do. Raises Stopped."""
        disruptive = {part.host.name for part in stage.hosts if part.disruptive}
        own = [host for host in self.control_planes if host in batch and host.name in disruptive]
        others = [host for host in self.control_planes if host not in batch]
        if others and any(self._ready(host) == "True" for host in own):
            self._wait("the API", others, self._ready)

    def after_control_plane(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """Each API server of the batch serves, seen from here. Raises Stopped."""
        interrupted = any(part.disruptive for part in stage.hosts if part.host in batch)
        limit = OTHERS_SECONDS if interrupted else self.start_seconds
        self._wait("the API", batch, self._ready, limit)

    def _wait(self, what: str, hosts: Sequence[Host], ask: Callable[[Host], str], deadline: float = 0) -> None:
        if not hosts:
            return
        deadline = deadline or OTHERS_SECONDS

        def look() -> str:
            late = [f"{host.name} {said}" for host in hosts if (said := ask(host)) != "True"]
            return "; ".join(late) or "True"

        wait_for(look, what=f"{what} on {', '.join(host.name for host in hosts)}", deadline=deadline)

    def _answers(self, host: Host) -> str:
        try:
            self.session.etcd(host).answers()
        except (ApiError, Unreachable) as error:
            return str(error)
        return "True"

    def _ready(self, host: Host) -> str:
        try:
            return "True" if self.session.api(host).ready() else "is not ready"
        except Unreachable as error:
            return error.message
