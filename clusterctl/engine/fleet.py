"""Many machines at once: a bounded parallel map whose results keep each host's error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Generic, TypeVar

from clusterctl.cluster.model import Host
from clusterctl.errors import ClusterctlError, raise_all

Result = TypeVar("Result")


@dataclass(frozen=True)
class HostResults(Generic[Result]):
    """A result or an error of each host, by host name."""

    results: Mapping[str, Result]
    errors: Mapping[str, ClusterctlError]

    def or_raise(self) -> Mapping[str, Result]:
        """The results; raises all errors together where there are any."""
        raise_all([self.errors[name] for name in sorted(self.errors)])
        return self.results


def begin(hosts: Sequence[Host], work: Callable[[Host], Result], *, limit: int) -> dict[str, Future[Result]]:
    """Start one thing on each host, ``limit`` at a time, and do not wait for it."""
    pool = ThreadPoolExecutor(max_workers=max(1, min(limit, len(hosts))), thread_name_prefix="host")
    begun = {host.name: pool.submit(work, host) for host in hosts}
    pool.shutdown(wait=False)
    return begun


def collect(begun: Mapping[str, Future[Result]]) -> HostResults[Result]:
    """Wait for what was begun. A host's own error does not stop the others; any other does."""
    results: dict[str, Result] = {}
    errors: dict[str, ClusterctlError] = {}
    names = {future: name for name, future in begun.items()}
    for future in as_completed(names):
        try:
            results[names[future]] = future.result()
        except ClusterctlError as error:
            errors[names[future]] = error
    return HostResults({name: results[name] for name in begun if name in results},
                       {name: errors[name] for name in begun if name in errors})


def each(hosts: Iterable[Host], work: Callable[[Host], Result], *, limit: int) -> HostResults[Result]:
    """Do one thing on each host, ``limit`` at a time, and wait for all of them."""
    hosts = list(hosts)
    pool = ThreadPoolExecutor(max_workers=max(1, min(limit, len(hosts))), thread_name_prefix="host")
    try:
        return collect({host.name: pool.submit(work, host) for host in hosts})
    finally:
        # After an interrupt running calls are not awaited.
        pool.shutdown(wait=False, cancel_futures=True)
