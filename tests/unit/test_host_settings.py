"""A setting of one host changes the desired state of that host alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from test_golden import ROOT, VM, Pins, nothing
from test_planner import look_at

from clusterctl.artifacts.catalog import Catalog
from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context
from clusterctl.errors import InputError, Problems
from clusterctl.inventory import load
from clusterctl.pki import Pki
from clusterctl.plan import planner
from clusterctl.plan.stages import stages
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import Binary
from clusterctl.resources.file import File, Link
from clusterctl.resources.service import Service

Wanted = dict[str, dict[str, tuple[Resource, ...]]]
KEYS = Pki.create()


def cluster_with(tmp_path: Path, **files: str) -> Cluster:
    """Return the cluster of inventories/ha.yaml with host_vars of these contents, by name of the host."""
    shutil.copy(ROOT / "inventories" / "ha.yaml", tmp_path)
    shutil.rmtree(tmp_path / "host_vars", ignore_errors=True)
    (tmp_path / "host_vars").mkdir()
    for name, content in files.items():
        (tmp_path / "host_vars" / f"{name.replace('_', '-')}.yaml").write_text(content)
    return load(tmp_path / "ha.yaml")


def refusal(tmp_path: Path, content: str) -> InputError:
    """Return the first error of a host's settings, which must name their line."""
    with pytest.raises((InputError, Problems)) as caught:
        cluster_with(tmp_path, w_1=f"cluster:\n  {content}\n")
    error = caught.value.errors[0] if isinstance(caught.value, Problems) else caught.value
    assert isinstance(error, InputError) and "/host_vars/w-1.yaml:2:" in error.where
    return error


def wanted(cluster: Cluster) -> Wanted:
    contexts = [Context(cluster=cluster, host=host, facts=VM, pki=KEYS, catalog=Catalog(Pins(), nothing)) for host in cluster.hosts]
    return {context.host.name: planner.resources_for(stages(cluster), context) for context in contexts}


def contents(found: Wanted) -> dict[tuple[str, str], bytes]:
    return {(host, resource.path): resource.content for host, of_host in found.items() for stage in of_host.values()
            for resource in stage if isinstance(resource, File)}


def comparable(of_host: Mapping[str, tuple[Resource, ...]]) -> dict[str, tuple[Resource, ...]]:
    """What ``look_at`` can show of a machine, and services that depend on nothing else."""
    kept = {stage: [one for one in resources if isinstance(one, File | Link | Binary | Service)] for stage, resources in of_host.items()}
    ids = {one.id for resources in kept.values() for one in resources}
    return {stage: tuple(
        dataclasses.replace(one, inputs=tuple(name for name in one.inputs if name in ids)) if isinstance(one, Service) else one
        for one in resources) for stage, resources in kept.items()}


def plan(cluster: Cluster, before: Wanted, after: Wanted) -> set[tuple[str, str, str]]:
    """(host, resource, action) of the plan for machines that are as was wanted before."""
    found = set()
    for host in cluster.hosts:
        there = [one for resources in comparable(before[host.name]).values() for one in resources]
        parts = planner.plan_host(stages(cluster), host, comparable(after[host.name]), look_at(there))
        found |= {(host.name, change.resource.id, change.action) for part in parts.values() for change in part.changes}
    return found


def test_a_setting_of_a_host_changes_that_host_alone(tmp_path: Path) -> None:
    before = wanted(cluster_with(tmp_path))
    cluster = cluster_with(tmp_path, w_2="cluster: {kubelet: {max_pods: 30, extra_args: {v: '4'}}}")
    after = wanted(cluster)
    old, new = contents(before), contents(after)
    assert {place for place in old.keys() | new.keys() if old.get(place) != new.get(place)} == {
        ("w-2", "/var/lib/kubelet/config.yaml"), ("w-2", "/etc/systemd/system/kubelet.service")}
    assert b'"maxPods": 30' in new["w-2", "/var/lib/kubelet/config.yaml"]
    assert plan(cluster, before, before) == set()
    assert plan(cluster, before, after) == {
        ("w-2", "file:/var/lib/kubelet/config.yaml", "update"), ("w-2", "file:/etc/systemd/system/kubelet.service", "update"),
        ("w-2", "service:kubelet.service", "restart")}
