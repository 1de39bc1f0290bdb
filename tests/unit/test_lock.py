"""The lock of a cluster: what happens where connections break, on machines that are pretended."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.errors import Locked, Stopped, Unreachable
from clusterctl.session import operator_lock
from clusterctl.session.operator_lock import Answers, HeldLock, OperatorLock


class Channel:
    """A machine's end. ``prompt``: it answers each word at once; ``answers``: words that it answers at the next look."""

    def __init__(self, *, prompt: bool = True) -> None:
        self.closed = self.eof_received = False
        self.words = b""
        self.answers, self.prompt = 0, prompt

    def recv_ready(self) -> bool:
        return self.answers > 0

    def recv(self, size: int) -> bytes:
        answers, self.answers = self.answers, 0
        return b"a line of a login shell\nn\t.\n" * answers

    def exit_status_ready(self) -> bool:
        return False

    def send(self, word: bytes) -> None:
        self.words += word
        self.answers += self.prompt

    def close(self) -> None:
        self.closed = True


def hold(channel: Any, taken: float | None = None) -> HeldLock:
    return HeldLock(channel, operator_lock._clock() if taken is None else taken, Answers(channel, "n"))


class Machines:
    """Three control planes; ``answers``: what the next attempts get, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: Any = [SimpleNamespace(name=f"cp-{number}") for number in (1, 2, 3)]
        self.answers: dict[str, list[bool | Exception]] = {}
        monkeypatch.setattr(operator_lock, "_hold", self._hold)
        monkeypatch.setattr(operator_lock, "PAUSE", 0.0)
        self.transports: Any = {host.name: host.name for host in self.hosts}
        self.lock = OperatorLock(self.transports)
        self.lock.take(self.hosts, "apply")

    def _hold(self, name: str, who: str) -> tuple[HeldLock, bool]:
        answers = self.answers.get(name)
        answer = answers.pop(0) if answers else False
        if isinstance(answer, Exception):
            raise answer
        return hold(Channel()), answer

    def break_off(self, *names: str) -> None:
        for name in names:
            self.lock._holds[name]._channel.closed = True


def busy(who: str) -> Locked:
    return Locked(f"held by {who}", where="cp", code="lock.held")


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(monkeypatch)


def test_a_majority_is_enough(machines: Machines) -> None:
    machines.break_off("cp-1")
    machines.answers["cp-1"] = [Unreachable("gone", code="ssh.unreachable")]
    machines.lock.check()
    assert machines.answers["cp-1"], "nobody was asked"


def test_it_is_taken_again_where_nobody_came_in_between(machines: Machines) -> None:
    machines.break_off("cp-1", "cp-2", "cp-3")
    machines.answers = {"cp-1": [True], "cp-2": [Unreachable("gone", code="ssh.unreachable")], "cp-3": [True]}
    machines.lock.check()
    machines.lock.check()


def test_who_came_in_between_is_noticed(machines: Machines) -> None:
    machines.break_off("cp-1", "cp-2", "cp-3")
    machines.answers = {"cp-1": [True], "cp-2": [False], "cp-3": [busy("somebody@else, pid 1, apply")]}
    with pytest.raises(Stopped) as raised:
        machines.lock.check()
    assert "1 machines kept it and 2 are needed" in str(raised.value) and "somebody@else" in str(raised.value)
    with pytest.raises(Stopped):
        machines.lock.check()


def alone(machines: Machines, *names: str) -> None:
    """A cluster of these control planes alone."""
    machines.lock = OperatorLock(machines.transports)
    machines.lock.take([host for host in machines.hosts if host.name in names], "os-update")


@pytest.mark.parametrize(
    ("planes", "first", "noticed"),
    [(("cp-1",), True, False), (("cp-1",), False, True),
     # Two others, or the one that is left, kept whoever came from a majority.
     (("cp-1", "cp-2"), False, False), (("cp-1", "cp-2", "cp-3"), False, False)],
)
def test_who_came_while_a_control_plane_rebooted_is_noticed(machines: Machines, planes: tuple[str, ...], first: bool, noticed: bool) -> None:
    alone(machines, *planes)
    machines.break_off("cp-1")
    machines.answers = {"cp-1": [first]}
    if noticed:
        with pytest.raises(Locked, match=r"\[lock.held-meanwhile\]"):
            machines.lock.retake(machines.hosts[0])
    else:
        machines.lock.retake(machines.hosts[0])
        machines.lock.check()


def test_one_that_nobody_waits_for_any_more_is_released(machines: Machines) -> None:
    machines.lock = OperatorLock(machines.transports)
    machines.lock.release()
    machines.lock.take(machines.hosts, "apply")
    assert all(hold._channel.words == b"x" and hold._channel.closed for hold in machines.lock._holds.values())


def test_our_own_broken_connection_is_waited_for(machines: Machines) -> None:
    machines.break_off("cp-1", "cp-2")
    machines.answers = {"cp-1": [busy(f"{operator_lock._us()}{os.getpid()}, apply"), True], "cp-2": [True]}
    machines.lock.check()


def test_a_holder_without_a_name_is_asked_again_for_a_while(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has not written it yet, or is on its way out: who it is, or that nobody is there any more, is known soon."""
    machines.break_off("cp-1", "cp-2")
    machines.answers = {"cp-1": [busy(operator_lock.SOMEBODY), True], "cp-2": [busy(operator_lock.SOMEBODY), busy(operator_lock.SOMEBODY), True]}
    machines.lock.check()
    monkeypatch.setattr(operator_lock, "NAMELESS", 0.0)
    machines.answers = {"cp-1": [busy(operator_lock.SOMEBODY), True]}
    with pytest.raises(Locked, match="another operator"):
        operator_lock._acquire("cp-1", "me")  # type: ignore[arg-type]


def test_only_dead_processes_of_this_machine_are_waited_for() -> None:
    us = operator_lock._us()
    assert operator_lock._dead(f"{us}999999999, apply, since today") and operator_lock._dead(f"{us}{os.getpid()}, apply")
    assert not operator_lock._dead(f"{us}1, apply") and not operator_lock._dead("somebody@else, pid 999999999, apply") and not operator_lock._dead("")


def test_a_machine_that_may_have_let_go_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It lets go 20 s after the last word that it heard; what counts is when that was sent, not when its answer came."""
    now = 100.0
    monkeypatch.setattr(operator_lock, "_clock", lambda: now)
    channel = Channel(prompt=False)
    hold = HeldLock(channel, now, Answers(channel, "n"))
    for moment in (105.0, 110.0, 115.0):
        now = moment
        hold.beat()
    now = 116.9
    assert hold.alive
    now = 117.1
    assert not hold.alive, "nothing was answered since it was taken"
    channel.answers = 2
    now = 126.9
    assert hold.alive, "the word of 110 was heard"
    now = 127.1
    assert not hold.alive
    channel.answers = 1
    assert hold.alive


def test_words_that_nobody_answers_lose_the_lock(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_lock, "ANSWER", 0.05)
    for held in machines.lock._holds.values():
        held._channel.prompt = False  # type: ignore[attr-defined]
    machines.answers = {"cp-1": [True], "cp-2": [Unreachable("silence", code="ssh.unreachable")], "cp-3": [Unreachable("silence", code="ssh.unreachable")]}
    with pytest.raises(Stopped) as raised:
        machines.lock.check()
    assert "1 machines kept it and 2 are needed" in str(raised.value)


def test_check_requires_an_answer_from_after_a_suspend(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machines let go while this one was suspended, and no end of a connection has been noticed yet."""
    monkeypatch.setattr(operator_lock, "ANSWER", 0.05)
    machines.lock.check()
    for held in machines.lock._holds.values():
        held._channel.prompt = False  # type: ignore[attr-defined]
    assert all(held.alive for held in machines.lock._holds.values())
    machines.answers = {name: [busy("another@else, pid 1, apply")] for name in machines.transports}
    with pytest.raises(Stopped) as raised:
        machines.lock.check()
    assert raised.value.code == "lock.lost"


def test_the_clock_of_the_lock_goes_on_in_a_suspend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_lock.time, "clock_gettime", lambda clock: {operator_lock.time.CLOCK_BOOTTIME: 5.0}[clock])
    assert operator_lock._clock() == 5.0


def test_noise_between_answers_is_skipped() -> None:
    channel = Channel()
    channel.recv = lambda size: b""  # type: ignore[method-assign]
    pieces = [b"Welcome\nn\the", b"ld\nother\tbusy\tx\n" + b"x" * 9000, b"\n\nn\nn\t.\n"]
    channel.recv_ready = lambda: bool(pieces)  # type: ignore[method-assign]
    channel.recv = lambda size: pieces.pop(0)  # type: ignore[method-assign]
    assert Answers(channel, "n").read() == [["held"], ["."]]


def subsets(names: frozenset[str]) -> Iterator[frozenset[str]]:
    for size in range(len(names) + 1):
        yield from map(frozenset, itertools.combinations(sorted(names), size))


def held(planes: frozenset[str], dead: frozenset[str], reached: frozenset[str]) -> frozenset[str] | None:
    """What an operation holds that reaches these machines: all of them, as take() does; None where they are too few."""
    counted = operator_lock.counted_for_lock(planes, dead)
    return reached if len(counted & reached) >= len(counted) // 2 + 1 else None


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_two_operations_meet_on_a_machine(count: int) -> None:
    """Each of apply, upgrade, reset, remove X (none dead), remove X --offline and replace X (some declared dead), in pairs."""
    planes = frozenset(f"cp-{number}" for number in range(1, count + 1))
    for down in subsets(planes):
        alive = planes - down
        reachable = list(subsets(alive))
        # Declared dead are machines that are: each operator may still reach another part of the rest.
        for first, second in itertools.combinations_with_replacement(list(subsets(down)), 2):
            one = [found for part in reachable if (found := held(planes, first, part)) is not None]
            two = [found for part in reachable if (found := held(planes, second, part)) is not None]
            assert all(a & b for a in one for b in two if a and b), (down, first, second)
        # Declared dead are machines that live, and both operators reach all that do.
        sets = [found for dead in subsets(planes) if (found := held(planes, dead, alive))]
        assert all(a & b for a in sets for b in sets)


def test_a_control_plane_that_is_declared_dead_and_lives_is_held_too(machines: Machines) -> None:
    machines.lock = OperatorLock(machines.transports)
    machines.answers = {"cp-1": [busy("another@else, pid 1, node remove")]}
    with pytest.raises(Locked):
        machines.lock.take(machines.hosts, "node remove", ["cp-1"])


def test_no_majority_names_the_verb_for_a_dead_control_plane(machines: Machines) -> None:
    pair = machines.hosts[:2]
    machines.lock = OperatorLock(machines.transports)
    machines.answers = {"cp-2": [Unreachable("silence", where="cp-2", code="ssh.unreachable")] * 2}
    with pytest.raises(Unreachable) as raised:
        machines.lock.take(pair, "apply")
    assert raised.value.code == "lock.no-majority" and "node remove cp-2 --offline" in raised.value.hint
    machines.lock = OperatorLock(machines.transports)
    machines.lock.take(pair, "node remove", ["cp-2"])
    machines.lock.check()
