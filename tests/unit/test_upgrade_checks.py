"""What must hold before an upgrade changes anything."""

from __future__ import annotations

import dataclasses
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.cluster.model import Cluster, Host, Settings, Ssh
from clusterctl.cluster.versions import known_versions
from clusterctl.health import upgrade_checks
from clusterctl.kube.client import ApiError
from clusterctl.plan.planner import HostChanges, Plan, Stage, StagePlan
from clusterctl.resources.base import Change
from clusterctl.resources.binary import Binary
from clusterctl.resources.file import File
from clusterctl.shell.facts import Facts, Space, parse_facts

METRICS = '''# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs that have been requested.
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="",removed_release="",resource="componentstatuses",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="flowcontrol.apiserver.k8s.io",removed_release="1.32",resource="flowschemas",subresource="",version="v1beta3"} 1
apiserver_requested_deprecated_apis{group="scheduling.k8s.io",removed_release="1.37",resource="workloads",subresource="status",version="v1alpha2"} 1
apiserver_requested_deprecated_apis{group="",removed_release="1.40",resource="endpoints",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="storage.k8s.io",removed_release="1.36",resource="things",subresource="",version="v1beta1"} 0
apiserver_request_total{code="200",group="x",removed_release="1.36",resource="pods"} 1
'''


def test_deprecated_apis_that_were_asked_for() -> None:
    assert upgrade_checks.deprecated(METRICS) == {
        ("flowschemas.v1beta3.flowcontrol.apiserver.k8s.io", "1.32"), ("workloads.v1alpha2.scheduling.k8s.io", "1.37"), ("endpoints.v1", "1.40")}
    assert upgrade_checks.deprecated("") == set()


def host(name: str) -> Host:
    return Host(name=name, address=IPv4Address("10.0.0.1"), roles=frozenset({"worker"}), ssh=Ssh(address=name))


def cluster(**settings: Any) -> Cluster:
    wanted = Settings.model_validate(settings)
    hosts = tuple(host(name).model_copy(update={"settings": wanted}) for name in ("a", "b"))
    return Cluster(hosts=hosts, versions=known_versions(), settings=wanted, base=Path("/"))


def facts(mib: int | None = None, running: str = "") -> Facts:
    return parse_facts({"running": running}, space={} if mib is None else {"/opt": Space(mib, None, True)})


def staged(**sizes: list[int]) -> Plan:
    """Programs of these sizes in MiB, and a file, for each host."""
    def change(number: int, mib: int) -> Change:
        source: Any = SimpleNamespace(size=mib * 2**20, sha256="0" * 64, url=None)
        return Change(resource=Binary(name=f"p{number}", version="1.0.0", source=source), action="create")

    file = Change(resource=File(path="/etc/x", content=b"x"), action="create")
    parts = tuple(HostChanges(host(name), (file, *(change(number, mib) for number, mib in enumerate(given))), ()) for name, given in sizes.items())
    return Plan((StagePlan(Stage(name="staging", components=()), parts),))


@pytest.mark.parametrize(("sizes", "free", "needed"), [
    ([100, 200], 5000, None),
    ([100, 200], 700, None),
    ([100, 200], 699, 700),
    ([], 0, None),
    # A machine that does not say is not refused for it.
    ([100, 200], None, None),
])
def test_room(sizes: list[int], free: int | None, needed: int | None) -> None:
    found = list(upgrade_checks.room(staged(a=sizes, b=[1]), {"a": facts(free), "b": facts(5000)}))
    if needed is None:
        assert not found
    else:
        [refusal] = found
        assert (refusal.where, refusal.hint) == ("a", f"{needed} MiB are needed: free some") and f"{free} MiB are free" in refusal.message


def test_machines_that_are_not_in_the_cluster_yet() -> None:
    runs = facts(running="/opt/clusterctl/kubelet/1.36.4/kubelet")
    assert not list(upgrade_checks.strangers(cluster(), {"a": runs, "b": runs}))
    # One that --limit leaves out was not asked.
    assert not list(upgrade_checks.strangers(cluster(), {"a": runs}))
    [refusal] = upgrade_checks.strangers(cluster(), {"a": runs, "b": facts()})
    assert refusal.where == "b" and "not in the cluster yet" in refusal.message


@pytest.mark.parametrize(("versions", "expected"), [
    ({}, []),
    ({"kubernetes": ("1.35.8", "1.37.2")}, []),
    ({"etcd": ("3.6.9", "3.6.14"), "containerd": ("2.2.0", "2.3.4")}, []),
    ({"etcd": ("3.5.9", "3.6.14")}, ["etcd"]),
    # More than one version runs: each must have a way.
    ({"etcd": ("3.6.9, 3.6.14", "3.6.14"), "containerd": ("2.1.0, 2.3.4", "2.3.4"), "runc": ("1.4.3", "1.3.6")}, ["containerd", "runc"]),
])
def test_components(versions: dict[str, tuple[str, str]], expected: list[str]) -> None:
    assert [refusal.where for refusal in upgrade_checks.components(versions)] == expected


KUBERNETES = {"kubernetes": ("1.36.4", "1.37.2")}


@pytest.mark.parametrize(("settings", "versions", "words"), [
    ({}, KUBERNETES, []),
    ({"kubelet": {"extra_args": {"containerd": "/run/x"}}}, KUBERNETES, ["kubelet has no flag --containerd"]),
    ({"kubelet": {"extra_args": {"containerd": "/run/x"}}}, {"etcd": ("3.6.9", "3.6.14")}, []),
    ({"api_server": {"extra_args": {"feature-gates": "AnyVolumeDataSource=true,SidecarContainers=true"}}}, KUBERNETES, ["AnyVolumeDataSource"]),
    ({"kubelet": {"config": {"featureGates": {"PreventStaticPodAPIReferences": True}}}}, KUBERNETES, ["PreventStaticPodAPIReferences"]),
    ({"kubelet": {"config": {"featureGates": None}}, "scheduler": {"extra_args": {"feature-gates": ""}}}, KUBERNETES, []),
    # From the lowest that runs: an upgrade that was interrupted has two.
    ({"api_server": {"extra_args": {"feature-gates": "CSIMigrationPortworx=true"}}}, {"kubernetes": ("1.35.8, 1.36.4", "1.36.4")}, ["CSIMigrationPortworx"]),
])
def test_flags_of_the_inventory(settings: dict[str, Any], versions: dict[str, tuple[str, str]], words: list[str]) -> None:
    found = list(upgrade_checks.removed(cluster(**settings), versions))
    assert len(found) == len(words) and all(word in refusal.message for word, refusal in zip(words, found, strict=True))


def node(ready: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": "Ready", "status": ready, "reason": "r", "message": "m"}]}}


def test_all_nodes_must_be_ready() -> None:
    hosts = cluster().hosts
    assert not list(upgrade_checks.nodes(hosts, {"a": node("True"), "b": node("True")}))
    found = list(upgrade_checks.nodes(hosts, {"a": node("Unknown")}))
    assert [refusal.where for refusal in found] == ["a", "b"]


@pytest.mark.parametrize(("served", "after", "refused"), [
    ({}, "1.37.2", []),
    ({"cp-2": "v1.37.0", "cp-3": "v1.37.2"}, "1.37.2", []),
    # A patch makes no difference to who may be newer.
    ({"cp-2": "v1.36.4"}, "1.36.10", []),
    ({"cp-2": "v1.36.4", "cp-3": "v1.37.2"}, "1.37.2", ["cp-2"]),
])
def test_kubelets_come_after_the_control_planes_that_are_left_out(served: dict[str, str], after: str, refused: list[str]) -> None:
    found = list(upgrade_checks.behind(served, after))
    assert [one.where for one in found] == refused
    assert all("no kubelet may be newer" in one.message for one in found)


@dataclasses.dataclass
class Served:
    """An API server that says this at these paths."""

    answers: dict[str, Any]

    def look(self, path: str) -> Any:
        if path not in self.answers:
            raise ApiError(404, "not found")
        return self.answers[path]


def test_objects_that_are_stored_in_what_is_gone() -> None:
    group = "scheduling.k8s.io/v1alpha2"
    resources = {"resources": [{"name": "workloads", "verbs": ["list"]}, {"name": "workloads/status", "verbs": ["get"]},
                               {"name": "reviews", "verbs": ["create"]}, {"name": "empty", "verbs": ["list"]}]}
    api: Any = Served({f"/apis/{group}": resources, f"/apis/{group}/workloads": {"items": [1, 2]}, f"/apis/{group}/empty": {"items": []}})
    assert list(upgrade_checks._stored(api, group)) == ["2 workloads are stored"]
    # One that is not served holds nothing that anybody could delete.
    nothing: Any = Served({})
    assert list(upgrade_checks._stored(nothing, group)) == []
