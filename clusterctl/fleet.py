"""Many machines at once: a bounded parallel map whose results keep each host's error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from clusterctl.errors import ClusterctlError, Problems
from clusterctl.model import Host

Result = TypeVar("Result")


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What came of each host: a result or an error, by host name."""

    results: Mapping[str, Result]
    errors: Mapping[str, ClusterctlError]

    def or_raise(self) -> Mapping[str, Result]:
        """The results; raises all errors together where there are any."""
        if len(self.errors) == 1:
            raise next(iter(self.errors.values()))
        if self.errors:
            raise Problems([self.errors[name] for name in sorted(self.errors)])
        return self.results


def begin(hosts: Sequence[Host], work: Callable[[Host], Result], *, limit: int) -> dict[str, Future[Result]]:
    """Start one thing on each host, ``limit`` at a time, and do not wait for it."""
    pool = ThreadPoolExecutor(max_workers=max(1, min(limit, len(hosts))), thread_name_prefix="host")
    begun = {host.name: pool.submit(work, host) for host in hosts}
    pool.shutdown(wait=False)
    return begun


def each(hosts: Iterable[Host], work: Callable[[Host], Result], *, limit: int) -> Outcome[Result]:
    """Do one thing on each host, ``limit`` at a time. A host's own error does not stop the others; any other exception does."""
    hosts = list(hosts)
    results: dict[str, Result] = {}
    errors: dict[str, ClusterctlError] = {}
    if not hosts:
        return Outcome(results, errors)
    pool = ThreadPoolExecutor(max_workers=max(1, min(limit, len(hosts))), thread_name_prefix="host")
    try:
        futures = {host.name: pool.submit(work, host) for host in hosts}
        for name, future in futures.items():
            try:
                results[name] = future.result()
            except ClusterctlError as error:
                errors[name] = error
    finally:
        # After an interrupt nobody waits for those that are at work.
        pool.shutdown(wait=False, cancel_futures=True)
    return Outcome(results, errors)
