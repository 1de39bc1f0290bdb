"""Who is updated and rebooted, in which order, and why: decisions over what machines and the API said."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from clusterctl.cluster.model import Cluster, Host, Settings, Ssh
from clusterctl.cluster.versions import known_versions
from clusterctl.commands.os_packages import HELD_BACK, Machine, Marker, Package, newer_kernel, read_machine
from clusterctl.commands.os_update import MachinePlan, in_batches, make_plan, reboot_of, refuse_unfit, safety
from clusterctl.components.host import packages
from clusterctl.errors import InputError, Problems, Refused
from clusterctl.health import checks
from clusterctl.kube.client import CORDONED_FOR
from clusterctl.kube.disruption import Unavailable
from clusterctl.plan.stages import max_unavailable

UPDATE = (Package("hello", "1.0", "2.0"),)


def machine(boot: str = "boot-1", **more: Any) -> Machine:
    return Machine(boot_id=boot, cluster="id", **more)


def host(name: str, *roles: str) -> Host:
    return Host(name=name, address=IPv4Address("10.0.0.1"), roles=frozenset(roles), ssh=Ssh(address="10.0.0.1"))  # type: ignore[arg-type]


def cluster(planes: int = 1, workers: int = 2, etcd: int = 0, **settings: Any) -> Cluster:
    own = () if etcd else ("etcd",)
    hosts = [host(f"cp-{n}", "control_plane", *own) for n in range(1, planes + 1)]
    hosts += [host(f"e-{n}", "etcd") for n in range(1, etcd + 1)]
    hosts += [host(f"w-{n}", "worker") for n in range(1, workers + 1)]
    return Cluster(hosts=tuple(hosts), versions=known_versions("1.36.4"), settings=Settings(**settings), base=Path("/"))


def node(name: str, cordoned: str | None = None, ready: str = "True", boot: str = "boot-1") -> dict[str, Any]:
    """``cordoned``: None for not, empty by hand, or the operation."""
    return {
        "metadata": {"name": name, "annotations": {CORDONED_FOR: cordoned} if cordoned else {}},
        "spec": {} if cordoned is None else {"unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": ready, "reason": "r", "message": "m"}], "nodeInfo": {"bootID": boot}},
    }


DONE, ORDERED, ENDED = Marker("op", "boot-0"), Marker("op", "boot-1"), Marker("op", "-", ended=True)


@pytest.mark.parametrize(("mode", "found", "expected"), [
    ("auto", machine(), "no"),
    ("auto", machine(updates=UPDATE), "if-required"),
    ("auto", machine(interrupted=True), "if-required"),
    ("auto", machine(reboot=("kernel",)), "yes"),
    ("auto", machine(updates=UPDATE, reboot=("kernel",)), "yes"),
    ("auto", machine(reboot=("kernel",), marker=DONE), "no"),
    ("auto", machine(reboot=("kernel",), marker=ORDERED), "yes"),
    ("always", machine(), "yes"),
    ("always", machine(marker=DONE), "no"),
    ("always", machine(marker=ORDERED), "yes"),
    ("always", machine(marker=ENDED), "no"),
    ("never", machine(updates=UPDATE, reboot=("kernel",)), "no"),
    ("never", machine(marker=ORDERED), "no"),
])
def test_who_is_rebooted(mode: str, found: Machine, expected: str) -> None:
    assert reboot_of(mode, found)[0] == expected


def test_a_reboot_that_is_due_is_told_though_never_done() -> None:
    assert reboot_of("never", machine(reboot=("kernel 6.2 is installed",)))[1] == "--reboot never; kernel 6.2 is installed"


def test_where_all_had_ended_nobody_is_rebooted_again() -> None:
    """A kill between the first and the last marker that is removed."""
    made = cluster()
    machines = {"cp-1": machine(marker=ENDED), "w-1": machine(marker=DONE), "w-2": machine()}
    plan = make_plan(made, made.hosts, machines, {one.name: node(one.name) for one in made.hosts}, mode="always", at_once=1)
    assert not plan.batches and plan, "markers are left to remove"
    assert plan.operation == "op"


@pytest.mark.parametrize(("running", "installed", "expected"), [
    ("6.1.0-28-amd64", ["6.1.0-28-amd64"], ""),
    ("6.1.0-28-amd64", ["6.1.0-28-amd64", "6.1.0-30-amd64"], "6.1.0-30-amd64"),
    ("6.1.0-9-amd64", ["6.1.0-10-amd64", "6.1.0-9-amd64"], "6.1.0-10-amd64"),
    ("6.1.0-30-amd64", ["6.1.0-28-amd64"], ""),
    ("6.1.0-28-cloud-amd64", ["6.1.0-28-cloud-amd64", "6.1.0-30-amd64"], ""),
    ("6.1.0-28-amd64", ["6.12.9+bpo-amd64", "6.1.0-28-amd64"], "6.12.9+bpo-amd64"),
    ("6.8.0-45-generic", ["6.8.0-45-generic", "6.8.0-100-generic", "6.8.0-45-lowlatency"], "6.8.0-100-generic"),
    ("5.14.0-503.el9.x86_64", ["5.14.0-503.11.1.el9_5.x86_64", "0-rescue-0123456789abcdef"], "5.14.0-503.11.1.el9_5.x86_64"),
    ("6.18.0", [], ""),
    ("", ["6.1.0-28-amd64"], ""),
])
def test_kernels(running: str, installed: list[str], expected: str) -> None:
    assert newer_kernel(running, installed) == expected


def test_packages_of_the_distribution_get_its_security_fixes() -> None:
    assert not {name for one in (host("w", "worker"), host("cp", "control_plane", "etcd")) for name in packages(one)} & set(HELD_BACK)


def part(name: str, roles: tuple[str, ...], *, work: bool = True, resumed: bool = False) -> MachinePlan:
    return MachinePlan(host=host(name, *roles), machine=machine(updates=UPDATE if work else ()), reboot="no", why="", resumed=resumed)


def test_batches() -> None:
    plane, worker, member = ("control_plane", "etcd"), ("worker",), ("etcd",)
    parts = [part("w-1", worker), part("cp-1", plane), part("w-2", worker), part("e-1", member), part("w-3", worker, work=False),
             part("w-4", worker), part("w-5", worker, work=False, resumed=True), part("both", ("control_plane", "worker"))]
    assert [[one.host.name for one in batch] for batch in in_batches(parts, 2)] == [
        ["w-5"], ["cp-1"], ["e-1"], ["both"], ["w-1", "w-2"], ["w-4"]]


def test_a_plan() -> None:
    made = cluster()
    machines = {"cp-1": machine(), "w-1": machine(updates=UPDATE, warnings=("W: x",)), "w-2": machine(marker=DONE)}
    nodes = {"cp-1": node("cp-1", ""), "w-1": node("w-1"), "w-2": node("w-2", "os-update")}
    plan = make_plan(made, made.hosts, machines, nodes, mode="auto", at_once=1)
    plane, first, second = plan.machines
    assert (plane.work, plane.resumed) == (False, False), "cordoned by hand is nothing of ours"
    assert (first.work, first.reboot, first.disrupted) == (True, "if-required", True)
    assert (second.work, second.reboot, second.resumed, second.disrupted) == (True, "no", True, False)
    assert [[one.host.name for one in batch] for batch in plan.batches] == [["w-2"], ["w-1"]]
    assert plan.operation == "op" and plan.warnings == ("w-1: W: x",)
    assert plan.as_dict()["batches"] == [["w-2"], ["w-1"]]
    idle = make_plan(made, made.hosts, dict.fromkeys(machines, machine()), dict.fromkeys(machines, node("x")), mode="auto", at_once=1)
    assert not idle
    with pytest.raises(InputError, match="has no node 'w-2'"):
        make_plan(made, made.hosts, machines, {name: nodes[name] for name in ("cp-1", "w-1")}, mode="auto", at_once=1)


def test_unfit_machines_are_told_together() -> None:
    refuse_unfit({"a": machine()}, "id")
    with pytest.raises(Refused, match="not in the cluster yet"):
        refuse_unfit({"a": Machine(boot_id="x")}, "id")
    with pytest.raises(Problems) as caught:
        refuse_unfit({"a": machine(problems=("no lists",)), "b": Machine(boot_id="x", cluster="other")}, "id")
    assert "no lists" in str(caught.value) and "another cluster" in str(caught.value) and caught.value.exit_code == 3


@pytest.mark.parametrize(("name", "made", "said"), [
    ("cp-1", cluster(), "only control plane"),
    ("cp-1", cluster(), "etcd has 1 member and no majority without it"),
    ("cp-1", cluster(3), "2 other API servers must be ready; 2 other etcd members must answer, 2 are a majority"),
    ("e-1", cluster(etcd=3), "2 other etcd members must answer"),
    ("w-1", cluster(), "respects their budgets; at most 1 workers at once"),
])
def test_safety(name: str, made: Cluster, said: str) -> None:
    assert said in safety(made, made.host(name), 1)


@pytest.mark.parametrize(("found", "expected"), [
    (None, "is not registered"),
    (node("w"), ""),
    (node("w", boot="boot-0"), "is Ready as of boot boot-0, and the machine is in boot boot-1"),
    (node("w", ready="False"), "False (r: m)"),
])
def test_a_node_counts_as_ready_in_the_present_boot_alone(found: dict[str, Any] | None, expected: str) -> None:
    assert checks.node(found, "boot-1") == expected


def test_records() -> None:
    found = read_machine([["os", "boot_id", "b"], ["os", "cluster", ""], ["update", "a", "", "2"], ["held", "z", "1", "2"],
                          ["os", "marker", "op b0 "], ["os", "interrupted", "yes"], ["os", "kernel", "6.1.0-1-amd64"],
                          ["kernel", "6.1.0-2-amd64"], ["reboot", "asked"], ["warning", "w"], ["problem", "p"]])
    assert found == Machine(boot_id="b", updates=(Package("a", "", "2"),), held=(Package("z", "1", "2"),), interrupted=True,
                            reboot=("asked", "kernel 6.1.0-2-amd64 is installed"), marker=Marker("op", "b0"), warnings=("w",), problems=("p",))


@pytest.mark.parametrize(("setting", "given", "expected"), [("1", None, 1), ("2", None, 2), ("1", "3", 3), ("1", "50%", 1), ("50%", None, 1), ("1", "100%", 3)])
def test_how_many_at_once(setting: str, given: str | None, expected: int) -> None:
    wanted = Unavailable.parse(given) if given else None
    assert max_unavailable(cluster(max_unavailable=setting), wanted) == expected and str(wanted) == str(given)
