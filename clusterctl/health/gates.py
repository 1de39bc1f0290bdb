"""Gates before and after each batch of a live cluster: never two control planes down, never an etcd member too few."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from clusterctl.cluster.model import Host
from clusterctl.errors import Stopped, Unreachable
from clusterctl.health import checks
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import ApiError
from clusterctl.plan.planner import StagePlan
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts

OTHERS_SECONDS = 60.0
"""How long the others may take to be well before the next one is interrupted, in seconds."""
LEADER_SECONDS = 30.0
"""How long a new leader may take, in seconds: a lease ends 15 s after its last renewal, and a pause of systemd follows."""


class ClusterGates:
    """Asks the control planes and members that serve already.

    ``fleet``: facts of the hosts that were looked at. One that was not, as it is of no
    concern or cannot be reached, counts as serving.
    """

    def __init__(self, session: Session, fleet: Mapping[str, Facts]) -> None:
        self.session, self.fleet = session, fleet
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
        self._served = self._serves("etcd", own)
        if self._served and len(own) > 1:
            raise Stopped("a majority answers again, which it did not when this was planned", where="etcd",
                          hint="run the same command again", code="etcd.quorum-returned")
        joins = any(host.is_etcd and host not in self.members for host in batch)
        if self._served or (joins and others):
            # A member that joins adds a vote: one that fails beside another that is down would take the majority.
            self._wait("etcd", others)

    def after_etcd(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """The batch's members answer again, and the API servers that talk to them: else the next one takes another API away.

        Where no member served there was no API to take. Raises Stopped.
        """
        limit = OTHERS_SECONDS if self._served else self.start_seconds
        self._wait("etcd", [host for host in self.members if host in batch], limit)
        control_planes = [host for host in self.control_planes if host in batch]
        if self._served and control_planes:
            self._wait("the API", control_planes, limit)
            self._await_leaders(control_planes)

    def before_control_plane(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """An API server that serves is interrupted only while all others do. Raises Stopped."""
        disruptive = {part.host.name for part in stage.hosts if part.disruptive}
        own = [host for host in self.control_planes if host in batch and host.name in disruptive]
        others = [host for host in self.control_planes if host not in batch]
        if others and self._serves("the API", own):
            self._wait("the API", others)

    def after_control_plane(self, stage: StagePlan, batch: Sequence[Host]) -> None:
        """Each API server of the batch serves, seen from here. Raises Stopped."""
        interrupted = any(part.disruptive for part in stage.hosts if part.host in batch)
        limit = OTHERS_SECONDS if interrupted else self.start_seconds
        self._wait("the API", batch, limit)

    def _wait(self, name: str, hosts: Sequence[Host], deadline: float = 0) -> None:
        """Wait until the check ``name`` passes on all hosts. Raises Stopped."""
        checks.await_passing(self.session, name, hosts, deadline=deadline or OTHERS_SECONDS)

    def _serves(self, name: str, hosts: Sequence[Host]) -> bool:
        """Return whether the check ``name`` passes on any of these hosts."""
        check, _ = checks.CONTROL_PLANE[name]
        return any(not check(self.session, host) for host in hosts)

    def _await_leaders(self, hosts: Sequence[Host]) -> None:
        """Wait until leases are renewed after an interruption, and all that ran on these hosts runs again.

        A leader whose API server was away for 10 s ends (client-go, leaderelection.go), and systemd restarts it after a pause.
        A program that is down for another reason does not stop the run: a later stage may repair it.
        """
        seen: dict[str, str] = {}

        def missing() -> str:
            try:
                found = checks.renewals(self.session.ready_api())
            except ApiError as error:
                return str(error)
            late = [name for name, time in found.items() if seen.setdefault(name, time) == time]
            if late:
                return f"{', '.join(late)}: the lease is not renewed"
            facts = self.session.engine.facts(hosts).or_raise()
            return "; ".join(f"{host.name}: {program} does not run" for host in hosts if host.name in self.fleet
                             for program in sorted(self.fleet[host.name].running.keys() - facts[host.name].running.keys()))

        with contextlib.suppress(Stopped, Unreachable):
            wait_for(missing, what="the leaders", deadline=LEADER_SECONDS)
