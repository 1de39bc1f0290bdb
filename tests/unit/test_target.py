"""The target of an operation is frozen: plans for other clusters, limits and versions are made for other targets."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace
from typing import Any

import pytest
from test_os_update import cluster

from clusterctl.cluster.target import Target
from clusterctl.cluster.versions import known_versions
from clusterctl.commands import apply, upgrade
from clusterctl.errors import Refused
from clusterctl.session.session import Session

WHOLE = Target(cluster=cluster(2))


def session(target: Target = WHOLE) -> Session:
    nothing: Any = SimpleNamespace(forks=2, transports={})
    return Session(target, nothing, nothing, False, nothing, nothing, nothing, nothing)


def names(target: Target) -> list[str]:
    return [host.name for host in target.chosen]


def test_the_hosts_of_a_target() -> None:
    assert names(WHOLE) == ["cp-1", "cp-2", "w-1", "w-2"] and names(replace(WHOLE, limit=("w-2", "cp-1"))) == ["cp-1", "w-2"]
    assert names(replace(WHOLE, limit=("w-1",)).of(WHOLE.cluster.without(["w-1"]))) == []


def test_nothing_assigns_to_a_target_or_a_session() -> None:
    for value, name in ((WHOLE, "cluster"), (WHOLE, "limit"), (session(), "target"), (session(), "cluster")):
        with pytest.raises((FrozenInstanceError, AttributeError)):
            setattr(value, name, None)


def test_another_target_has_the_same_connections() -> None:
    opened = session(replace(WHOLE, limit=("w-1",)))
    other = opened.at(WHOLE.cluster.without(["w-2"]))
    assert names(other.target) == ["w-1"] and len(other.cluster.hosts) == 3 and len(opened.cluster.hosts) == 4
    assert other._etcds is opened._etcds and other._current is opened._current and other.engine is opened.engine


def test_a_plan_is_carried_out_for_its_own_target() -> None:
    target = WHOLE.of(WHOLE.cluster.at(known_versions("1.36.4")))
    opened = session()
    assert apply.Apply(opened, apply.ApplyPlan(target)).session.target is target and opened.target is WHOLE


def test_a_refused_upgrade_leaves_the_target_as_it_is() -> None:
    opened = session()
    with pytest.raises(Refused, match="there is no cluster yet"):
        upgrade.make(opened, {}, [], upgrade.UpgradeRequest(to="1.37.2"))
    assert opened.target is WHOLE
