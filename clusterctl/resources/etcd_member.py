"""A machine's place among the members of an etcd that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from clusterctl.resources.base import Change, Resource, State
from clusterctl.resources.file import WriteOnceFile
from clusterctl.shell import Call, Observation, Probe

INITIAL = "/etc/etcd/initial.env"
FORMED = "/etc/etcd/formed"


def data_state(seen: Observation, name: str) -> str:
    """Return ``formed`` where a member has served and its data is there, ``lost`` where the data is gone, ``begun`` or empty."""
    return (seen.get("etcd_data", name) or [""])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Formed(WriteOnceFile):
    """The mark of a member that has served, which keeps it from a start without its data."""

    name: str

    def probes(self) -> Sequence[Probe]:
        return (*WriteOnceFile.probes(self), ("etcd_data", self.name))

    def observed(self, seen: Observation) -> State | None:
        # The mark of a member whose data is lost goes when the host joins anew, and is written again once it has served.
        return None if data_state(seen, self.name) == "lost" else WriteOnceFile.observed(self, seen)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdLearner(Resource):
    """Membership as a learner, asked for before the first start. ``endpoints``: client URLs of the members that run."""

    name: str
    peer_url: str
    endpoints: tuple[str, ...]
    token: str

    @property
    def id(self) -> str:
        return f"etcd-join:{self.name}"

    def desired(self) -> State:
        return {"data": "there"}

    def probes(self) -> Sequence[Probe]:
        return (("etcd_data", self.name), ("stat", INITIAL))

    def observed(self, seen: Observation) -> State | None:
        state = data_state(seen, self.name)
        # What the first start was given is of no use to a member that has served and lost its data.
        there = state in ("begun", "formed") or (not state and seen.get("stat", INITIAL) is not None)
        return {"data": "there"} if there else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("etcd_join", self.name, self.peer_url, ",".join(self.endpoints), self.token),)


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdVoter(Resource):
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

    def desired(self) -> State:
        return {"member": "voter"}

    def probes(self) -> Sequence[Probe]:
        return (("etcd_role", self.name),)

    def observed(self, seen: Observation) -> State | None:
        words = seen.get("etcd_role", self.name)
        return {"member": words[0]} if words else None

    def diff(self, seen: State | None) -> Change | None:
        # A member that is stopped says nothing and has its vote still.
        return Resource.diff(self, seen) if seen is not None or self.joining else None

    def apply(self, change: Change) -> Sequence[Call]:
        return (("etcd_promote", self.name, ",".join(self.endpoints), str(self.deadline)),)
