"""Apply planned objects to the API, and wait until workloads have rolled out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager

from clusterctl.health.wait import wait_for
from clusterctl.kube import pruning
from clusterctl.kube.client import (
    MANAGED_BY,
    MANAGER,
    Api,
    ApiError,
    ObjectChange,
    UnknownKind,
    apply_order,
    not_established,
    not_rolled_out,
)
from clusterctl.session.session import Session
from clusterctl.ssh.https import or_stopped

ROLL_OUT_SECONDS = 180.0
KIND_SECONDS = 60.0
"""How long the API may take to serve the kinds of a CustomResourceDefinition."""


def bring(session: Session, changes: Sequence[ObjectChange], *, narrow: bool) -> None:
    """Apply and remove objects. Raises Stopped.

    The record lists each object before it is applied. With ``narrow``, removed objects leave the record once they are gone.
    """
    if not changes:
        return
    record = [change for change in changes if pruning.is_record(change.wanted)]
    removals = [change for change in changes if change.action == "remove"]
    api = session.ready_api()
    with _or_stopped("the record of applied objects"):
        wider = [dataclasses.replace(change, wanted=pruning.merged(api, change.wanted)) for change in record]
    apply(session, wider)
    apply(session, [change for change in changes if change not in record and change not in removals])
    with _or_stopped("deletion of objects", "an object cannot be deleted"):
        pruning.remove(api, removals, session.engine.events.note)
    if narrow and [change.wanted for change in wider] != [change.wanted for change in record]:
        apply(session, record)


def apply(session: Session, changes: Sequence[ObjectChange]) -> None:
    """Apply objects, those first on which others depend. Raises Stopped."""
    if not changes:
        return
    events = session.engine.events
    api = session.ready_api()
    with events.stage("objects", ["the API"]):
        for change in sorted(changes, key=lambda one: apply_order(one.wanted)):
            with _or_stopped(f"objects: {change.id}"):
                _apply_object(api, change)
            events.note(f"{change.action} {change.id}")


def _or_stopped(where: str, what: str = "cannot be applied") -> AbstractContextManager[None]:
    return or_stopped(what, where=where, code="api.object-refused", hint="correct the cause, then run the same command again")


def _apply_object(api: Api, change: ObjectChange) -> None:
    """Apply one object. Raises ApiError, Stopped where the kinds of a CustomResourceDefinition are not served in time."""

    def served() -> str:
        try:
            api.path(change.wanted)
        except UnknownKind as error:
            return str(error)
        return ""

    if change.later:
        # Discovery follows a CustomResourceDefinition within seconds.
        wait_for(served, what=change.id, deadline=KIND_SECONDS)
    api.apply(change.wanted)
    if change.wanted["kind"] == "CustomResourceDefinition":
        wait_for(lambda: not_established(api.get(change.wanted)), what=change.id, deadline=KIND_SECONDS)


def awaited(change: ObjectChange) -> bool:
    """Return whether a workload's roll-out is awaited: of one that was changed, and of a new one of ours."""
    if change.wanted["kind"] not in ("Deployment", "DaemonSet", "StatefulSet"):
        return False
    ours = (change.wanted["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER
    return change.action == "update" or (change.action == "create" and ours)


def roll_out(session: Session, changes: Sequence[ObjectChange]) -> None:
    """Wait for workloads to roll out, so that this run reports an image that cannot be pulled. Raises Stopped."""
    if not changes:
        return

    def look() -> str:
        try:
            api = session.ready_api()
            late = {change.id: not_rolled_out(api.get(change.wanted)) for change in changes}
        except ApiError as error:
            return str(error)
        return "; ".join(f"{name}: {state}" for name, state in late.items() if state)

    with session.engine.events.stage("roll-out", [change.id for change in changes]):
        wait_for(look, what="the roll-out", deadline=ROLL_OUT_SECONDS)
