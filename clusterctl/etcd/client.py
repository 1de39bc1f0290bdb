"""etcd's API, as far as clusterctl speaks it: members, their health, snapshots. Spoken as JSON (etcd's gRPC gateway)."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clusterctl.errors import Stopped
from clusterctl.ssh.https import ApiError as ApiError
from clusterctl.ssh.https import Https

READS = ("cluster/member/list", "maintenance/status", "kv/range")
"""Requests without side effects, which are repeated where a connection broke."""

ANSWER_SECONDS = 15.0
"""How long one member may take to answer: under load, on slow disks, a healthy one takes seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of the list of members. ``id`` as etcd writes it in JSON: decimal.

    One that was added has no name before it has started; those of a cluster's birth have theirs from the beginning.
    """

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...] = ()
    learner: bool = False

    @property
    def started(self) -> bool:
        """Whether it has ever served: only then is it known where."""
        return bool(self.client_urls)

    @property
    def hexadecimal(self) -> str:
        """The id as etcdctl prints it."""
        return f"{int(self.id):x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """The status of one member. Sizes in bytes; ``alarms``: those of this member, such as ``NOSPACE``.

    ``revision``: the last that it applied.
    """

    cluster_id: str
    member_id: str
    version: str
    leader: str
    size: int
    in_use: int
    raft_index: int
    learner: bool
    errors: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    revision: int = 0


ALARM = re.compile(r"memberID:\s*(\d+)\s+alarm:\s*(\w+)")
"""How each member lists the alarms of all among its errors (server/etcdserver/api/v3rpc/maintenance.go)."""


class Etcd:
    """One member's client port, through a local one."""

    def __init__(self, port: int, *, authority: bytes, certificate: bytes, key: bytes,
                 why_broken: Callable[[], str] = lambda: "") -> None:
        self._https = Https(port, authority=authority, certificate=certificate, key=key, why_broken=why_broken)

    def close(self) -> None:
        self._https.close()

    def _ask(self, path: str, body: object, timeout: float = ANSWER_SECONDS) -> dict[str, object]:
        ask = self._https.read if path in READS else self._https.request
        found = ask("POST", f"/v3/{path}", body, timeout=timeout)
        if not isinstance(found, dict):
            raise ApiError(0, f"etcd answered {str(found)[:100]!r}")
        return found

    def members(self) -> tuple[Member, ...]:
        """All members, as a majority of them knows. Raises ApiError, also where there is no majority."""
        found = self._ask("cluster/member/list", {"linearizable": True})
        return read_members(found.get("members", []))

    def status(self) -> EndpointStatus:
        """Raises ApiError."""
        found = self._ask("maintenance/status", {}, timeout=ANSWER_SECONDS)
        header = found.get("header")
        header = header if isinstance(header, dict) else {}
        errors = [str(error) for error in _list(found.get("errors"))]
        alarms = [match.groups() for error in errors if (match := ALARM.search(error))]
        return EndpointStatus(
            cluster_id=str(header.get("cluster_id", "")),
            member_id=str(header.get("member_id", "")),
            version=str(found.get("version", "")),
            leader=str(found.get("leader", "0")),
            size=int(str(found.get("dbSize", 0))),
            in_use=int(str(found.get("dbSizeInUse", 0))),
            raft_index=int(str(found.get("raftIndex", 0))),
            revision=int(str(header.get("revision", 0))),
            learner=bool(found.get("isLearner", False)),
            errors=tuple(error for error in errors if not ALARM.search(error)),
            alarms=tuple(alarm for member, alarm in alarms if member == str(header.get("member_id"))),
        )

    def answers(self) -> None:
        """A read that a majority must agree to. Raises ApiError."""
        self._ask("kv/range", {"key": base64.b64encode(b"health").decode()}, timeout=ANSWER_SECONDS)

    def remove(self, member: str) -> None:
        """Raises ApiError; etcd itself refuses what would lose its majority."""
        self._ask("cluster/member/remove", {"ID": member})

    def lead(self, member: str) -> None:
        """Hand leadership to a member; must be asked of the leader. Raises ApiError."""
        self._ask("maintenance/transfer-leadership", {"targetID": member})

    def defragment(self, timeout: float = 120.0) -> None:
        """Give free space back to the file system; the member serves no requests meanwhile. Raises ApiError."""
        self._ask("maintenance/defragment", {}, timeout=timeout)

    def alarms(self) -> tuple[str, ...]:
        """Alarms that are raised, as ``NOSPACE``. Raises ApiError."""
        found = _list(self._ask("maintenance/alarm", {"action": "GET"}).get("alarms"))
        return tuple(str(entry.get("alarm", "")) for entry in found if isinstance(entry, dict))

    def disarm(self) -> None:
        """Lower all alarms. Raises ApiError."""
        for entry in _list(self._ask("maintenance/alarm", {"action": "GET"}).get("alarms")):
            if isinstance(entry, dict):
                self._ask("maintenance/alarm", {"action": "DEACTIVATE", **entry})

    def snapshot(self) -> Iterator[bytes]:
        """The member's database, in pieces; its sha256 is the last 32 bytes, as in etcdctl's files. Raises ApiError, Stopped."""
        left = -1
        for line in self._https.lines("/v3/maintenance/snapshot", {}, timeout=60):
            answer = json.loads(line)
            if "result" not in answer:
                raise ApiError(0, str(answer.get("error", answer))[:300])
            left = int(answer["result"].get("remaining_bytes", 0))
            yield base64.b64decode(answer["result"].get("blob", ""))
        if left != 0:
            raise Stopped("the snapshot ended early", hint="run the same command again", code="etcd.snapshot-broken-off")


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def read_members(entries: object) -> tuple[Member, ...]:
    """The members of a list as etcd writes it."""
    return tuple(
        Member(
            id=str(entry["ID"]),
            name=str(entry.get("name", "")),
            peer_urls=tuple(str(url) for url in entry.get("peerURLs", ())),
            client_urls=tuple(str(url) for url in entry.get("clientURLs", ())),
            learner=bool(entry.get("isLearner", False)),
        )
        for entry in _list(entries)
        if isinstance(entry, dict)
    )


def majority(voters: int) -> int:
    """How many of so many voters must agree."""
    return voters // 2 + 1


def refuse_removal(voters: int, healthy: int, *, target_healthy: bool) -> str:
    """Why a voter may not be removed, with the arithmetic; empty where it may.

    The removal itself needs a majority of all that vote now; afterwards those that are left need one of their own.
    """
    left, alive = voters - 1, healthy - (1 if target_healthy else 0)
    if left == 0:
        return "it is the only etcd member"
    if healthy < majority(voters):
        return f"{healthy} of {voters} etcd members are healthy and {majority(voters)} must be to agree to anything"
    if alive < majority(left):
        return f"of the {left} etcd members that are left {alive} would be healthy, and {majority(left)} must be"
    return ""
