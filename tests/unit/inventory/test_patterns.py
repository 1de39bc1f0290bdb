"""Host patterns of ``--limit`` and ``exec``, compared with Ansible's own where a pattern is one of Ansible's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.cluster.model import Host, Role, Ssh
from clusterctl.errors import InputError
from clusterctl.inventory import load
from clusterctl.inventory.patterns import select


def host(name: str, role: Role, *groups: str) -> Host:
    return Host(name=name, address="10.0.0.1", ssh=Ssh(address="10.0.0.1", user="root"),  # type: ignore[arg-type]
                roles=frozenset({role}), groups=frozenset(groups))


CLUSTER: Any = SimpleNamespace(hosts=(
    host("cp-1", "control_plane", "rack_a"), host("e-1", "etcd", "rack_b"), host("w-1", "worker", "gpu", "rack_a"),
    host("w-2", "worker", "rack_b"), host("w-3-example-com", "worker", "gpu", "rack_b")))


@pytest.mark.parametrize(("pattern", "expected"), [
    ("all", "cp-1 e-1 w-1 w-2 w-3-example-com"), ("*", "cp-1 e-1 w-1 w-2 w-3-example-com"),
    ("control_plane", "cp-1"), ("kube_control_plane", "cp-1"), ("etcd", "e-1"),
    ("workers", "w-1 w-2 w-3-example-com"), ("kube_node", "w-1 w-2 w-3-example-com"), ("k8s_cluster", "cp-1 w-1 w-2 w-3-example-com"),
    ("w-2,w-*", "w-2 w-1 w-3-example-com"), ("e-1,kube_control_plane", "e-1 cp-1"), ("e-1:cp-1", "e-1 cp-1"), ("w-1,", "w-1"),
    ("gpu", "w-1 w-3-example-com"), ("rack_*", "cp-1 e-1 w-1 w-2 w-3-example-com"), ("*-example-com", "w-3-example-com"),
    ("all:!w-1", "cp-1 e-1 w-2 w-3-example-com"), ("!rack_a", "e-1 w-2 w-3-example-com"), ("rack_a:&workers", "w-1"),
    ("&gpu", "w-1 w-3-example-com"), ("workers:&rack_b:!gpu", "w-2"), ("!gpu,workers", "w-2"),
    ("workers[0]", "w-1"), ("workers[-1]", "w-3-example-com"), ("workers[0:1]", "w-1 w-2"), ("workers[1:]", "w-2 w-3-example-com"),
    ("~w-[12]$", "w-1 w-2"), ("~w-[12]", "w-1 w-2"), ("~w-1:w-2", "w-1 w-2"), ("~(cp|e)-.*", "cp-1 e-1"),
])
def test_selected(pattern: str, expected: str) -> None:
    assert " ".join(one.name for one in select(CLUSTER, pattern, "HOSTS")) == expected


@pytest.mark.parametrize("pattern", ["Master_1", "*er_1", "10.0.0.77", "master-1,node-10-0-0-77"])
def test_a_host_is_known_by_the_name_that_the_inventory_writes(tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "hosts.ini"
    path.write_text("[control_plane]\nMaster_1 ansible_host=10.0.0.1\n[workers]\n10.0.0.77\n")
    found = [one.name for one in select(load(path), pattern, "--limit")]
    assert found and set(found) <= {"master-1", "node-10-0-0-77"}


@pytest.mark.parametrize(("pattern", "code"), [
    ("", "hosts.none-selected"), (",", "hosts.none-selected"), ("w-9", "hosts.no-match"), ("kube-node", "hosts.no-match"),
    ("workers:!kube_node", "hosts.none-selected"), ("all:!w-9", "hosts.no-match"), ("all:&gpus", "hosts.no-match"),
    ("workers[7]", "hosts.no-match"), ("~(", "hosts.malformed-pattern"),
])
def test_refused(pattern: str, code: str) -> None:
    with pytest.raises(InputError) as raised:
        select(CLUSTER, pattern, "HOSTS")
    assert raised.value.code == code
