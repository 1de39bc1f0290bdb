"""One operator at a time for each cluster, from whatever controller. Nothing is ever left to clean: a lock dies with its holder.

A process on a majority of the control planes holds flock for as long as its standard input stays open and somebody there
says a word every few seconds. No clock is compared with another machine's.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clusterctl.errors import ClusterctlError, Locked, Problems, Stopped, Unreachable
from clusterctl.model import Host
from clusterctl.transport import Transport

if TYPE_CHECKING:
    from clusterctl.operations.base import Session

BEAT = 5.0
"""Seconds between two words of a holder."""

SILENCE, MARGIN = 20, 3.0
"""Seconds without a word after which a machine lets go; we count it as lost so many seconds before."""

PATIENCE, NAMELESS, PAUSE = 25.0, 2.0, 0.5
"""Seconds: for a machine that has not heard yet that its holder is dead, for a holder without a name, between two attempts."""

HELD_BY, SOMEBODY = "held by ", "somebody who comes or goes"

HOLD = (
    "umask 077; f=/run/clusterctl.lock; exec 8>>$f || exit 76; IFS= read -r who || exit 1; "
    "if flock -n 8 && [ $f -ef /proc/$$/fd/8 ]; then last=$(cat $f); printf '%s\\n' \"$who\" >$f; "
    "m=/var/lib/clusterctl/os-update; if [ \"$last\" = \"$who\" ] || { [ -e $m ] && mkdir $m.locked; } 2>/dev/null; "
    "then echo again; else echo held; fi; word=.; "
    f"while [ \"$word\" = . ]; do word=$(timeout {SILENCE} dd bs=1 count=1 2>/dev/null 8>&-); "
    "[ \"$word\" != . ] || printf .; done; "
    "[ \"$word\" != x ] || rm -f $f; else printf 'busy '; cat $f; echo; fi"
)
"""The command that holds the lock of one machine: the same for everybody; who holds it comes on standard input.

Each word is answered, so that a holder knows where it is still heard. A file that was removed while we waited for it is not the
lock. A holder that says x leaves nothing behind; one that breaks off leaves its name, and finds it again where nobody came in
between. A reboot takes names away: whoever is the first after one that os-update ordered, and marked, is told so.
"""


class Hold:
    """The lock of one machine, which ends with its channel. ``taken``: when it was asked for, on the monotonic clock."""

    def __init__(self, channel: Any, taken: float) -> None:
        self._channel = channel
        self._heard = taken
        self._unanswered: deque[float] = deque()
        self._counting = threading.Lock()

    def beat(self) -> None:
        with self._counting, contextlib.suppress(OSError, EOFError):
            self._unanswered.append(time.monotonic())
            self._channel.send(b".")

    @property
    def alive(self) -> bool:
        """Whether the machine heard us so lately that it cannot have let go."""
        channel = self._channel
        with self._counting, contextlib.suppress(OSError, EOFError):
            while channel.recv_ready():
                for _ in channel.recv(4096):
                    self._heard = self._unanswered.popleft()
        ended = channel.closed or channel.eof_received or channel.exit_status_ready()
        return not ended and time.monotonic() - self._heard < SILENCE - MARGIN

    def release(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.send(b"x")
        self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._channel.close()


class OperatorLock:
    """The lock on a majority of the control planes. ``check`` says whether it is still ours."""

    def __init__(self, transports: Mapping[str, Transport]) -> None:
        self._transports = transports
        self._holds: dict[str, Hold] = {}
        self._hosts: dict[str, Host] = {}
        self._needed = 0
        self._who = ""
        self._ended = threading.Event()
        self._checking = threading.Lock()

    def take(self, hosts: Sequence[Host], operation: str) -> None:
        """One control plane after the other, in the order of their names, so that of two operators one always wins.

        Raises Locked; Unreachable (or Problems) where no majority can be asked.
        """
        self._who = f"{_us()}{os.getpid()}, {operation}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        self._needed = len(hosts) // 2 + 1
        self._hosts = {host.name: host for host in hosts}
        errors: list[ClusterctlError] = []
        for host in sorted(hosts, key=lambda one: one.name):
            try:
                self._holds[host.name], _ = _insist(self._transports[host.name], self._who)
            except Unreachable as error:
                errors.append(error)
        if len(self._holds) < self._needed:
            raise errors[0] if len(errors) == 1 else Problems(errors)
        if self._ended.is_set():
            # Nobody waits for it any more.
            self.release()
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def retake(self, host: Host) -> None:
        """Hold it again on a control plane that this operation rebooted. Raises Locked where somebody else came in between.

        A machine that did not hold it stays without.
        """
        if host.name not in self._holds:
            return
        # The connection that died with the machine need not know it yet.
        self._holds[host.name].close()
        self._holds[host.name], first = _insist(self._transports[host.name], self._who)
        others = sum(hold.alive for name, hold in self._holds.items() if name != host.name)
        if not first and len(self._hosts) - others >= self._needed:
            self.release()
            raise Locked("somebody else held the cluster while it rebooted", where=host.name,
                         hint="look at what was done, then run the same command again to continue")

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            for hold in list(self._holds.values()):
                hold.beat()

    def check(self) -> None:
        """Take it again where connections broke. Raises Stopped where it was lost: nobody can be reached, or another one came."""
        with self._checking:
            alive = [name for name, hold in self._holds.items() if hold.alive]
            if len(alive) >= self._needed:
                return
            kept, why = len(alive), ""
            for name in sorted(self._holds.keys() - alive):
                self._holds[name].close()
                try:
                    self._holds[name], again = _insist(self._transports[name], self._who)
                    kept += again
                except (Locked, Unreachable) as error:
                    why = f": {error.where}: {error.message}"
            if kept < self._needed:
                # Who came and went meanwhile had a majority, and so a machine of those where our name would still stand.
                self.release()
                raise Stopped(f"the cluster's lock was lost: {kept} machines kept it and {self._needed} are needed{why}",
                              hint="run the same command again to continue")

    def release(self) -> None:
        self._ended.set()
        for hold in list(self._holds.values()):
            hold.release()


def _us() -> str:
    """The beginning of the name of every holder of this user on this machine: its pid follows."""
    return f"{getpass.getuser()}@{socket.gethostname()}, pid "


def _dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more, or is this one, over a connection that broke."""
    pid = holder.removeprefix(_us()).partition(",")[0]
    if not holder.startswith(_us()) or not pid.isdecimal():
        return False
    return int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")


def _insist(transport: Transport, who: str) -> tuple[Hold, bool]:
    """Hold one machine; whether nobody did since we did. Waits for what a dead process of ours holds, and for a holder's name."""
    begun = time.monotonic()
    while True:
        try:
            return _hold(transport, who)
        except Locked as error:
            holder = error.message.removeprefix(HELD_BY)
            if time.monotonic() - begun >= (PATIENCE if _dead(holder) else NAMELESS if holder == SOMEBODY else 0):
                raise
        time.sleep(PAUSE)


def _hold(transport: Transport, who: str) -> tuple[Hold, bool]:
    started = time.monotonic()
    channel = transport.hold(HOLD, who)
    deadline = started + transport.host.ssh.connect_timeout
    said = b""
    while b"\n" not in said:
        channel.settimeout(max(0.1, deadline - time.monotonic()))
        piece = b""
        with contextlib.suppress(TimeoutError):
            piece = channel.recv(4096)
        if not piece:
            reason = transport.ended(channel, bool(said))
            Hold(channel, started).close()
            if isinstance(reason, Unreachable):
                raise reason
            raise Unreachable(f"its lock cannot be taken: {reason}", where=transport.host.name,
                              hint="is there place in /run, and flock?")
        said += piece
    text = said.decode(errors="replace").strip()
    if text not in ("held", "again"):
        Hold(channel, started).close()
        raise Locked(f"{HELD_BY}{text.removeprefix('busy').strip() or SOMEBODY}", where=transport.host.name,
                     hint="wait until it is done, then run it again")
    return Hold(channel, started), text == "again"


@contextlib.contextmanager
def locked(session: Session, operation: str, *, hosts: Sequence[Host] | None = None,
           connect: Sequence[Host] = ()) -> Iterator[OperatorLock]:
    """Hold the cluster for one operation. ``hosts``: the control planes that hold the lock; all of the inventory's by default.

    ``connect``: all that the operation talks to: those of them that cannot be reached are told together. Raises Locked within
    seconds where somebody else operates; another operator of this controller is found before any machine is asked.
    """
    chosen = tuple(hosts if hosts is not None else session.cluster.control_planes)
    begun = session.opening.adopt()
    with begun.local if begun else session.state.locked(operation):
        lock = begun.lock if begun else OperatorLock(session.engine.transports)
        try:
            session.connect(connect)
            if begun:
                begun.taken.result()
            else:
                lock.take(chosen, operation)
            session.engine.guard = lock.check
            yield lock
        finally:
            session.engine.guard = lambda: None
            lock.release()
