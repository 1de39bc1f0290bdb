"""``exec``: on which machines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.errors import InputError
from clusterctl.model import Host, Role, Ssh
from clusterctl.operations.execute import choose


def host(name: str, *roles: Role) -> Host:
    return Host(name=name, address="10.0.0.1", ssh=Ssh(address="10.0.0.1", user="root"), roles=frozenset(roles))  # type: ignore[arg-type]


CLUSTER: Any = SimpleNamespace(hosts=(host("cp-1", "control_plane"), host("e-1", "etcd"), host("w-1", "worker"), host("w-2", "worker")))


@pytest.mark.parametrize(("pattern", "expected"), [
    ("all", "cp-1 e-1 w-1 w-2"), ("control_plane", "cp-1"), ("kube_control_plane", "cp-1"), ("etcd", "e-1"), ("workers", "w-1 w-2"),
    ("kube_node", "w-1 w-2"), ("k8s_cluster", "cp-1 w-1 w-2"), ("w-2,w-*", "w-2 w-1"), ("e-1,kube_control_plane", "e-1 cp-1")])
def test_chosen(pattern: str, expected: str) -> None:
    assert " ".join(one.name for one in choose(CLUSTER, pattern)) == expected


@pytest.mark.parametrize("pattern", ["", "w-1,", "w-3", "kube-node"])
def test_nobody_is_called_so(pattern: str) -> None:
    with pytest.raises(InputError, match="no host or group is called") as raised:
        choose(CLUSTER, pattern)
    assert "kube_node" in raised.value.hint
