"""What machines said and what was looked at the last time, by host: a guess for the next time, which is always checked."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterctl.errors import ClusterctlError
from clusterctl.local.storage import StateFolder, make_folder, user_cache, write_whole
from clusterctl.shell import LOOKS, Probe


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one machine: the words that last, what was looked at, if it was, and the paths that its API server was asked for."""

    facts: Mapping[str, str]
    probes: tuple[Probe, ...] = ()
    reads: tuple[str, ...] = ()


def recall(state: StateFolder) -> dict[str, Kept]:
    """What is kept; nothing where there is nothing, or nothing that could be read, or no cluster yet."""
    try:
        place = _place(state)
        kept = json.loads(place.read_bytes()) if place else {}
        return {str(name): Kept({str(key): str(value) for key, value in one["facts"].items()}, _probes(one["probes"]),
                                tuple(map(str, one["reads"]))) for name, one in kept.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError, ClusterctlError):
        return {}


def keep(state: StateFolder, now: Mapping[str, Kept], before: Mapping[str, Kept]) -> None:
    """Keep it for the next run, where it differs from what was kept ``before``."""
    place = _place(state)
    if place is None or now == before:
        return
    content = {name: {"facts": dict(one.facts), "probes": _grouped(one.probes), "reads": one.reads} for name, one in now.items()}
    with contextlib.suppress(OSError):
        make_folder(place.parent)
        write_whole(place, json.dumps(content).encode())


def _place(state: StateFolder) -> Path | None:
    """By the cluster's CA, so that two clusters of one name differ; None for one that has no keys yet."""
    return user_cache() / "facts" / f"{state.identity}.json" if state.identity else None


def _probes(grouped: Mapping[str, list[str]]) -> tuple[Probe, ...]:
    """Raises ValueError for a kind that is not asked for again: it would be run."""
    if not LOOKS.issuperset(grouped):
        raise ValueError("no such look")
    return tuple((kind, str(argument)) for kind, arguments in grouped.items() for argument in arguments)


def _grouped(probes: tuple[Probe, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for kind, argument in probes:
        found[kind].append(argument)
    return found
