"""The engine against a pretended machine whose connection is cut after every single record in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from clusterctl.cluster.model import Host, Ssh
from clusterctl.engine import engine as engine_module
from clusterctl.engine import fleet
from clusterctl.engine.engine import Engine, Gates
from clusterctl.engine.events import Events
from clusterctl.errors import ClusterctlError, Problems, Stopped, Unreachable
from clusterctl.plan import planner
from clusterctl.plan.planner import Rolling, Stage
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.resources.service import Service
from clusterctl.shell import Script
from clusterctl.ssh.transport import ConnectionLost

FILES = tuple(File(path=f"/etc/{name}", content=name.encode()) for name in ("one", "two"))
SERVICES = (Service(unit="first.service", inputs=(FILES[0].id,)), Service(unit="second.service", inputs=(FILES[0].id, FILES[1].id)))


class Machine:
    """Carries programs out on dictionaries. ``cut``: after how many records in all the connection breaks, once."""

    host = SimpleNamespace(name="a", roles=frozenset())
    api_port = 6443

    def __init__(self, cut: int | None = None, *, drifted: bool = False) -> None:
        self.files: dict[str, bytes] = {}
        self.stamps: dict[str, str] = {}
        self.running: dict[str, dict[str, bytes]] = {}
        self.executed: list[str] = []
        self.cut, self.records, self.trips, self.failing = cut, 0, 0, ""

    def connect(self) -> None: ...

    def stream(self, program: Script, silence: float = 0) -> Iterator[list[str]]:
        self.trips += 1
        for words in self._run(program):
            if self.records == self.cut:
                self.records += 1
                raise ConnectionLost("pretended")
            self.records += 1
            yield words
        if self.records == self.cut:
            self.records += 1
            raise ConnectionLost("pretended, before the end")

    def _run(self, program: Script) -> Iterator[list[str]]:
        for index, call in enumerate(program.steps):
            if self.failing and self.failing in call and call[0] != "begin_services":
                yield ["failed", str(index), "1", ""]
                return
            self._step(call, program)
            yield ["ok", str(index)]
        for kind, key in program.probes:
            if kind == "facts":
                yield ["fact", "hostname", "a"]
            elif words := self._see(kind, key):
                yield from words

    def _step(self, call: tuple[str, ...], program: Script) -> None:
        name, *arguments = call
        if name == "put_file":
            blob = program.blobs[arguments[3]]
            assert isinstance(blob, bytes)
            self.files[arguments[0]] = blob
        elif name == "forget_stamps":
            for unit in arguments:
                self.stamps.pop(unit, None)
            return
        elif name == "put_service":
            self.running[arguments[0]] = dict(self.files)
            self.stamps[arguments[0]] = arguments[1]
        self.executed.append(" ".join((name, *arguments[:1])))

    def _see(self, kind: str, key: str) -> list[list[str]]:
        import hashlib

        if kind == "stat" and key in self.files:
            return [["stat", key, "regular file", "644", "root:root"]]
        if kind == "sha" and key in self.files:
            return [["sha", f"{hashlib.sha256(self.files[key]).hexdigest()}  {key}"]]
        if kind == "text" and key.rpartition("/")[2] in self.stamps:
            return [["text", f"{key}:{self.stamps[key.rpartition('/')[2]]}"]]
        if kind == "unit":
            active = "active" if key in self.running else "inactive"
            return [["unit", line] for line in ("", f"Id={key}", "LoadState=loaded", f"ActiveState={active}", "UnitFileState=enabled")]
        return []


def host(name: str) -> Host:
    return Host(name=name, address="192.0.2.1", roles=frozenset({"worker"}), ssh=Ssh(address=name))  # type: ignore[arg-type]


A = host("a")
SPLIT: tuple[tuple[str, tuple[Resource, ...]], ...] = (("files", FILES), ("services", SERVICES))
ONE: tuple[tuple[str, tuple[Resource, ...]], ...] = (("all", (*FILES, *SERVICES)),)


def apply(machines: dict[str, Machine], stages: tuple[tuple[str, tuple[Resource, ...]], ...], gates: Gates | None = None) -> planner.Plan:
    """Look, plan, carry out."""
    engine = Engine(machines, forks=4, events=Events())  # type: ignore[arg-type]
    hosts = [host(name) for name in machines]
    resources = {one.name: dict(stages) for one in hosts}
    order = [Stage(name=name, components=(), strategy=Rolling(1)) for name, _ in stages]
    made = planner.make_plan(order, hosts, resources, engine.observe(hosts, resources).or_raise())
    engine.execute(made, gates or Gates())
    return made


def test_one_round_trip_has_facts_and_probes() -> None:
    machine = Machine()
    machine.files = {FILES[0].path: FILES[0].content}
    engine = Engine({"a": machine}, forks=4, events=Events())  # type: ignore[dict-item]
    found = engine.look([A], {"a": planner.probes(FILES)}).or_raise()["a"]
    assert (found.facts.hostname, machine.trips) == ("a", 1)
    assert [one.path for one in FILES if one.diff(one.observed(found.seen)) is None] == [FILES[0].path]


@pytest.mark.parametrize(("probed", "trips"), [((*FILES, *SERVICES), 1), ((*FILES, *SERVICES, File(path="/x", content=b"")), 1), (FILES, 2), ((), 2)],
                         ids=["all", "more than all", "a part", "nothing"])
def test_resources_that_were_observed_with_the_facts_take_no_other_round_trip(probed: tuple[Resource, ...], trips: int) -> None:
    machine = Machine()
    machine.files = {FILES[0].path: FILES[0].content}
    engine = Engine({"a": machine}, forks=4, events=Events())  # type: ignore[dict-item]
    resources = {"a": {"all": (*FILES, *SERVICES)}}
    looks = engine.look([A], {"a": planner.probes(probed)}).or_raise()
    seen = engine.observe([A], resources, looks=looks).or_raise()["a"]
    assert machine.trips == trips
    assert [one.path for one in FILES if one.diff(one.observed(seen)) is None] == [FILES[0].path]
    machine.files[FILES[1].path] = FILES[1].content
    seen = engine.observe([A], resources).or_raise()["a"]
    assert machine.trips == trips + 1, "the engine keeps no observation"
    assert FILES[1].diff(FILES[1].observed(seen)) is None


def check(machine: Machine) -> None:
    """What must hold in the end, however it was reached."""
    for file in FILES:
        assert machine.files[file.path] == file.content
    for service in SERVICES:
        assert {path: machine.running[service.unit][path] for path in machine.files} == machine.files, "it runs with what is there"


@pytest.mark.parametrize("stages", [ONE, SPLIT], ids=["one stage", "two stages"])
@pytest.mark.parametrize("drifted", [False, True])
def test_cut_anywhere(stages: tuple[tuple[str, tuple[Resource, ...]], ...], drifted: bool) -> None:
    """For every k: cut after k records, in the same run or with a run that ends there; the end is the same."""

    def machine() -> Machine:
        made = Machine()
        if drifted:
            apply({"a": made}, stages)
            # Somebody changed a file and restarted by hand: the stamps are right, and yet both must restart.
            made.files[FILES[0].path] = b"drifted"
            made.running = {unit: dict(made.files) for unit in made.running}
            made.executed.clear()
            made.records = 0
        return made

    clean = machine()
    assert apply({"a": clean}, stages)
    check(clean)
    for k in range(clean.records + 1):
        resumed = machine()
        resumed.cut = k
        try:
            apply({"a": resumed}, stages)
        except Unreachable:
            apply({"a": resumed}, stages)
        check(resumed)
        assert not apply({"a": resumed}, stages), f"nothing is left to do after a cut at {k}"
        # At most the step whose outcome the cut hid runs a second time.
        assert len(resumed.executed) <= len(clean.executed) + 1

        died = machine()
        died.cut = k
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_module, "RECONNECTS", 0)
            try:
                apply({"a": died}, stages)
            except (Stopped, Unreachable) as error:
                assert error.exit_code in (4, 6)
        apply({"a": died}, stages)
        check(died)
        assert not apply({"a": died}, stages)


def test_a_connection_that_breaks_again_and_again_stops() -> None:
    class Broken(Machine):
        def stream(self, program: Script, silence: float = 0) -> Iterator[list[str]]:
            if program.steps:
                self.trips += 1
                raise ConnectionLost("again")
            yield from super().stream(program, silence)

    machine = Broken()
    with pytest.raises(Stopped, match="broke 4 times") as raised:
        apply({"a": machine}, ONE)
    assert raised.value.exit_code == 4 and machine.executed == []


def test_a_machine_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BOOT_SECONDS", 0.2)

    class Gone(Machine):
        gone = False

        def stream(self, program: Script, silence: float = 0) -> Iterator[list[str]]:
            if self.gone:
                raise Unreachable("no route", where="a", code="ssh.unreachable")
            if program.steps:
                self.gone = True
                raise ConnectionLost("gone")
            yield from super().stream(program, silence)

    with pytest.raises(Stopped, match="did not come back"):
        apply({"a": Gone()}, ONE)


def test_a_failed_host_takes_no_further_step() -> None:
    machines = {"a": Machine(), "b": Machine()}
    machines["a"].failing = FILES[1].path
    with pytest.raises(Stopped, match="exit code 1") as raised:
        apply(machines, SPLIT)
    assert raised.value.where == f"a: stage files: {FILES[1].id}"
    assert machines["a"].executed == [f"put_file {FILES[0].path}"]
    assert machines["b"].running == {}, "a stage that failed is the last"


def test_a_service_error_names_its_journal() -> None:
    machine = Machine()
    machine.failing = "second.service"
    with pytest.raises(Stopped) as raised:
        apply({"a": machine}, ONE)
    assert "journalctl -u second.service" in raised.value.hint


def test_all_failing_hosts_are_told() -> None:
    machines = {"a": Machine(), "b": Machine(), "c": Machine()}
    for name in "ab":
        machines[name].failing = FILES[0].path
    with pytest.raises(Problems) as raised:
        apply(machines, (("files", FILES),))
    assert len(raised.value.errors) == 2 and raised.value.exit_code == 4


def test_what_does_not_converge_is_an_error() -> None:
    class Stubborn(Machine):
        def _step(self, call: tuple[str, ...], program: Script) -> None:
            super()._step(call, program)
            if call[0] == "put_file":
                self.files[call[1]] = b"somebody else writes here"

    with pytest.raises(Stopped, match="did not converge: still content"):
        apply({"a": Stubborn()}, ONE)


def test_gates_and_batches() -> None:
    machines = {name: Machine() for name in "abc"}
    apply(machines, ONE)
    for name in "ab":
        machines[name].files[FILES[0].path] = b"drifted"
    seen: list[tuple[str, str]] = []
    apply(machines, ONE, Gates(before={"all": lambda _, batch: seen.append(("before", batch[0].name))},
                               after={"all": lambda _, batch: seen.append(("after", batch[0].name))}))
    assert seen == [("before", "a"), ("after", "a"), ("before", "b"), ("after", "b")]


def test_run_tells_which_call_failed() -> None:
    machine = Machine()
    machine.failing = "bad"
    engine = Engine({"a": machine}, forks=1, events=Events())  # type: ignore[dict-item]
    with pytest.raises(Stopped) as raised:
        engine.run(A, [("good", "x"), ("call", "bad")])
    assert raised.value.where == "a: call"


def test_fleet_keeps_its_limit_and_gathers_errors() -> None:
    hosts, lock, both = [host(f"h{number}") for number in range(20)], threading.Lock(), threading.Barrier(3)
    running, most = 0, 0

    def work(one: Host) -> str:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if one.name in ("h0", "h1", "h2"):
            both.wait(5)
        with lock:
            running -= 1
        if one.name in ("h3", "h4"):
            raise Unreachable("gone", where=one.name, code="ssh.unreachable")
        return one.name

    outcome = fleet.each(hosts, work, limit=3)
    assert most == 3 and len(outcome.results) == 18 and set(outcome.errors) == {"h3", "h4"}
    with pytest.raises(Problems) as raised:
        outcome.or_raise()
    assert raised.value.exit_code == 6
    assert fleet.each([], work, limit=3).or_raise() == {}


@pytest.mark.parametrize("error", [KeyError("a bug"), KeyboardInterrupt()])
def test_a_bug_or_an_interrupt_ends_the_rest(error: BaseException) -> None:
    done: list[str] = []

    def work(one: Host) -> None:
        if one.name == "h0":
            raise error
        time.sleep(0.005)
        done.append(one.name)

    with pytest.raises(type(error)):
        fleet.each([host(f"h{number}") for number in range(200)], work, limit=1)
    assert len(done) < 199


def test_one_error_is_itself() -> None:
    with pytest.raises(ClusterctlError) as raised:
        fleet.HostResults({}, {"a": Unreachable("x", code="ssh.unreachable")}).or_raise()
    assert type(raised.value) is Unreachable
