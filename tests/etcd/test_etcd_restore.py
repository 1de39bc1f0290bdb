"""Restore of a snapshot onto members: real programs of etcd in the compiled programs that machines run."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from etcd_programs import free_port, member
from machines import EtcdBox, Restored

from clusterctl.etcd import bolt
from clusterctl.etcd.snapshot import sha256
from clusterctl.pki import Pki
from clusterctl.shell import Blob, Call

pytestmark = pytest.mark.lab

ID, OTHER = "20260101T000000Z-aaaaaaaa", "20260101T000000Z-bbbbbbbb"
Make = Callable[[int], Restored]


@pytest.fixture
def make(programs: Path, ours: Pki, tmp_path: Path) -> Make:
    def made(count: int) -> Restored:
        names = [f"cp-{number}" for number in range(1, count + 1)]
        boxes = {name: EtcdBox(tmp_path / name, programs, ours) for name in names}
        return Restored(programs, boxes, {name: f"http://127.0.0.1:{free_port()}" for name in names})

    return made


def old_data(box: EtcdBox) -> Path:
    """What a member had before."""
    (box.data / "member/snap").mkdir(parents=True)
    (box.data / "member/snap/db").write_bytes(b"old")
    (box.configuration / "initial.env").write_text("old\n")
    (box.configuration / "formed").write_text("This member has served.\n")
    (box.path / "active").write_text("active\n")
    return box.data / "member/snap/db"


def stages(cluster: Restored, name: str, snapshot: Path, id: str = ID) -> list[tuple[list[Call], dict[str, Blob]]]:
    """The programs that one machine gets, in order."""
    digest = sha256(snapshot)
    return [
        ([("restore_prepare", id, digest, cluster.initial, name, cluster.peers[name], f"token-{id}")], {"snapshot": snapshot}),
        ([("restore_hold", id, digest, cluster.initial)], {}),
        ([("restore_swap", id, f"token-{id}")], {}),
        ([("restore_start", id)], {}),
        ([("restore_done", id)], {}),
    ]


def restore(cluster: Restored, snapshot: Path, id: str = ID) -> None:
    for name, box in cluster.boxes.items():
        for calls, blobs in stages(cluster, name, snapshot, id):
            result = box.call(*calls, blobs=blobs)
            assert result.failure is None, result.failure


@pytest.mark.parametrize("count", [1, 3, 5])
def test_members_serve_the_snapshot(make: Make, snapshot: Path, count: int) -> None:
    """A cluster of its own with all keys; revisions continue far beyond, and what was before is compacted."""
    cluster = make(count)
    olds = [old_data(box) for box in cluster.boxes.values()]
    restore(cluster, snapshot)
    for box, old in zip(cluster.boxes.values(), olds, strict=True):
        assert (box.data / f"before-restore-{ID}/member/snap/db").read_bytes() == b"old" and old.exists()
        assert (box.configuration / "initial.env").read_text() == (
            f"ETCD_INITIAL_CLUSTER={cluster.initial}\nETCD_INITIAL_CLUSTER_STATE=existing\nETCD_INITIAL_CLUSTER_TOKEN=token-{ID}\n")
        assert sorted(path.name for path in box.data.iterdir()) == [f"before-restore-{ID}", "member"]
        assert list(box.units.iterdir()) == [box.units / "etcd.service"], "etcd may start again"
    cluster.start()
    try:
        found = json.loads(cluster.ctl("get", "/registry/things/", "--prefix", "-w", "json").stdout)
        assert found["count"] == 99 and found["header"]["revision"] >= 1_000_000_000
        assert len(json.loads(cluster.ctl("member", "list", "-w", "json").stdout)["members"]) == count
        old = cluster.ctl("get", "/registry/things/1", "--rev", "50", check=False)
        assert old.returncode and "compacted" in old.stderr
    finally:
        cluster.stop()


def test_members_of_two_restores_do_not_form_one_cluster(make: Make, snapshot: Path, ours: Pki, tmp_path: Path) -> None:
    first, ids = make(1), []
    second = Restored(first.programs, {"cp-1": EtcdBox(tmp_path / "again", first.programs, ours)}, first.peers)
    for cluster, restored in ((first, ID), (second, OTHER)):
        restore(cluster, snapshot, restored)
        cluster.start()
        ids.append(json.loads(cluster.ctl("member", "list", "-w", "json").stdout)["header"]["cluster_id"])
        cluster.stop()
    assert ids[0] != ids[1]


def test_the_same_again_completes_from_everywhere(make: Make, snapshot: Path) -> None:
    """Each program again, after each: none undoes or repeats what another did."""
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    old_data(box)
    run = stages(cluster, "cp-1", snapshot)
    for last in range(len(run)):
        for calls, blobs in run[:last + 1]:
            assert box.call(*calls, blobs=blobs).failure is None
    assert (box.data / f"before-restore-{ID}/member/snap/db").read_bytes() == b"old"
    assert (box.data / "member/snap/db").read_bytes() != b"old"
    machine = box.look_at()
    assert machine.mark is not None and machine.mark.phase == "done" and machine.installed and machine.active
    assert box.call(("restore_forget",)).failure is None and box.look_at().mark is None


@pytest.mark.parametrize("last", [0, 1, 2])
@pytest.mark.parametrize("had_data", [True, False])
def test_abort_brings_the_old_data_back(make: Make, snapshot: Path, last: int, had_data: bool) -> None:
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    if had_data:
        old_data(box)
    for calls, blobs in stages(cluster, "cp-1", snapshot)[:last + 1]:
        assert box.call(*calls, blobs=blobs).failure is None
    for _ in range(2):
        assert box.call(("restore_abort", ID)).failure is None
    assert [path.name for path in box.data.iterdir()] == (["member"] if had_data else [])
    if had_data:
        assert (box.data / "member/snap/db").read_bytes() == b"old"
        assert (box.configuration / "initial.env").read_text() == "old\n"
        assert box.look_at().active
    assert box.look_at().mark is None and list(box.units.iterdir()) == [box.units / "etcd.service"]


def test_no_abort_once_it_was_started(make: Make, snapshot: Path) -> None:
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    old_data(box)
    for calls, blobs in stages(cluster, "cp-1", snapshot)[:4]:
        assert box.call(*calls, blobs=blobs).failure is None
    failure = box.call(("restore_abort", ID)).failure
    assert failure is not None and (box.data / f"before-restore-{ID}/member").exists()


def test_another_restore_is_refused_while_one_is_not_finished(make: Make, snapshot: Path) -> None:
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    old_data(box)
    first = stages(cluster, "cp-1", snapshot)
    assert box.call(*first[0][0], blobs=first[0][1]).failure is None
    for calls, blobs in stages(cluster, "cp-1", snapshot, OTHER):
        assert box.call(*calls, blobs=blobs).failure is not None
    assert box.look_at().active and (box.data / "member/snap/db").read_bytes() == b"old"


def test_a_held_member_does_not_start(make: Make, snapshot: Path) -> None:
    """Not even after a reboot: half of the members with old data could have a majority."""
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    old_data(box)
    for calls, blobs in stages(cluster, "cp-1", snapshot)[:3]:
        assert box.call(*calls, blobs=blobs).failure is None
        held = (box.units / "etcd.service.d/90-clusterctl-restore.conf")
        assert held.exists() is not box.look_at().active
    assert f"ConditionPathExists=!{held}" in held.read_text()


def test_a_damaged_file_stops_nothing(make: Make, snapshot: Path, tmp_path: Path) -> None:
    """The digest that was announced, or etcd's own: the machine serves on with what it has."""
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    old_data(box)
    bad = tmp_path / "bad.db"
    content = bytearray(snapshot.read_bytes())
    content[30_000] ^= 1
    bad.write_bytes(content)
    for told in (snapshot, bad):
        call = ("restore_prepare", ID, sha256(told), cluster.initial, "cp-1", cluster.peers["cp-1"], "token")
        assert box.call(call, blobs={"snapshot": bad}).failure is not None
    assert box.look_at().mark is None and box.look_at().active


def test_writes_that_only_the_log_has_are_recovered(make: Make, programs: Path) -> None:
    """The member is killed at once: its database has none of them yet. Of the last one its log need not say that it was committed."""
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    with member(programs, box.data, "--backend-batch-interval", "60s") as one:
        for number in range(50):
            one.ctl("put", f"/k/{number}", "x" * 100)
        one.process.send_signal(signal.SIGKILL)
        one.process.wait()
    before = {path.name: path.stat().st_size for path in (box.data / "member/snap").iterdir()}
    assert bolt.read(box.data / "member/snap/db").keys < 10
    assert box.call(("restore_hold", ID, "recovered", cluster.initial)).failure is None
    for _ in range(2):
        result = box.call(("recover_prepare", ID, "cp-1", cluster.peers["cp-1"], "token"))
        assert result.failure is None, result.failure
    assert {path.name: path.stat().st_size for path in (box.data / "member/snap").iterdir()} == before, "the old data is as it was"
    assert box.call(("restore_swap", ID, "token")).failure is None and box.call(("restore_start", ID)).failure is None
    cluster.start()
    try:
        assert json.loads(cluster.ctl("get", "/k/", "--prefix", "-w", "json").stdout)["count"] >= 49
        assert len(json.loads(cluster.ctl("member", "list", "-w", "json").stdout)["members"]) == 1
    finally:
        cluster.stop()


def test_a_survivor_that_is_not_taken_joins_anew(make: Make) -> None:
    cluster = make(1)
    box = cluster.boxes["cp-1"]
    old_data(box)
    for call in [("restore_hold", ID, "recovered", "x"), ("recover_leave", ID), ("recover_leave", ID), ("restore_done", ID), ("restore_forget",)]:
        assert box.call(call).failure is None
    assert sorted(path.name for path in (box.data / f"before-restore-{ID}").iterdir()) == ["formed", "initial.env", "member"]
    assert not (box.configuration / "formed").exists() and not (box.configuration / "initial.env").exists()
    assert list(box.units.iterdir()) == [box.units / "etcd.service"]
