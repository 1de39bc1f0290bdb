"""Programs that may be run twice, on machines whose connection may break meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterctl.cluster.model import Host
from clusterctl.engine.engine import step_failed
from clusterctl.errors import AccessRefused, Stopped, Unreachable
from clusterctl.session.session import Session
from clusterctl.shell import Script, step_result
from clusterctl.ssh.transport import ConnectionLost

PAUSE = 0.5
"""Seconds between two attempts to reach a machine."""


def run_until_done(
    session: Session, host: Host, make: Callable[[], Script], *, deadline: float, silence: float = 300
) -> list[list[str]]:
    """Run a program until it was run to its end; its records. Only for programs that do no harm twice.

    ``deadline``: seconds from the first break until it gives up, with Stopped; 0: at once, with Unreachable. ``silence``: seconds
    that one attempt may take without a record. A step that fails raises Stopped; a refused login or password is not retried.
    """
    ends = None
    while True:
        try:
            return checked(host, list(session.engine.transports[host.name].stream(make(), silence=silence)))
        except AccessRefused:
            # Each attempt counts where accounts are locked after some (pam_faillock).
            raise
        except (ConnectionLost, Unreachable) as error:
            now = time.monotonic()
            ends = ends or now + deadline
            lost = error if isinstance(error, Unreachable) else error.unreachable(host)
            if not deadline:
                raise lost from None
            if now >= ends:
                raise Stopped(f"has not answered for {deadline:.0f} s; last seen: {lost.message}", where=host.name,
                              hint="look at the machine's console, then run the same command again",
                              code="run.host-silent") from None
            time.sleep(PAUSE)


def checked(host: Host, records: list[list[str]]) -> list[list[str]]:
    """The records that are not about steps. Raises Stopped where a step failed."""
    for words in records:
        if words[0] == "failed":
            result = step_result(words)
            raise step_failed(result.output or f"exit code {result.code}", host.name,
                              "fix the cause on the machine, then run the same command again")
    return [words for words in records if words[0] != "ok"]
