"""A plan as a file: it is carried out as it was reviewed, or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_os_update import cluster
from test_planner import host

from clusterctl.cluster.target import Target
from clusterctl.commands import plan_file
from clusterctl.commands.apply import ApplyPlan
from clusterctl.commands.upgrade import UpgradePlan, UpgradeRequest, fingerprint_difference
from clusterctl.errors import ClusterctlError, InputError, Refused
from clusterctl.kube.client import ObjectChange
from clusterctl.kube.disruption import DrainPolicy, Unavailable
from clusterctl.plan.planner import HostChanges, Plan, Rolling, Stage, StagePlan
from clusterctl.resources.base import Change
from clusterctl.resources.file import File
from clusterctl.resources.service import Service

WISH = UpgradeRequest(to="1.37.2", through=("1.36.10",), components={"containerd": "2.3.4"}, unavailable=Unavailable.parse("25%"), pause_after="etcd",
                      policy=DrainPolicy(timeout=60, grace_period=5, delete_emptydir_data=True))


def file_change(content: bytes = b"new", path: str = "/etc/kubelet.yaml") -> Change:
    change = File(path=path, content=content).diff({"content": "old", "mode": "644", "owner": "root:root"})
    assert change is not None
    return change


def restart(stamp: str = "one") -> Change:
    change = Service(unit="kubelet.service", inputs=(), stamp=stamp).diff({"active": "active", "enabled": "enabled", "stamp": "old"})
    assert change is not None
    return change


def config_map(text: str = "x", kind: str = "ConfigMap") -> ObjectChange:
    return ObjectChange({"apiVersion": "v1", "kind": kind, "metadata": {"name": "c", "namespace": "kube-system"}, "data": {"a": text}}, "update", ("data.a",))


def labels(version: str = "7", value: str = "b") -> tuple[str, Any, tuple[str, ...]]:
    return "w-1", {"metadata": {"labels": {"zone": value}, "resourceVersion": version}}, ("zone",)


def made(*changes: Change, to: str = "1.37.2", at_once: int = 1, objects: tuple[ObjectChange, ...] = (), nodes: Any = ()) -> UpgradePlan:
    part = HostChanges(host("w-1"), changes or (file_change(), restart()), ())
    plan = Plan((StagePlan(Stage(name="nodes", components=(), strategy=Rolling(1)), (part,)),))
    return UpgradePlan(versions={"kubernetes": ("1.36.4", to)}, hops=(to,), at_once=at_once,
                       plan=ApplyPlan(Target(cluster=cluster(1)), plan, objects, nodes))


class Session:
    """What reading and writing a plan needs of one. ``identity``: of the cluster's keys."""

    def __init__(self, identity: str = "abc", *, limit: tuple[str, ...] = (), hosts: tuple[str, ...] = ("cp-1", "w-1"), new: bool = False) -> None:
        self.cluster = SimpleNamespace(name="prod", hosts=tuple(map(host, hosts)))
        self.pki = SimpleNamespace(identity=identity)
        self.pki_is_new = new
        self.target = SimpleNamespace(limit=limit)
        self.state = SimpleNamespace(path=Path("/state"))


def session(*words: Any, **more: Any) -> Any:
    return Session(*words, **more)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "plan.json"
    plan_file.write(path, session(limit=("w-1",)), WISH, made())
    return path


def test_what_was_written_is_read(path: Path) -> None:
    reviewed = plan_file.read(path, session(), UpgradeRequest())
    assert reviewed.wish == WISH
    assert reviewed.limit == ("w-1",), "the plan's hosts are those that are meant"
    reviewed.refuse_other(made())
    content = json.loads(path.read_text())
    assert (content["cluster"], content["limit"], content["digest"]) == ("prod", ["w-1"], made().digest)
    assert "new" not in json.dumps(content["plan"]["changes"][0]["after"]["mode"])
    plan_file.read(path, session(limit=("w-1",)), UpgradeRequest())


def test_a_second_plan_is_the_same(tmp_path: Path) -> None:
    """But for the time when it was made."""
    contents = []
    for name in ("a", "b"):
        plan_file.write(tmp_path / name, session(), WISH, made())
        content = json.loads((tmp_path / name).read_text())
        del content["made"], content["sha256"]
        contents.append(content)
    assert contents[0] == contents[1]


SAME = [
    # What differs from plan to plan although nothing has moved: keys that are made anew, versions that the API counts.
    (made(restart("one")), made(restart("two"))),
    (made(nodes=(labels("7"),)), made(nodes=(labels("8"),))),
    (made(objects=(config_map("a", "Secret"),)), made(objects=(config_map("b", "Secret"),))),
    (made(), dataclasses.replace(made(), warnings=("a pod waits",))),
]
OTHER = [
    # then                            now                                            words
    (made(), made(to="1.37.3"), "versions: {'kubernetes': ['1.36.4', '1.37.2']} then, {'kubernetes': ['1.36.4', '1.37.3']} now; no more: 1.37.2"),
    (made(), made(restart()), "no more: nodes w-1 file:/etc/kubelet.yaml update "),
    (made(restart()), made(), "new: nodes w-1 file:/etc/kubelet.yaml update "),
    # The same file and the same deed, to reach something else: the inventory was edited in between.
    (made(file_change(b"a")), made(file_change(b"b")), "new: nodes w-1 file:/etc/kubelet.yaml update "),
    (made(file_change(), restart()), made(restart(), file_change()), "changes: the same in another order"),
    (made(), made(at_once=3), "max_unavailable: 1 then, 3 now"),
    (made(), made(objects=(config_map(),)), "new: update ConfigMap kube-system/c "),
    (made(objects=(config_map("a"),)), made(objects=(config_map("b"),)), "no more: update ConfigMap kube-system/c "),
    (made(), made(nodes=(labels(),)), "new: w-1 zone "),
    (made(nodes=(labels(value="a"),)), made(nodes=(labels(value="b"),)), "new: w-1 zone "),
]


@pytest.mark.parametrize(("then", "now"), SAME)
def test_what_is_no_difference(tmp_path: Path, then: UpgradePlan, now: UpgradePlan) -> None:
    assert then.digest == now.digest
    plan_file.write(tmp_path / "p", session(), UpgradeRequest(), then)
    plan_file.read(tmp_path / "p", session(), UpgradeRequest()).refuse_other(now)


@pytest.mark.parametrize(("then", "now", "words"), OTHER)
def test_a_cluster_that_has_moved_on(tmp_path: Path, then: UpgradePlan, now: UpgradePlan, words: str) -> None:
    assert then.digest != now.digest
    plan_file.write(tmp_path / "p", session(), UpgradeRequest(), then)
    with pytest.raises(Refused, match="the cluster has moved on since this plan was made: ") as error:
        plan_file.read(tmp_path / "p", session(), UpgradeRequest()).refuse_other(now)
    assert words in error.value.message
    assert error.value.hint.endswith(f"clusterctl upgrade plan --out {tmp_path / 'p'}")


def test_a_long_difference_is_cut() -> None:
    many = [file_change(path=f"/etc/{number}") for number in range(30)]
    with pytest.raises(Refused, match="; and 21 more \\[plan.outdated") as error:
        plan_file.Reviewed(Path("p"), UpgradeRequest(), (), made(*many).fingerprint()).refuse_other(made(restart()))
    assert error.value.message.count("no more: ") == 10


def test_differences_of_what_another_version_wrote() -> None:
    assert fingerprint_difference({"old": ["x"], "both": 1}, {"both": 1, "new": 2}) == ["new: nothing then, 2 now", "old: ['x'] then, nothing now"]


def edited(path: Path, change: Callable[[Any], Any], *, seal: bool) -> None:
    content = json.loads(path.read_text())
    content = change(content) or content
    path.write_text(json.dumps({**content, "sha256": plan_file._seal(content)} if seal else content))


@pytest.mark.parametrize("change", [
    lambda content: content["fingerprint"]["changes"].pop(),
    # What people read must be what is carried out.
    lambda content: content["plan"]["changes"].clear(),
    lambda content: content["wish"].update(pause_after=None),
    lambda content: content["wish"].update(max_unavailable="100%"),
    lambda content: content["wish"]["drain"].update(force=True),
    lambda content: content.update(limit=[]),
    lambda content: content.update(identity="other"),
    lambda content: content.pop("sha256"),
    lambda content: content.update(more=1),
], ids=["fingerprint", "plan", "pause", "unavailable", "drain", "limit", "identity", "no digest", "more"])
def test_a_file_that_was_edited(path: Path, change: Callable[[Any], Any]) -> None:
    edited(path, lambda content: [change(content), None][1], seal=False)
    with pytest.raises(InputError, match="was changed after it was made"):
        plan_file.read(path, session(), UpgradeRequest())


@pytest.mark.parametrize("text", [
    "", "{", "null", "[]", "7", '"x"', "{}", '{"kind": 1}', '{"kind": "clusterctl apply plan"}', "[" * 100_000, "\x00",
    '{"kind": ["clusterctl upgrade plan"]}'])
def test_files_that_are_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "p").write_text(text)
    with pytest.raises(InputError, match="is no plan of an upgrade") as error:
        plan_file.read(tmp_path / "p", session(), UpgradeRequest())
    assert "clusterctl upgrade plan --out" in error.value.hint


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no plan of an upgrade"):
        plan_file.read(tmp_path / "p", session(), UpgradeRequest())


@pytest.mark.parametrize("where", ["missing", ""])
def test_files_that_cannot_be_read(tmp_path: Path, where: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        plan_file.read(tmp_path / where, session(), UpgradeRequest())


@pytest.mark.parametrize("change", [
    lambda content: content.pop("wish"),
    lambda content: content.pop("fingerprint"),
    lambda content: content.update(wish=[]),
    lambda content: content.update(fingerprint=7),
    lambda content: content.update(limit="w-1"),
    lambda content: content.update(limit=[1]),
    lambda content: content["wish"].update(to=1.37),
    lambda content: content["wish"].update(through="1.36.4"),
    lambda content: content["wish"].update(components=["containerd"]),
    lambda content: content["wish"].update(components={"containerd": 2}),
    lambda content: content["wish"].update(drain={"nobody": "knows this"}),
    lambda content: content["wish"].pop("drain"),
])
def test_plans_that_lack_something(path: Path, change: Callable[[Any], Any]) -> None:
    """As of another version of clusterctl: the file is whole, and it is no plan for this one."""
    edited(path, lambda content: [change(content), None][1], seal=True)
    with pytest.raises(InputError, match="is no plan of an upgrade"):
        plan_file.read(path, session(), UpgradeRequest())


@pytest.mark.parametrize(("here", "given", "kind", "words"), [
    (session("other"), UpgradeRequest(), Refused, "is the plan of another cluster"),
    (session(new=True), UpgradeRequest(), Refused, "the keys of its cluster are not here"),
    (session(hosts=("cp-1",)), UpgradeRequest(), Refused, "moved on since this plan was made: the inventory has no host 'w-1' any more"),
    (session(limit=("cp-1",)), UpgradeRequest(), InputError, "say it a second time"),
    (session(), UpgradeRequest(to="1.37.2"), InputError, "say it a second time"),
    (session(), UpgradeRequest(pause_after="etcd"), InputError, "say it a second time"),
    (session(), UpgradeRequest(policy=DrainPolicy(force=True)), InputError, "say it a second time"),
])
def test_where_it_does_not_belong(path: Path, here: Any, given: UpgradeRequest, kind: type[ClusterctlError], words: str) -> None:
    with pytest.raises(kind, match=words):
        plan_file.read(path, here, given)


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for where in ("file/plan.json", ""):
        with pytest.raises(InputError, match="cannot be written"):
            plan_file.write(tmp_path / where, session(), WISH, made())
