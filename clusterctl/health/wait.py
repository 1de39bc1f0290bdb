"""The one loop that waits for a condition."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterctl.errors import Stopped

PAUSE = 0.1
"""Seconds between two looks."""


def wait_for(look: Callable[[], str], *, what: str, deadline: float) -> None:
    """Look until nothing is missing. ``look`` returns what is missing, or an empty string; ``deadline``: seconds.

    Raises:
        Stopped: the deadline has passed; the message ends with what was last seen.
    """
    ends = time.monotonic() + deadline
    while missing := look():
        if time.monotonic() >= ends:
            raise Stopped(f"{what}: not within {deadline:.0f} s; last seen: {missing}", code="api.wait-timeout",
                          hint="run the same command again to continue")
        time.sleep(PAUSE)
