"""How long the rest takes, from the weights of what is to do and the time that the first of it took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Say = Callable[[str], None]
PRIOR = 20.0
"""Seconds at the recipes' own pace that the estimate starts with, so that the first small file does not decide it."""


@dataclass(slots=True)
class _Running:
    """A task that has begun. ``share``: seconds of this machine that it had, which tasks at the same time divide among them."""

    number: int
    began: float
    told: float
    share: float = 0.0


class Progress:
    """Reports what is being done, by any number of threads, and at intervals that it still is."""

    def __init__(self, weights: Mapping[str, float], say: Say, *, interval: float = 15,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._weights, self._say, self._interval, self._clock = dict(weights), say, interval, clock
        self._total, self._begun = len(weights), 0
        self._spent = self._weighed = 0.0
        self._running: dict[str, _Running] = {}
        self._shared = clock()
        self._lock = threading.Lock()

    def begin(self, label: str, what: str) -> None:
        """Report that a task begins."""
        with self._lock:
            now = self._divide()
            self._begun += 1
            self._running[label] = _Running(self._begun, now, now)
            self._report(label, what)

    def tick(self, label: str) -> None:
        """Report at intervals that a task goes on."""
        with self._lock:
            now, task = self._divide(), self._running[label]
            if now - task.told >= self._interval:
                task.told = now
                self._report(label, f"{now - task.began:.0f} s so far")

    def end(self, label: str, result: str, *, built: bool = True) -> None:
        """Report the end of a task. One that was not built says nothing of how long builds take."""
        with self._lock:
            now, weight, task = self._divide(), self._weights.pop(label), self._running[label]
            if built:
                self._weighed += weight
                self._spent += task.share
            self._report(label, f"{result} in {now - task.began:.0f} s")
            del self._running[label]

    def give_up(self, label: str, reason: str) -> None:
        """Report that a task is left to be done another way."""
        with self._lock:
            self._divide()
            self._report(label, reason, left=False)
            del self._running[label]
            self._begun -= 1

    def seconds_left(self) -> float:
        """Return an estimate of the time until all is done."""
        pace = (self._spent + PRIOR) / (self._weighed + PRIOR)
        done = sum(min(task.share, 0.95 * self._weights[label] * pace)
                   for label, task in self._running.items() if label in self._weights)
        return sum(self._weights.values()) * pace - done

    def _divide(self) -> float:
        """Divide the time since the last call among the tasks that run; return the time now."""
        now = self._clock()
        for task in self._running.values():
            task.share += (now - self._shared) / len(self._running)
        self._shared = now
        return now

    def _report(self, label: str, text: str, *, left: bool = True) -> None:
        rest = self._rest() if left else ""
        self._say(f"[{self._running[label].number}/{self._total}] {label}: {text}{rest}")

    def _rest(self) -> str:
        if not self._weights:
            return ""
        seconds = self.seconds_left()
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {max(seconds, 1):.0f} s left"
