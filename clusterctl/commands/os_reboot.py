"""Executes an os-update: gates, drains, updates, at most one reboot of each machine, and the uncordon."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from clusterctl.cluster.model import Host
from clusterctl.commands.os_packages import Machine, boot_program, download_program, program, read_machine, update_program
from clusterctl.commands.os_update import IF_REQUIRED, OPERATION, YES, MachinePlan, UpdatePlan
from clusterctl.engine import fleet
from clusterctl.engine.engine import BOOT_SECONDS
from clusterctl.engine.events import Acted
from clusterctl.engine.patience import PAUSE, run_until_done
from clusterctl.errors import ClusterctlError, Stopped, Unreachable
from clusterctl.health import checks
from clusterctl.health.wait import wait_for
from clusterctl.kube import drain
from clusterctl.kube.client import ApiError
from clusterctl.kube.disruption import DrainPolicy
from clusterctl.session.session import Session

GATE_SECONDS = 60.0
REBOOT_SECONDS = 900.0
"""How long a reboot may take by default: servers that test their memory take 4 to 10 minutes."""
UPDATE_SECONDS = 1800.0
"""How long packages may be fetched, or installed, without a word."""

REBOOTING = "rebooting"
"""The file of the state folder with the machines that are being rebooted: a run after a kill waits for them."""


def await_rebooting(session: Session, note: Callable[[str], None], deadline: float = REBOOT_SECONDS) -> frozenset[str]:
    """Wait for machines that a run before this one rebooted when it was killed; return their names.

    ``deadline`` in seconds. Raises Stopped.
    """
    content = session.state.read(REBOOTING) or b""
    hosts = [host for host in session.cluster.hosts if host.name in content.decode().split()]
    for host in hosts:
        note(f"{host.name}: was being rebooted when the last os-update ended; waiting until it answers")
    forks = session.options.forks
    fleet.each(hosts, lambda host: run_until_done(session, host, boot_program, deadline=deadline), limit=forks).or_raise()
    return frozenset(host.name for host in hosts)


class OsUpdateRun:
    """Carries an UpdatePlan out. ``late`` receives the machines that still want a reboot.

    ``reboot_seconds``: how long a machine may take to come back.
    """

    def __init__(self, session: Session, plan: UpdatePlan, policy: DrainPolicy, late: set[str],
                 note: Callable[[str], None], reboot_seconds: float = REBOOT_SECONDS) -> None:
        self._reboot_seconds = reboot_seconds
        self._ready_seconds = session.cluster.settings.timeouts.start
        self.session, self.plan, self.policy, self.late, self.note = session, plan, policy, late, note
        late.update(part.host.name for part in plan.machines if part.machine.reboot and part.reboot != YES)
        self._marked = set(plan.markers)
        self._rebooting: set[str] = set()
        self._writing = threading.Lock()

    def run(self) -> None:
        """Batch after batch; the first failure is the end. Raises Stopped; run again, it goes on."""
        parts = {part.host.name: part for batch in self.plan.batches for part in batch}
        # What was interrupted is finished first, and drained for that.
        self._together([part.host for part in parts.values() if part.updates and not part.machine.interrupted], self._download)
        events = self.session.engine.events
        if self.plan.forgotten:
            drain.recover(self.session.ready_api, self.note, keep=self.plan.resumed)
        for batch in self.plan.batches:
            self.session.engine.check_lock()
            with events.stage(OPERATION, [part.host.name for part in batch]):
                self._together([part.host for part in batch], lambda host: self._machine(parts[host.name]))
        self._end()

    def _together(self, hosts: list[Host], work: Callable[[Host], object]) -> None:
        fleet.each(hosts, work, limit=self.session.options.forks).or_raise()

    def _download(self, host: Host) -> None:
        run_until_done(self.session, host, download_program, deadline=BOOT_SECONDS, silence=UPDATE_SECONDS)
        self.note(f"{host.name}: the updates are there")

    def _machine(self, part: MachinePlan) -> None:
        host, boot_id = part.host, part.machine.boot_id
        try:
            self._gate(part)
            if part.drain is not None:
                drain.empty(self.session.ready_api, host.name, self.policy, self.note, OPERATION)
            after = self._update(part) if part.updates else part.machine
            reboots = part.reboot == YES or (part.reboot == IF_REQUIRED and bool(after.reboot))
            if reboots:
                self._gate(part)
            self.session.engine.check_lock()
        except ClusterctlError:
            # Nothing is away: pods may come back until the next run.
            with contextlib.suppress(ClusterctlError):
                drain.give_back(self.session.ready_api, host.name, ours=True)
            raise
        if reboots:
            # The boot that was looked at: where a killed run's reboot came in between, none is due any more.
            boot_id = self._reboot(host, boot_id if part.reboot == YES else after.boot_id)
        elif after.reboot:
            self.late.add(host.name)
        self._settle(host, boot_id)

    def _gate(self, part: MachinePlan) -> None:
        if part.alone:
            what = f"the other members, before {part.host.name} is touched"
            wait_for(lambda: checks.others(self.session, part.host), what=what, deadline=GATE_SECONDS)

    def _update(self, part: MachinePlan) -> Machine:
        host, started = part.host, time.monotonic()
        records = run_until_done(self.session, host, update_program, deadline=BOOT_SECONDS, silence=UPDATE_SECONDS)
        self.session.engine.events.emit(Acted(host.name, "update", len(part.machine.updates)))
        self.note(f"{host.name}: {len(part.machine.updates)} packages updated in {time.monotonic() - started:.0f} s")
        return read_machine(records)

    def _reboot(self, host: Host, before: str) -> str:
        """Reboot a machine unless it is in another boot already; the boot that it is in then. Raises Stopped."""
        started = time.monotonic()
        self._mark_rebooting(host, True)
        self._marked.add(host.name)
        self.note(f"{host.name}: rebooting")
        ordered, last = False, "it was not reached"
        while True:
            try:
                if not ordered:
                    self._ask(host, ("reboot_once", self.plan.operation, before))
                    ordered = True
                boot_id = self._boot(host)
                if boot_id != before:
                    break
                last = "it is still in the boot before"
            except Unreachable as error:
                last = error.message
            if time.monotonic() - started >= self._reboot_seconds:
                raise Stopped(f"not back within {self._reboot_seconds:.0f} s; last seen: {last}", where=f"{host.name}: reboot",
                              code="os-update.reboot-timeout",
                              hint="look at the machine's console (--reboot-timeout for a slow one); it stays cordoned until the "
                                   "same command is run again")
            time.sleep(PAUSE)
        self._mark_rebooting(host, False)
        if host.is_control_plane:
            self.session.engine.retake(host)
        self.session.engine.events.emit(Acted(host.name, "reboot"))
        self.note(f"{host.name}: is back after {time.monotonic() - started:.0f} s")
        return boot_id

    def _ask(self, host: Host, call: tuple[str, ...]) -> None:
        run_until_done(self.session, host, lambda: program(call), deadline=0, silence=60)

    def _boot(self, host: Host) -> str:
        return read_machine(run_until_done(self.session, host, boot_program, deadline=0, silence=30)).boot_id

    def _mark_rebooting(self, host: Host, away: bool) -> None:
        with self._writing:
            (self._rebooting.add if away else self._rebooting.discard)(host.name)
            self.session.state.write(REBOOTING, "\n".join(sorted(self._rebooting)).encode())

    def _settle(self, host: Host, boot_id: str) -> None:
        """Until all that runs there serves again; then pods may come. Raises Stopped."""
        ready = self._ready_seconds
        units = ("await_units", f"{ready:.0f}")
        run_until_done(self.session, host, lambda: program(units), deadline=BOOT_SECONDS, silence=ready + 30)
        if host.is_etcd:
            checks.await_passing(self.session, "etcd", [host], deadline=ready)
        if host.is_control_plane:
            checks.await_passing(self.session, "the API", [host], deadline=ready)
        if host.is_node:
            wait_for(lambda: self._give_back(host, boot_id), what=f"node {host.name} Ready", deadline=ready)
        self.note(f"{host.name}: serves again")

    def _give_back(self, host: Host, boot_id: str) -> str:
        try:
            api = self.session.ready_api(deadline=10)
            wrong = checks.node(api.nodes().get(host.name), boot_id)
            if not wrong:
                drain.uncordon(api, host.name, ours=True)
        except (ApiError, Stopped) as error:
            return str(error).partition("\n")[0]
        return wrong

    def _end(self) -> None:
        """Remove all markers. One says that all has ended until the others are gone: a kill in between begins nothing anew."""
        ended = {part.host.name for part in self.plan.machines if part.machine.marker and part.machine.marker.ended}
        marked = [host for host in self.session.chosen if host.name in self._marked]
        marked.sort(key=lambda host: host.name not in ended)
        for host in marked[:1]:
            self._run_until_done(host, ("end_reboots", self.plan.operation))
        self._together(marked[1:], lambda host: self._run_until_done(host, ("forget_reboot",)))
        for host in marked[:1]:
            self._run_until_done(host, ("forget_reboot",))
        if self.session.state.read(REBOOTING):
            self.session.state.write(REBOOTING, b"")

    def _run_until_done(self, host: Host, call: tuple[str, ...]) -> None:
        run_until_done(self.session, host, lambda: program(call), deadline=BOOT_SECONDS)
