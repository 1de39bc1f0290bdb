"""A machine's place among the members of an etcd that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.resources.base import Change, Resource, State
from clusterctl.shell import Call, Observation, Probe

DATA = "/var/lib/etcd/member"


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(Resource):
    """Membership as a learner, asked for before the first start. ``endpoints``: client URLs of the members that run."""

    name: str
    peer_url: str
    endpoints: tuple[str, ...]
    token: str

    @property
    def id(self) -> str:
        return f"etcd-join:{self.name}"

    def wanted(self) -> State:
        return {"data": "there"}

    def probes(self) -> Sequence[Probe]:
        return (("stat", DATA), ("stat", "/etc/etcd/initial.env"))

    def parse(self, seen: Observation) -> State | None:
        there = seen.get("stat", DATA) is not None or seen.get("stat", "/etc/etcd/initial.env") is not None
        return {"data": "there"} if there else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("etcd_join", self.name, self.peer_url, ",".join(self.endpoints), self.token),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voter(Resource):
    """A member that votes: a learner that has caught up is promoted.

    ``endpoints``: of the other members; ``deadline`` in seconds.

    ``joining``: whether it comes into a cluster that runs, and so as a learner.
    """

    name: str
    endpoints: tuple[str, ...]
    joining: bool
    deadline: int = 120

    @property
    def id(self) -> str:
        return f"etcd-voter:{self.name}"

    def wanted(self) -> State:
        return {"member": "voter"}

    def probes(self) -> Sequence[Probe]:
        return (("etcd_role", self.name),)

    def parse(self, seen: Observation) -> State | None:
        words = seen.get("etcd_role", self.name)
        return {"member": words[0]} if words else None

    def diff(self, seen: State | None) -> Change | None:
        # A member that is stopped says nothing and has its vote still.
        return Resource.diff(self, seen) if seen is not None or self.joining else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("etcd_promote", self.name, ",".join(self.endpoints), str(self.deadline)),)
