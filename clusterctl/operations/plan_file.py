"""A plan as a file that people review and machines carry out: just that, or nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusterctl import __version__
from clusterctl.errors import InputError, Refused
from clusterctl.operations.base import Session
from clusterctl.operations.upgrade import UpgradePlan, Wish, essence_difference
from clusterctl.storage import write_whole

KIND = "clusterctl upgrade plan"
MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A plan that somebody has seen: what was wished for, and what was to be done."""

    path: Path
    wish: Wish
    essence: dict[str, Any]

    def refuse_other(self, found: UpgradePlan) -> None:
        """Raises Refused unless today's plan is the same."""
        lines = essence_difference(self.essence, json.loads(json.dumps(found.essence())))
        if lines:
            more = f"; and {len(lines) - MOST_SHOWN} more" if len(lines) > MOST_SHOWN else ""
            raise Refused(f"the cluster has moved on since this plan was made: {'; '.join(lines[:MOST_SHOWN])}{more}",
                          where=str(self.path), hint=f"make and review a new one: clusterctl upgrade plan --out {self.path}")


def write(path: Path, session: Session, wish: Wish, found: UpgradePlan) -> None:
    """Write a plan, whole or not at all. Raises InputError."""
    content = {
        "kind": KIND,
        "clusterctl": __version__,
        "cluster": session.cluster.name,
        "identity": session.pki.identity,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "limit": list(session.options.limit),
        "wish": wish.as_dict(),
        "digest": found.digest,
        "essence": found.essence(),
        "plan": found.as_dict(),
    }
    try:
        write_whole(path, json.dumps(content, indent=1).encode() + b"\n", mode=0o644)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path)) from None


def read(path: Path, session: Session, given: Wish) -> Reviewed:
    """Read a plan. ``given``: the options beside it, of which those of the drain alone count. Raises InputError, Refused."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["kind"] != KIND:
            raise ValueError(f"its kind is {content['kind']!r}")
        wished = content["wish"]
        wish = Wish(to=wished["to"], through=tuple(wished["through"]), components=dict(wished["components"]),
                    unavailable=wished["max_unavailable"], pause_after=wished["pause_after"], policy=given.policy)
        identity, limit, essence = content["identity"], tuple(content["limit"]), dict(content["essence"])
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"is no plan of an upgrade: {error}", where=str(path),
                         hint=f"make one: clusterctl upgrade plan --out {path}") from None
    if given != Wish(policy=given.policy) or session.options.limit not in ((), limit):
        raise InputError("the plan says what is done; --to and the like say it a second time", where=str(path),
                         hint="give the file alone, or the options alone")
    if identity != session.pki.identity:
        raise Refused("is the plan of another cluster", where=str(path), hint="name the inventory that it was made for")
    session.limit(limit)
    return Reviewed(path, wish, essence)
