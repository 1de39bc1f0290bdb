"""Plans: what changes, what restarts because of it, and who goes when."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from clusterctl.cluster.model import Host, Ssh
from clusterctl.components.base import Component
from clusterctl.plan import planner
from clusterctl.plan.planner import OneByOne, Parallel, Rolling, Stage
from clusterctl.resources.base import Change, Resource
from clusterctl.resources.binary import Binary
from clusterctl.resources.file import File, Folder, Link, WriteOnceFile
from clusterctl.resources.service import Service
from clusterctl.shell import Observation


@dataclasses.dataclass(frozen=True)
class Pin:
    sha256: str

    def fetch(self):  # type: ignore[no-untyped-def]
        raise AssertionError("planning fetches nothing")


CONFIG = File(path="/etc/tool.conf", content=b"one", mode="600")
OTHER = File(path="/etc/other.conf", content=b"x")
SEED = WriteOnceFile(path="/etc/initial", content=b"new")
PROGRAM = Binary(name="tool", version="1.0.0", source=Pin("a" * 64))
LINK = Link(path="/opt/clusterctl/bin/tool", target="../tool/1.0.0/tool")
TOOL = Service(unit="tool.service", inputs=(CONFIG.id, SEED.id, PROGRAM.id, LINK.id))
OTHERS = Service(unit="other.service", inputs=(OTHER.id,))
EVERYTHING: tuple[Resource, ...] = (PROGRAM, LINK, CONFIG, OTHER, SEED, TOOL, OTHERS)


def host(name: str) -> Host:
    return Host(name=name, address="192.0.2.1", roles=frozenset({"worker"}), ssh=Ssh(address=name))  # type: ignore[arg-type]


def look_at(resources: Sequence[Resource], **stamps: str) -> Observation:
    """What a machine shows that is just as wanted; services run with these stamps."""
    seen = Observation()
    for resource in resources:
        if isinstance(resource, File):
            seen.add("stat", [resource.path, "regular file", resource.mode, resource.owner])
            seen.add("sha", [f"{resource.sha256}  {resource.path}"])
        elif isinstance(resource, Link):
            seen.add("stat", [f'"{resource.path}" -> "{resource.target}"', "symbolic link", "777", "root:root"])
        elif isinstance(resource, Binary):
            seen.add("program", [resource.folder, "intact", resource.source.sha256])
        elif isinstance(resource, Service):
            unit(seen, resource.unit)
            seen.add("text", [f"/var/lib/clusterctl/stamps/{resource.unit}:{stamps.get(resource.unit, stamp_of(resource, resources))}"])
    return seen


def unit(seen: Observation, name: str, active: str = "active", enabled: str = "enabled") -> None:
    for line in ("", f"Id={name}", "LoadState=loaded", f"ActiveState={active}", f"UnitFileState={enabled}"):
        seen.add("unit", [line])


def stamp_of(service: Service, resources: Sequence[Resource]) -> str:
    return planner.stamp(service, {resource.id: (None, None, resource) for resource in resources})


def plan(resources: Sequence[Resource], seen: Observation) -> list[tuple[str, str]]:
    return [(change.resource.id, change.action) for change in planner.compare(resources, seen, {})]


def wanting(*changed: Resource) -> tuple[Resource, ...]:
    by_id = {resource.id: resource for resource in changed}
    return tuple(by_id.get(resource.id, resource) for resource in EVERYTHING)


def test_nothing_to_do() -> None:
    assert plan(EVERYTHING, look_at(EVERYTHING)) == []


def test_bare_machine() -> None:
    assert plan(EVERYTHING, Observation()) == [
        *((resource.id, "create") for resource in EVERYTHING[:5]), (TOOL.id, "start"), (OTHERS.id, "start")]


@pytest.mark.parametrize(("changed", "expected"), [
    (dataclasses.replace(CONFIG, content=b"two"), [(CONFIG.id, "update"), (TOOL.id, "restart")]),
    (dataclasses.replace(OTHER, content=b"two"), [(OTHER.id, "update"), (OTHERS.id, "restart")]),
    (dataclasses.replace(CONFIG, mode="640"), [(CONFIG.id, "update")]),
    (dataclasses.replace(CONFIG, owner="etcd:etcd"), [(CONFIG.id, "update")]),
    (dataclasses.replace(SEED, content=b"other"), []),
    (dataclasses.replace(LINK, target="../tool/2.0.0/tool"), [(LINK.id, "update"), (TOOL.id, "restart")]),
    (dataclasses.replace(PROGRAM, source=Pin("b" * 64)), [(PROGRAM.id, "update"), (TOOL.id, "restart")]),
], ids=["content", "another file", "mode", "owner", "seed", "link", "program"])
def test_restarts_follow_from_what_changes(changed: Resource, expected: list[tuple[str, str]]) -> None:
    assert plan(wanting(changed), look_at(EVERYTHING)) == expected


@pytest.mark.parametrize(("files", "restarted"), [("modified tool", True), ("missing tool", False), ("mode tool", False)])
def test_a_program_that_drifted(files: str, restarted: bool) -> None:
    seen = look_at(EVERYTHING)
    seen.add("program", [PROGRAM.folder, files, PROGRAM.source.sha256])
    assert plan(EVERYTHING, seen) == [(PROGRAM.id, "update"), *([(TOOL.id, "restart")] if restarted else [])]


def test_a_file_that_drifted_restarts_though_the_stamp_is_right() -> None:
    seen = look_at(EVERYTHING)
    seen.add("sha", [f"{'0' * 64}  {CONFIG.path}"])
    assert plan(EVERYTHING, seen) == [(CONFIG.id, "update"), (TOOL.id, "restart")]


@pytest.mark.parametrize("stamp", ["", "of another run"])
def test_a_run_that_died_between_file_and_restart_heals(stamp: str) -> None:
    seen = look_at(EVERYTHING, **{"tool.service": stamp})
    assert plan(EVERYTHING, seen) == [(TOOL.id, "restart")]


@pytest.mark.parametrize(("active", "enabled", "expected"), [
    ("inactive", "enabled", "start"), ("failed", "enabled", "start"), ("deactivating", "enabled", "start"),
    ("activating", "enabled", "restart"), ("active", "disabled", "update"), ("active", "enabled", None)])
def test_states_of_a_unit(active: str, enabled: str, expected: str | None) -> None:
    seen = look_at(EVERYTHING)
    unit(seen, "tool.service", active, enabled)
    assert plan(EVERYTHING, seen) == ([(TOOL.id, expected)] if expected else [])


def test_an_input_that_nobody_declared_is_a_bug() -> None:
    with pytest.raises(KeyError):
        planner.compare((TOOL,), Observation(), {})


def test_the_stamp_says_what_it_runs_with() -> None:
    stamps = {stamp_of(TOOL, wanting(changed)) for changed in (
        CONFIG, dataclasses.replace(CONFIG, content=b"two"), dataclasses.replace(LINK, target="x"), dataclasses.replace(PROGRAM, source=Pin("c" * 64)))}
    assert len(stamps) == 4
    assert stamp_of(TOOL, EVERYTHING) == stamp_of(TOOL, wanting(dataclasses.replace(SEED, content=b"y")))


STAGES = (Stage(name="first", components=()), Stage(name="second", components=(), strategy=Rolling(1)))


def make(seen: Observation, wanted: tuple[Resource, ...]) -> planner.Plan:
    return planner.make_plan(STAGES, [host("a"), host("b")], {name: {"first": wanted[:5], "second": wanted[5:]} for name in "ab"},
                        {"a": seen, "b": look_at(wanted)})


def test_a_service_finds_its_inputs_in_earlier_stages() -> None:
    wanted = wanting(dataclasses.replace(CONFIG, content=b"two"))
    made = make(look_at(EVERYTHING), wanted)
    assert [(stage, where.name, change.resource.id, change.action) for stage, where, change in made.changes] == [
        ("first", "a", CONFIG.id, "update"), ("second", "a", TOOL.id, "restart")]
    first, second = (stage.hosts[0] for stage in made.stages)
    assert (first.restarts_later, second.restarts_later) == ((), ()), "its stamp says by itself that it must be restarted"
    assert not first.disruptive and second.disruptive
    service = second.changes[0].resource
    assert isinstance(service, Service) and service.stamp == stamp_of(TOOL, wanted)
    assert bool(made) and not make(look_at(wanted), wanted)
    drifted = look_at(EVERYTHING)
    drifted.add("sha", [f"{'0' * 64}  {CONFIG.path}"])
    first, second = (stage.hosts[0] for stage in make(drifted, EVERYTHING).stages)
    assert (first.restarts_later, second.restarts_later) == (("tool.service",), ()), "its stamp is right, and what it runs with is not"
    assert not made.limited(frozenset("b")) and made.limited(frozenset("a")).as_dict() == made.as_dict()


def test_resources_are_wanted_once() -> None:
    twice = Component(name="x", on=lambda _: True, resources=lambda _: [Folder(path="/a"), Folder(path="/a")])
    nowhere = Component(name="y", on=lambda _: False, resources=lambda _: [Folder(path="/b")])
    context = type("Context", (), {"host": host("a")})()
    with pytest.raises(ValueError, match="folder:/a is wanted twice on a"):
        planner.resources_for([Stage(name="one", components=(twice,))], context)
    assert planner.resources_for([Stage(name="one", components=(nowhere,))], context) == {"one": ()}


def test_probes_are_asked_once() -> None:
    assert planner.probes([CONFIG, CONFIG, Folder(path="/etc/tool.conf")]) == (("stat", CONFIG.path), ("sha", CONFIG.path))


HOSTS = [host(name) for name in "abcdefg"]


@pytest.mark.parametrize(("strategy", "disruptive", "expected"), [
    (Parallel(), "abc", ["abcdefg"]),
    (Rolling(1), "", ["abcdefg"]),
    (Rolling(1), "bd", ["acefg", "b", "d"]),
    (Rolling(2), "abcde", ["fg", "ab", "cd", "e"]),
    (Rolling(1), "abcdefg", list("abcdefg")),
    (Rolling(10), "abcdefg", ["abcdefg"]),
])
def test_batches(strategy: Parallel | Rolling, disruptive: str, expected: list[str]) -> None:
    found = ["".join(one.name for one in batch) for batch in strategy.batches(HOSTS, frozenset(disruptive))]
    assert found == expected
    if isinstance(strategy, Rolling):
        assert all(len(set(batch) & set(disruptive)) <= strategy.max_unavailable for batch in found)


MIXED = [host.model_copy(update={"roles": frozenset(roles)}) for host, roles in zip(HOSTS, (
    {"worker"}, {"control_plane", "etcd"}, {"worker"}, {"etcd"}, {"control_plane"}, {"worker"}, {"control_plane", "etcd", "worker"}), strict=True)]
"""a, c and f are workers alone; d is etcd alone."""


@pytest.mark.parametrize(("strategy", "disruptive", "expected"), [
    # Control planes and etcd members one at a time and before the workers, however many workers may go.
    (Rolling(5), "abcdefg", ["b", "d", "e", "g", "acf"]),
    (Rolling(2), "abcdefg", ["b", "d", "e", "g", "ac", "f"]),
    (Rolling(1), "abcdefg", ["b", "d", "e", "g", "a", "c", "f"]),
    # Those that are not interrupted come first and together, whoever they are.
    (Rolling(5), "acg", ["bdef", "g", "ac"]),
    (Rolling(5), "bd", ["acefg", "b", "d"]),
    (Rolling(5), "", ["abcdefg"]),
    (OneByOne(), "abc", list("defgabc")),
    (OneByOne(), "", list("abcdefg")),
])
def test_batches_of_roles(strategy: Rolling | OneByOne, disruptive: str, expected: list[str]) -> None:
    assert ["".join(one.name for one in batch) for batch in strategy.batches(MIXED, frozenset(disruptive))] == expected


@pytest.mark.parametrize("strategy", [Parallel(), Rolling(1), OneByOne()])
def test_no_hosts_no_batches(strategy: Parallel | Rolling | OneByOne) -> None:
    assert list(strategy.batches([], frozenset())) == []


def test_changes_show_no_content() -> None:
    change = planner.compare((File(path="/x", content=b"the-secret", sensitive=True),), Observation(), {})[0]
    assert isinstance(change, Change) and "the-secret" not in str(change.as_dict())
