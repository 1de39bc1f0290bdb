"""How long the rest takes, from the weights of what is to do and the time that the first of it took."""

from __future__ import annotations

import time
from collections.abc import Callable

Say = Callable[[str], None]
PRIOR = 20.0
"""Seconds at the recipes' own pace that the estimate starts with, so that the first small file does not decide it."""


class Progress:
    """Tells what is being done, and at intervals that it still is."""

    def __init__(self, weights: dict[str, float], say: Say, *, interval: float = 15,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._weights, self._say, self._interval, self._clock = dict(weights), say, interval, clock
        self._total, self._done = len(weights), 0
        self._spent = self._weighed = 0.0
        self._label, self._began, self._told = "", clock(), clock()

    def begin(self, label: str, what: str) -> None:
        """A file is begun."""
        self._label, self._began, self._told = label, self._clock(), self._clock()
        self._say(f"[{self._done + 1}/{self._total}] {label}: {what}{self._rest()}")

    def tick(self) -> None:
        """Still at it."""
        if self._clock() - self._told >= self._interval:
            self._told = self._clock()
            self._say(f"[{self._done + 1}/{self._total}] {self._label}: {self._told - self._began:.0f} s so far{self._rest()}")

    def end(self, result: str, *, built: bool = True) -> None:
        """The file is done, or given up. What was not built says nothing of how long builds take."""
        took = self._clock() - self._began
        weight = self._weights.pop(self._label)
        if built:
            self._weighed += weight
            self._spent += took
        self._done += 1
        self._say(f"[{self._done}/{self._total}] {self._label}: {result} in {took:.0f} s{self._rest()}")

    def give_up(self, reason: str) -> None:
        """The file was not got this way; another follows."""
        self._say(f"[{self._done + 1}/{self._total}] {self._label}: {reason}")

    def seconds_left(self) -> float:
        """An estimate of the time until all is done."""
        pace = (self._spent + PRIOR) / (self._weighed + PRIOR)
        left = sum(self._weights.values()) * pace
        if self._label in self._weights:
            left -= min(self._clock() - self._began, 0.95 * self._weights[self._label] * pace)
        return left

    def _rest(self) -> str:
        if not self._weights:
            return ""
        seconds = self.seconds_left()
        return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", about {max(seconds, 1):.0f} s left"
