"""A line on a terminal where a run is silent: which machines it waits for."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterctl.cluster.model import Host
    from clusterctl.ssh.transport import Transport

SILENCE = 1.0
"""Seconds after which a run reports what it waits for."""

MOST_NAMES = 8


class Announcement:
    """Prints one line on a terminal where a run takes longer than a second."""

    def __init__(self, hosts: Sequence[Host], transports: Mapping[str, Transport]) -> None:
        self._hosts, self._transports = hosts, transports
        self._ended = threading.Event()
        if sys.stderr.isatty():
            threading.Thread(target=self._report, name="waiting", daemon=True).start()

    def _report(self) -> None:
        if not self._ended.wait(SILENCE):
            silent = [host.name for host in self._hosts if not self._transports[host.name].connected]
            with suppress(OSError):
                print(describe(silent, len(self._hosts)), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Print nothing from now on."""
        self._ended.set()


def describe(silent: Sequence[str], count: int) -> str:
    """Return what a run of ``count`` machines does; ``silent``: those without a connection yet."""
    if not silent:
        return f"reading the state of {count} machine{'s' if count != 1 else ''} ..."
    more = f" and {len(silent) - MOST_NAMES} more" if len(silent) > MOST_NAMES else ""
    return f"connecting to {', '.join(silent[:MOST_NAMES])}{more} ..."
