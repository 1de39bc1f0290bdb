"""One operator at a time for each cluster, from whatever controller. Nothing is ever left to clean: a lock dies with its holder.

A process on a majority of the control planes holds flock for as long as its standard input stays open and the controller
sends a word every few seconds. No clock is compared with another machine's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clusterctl.cluster.model import Host
from clusterctl.errors import Locked, Stopped, Unreachable
from clusterctl.ssh.conversation import Conversation, operator
from clusterctl.ssh.transport import Transport

if TYPE_CHECKING:
    from clusterctl.session.session import Session

BEAT = 5.0
"""Seconds between two words of a holder."""

SILENCE, MARGIN = 20, 3.0
"""Seconds without a word after which a machine lets go; we count it as lost so many seconds before."""

PATIENCE, NAMELESS, PAUSE = 25.0, 2.0, 0.5
"""Seconds: for a machine that has not noticed yet that its holder is dead, for a holder without a name, between two attempts."""

ANSWER, POLL = 5.0, 0.002
"""Seconds: that a machine may take to answer when the lock is checked, and between two looks at what has come."""

MOST_READS = 64
"""At once: a machine that prints without an end must not keep its reader from its deadline."""

HELD_BY, SOMEBODY = "held by ", "another operator (name not yet known)"

LOCK_SCRIPT = (
    "umask 077; trap '' PIPE; f=/run/clusterctl.lock; exec 8>>$f || exit 76; IFS= read -r nonce && IFS= read -r who || exit 1; "
    "if flock -n 8 && [ $f -ef /proc/$$/fd/8 ]; then last=$(cat $f); printf '%s\\n' \"$who\" >$f; "
    "m=/var/lib/clusterctl/os-update; if [ \"$last\" = \"$who\" ] || { [ -e $m ] && mkdir $m.locked; } 2>/dev/null; "
    "then answer=again; else answer=held; fi; printf '%s\\t%s\\n' \"$nonce\" $answer; word=.; "
    f"while [ \"$word\" = . ]; do word=$(timeout {SILENCE} dd bs=1 count=1 2>/dev/null 8>&-); "
    "[ \"$word\" != . ] || printf '%s\\t.\\n' \"$nonce\"; done; "
    "[ \"$word\" != x ] || rm -f $f; else printf '%s\\tbusy\\t%s\\n' \"$nonce\" \"$(head -n 1 $f)\"; fi"
)
"""The command that holds the lock of one machine: the same for everybody; nonce and holder come on standard input, a line each.

The nonce marks its answers: a login shell may print lines of its own before them, or between. Each word is answered, which
shows the holder that its connection works. A file that was removed while a process waited for it is not the lock. A holder that
sends x leaves nothing behind, also where its channel closes before its last words are answered (``trap``). One whose connection
breaks leaves its name, and takes the lock again where no other holder came in between. A reboot removes names: the first holder
after a reboot that os-update ordered, and marked, gets an answer that says so.
"""


def _clock() -> float:
    """Return seconds that go on while this machine is suspended, as those of the machines do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Answers:
    """The lines that a machine's HOLD prints; noise without the nonce is skipped."""

    def __init__(self, channel: Any, nonce: str) -> None:
        self._channel, self._nonce = channel, nonce
        self._rest = b""

    def read(self) -> list[list[str]]:
        """Return the words of each answer that has come. Raises OSError, EOFError."""
        found = []
        for _ in range(MOST_READS):
            if not (self._channel.recv_ready() and (piece := self._channel.recv(4096))):
                break
            *lines, rest = (self._rest + piece).split(b"\n")
            # An answer is short: the beginning of a longer line is none.
            self._rest = rest[-4096:]
            words = [line.decode(errors="replace").split("\t") for line in lines]
            found += [rest for first, *rest in words if first == self._nonce and rest]
        return found


class HeldLock:
    """The lock of one machine, which ends with its channel. ``taken``: when it was asked for, in seconds of ``_clock``."""

    def __init__(self, channel: Any, taken: float, answers: Answers) -> None:
        self._channel = channel
        self._answers = answers
        self._heard = taken
        self._unanswered: deque[float] = deque()
        self._counting = threading.Lock()

    def beat(self) -> None:
        with self._counting, contextlib.suppress(OSError, EOFError):
            self._unanswered.append(_clock())
            self._channel.send(b".")

    def answered(self, asked: float) -> bool:
        """Whether the machine has answered a word that was sent at ``asked`` or later."""
        channel = self._channel
        with self._counting, contextlib.suppress(OSError, EOFError):
            for words in self._answers.read():
                if words == ["."] and self._unanswered:
                    self._heard = self._unanswered.popleft()
        ended = channel.closed or channel.eof_received or channel.exit_status_ready()
        return not ended and self._heard >= asked

    @property
    def alive(self) -> bool:
        """Whether the machine answered so lately that it cannot have let go."""
        return self.answered(_clock() - (SILENCE - MARGIN))

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
        self._holds: dict[str, HeldLock] = {}
        self._counted: frozenset[str] = frozenset()
        self._needed = 0
        self._who = ""
        self._ended = threading.Event()
        self._checking = threading.Lock()

    def take(self, hosts: Sequence[Host], operation: str, dead: Collection[str] = (),
             unreachable: Mapping[str, Unreachable] = MappingProxyType({})) -> None:
        """Take one control plane after the other, in the order of their names, so that of two operators one always wins.

        ``hosts``: all control planes of the cluster; ``dead``: those that the operator declares dead. A majority of the others is
        needed, and each one that answers is taken, those declared dead as well: two operators who declare each other's control
        planes dead meet on the first that lives. ``unreachable``: why some cannot be asked, which are not tried again.
        Raises Locked; Unreachable where no majority answers.
        """
        self._who = f"{operator()}, {operation}, since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        self._counted = counted_for_lock([host.name for host in hosts], dead)
        self._needed = len(self._counted) // 2 + 1
        errors = dict(unreachable)
        for host in sorted((one for one in hosts if one.name not in unreachable), key=lambda one: one.name):
            try:
                self._holds[host.name], _ = _acquire(self._transports[host.name], self._who)
            except Unreachable as error:
                errors[host.name] = error
        if len(self._counted & self._holds.keys()) < self._needed:
            raise self._no_majority({name: error for name, error in errors.items() if name in self._counted})
        if self._ended.is_set():
            # It is not awaited any more.
            self.release()
        threading.Thread(target=self._beat, name="lock", daemon=True).start()

    def _no_majority(self, errors: Mapping[str, Unreachable]) -> Unreachable:
        if len(self._counted) == 1:
            return next(iter(errors.values()))
        by_reason: dict[str, list[str]] = {}
        for name, error in sorted(errors.items()):
            by_reason.setdefault(error.message, []).append(name)
        lines = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in by_reason.items())
        first = min(errors)
        return Unreachable(
            f"the cluster's lock needs {self._needed} of {len(self._counted)} control planes, and "
            f"{len(self._counted) - len(errors)} can be asked: {lines}", where="control planes", code="lock.no-majority",
            hint=f"bring {first} back; where it is dead: clusterctl node remove {first} --offline, or node replace {first}")

    def retake(self, host: Host) -> None:
        """Hold it again on a control plane that this operation rebooted. Raises Locked where another operator took it meanwhile.

        A machine that did not hold it stays without.
        """
        if host.name not in self._holds:
            return
        # The connection that died with the machine need not know it yet.
        self._holds[host.name].close()
        self._holds[host.name], first = _acquire(self._transports[host.name], self._who)
        others = sum(hold.alive for name, hold in self._holds.items() if name != host.name and name in self._counted)
        if not first and len(self._counted) - others >= self._needed:
            self.release()
            raise Locked("another operator held the cluster while it rebooted", where=host.name,
                         hint="look at what was done, then run the same command again to continue", code="lock.held-meanwhile")

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            for hold in list(self._holds.values()):
                hold.beat()

    def check(self) -> None:
        """Ask every machine for an answer now, and take the lock again where connections broke.

        Raises Stopped where it was lost: no machine can be reached, or another operator came. An answer from before does not
        count: this machine may have been suspended since.
        """
        with self._checking:
            alive = self._answering()
            if len(alive) >= self._needed:
                return
            kept, why = len(alive), ""
            for name in sorted(self._counted & self._holds.keys() - alive):
                self._holds[name].close()
                try:
                    self._holds[name], again = _acquire(self._transports[name], self._who)
                    kept += again
                except (Locked, Unreachable) as error:
                    why = f": {error.where}: {error.message}"
            if kept < self._needed:
                # An operator that came and went meanwhile held a majority, and so a machine that would still record our name.
                self.release()
                raise Stopped(f"the cluster's lock was lost: {kept} machines kept it and {self._needed} are needed{why}",
                              hint="run the same command again to continue", code="lock.lost")

    def _answering(self) -> set[str]:
        """Return the machines that answer a word sent now: a majority, or all that do within the deadline."""
        asked, holds = _clock(), {name: hold for name, hold in self._holds.items() if name in self._counted}
        for hold in holds.values():
            hold.beat()
        while True:
            found = {name for name, hold in holds.items() if hold.answered(asked)}
            if len(found) >= self._needed or _clock() - asked >= ANSWER:
                return found
            if all(name in found or not hold.alive for name, hold in holds.items()):
                return found
            time.sleep(POLL)

    def release(self) -> None:
        self._ended.set()
        for hold in list(self._holds.values()):
            hold.release()


def counted_for_lock(control_planes: Collection[str], dead: Collection[str] = ()) -> frozenset[str]:
    """Return the control planes of which a majority must hold the lock: all that are not declared dead."""
    return frozenset(control_planes) - frozenset(dead) or frozenset(control_planes)


def _us() -> str:
    """The beginning of the name of every holder of this user on this machine: its pid follows."""
    return operator().removesuffix(str(os.getpid()))


def _dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more, or is this one, over a connection that broke."""
    pid = holder.removeprefix(_us()).partition(",")[0]
    if not holder.startswith(_us()) or not pid.isdecimal():
        return False
    return int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")


def _acquire(transport: Transport, who: str) -> tuple[HeldLock, bool]:
    """Hold one machine; return whether no other holder came in between. Waits for a dead process, and for a holder's name."""
    begun = time.monotonic()
    while True:
        try:
            return _hold(transport, who)
        except Locked as error:
            holder = error.message.removeprefix(HELD_BY)
            if time.monotonic() - begun >= (PATIENCE if _dead(holder) else NAMELESS if holder == SOMEBODY else 0):
                raise
        time.sleep(PAUSE)


def _hold(transport: Transport, who: str) -> tuple[HeldLock, bool]:
    """Hold one machine; return whether no other holder came in between. Raises Locked, Unreachable."""
    started, nonce = _clock(), secrets.token_hex(8)
    held = transport.open_session(LOCK_SCRIPT, f"{nonce}\n{who}\n")
    answers = Answers(held.channel, nonce)
    hold = HeldLock(held.channel, started, answers)
    try:
        words = _first(held, answers)
    except BaseException:
        hold.close()
        raise
    if words[0] not in ("held", "again"):
        hold.close()
        raise Locked(f"{HELD_BY}{' '.join(words[1:]).strip() or SOMEBODY}", where=transport.host.name,
                     hint="wait until it is done, then run it again", code="lock.held")
    return hold, words[0] == "again"


def _first(held: Conversation, answers: Answers) -> list[str]:
    """Wait for the first answer of a machine's HOLD. Raises Unreachable."""
    deadline = time.monotonic() + held.ssh.connect_timeout
    while True:
        ended = held.channel.exit_status_ready() or held.channel.eof_received or held.channel.closed
        if found := answers.read():
            return found[0]
        if ended and not held.channel.recv_ready():
            reason = held.exit_reason(False)
            if isinstance(reason, Unreachable):
                raise reason
            raise Unreachable(f"its lock cannot be taken: {reason}", where=held.host.name,
                              hint="is there place in /run, and flock?", code="lock.unusable")
        if time.monotonic() >= deadline:
            raise Unreachable(f"its lock did not answer within {held.ssh.connect_timeout:.0f} s", where=held.host.name,
                              hint="look at what runs at login there, and at its load", code="lock.no-answer")
        held.channel.status_event.wait(POLL)


def _unreachable(session: Session, hosts: Sequence[Host]) -> Mapping[str, Unreachable]:
    """Connect to hosts at the same time; return why some cannot be reached. Raises any other error."""
    errors = session.reach(hosts).errors
    for error in errors.values():
        if not isinstance(error, Unreachable):
            raise error
    return {name: error for name, error in errors.items() if isinstance(error, Unreachable)}


@contextlib.contextmanager
def locked(session: Session, operation: str, *, dead: Collection[str] = (),
           connect: Sequence[Host] = ()) -> Iterator[OperatorLock]:
    """Hold the cluster for one operation, on all control planes of the inventory; ``dead``: those that need not answer.

    ``connect``: all that the operation talks to: those of them that cannot be reached are reported together. Raises Locked within
    seconds where another operator holds the lock; another operator of this controller is found before any machine is asked.
    """
    chosen = session.cluster.control_planes
    begun = session.opening.adopt()
    with begun.local if begun else session.state.locked(operation):
        lock = begun.lock if begun else OperatorLock(session.engine.transports)
        try:
            session.connect(connect)
            if begun:
                begun.taken.result()
            else:
                lock.take(chosen, operation, dead, _unreachable(session, chosen))
            session.engine.check_lock, session.engine.retake = lock.check, lock.retake
            yield lock
        finally:
            session.engine.check_lock = lambda: None
            lock.release()
