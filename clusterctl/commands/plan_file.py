"""A plan as a file that people review and machines carry out: just that, or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clusterctl import __version__
from clusterctl.commands.upgrade import UpgradePlan, UpgradeRequest, fingerprint_difference
from clusterctl.errors import InputError, Refused
from clusterctl.kube.disruption import DrainPolicy, Unavailable
from clusterctl.local.storage import write_whole
from clusterctl.session.session import Session

KIND = "clusterctl upgrade plan"
MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A plan that was reviewed: what was wished for, on which hosts, and what was to be done."""

    path: Path
    wish: UpgradeRequest
    limit: tuple[str, ...]
    fingerprint: dict[str, Any]

    def refuse_other(self, found: UpgradePlan) -> None:
        """Raises Refused unless today's plan is the same."""
        lines = fingerprint_difference(self.fingerprint, json.loads(json.dumps(found.fingerprint())))
        if lines:
            more = f"; and {len(lines) - MOST_SHOWN} more" if len(lines) > MOST_SHOWN else ""
            raise _moved_on(self.path, f"{'; '.join(lines[:MOST_SHOWN])}{more}")


def _moved_on(path: Path, what: str) -> Refused:
    return Refused(f"the cluster has moved on since this plan was made: {what}", where=str(path),
                   hint=f"make and review a new one: clusterctl upgrade plan --out {path}", code="plan.outdated")


def write(path: Path, session: Session, wish: UpgradeRequest, found: UpgradePlan) -> None:
    """Write a plan, whole or not at all. Raises InputError.

    ``digest``: the same for two plans that do the same; ``sha256``: of all the rest of the file.
    """
    content = {
        "kind": KIND,
        "clusterctl": __version__,
        "cluster": session.cluster.name,
        "identity": session.pki.identity,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "limit": list(session.target.limit),
        "wish": wish.as_dict(),
        "digest": found.digest,
        "fingerprint": found.fingerprint(),
        "plan": found.as_dict(),
    }
    try:
        write_whole(path, json.dumps({**content, "sha256": _seal(content)}, indent=1).encode() + b"\n", mode=0o644)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=str(path), code="plan.unwritable") from None


def _seal(content: Mapping[str, Any]) -> str:
    """Return a digest of the readable and of the compared part, so that they cannot diverge."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(path: Path, session: Session, given: UpgradeRequest) -> Reviewed:
    """Read a plan. ``given``: the options beside it. Raises InputError, Refused."""
    content = _load(path)
    try:
        wish = _wish(content["wish"])
        identity, limit, fingerprint = str(content["identity"]), _texts(content["limit"]), dict(content["fingerprint"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_plan(path, f"{type(error).__name__}: {error}") from None
    if given != UpgradeRequest() or session.target.limit not in ((), limit):
        raise InputError("the plan says what is done; --to and the like say it a second time", where=str(path),
                         hint="give the file alone, or the options alone", code="plan.options")
    if session.pki_is_new:
        raise Refused("the keys of its cluster are not here", where=str(path),
                      hint=f"restore {session.state.path} from its backup, or name it with --state", code="state.keys-missing")
    if identity != session.pki.identity:
        raise Refused("is the plan of another cluster", where=str(path), code="plan.other-cluster",
                      hint="name the inventory that it was made for")
    gone = [name for name in limit if name not in {host.name for host in session.cluster.hosts}]
    if gone:
        raise _moved_on(path, f"the inventory has no host {gone[0]!r} any more")
    return Reviewed(path, wish, limit, fingerprint)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="plan.unreadable") from None
    except (ValueError, RecursionError) as error:
        raise _no_plan(path, str(error)) from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise _no_plan(path, "its kind is another one")
    if content.get("sha256") != _seal(content):
        raise InputError("was changed after it was made", where=str(path),
                         hint=f"make and review a new one: clusterctl upgrade plan --out {path}", code="plan.changed")
    return content


def _no_plan(path: Path, why: str) -> InputError:
    return InputError(f"is no plan of an upgrade: {why}", where=str(path), code="plan.malformed",
                      hint=f"make one: clusterctl upgrade plan --out {path}")


def _wish(wished: Mapping[str, Any]) -> UpgradeRequest:
    """Raises ValueError, KeyError, TypeError for what ``Wish.as_dict`` never wrote."""
    components, unavailable = wished["components"], _text(wished["max_unavailable"])
    return UpgradeRequest(
        to=_text(wished["to"]),
        through=_texts(wished["through"]),
        components=dict(zip(components, _texts(list(components.values())), strict=True)),
        unavailable=Unavailable.parse(unavailable) if unavailable is not None else None,
        pause_after=_text(wished["pause_after"]),
        policy=DrainPolicy(**wished["drain"]),
    )


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{value!r} is no text")
    return value


def _texts(values: object) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise ValueError(f"{values!r} is no list")
    return tuple(str(_text(value)) for value in values)
