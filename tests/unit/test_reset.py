"""reset: what it refuses, what it plans and in which order; that it knows all that components put on machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_golden import CONTAINER, VM, Pins, nothing

from clusterctl.artifacts.catalog import Catalog
from clusterctl.cli.prompts import Consent
from clusterctl.cluster.model import Cluster, Host, Ssh
from clusterctl.commands.reset import WHOLE, WORKER, Reset, make_plan, next_steps, refuse_members, survivors, undo
from clusterctl.components.base import Context
from clusterctl.components.products import FOOTPRINT, MANAGED
from clusterctl.engine.engine import Engine
from clusterctl.engine.events import Events
from clusterctl.errors import InputError, Problems, Refused, Stopped, Unreachable
from clusterctl.inventory import load
from clusterctl.pki import Pki
from clusterctl.plan import planner
from clusterctl.plan.stages import stages
from clusterctl.resources.binary import Binary
from clusterctl.resources.certificate import Certificate
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.footprint import KINDS, Baseline, FirewallBaseline, Leftovers
from clusterctl.resources.service import Service
from clusterctl.resources.system import User
from clusterctl.session.session import Session
from clusterctl.shell import Observation, Script, functions

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("inventory", ["single", "ha", "external-etcd", "lab"])
def test_all_that_components_put_on_machines_is_known(inventory: str) -> None:
    cluster = load(ROOT / "inventories" / f"{inventory}.yaml")
    for host in cluster.hosts:
        for facts in (VM, CONTAINER):
            context = Context(cluster=cluster, host=host, facts=facts, pki=Pki.create(), catalog=Catalog(Pins(), nothing))
            for resource in (one for stage in planner.resources_for(stages(cluster), context).values() for one in stage):
                path = {File: "path", Folder: "path", Link: "path", Certificate: "path", Binary: "folder"}.get(type(resource))
                if path is not None:
                    where = str(getattr(resource, path))
                    assert any(where == entry or where.startswith(f"{entry}/") for entry in MANAGED), where
                if isinstance(resource, Service):
                    assert resource.unit in FOOTPRINT.units
                if isinstance(resource, User):
                    assert resource.name in FOOTPRINT.users


def host(name: str, *roles: str) -> Host:
    number = sum(map(ord, name)) % 200
    return Host(name=name, address=f"10.0.0.{number}", roles=frozenset(roles), ssh=Ssh(address="10.0.0.1"))  # type: ignore[arg-type]


CP_1, CP_2, ETCD, W_1, W_2 = (host("cp-1", "control_plane", "etcd"), host("cp-2", "control_plane", "etcd"), host("etcd-1", "etcd"),
                              host("w-1", "worker"), host("w-2", "worker"))


@pytest.mark.parametrize(("hosts", "chosen", "staying", "refused"), [
    # hosts                     chosen          staying         refused
    ((CP_1, W_1), (CP_1, W_1), (), False),
    ((CP_1, W_1), (W_1,), (CP_1,), False),
    ((CP_1, W_1), (CP_1,), (), False),  # a dead worker must not hold the rest up
    ((CP_1, CP_2, W_1), (CP_1,), (CP_2,), True),
    ((CP_1, CP_2, W_1), (CP_1, W_1), (CP_2,), True),
    ((CP_1, CP_2, W_1), (CP_1, CP_2), (), False),
    ((CP_1, ETCD, W_1), (ETCD,), (CP_1,), True),
    ((CP_1, ETCD, W_1), (CP_1, W_1), (ETCD,), True),
    ((CP_1, CP_2, W_1, W_2), (W_1, W_2), (CP_1, CP_2), False),
])
def test_who_may_be_reset(hosts: Sequence[Host], chosen: Sequence[Host], staying: Sequence[Host], refused: bool) -> None:
    cluster: Any = SimpleNamespace(hosts=hosts)
    assert survivors(cluster, chosen) == staying
    if refused:
        with pytest.raises(Refused, match="while others of the cluster stay") as error:
            refuse_members(cluster, chosen)
        assert "clusterctl node remove" in error.value.hint
    else:
        refuse_members(cluster, chosen)


class Machine:
    """Says what is left on it, and loses it step by step. ``mark``: the identity that it carries."""

    def __init__(self, mark: str = "", *, record: str = "recorded", failing: str = "", dead: bool = False) -> None:
        self.dead = dead
        self.left: dict[str, list[str]] = {}
        if mark:
            self.left = {"units": ["kubelet.service\truns"], "packages": ["haproxy"], "files": ["/etc/kubernetes"],
                         "kept": ["openssl\tothers need it"], "mark": [f"{mark}\t{record}"]}
        self.calls: list[str] = []
        self.failing = failing
        self.statistics = SimpleNamespace(trips=0, sent=0)

    def connect(self) -> None:
        if self.dead:
            raise Unreachable("pretended", code="ssh.unreachable")

    def stream(self, program: Script, silence: float = 0) -> Iterator[list[str]]:
        for index, call in enumerate(program.steps):
            self.calls.append(call[0])
            if call[0] == self.failing:
                yield ["failed", str(index), "1", ""]
                return
            for kind in list(self.left) if call[0] == "undo_mark" else [call[0].removeprefix("undo_")]:
                self.left.pop(kind, None)
            yield ["ok", str(index)]
        if any(kind == "remains" for kind, _ in program.probes):
            for kind, lines in self.left.items():
                for line in lines:
                    yield ["remains", kind, *line.split("\t")]


def session(cp: Machine, w: Machine | None = None, *, limit: tuple[str, ...] = (), keys: bool = True) -> Session:
    machines = {"cp-1": cp, **({"w-1": w} if w is not None else {})}
    ours = tuple(one for one in (CP_1, W_1) if one.name in machines)
    found: Any = SimpleNamespace(
        cluster=SimpleNamespace(name="prod", hosts=ours, network=SimpleNamespace(pods="10.244.0.0/16")),
        options=SimpleNamespace(forks=2), chosen=tuple(one for one in ours if not limit or one.name in limit),
        pki=SimpleNamespace(identity="ours"), pki_is_new=not keys, state=SimpleNamespace(path=Path("/state")),
        engine=Engine(machines, forks=2, events=Events()),  # type: ignore[arg-type]
        any_api=lambda among: None)
    return found  # type: ignore[no-any-return]


def test_the_whole_cluster() -> None:
    machine, clean = Machine("ours"), Machine()
    opened = session(machine, clean)
    plan = make_plan(opened)
    told = plan.as_dict()
    assert plan and plan.clean == ("w-1",) and dict(plan.safe) == {"cp-1": WHOLE} and not plan.nodes
    assert [change["resource"] for change in told["changes"]] == [  # type: ignore[attr-defined]
        "remains:units", "remains:packages", "remains:files", "remains:mark"]
    assert plan.warnings == ("cp-1: package openssl stays: others need it",)
    Reset(opened, plan).run()
    calls = machine.calls
    assert calls[:2] == ["undo_units", "undo_processes"] and calls[-3:] == ["return_units", "undo_check", "undo_mark"]
    assert calls.index("undo_firewall") < calls.index("undo_packages") < calls.index("undo_files"), "rules go while nft is there"
    assert clean.calls == []
    assert not make_plan(opened)
    assert "/state" in next_steps(opened)[0]


def test_a_worker_of_a_cluster_that_lives_on() -> None:
    staying = Machine("ours")
    opened = session(staying, Machine("ours"), limit=("w-1",))
    plan = make_plan(opened)
    assert dict(plan.safe) == {"w-1": WORKER}
    assert any("kubectl delete node w-1" in warning for warning in plan.warnings), "no API answers here"
    Reset(opened, plan).run()
    assert staying.calls == []


def test_a_dead_machine_may_be_left_out() -> None:
    plan = make_plan(session(Machine("ours"), Machine(dead=True), limit=("cp-1",)))
    assert any("w-1 is left out" in warning for warning in plan.warnings)
    with pytest.raises(Refused, match="while other machines of the cluster stay"):
        make_plan(session(Machine("ours"), Machine("ours"), limit=("cp-1",)))


def test_others_are_refused_together() -> None:
    with pytest.raises(Problems) as error:
        make_plan(session(Machine("theirs"), Machine("also theirs")))
    assert error.value.exit_code == 3 and [one.where for one in error.value.errors] == ["cp-1", "w-1"]
    with pytest.raises(Refused, match="keys are not here"):
        make_plan(session(Machine("ours"), keys=False))


def test_without_a_record() -> None:
    plan = make_plan(session(Machine("ours", record="")))
    assert any("no record of what was there" in warning for warning in plan.warnings)


def test_what_does_not_go_stops_it() -> None:
    machine = Machine("ours", failing="undo_check")
    with pytest.raises(Stopped, match="exit code 1"):
        undo(session(machine), CP_1)
    assert "undo_mark" not in machine.calls, "an interrupted reset is seen"
    machine.failing = ""
    undo(session(machine), CP_1)
    undo(session(machine), CP_1)
    assert machine.calls.count("undo_mark") == 1, "a clean machine is left alone"


@pytest.mark.parametrize(("yes", "given", "refused"), [
    (True, "prod", ""), (True, "prof", "cli.not-confirmed"), (True, None, "cli.not-confirmed"), (False, None, ""),
    (False, "prod", "cli.not-confirmed"),
])
def test_confirmation(yes: bool, given: str | None, refused: str) -> None:
    if refused:
        with pytest.raises(InputError) as error:
            Consent(yes, "reset", given).refuse_incomplete("prod")
        assert error.value.code == refused
    else:
        Consent(yes, "reset", given).refuse_incomplete("prod")


def test_a_confirmation_is_asked_for_without_yes() -> None:
    Consent(True, "reset", "prod").obtain("prod")
    with pytest.raises(Refused) as caught:
        Consent(False, "reset").obtain("prod")
    assert caught.value.code == "cli.no-terminal"


MARK, BEFORE, TABLES = ("/etc/clusterctl/cluster", "/var/lib/clusterctl/before", "/var/lib/clusterctl/before/tables")


@pytest.mark.parametrize(("there", "records", "records_firewall"), [
    # there                   record      of the firewall
    ((), True, True),
    ((BEFORE,), True, True),
    ((BEFORE, TABLES), True, True),
    ((MARK, BEFORE), False, True),
    ((MARK, BEFORE, TABLES), False, False),
    ((MARK,), False, False),
])
def test_when_a_record_is_made(there: tuple[str, ...], records: bool, records_firewall: bool) -> None:
    seen = Observation()
    for path in there:
        seen.add("stat", [path, "directory", "700", "root:root"])
    before, firewall = Baseline(identity="x", sysctls=()), FirewallBaseline()
    assert (before.diff(before.observed(seen)) is not None) is records
    assert (firewall.diff(firewall.observed(seen)) is not None) is records_firewall


def test_the_record_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster: Cluster = load(ROOT / "inventories" / "single.yaml")
    context = Context(cluster=cluster, host=cluster.hosts[0], facts=VM, pki=Pki.create(), catalog=Catalog(Pins(), nothing))
    ids = [resource.id for resource in planner.resources_for(stages(cluster), context)["prepare"]]
    assert ids[0].startswith("before:") and ids.index(f"before:{TABLES}") == next(
        place for place, name in enumerate(ids) if name.startswith("packages:")) + 1


def test_every_kind_has_a_function() -> None:
    text = functions("undo", "undo_system", "undo_added")
    for kind in KINDS:
        change = Leftovers(kind=kind, pods="10.244.0.0/16").diff({"x": "y"})
        assert change is not None and change.disruptive is (kind in ("units", "processes"))
        for call in change.resource.apply(change):
            assert f"\n{call[0]}() {{" in text, call
