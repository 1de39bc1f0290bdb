"""Carries a restore of etcd's data out, stage by stage, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from clusterctl.cluster.model import Host
from clusterctl.commands.etcd.restore import PREPARED, SWAPPED, RestorePlan
from clusterctl.components.etcd import peer_url
from clusterctl.engine import fleet
from clusterctl.engine.events import Acted
from clusterctl.errors import Stopped, Unreachable
from clusterctl.health.ready import wait_nodes
from clusterctl.session.session import Session
from clusterctl.shell import Blob, Call, functions

PREPARE_SECONDS = 1800.0
"""Without output: a database of gigabytes is restored in silence."""

SERVE_SECONDS = 120
READY_SECONDS = 180.0
AGAIN = "run the same command again to continue; or, while no member was started: clusterctl etcd snapshot restore --abort"
NOTHING: Mapping[str, Blob] = MappingProxyType({})


class Restoring:
    """One run of a restore. Each stage is a no-op on machines that are beyond it."""

    def __init__(self, session: Session, plan: RestorePlan) -> None:
        self.session, self.plan = session, plan

    def run(self) -> None:
        """All of it, from wherever the machines are. Raises Stopped."""
        plan = self.plan
        if plan.finished:
            self._unmark(plan.marked)
            return
        if plan.path is not None and not plan.reached(PREPARED):
            self._stage("prepare", plan.hosts, self._prepare, {"snapshot": plan.path})
        if not plan.reached(SWAPPED):
            self.stop()
            if plan.path is None:
                self._stage("replay", plan.hosts, lambda host: [(
                    "recover_prepare", plan.id, host.name, peer_url(host), plan.token)])
            self._stage("swap", plan.hosts, lambda host: [("restore_swap", plan.id, plan.token)])
        self._stage("leave", plan.leaving, lambda host: [("recover_leave", plan.id)])
        self.start()
        self.finish()

    def _prepare(self, host: Host) -> Sequence[Call]:
        plan = self.plan
        return [("restore_prepare", plan.id, plan.digest, plan.members, host.name, peer_url(host), plan.token)]

    def stop(self) -> None:
        """Stop API servers everywhere, then etcd everywhere."""
        self._stage("stop-control-plane", self.plan.control_planes, lambda host: [("stop_control_plane",)])
        self._stage("stop-etcd", (*self.plan.hosts, *self.plan.leaving), lambda host: [(
            "restore_hold", self.plan.id, self.plan.digest, self.plan.members)])

    def start(self) -> None:
        """Start etcd on all members together, then API servers and controllers."""
        plan = self.plan
        self._stage("start-etcd", plan.hosts, lambda host: [("restore_start", plan.id)])
        self._stage("etcd", plan.hosts, lambda host: [("restore_serve", str(SERVE_SECONDS))])
        # An API server whose own member is to join anew has no etcd before that.
        serving = [host for host in plan.control_planes if host not in plan.leaving]
        self._stage("control-plane", serving, lambda host: [("start_control_plane", str(SERVE_SECONDS))])

    def finish(self) -> None:
        """Restart kubelets one after the other, wait until nodes are Ready, and remove the markers."""
        restarted = self._restart_nodes()
        wait_nodes(self.session, restarted, deadline=READY_SECONDS)
        self._unmark((*self.plan.hosts, *self.plan.leaving))

    def _unmark(self, hosts: Sequence[Host]) -> None:
        self._stage("done", hosts, lambda host: [("restore_done", self.plan.id)])
        self._stage("markers", hosts, lambda host: [("restore_forget",)])

    def abort(self) -> None:
        """Go back to the data that was there before. Raises Stopped."""
        plan = self.plan
        self._stage("abort", plan.hosts, lambda host: [("restore_abort", plan.id)])
        members = self.session.cluster.etcd_members
        self._stage("etcd", members, lambda host: [("restore_serve", str(SERVE_SECONDS))])
        self._stage("control-plane", plan.control_planes, lambda host: [("start_control_plane", str(SERVE_SECONDS))])

    def _stage(self, name: str, hosts: Sequence[Host], calls: Callable[[Host], Sequence[Call]],
               blobs: Mapping[str, Blob] = NOTHING) -> None:
        """One program on each of these hosts; the next stage begins when all have ended. Raises Stopped."""
        session = self.session
        if not hosts:
            return
        session.engine.check_lock()

        def run(host: Host) -> None:
            try:
                session.engine.run(host, calls(host), silence=PREPARE_SECONDS, more=functions("snapshot", "restore"), blobs=blobs)
            except Stopped as error:
                raise Stopped(error.message, where=error.where, hint=error.hint or AGAIN, code=error.code) from None
            session.engine.events.emit(Acted(host.name, name))

        with session.engine.events.stage(name, [host.name for host in hosts]):
            fleet.each(hosts, run, limit=session.options.forks).or_raise()

    def _restart_nodes(self) -> list[Host]:
        """One kubelet after the other; those that cannot be reached are named and left out."""
        session, done = self.session, []
        for host in session.cluster.nodes:
            if host in self.plan.leaving:
                continue
            try:
                session.engine.transports[host.name].connect()
            except Unreachable as error:
                session.engine.events.progress(f"{host.name}: {error.message}: restart its kubelet when it is back")
                continue
            self._stage("kubelet", [host], lambda host: [("restart_node",)])
            done.append(host)
        return done
