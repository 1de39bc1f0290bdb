"""Which versions run, and that nothing but an upgrade changes them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.cluster.model import Cluster, Host, Settings, Ssh
from clusterctl.cluster.versions import DEFAULT_KUBERNETES, known_versions
from clusterctl.commands import apply, upgrade
from clusterctl.engine.fleet import HostResults
from clusterctl.engine.observe import Look
from clusterctl.errors import Refused, Unreachable
from clusterctl.health import checks
from clusterctl.plan import running
from clusterctl.shell import Observation
from clusterctl.shell.facts import Facts, parse_facts

ROLES = {"cp-1": {"control_plane", "etcd"}, "w-1": {"worker"}, "w-2": {"worker"}}


def cluster(kubernetes: str | None = None, **versions: str) -> Cluster:
    hosts = tuple(Host(name=name, address=IPv4Address("10.0.0.1"), roles=frozenset(roles), ssh=Ssh(address=name))  # type: ignore[arg-type]
                  for name, roles in ROLES.items())
    return Cluster(hosts=hosts, versions=known_versions(kubernetes, **versions), settings=Settings(kubernetes=kubernetes, versions=versions), base=Path("/"))


def facts(state: str = "", /, **products: str) -> Facts:
    """``state``: of etcd's data."""
    links = " ".join(f"/opt/clusterctl/{name.replace('_', '-')}/{version}/{name}" for name, version in products.items())
    return parse_facts({"etcd": state, "running": links})


def fleet(planes: str = "1.36.4", workers: str = "1.36.4", etcd: str = "3.6.14", **more: Any) -> dict[str, Facts]:
    return {"cp-1": facts("formed", kube_apiserver=planes, kubelet=planes, etcd=etcd, **more),
            "w-1": facts(kubelet=workers, kube_proxy=workers, **more), "w-2": facts(kubelet=planes, **more)}


BARE = {"cp-1": facts(), "w-1": facts()}


def test_what_runs() -> None:
    found = running.versions_of(fleet(workers="1.35.8", cni_plugins="1.9.1", flannel_cni="1.7.1-flannel1", haproxy="2.6"))
    assert found == {"kubernetes": {"1.36.4", "1.35.8"}, "etcd": {"3.6.14"}, "cni_plugins": {"1.9.1"}, "flannel_cni": {"1.7.1-flannel1"}}
    assert running.versions_of(BARE) == {}
    assert running.is_bootstrapped(fleet()) and not running.is_bootstrapped(BARE)
    assert not running.is_bootstrapped({"cp-1": facts("joining", etcd="3.6.14")}), "a member that never served is no cluster"


def test_what_the_inventory_names() -> None:
    assert running.pinned(cluster()) == running.pinned(cluster("1.36")) == {}
    assert running.pinned(cluster("1.37.2", etcd="3.6.14")) == {"kubernetes": "1.37.2", "etcd": "3.6.14"}


@pytest.mark.parametrize(("wanted", "found", "expected"), [
    # An inventory without versions keeps what runs, whatever the defaults of this clusterctl are.
    (cluster(), fleet("1.35.8", "1.35.8", "3.6.9"), {"kubernetes": "1.35.8", "etcd": "3.6.9", "pause": "3.10.1"}),
    (cluster(), fleet(containerd="2.2.0"), {"kubernetes": "1.36.4", "containerd": "2.2.0"}),
    # Between two versions it is the higher one that was begun.
    (cluster(), fleet("1.37.2", "1.36.4"), {"kubernetes": "1.37.2"}),
    (cluster(), fleet("1.36.10", "1.36.4"), {"kubernetes": "1.36.10"}),
    # Of a minor that the inventory names each patch that runs is right, and no other minor.
    (cluster("1.36"), fleet("1.36.2", "1.36.2"), {"kubernetes": "1.36.2"}),
    (cluster("1.37"), fleet("1.36.4", "1.36.4"), {"kubernetes": known_versions("1.37").kubernetes}),
    (cluster("1.36"), BARE, {"kubernetes": known_versions("1.36").kubernetes}),
    # What the inventory names it gets, and the rest stays.
    (cluster("1.37.2"), fleet(etcd="3.6.9"), {"kubernetes": "1.37.2", "etcd": "3.6.9"}),
    (cluster(etcd="3.6.14"), fleet("1.35.8", "1.35.8", etcd="3.6.9"), {"kubernetes": "1.35.8", "etcd": "3.6.14"}),
    # What nobody runs is as the table says.
    (cluster(), fleet("1.35.8", "1.35.8"), {"coredns": known_versions("1.35.8").coredns, "flannel": known_versions().flannel}),
    # A cluster that is not born yet is as it is wanted.
    (cluster(), BARE, {"kubernetes": DEFAULT_KUBERNETES}),
    (cluster("1.35.8"), {"cp-1": facts(kubelet="1.36.4")}, {"kubernetes": "1.35.8"}),
])
def test_settle(wanted: Cluster, found: dict[str, Facts], expected: dict[str, str]) -> None:
    settled = running.pin_running(wanted, found).versions.model_dump()
    assert {name: settled[name] for name in expected} == expected


def test_a_version_that_this_clusterctl_does_not_know() -> None:
    with pytest.raises(Refused, match=r"Kubernetes 1.40.0 is not supported") as error:
        running.pin_running(cluster(), fleet("1.40.0", "1.40.0"))
    assert "use a clusterctl that knows this version" in error.value.hint


def test_differences() -> None:
    wanted = cluster("1.37.2", etcd="3.6.14")
    found = running.skewed(wanted, fleet("1.37.2", "1.36.4", etcd="3.6.9"))
    assert [(one.host, one.product, one.running, one.wanted) for one in found] == [
        ("cp-1", "etcd", "3.6.9", "3.6.14"), ("w-1", "kubelet", "1.36.4", "1.37.2"), ("w-1", "kube-proxy", "1.36.4", "1.37.2")]
    assert running.skewed(wanted, fleet("1.37.2", "1.37.2")) == []
    # What was not looked at, and what is no product of ours, differs in nothing.
    assert running.skewed(wanted, {"w-2": facts(kubelet="1.37.2", haproxy="2.6"), "gone": facts(kubelet="1.30.0")}) == []


def test_apply_changes_no_version_of_a_cluster_that_runs() -> None:
    running.refuse_skewed(cluster("1.36.4"), fleet())
    running.refuse_skewed(cluster("1.37.2"), {"cp-1": facts(kubelet="1.36.4")})
    with pytest.raises(Refused) as error:
        running.refuse_skewed(cluster("1.37.2", cni_plugins="1.9.1"), fleet("1.36.4", "1.35.8", cni_plugins="1.9.0"))
    assert error.value.message == (
        "cni-plugins 1.9.0 runs on cp-1, w-1, w-2, and 1.9.1 is wanted; kubernetes 1.35.8 runs on w-1, and 1.37.2 is wanted; "
        "kubernetes 1.36.4 runs on cp-1, w-2, and 1.37.2 is wanted")
    assert "clusterctl upgrade plan" in error.value.hint


def limited(found: dict[str, Facts], *names: str) -> Any:
    """A session with ``--limit``; machines of which nothing is known cannot be reached."""
    whole = cluster()

    def ask(hosts: Sequence[Host]) -> HostResults[Facts]:
        return HostResults({host.name: found[host.name] for host in hosts if host.name in found},
                           {host.name: Unreachable("dead", where=host.name, code="ssh.unreachable") for host in hosts if host.name not in found})

    def look(hosts: Sequence[Host], *_: object, **more: object) -> tuple[dict[str, Look], list[str]]:
        return {name: Look(found, frozenset(), Observation(), 0) for name, found in ask(hosts).or_raise().items()}, []

    return SimpleNamespace(cluster=whole, chosen=tuple(host for host in whole.hosts if host.name in names), pki_is_new=False, pki=SimpleNamespace(identity="test"),
                           engine=SimpleNamespace(facts=ask), look=look, connect=lambda hosts: None)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLUSTERCTL_CACHE", str(tmp_path))


@pytest.mark.parametrize("worker", [facts(), facts(kubelet="1.37.2"), facts(kubelet="1.36.4")], ids=["new", "as the others", "behind"])
def test_limited_to_a_worker_the_cluster_keeps_its_versions(worker: Facts) -> None:
    """Which versions run is asked of the control planes, too: the defaults are nothing that a cluster that runs goes to."""
    session = limited({**fleet("1.37.2"), "w-1": worker}, "w-1")
    found, _ = apply.gather(session)
    assert set(found) == {"w-1", "cp-1"}
    settled = running.pin_running(session.cluster, found)
    assert settled.versions.kubernetes == "1.37.2"
    if worker.running.get("kubelet") == "1.36.4":
        with pytest.raises(Refused, match="kubernetes 1.36.4 runs on w-1, and 1.37.2 is wanted"):
            running.refuse_skewed(settled, found)
    else:
        running.refuse_skewed(settled, found)


def test_nobody_says_what_the_cluster_is() -> None:
    with pytest.raises(Unreachable):
        apply.gather(limited({"w-1": facts(kubelet="1.37.2")}, "w-1"))
    found, _ = apply.gather(limited(fleet(), "cp-1", "w-1", "w-2"))
    assert set(found) == {"cp-1", "w-1", "w-2"}


@pytest.mark.parametrize(("wish", "named", "expected"), [
    # Products alone: the others stay as they are, older than what belongs to this Kubernetes or newer.
    (upgrade.UpgradeRequest(components={"runc": "1.5.2"}), {}, {"runc": "1.5.2", "etcd": "3.6.9", "containerd": "9.9.9", "coredns": "1.13.0"}),
    (upgrade.UpgradeRequest(components={"runc": "1.5.2"}), {"etcd": "3.6.14"}, {"runc": "1.5.2", "etcd": "3.6.14", "coredns": "1.13.0"}),
    (upgrade.UpgradeRequest(to="1.36.4", components={"runc": "1.5.2"}), {},
     {"runc": "1.5.2", "etcd": "3.6.14", "containerd": "9.9.9", "coredns": known_versions().coredns}),
    (upgrade.UpgradeRequest(), {"runc": "1.4.2"}, {"runc": "1.4.2", "etcd": "3.6.14", "containerd": "9.9.9"}),
])
def test_what_an_upgrade_goes_to(wish: upgrade.UpgradeRequest, named: dict[str, str], expected: dict[str, str]) -> None:
    present = running.versions_of(fleet(etcd="3.6.9", containerd="9.9.9", coredns="1.13.0", runc="1.4.3"))
    found = upgrade._versions(cluster(**named), present, "1.36.4", wish).model_dump()
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("info", "expected"), [
    ({"kubeletVersion": "v1.37.2", "containerRuntimeVersion": "containerd://2.3.4"}, ""),
    ({"kubeletVersion": "v1.37.2", "containerRuntimeVersion": "containerd://v2.3.4+unknown"}, ""),
    ({"kubeletVersion": "v1.36.4", "containerRuntimeVersion": "containerd://2.3.4"}, "its kubeletVersion is still v1.36.4"),
    ({"kubeletVersion": "v1.37.2", "containerRuntimeVersion": "containerd://2.3.3"}, "its containerRuntimeVersion is still containerd://2.3.3"),
])
def test_what_a_node_says_after_an_upgrade(info: dict[str, str], expected: str) -> None:
    node = {"status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info}}
    wanted = {"kubeletVersion": "v1.37.2", "containerRuntimeVersion": "containerd://2.3.4"}
    assert checks.node(node, expected=wanted) == expected
