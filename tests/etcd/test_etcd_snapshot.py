"""Snapshots of real members: which are accepted, and which are refused before any machine is asked for anything."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
from etcd_programs import UID, damaged, member

from clusterctl.commands.etcd import restore
from clusterctl.errors import IntegrityError, Refused
from clusterctl.etcd import bolt, scratch
from clusterctl.etcd import snapshot as operation
from clusterctl.etcd.scratch import Place


def test_a_snapshot_is_read_as_etcd_reads_it(session: Any, snapshot: Path) -> None:
    known = operation.inspect(session, snapshot)
    assert (known.uid, known.ours, known.revision, known.keys) == (UID, True, 104, 101)


def test_tombstones_large_values_and_branches(programs: Path, tmp_path: Path) -> None:
    """A database of many pages; a key that was deleted and written again counts once."""
    with member(programs, tmp_path / "data") as one:
        lines = "".join(f"put /k/{number % 3000} {'v' * (number % 1500 + 1)}\n" for number in range(100))
        for turn in range(40):
            one.ctl("txn", stdin="\n" + lines.replace("/k/", f"/k/{turn}/") + "\n\n")
        one.put({"/large": b"x" * 900_000})
        one.ctl("del", "/k/3/", "--prefix")
        one.ctl("put", "/k/3/1", "again")
        fields = one.ctl("get", "", "--prefix", "--count-only", "-w", "fields").stdout
        count = {name: int(re.search(rf'"{name}" : (\d+)', fields)[1]) for name in ("Count", "Revision")}  # type: ignore[index]
        saved = one.save(tmp_path / "snapshot.db")
    found = bolt.read(saved, frozenset((b"/large", b"/k/3/1", b"/k/3/2")))
    assert (found.keys, found.revision) == (count["Count"], count["Revision"])
    assert {key: len(value) for key, value in found.values.items()} == {b"/large": 900_000, b"/k/3/1": 5}


@pytest.mark.parametrize("verb", ["restore", "verify"])
def test_forty_damaged_files_are_refused(session: Any, snapshot: Path, tmp_path: Path, verb: str) -> None:
    """Before any machine is asked for anything: this session has none."""
    chance, size = random.Random(7), snapshot.stat().st_size
    for number in range(20):
        for how in ({"truncate": chance.randrange(size)}, {"flip": chance.randrange(size * 8)}):
            bad = damaged(snapshot, tmp_path / f"bad-{number}.db", **how)
            with pytest.raises(IntegrityError) as caught:
                restore.make_plan(session, bad) if verb == "restore" else operation.verify(session, bad, print)
            assert (caught.value.code, caught.value.exit_code) == ("etcd.snapshot-damaged", 7), how


@pytest.mark.parametrize("adopt", ["", "22222222-2222-3333-4444-555555555555"])
def test_another_clusters_snapshot_is_restored_only_with_its_uid(session: Any, foreign: Path, adopt: str) -> None:
    with pytest.raises(Refused) as caught:
        restore.make_plan(session, foreign, adopt=adopt)
    assert (caught.value.code, caught.value.exit_code) == ("etcd.restore-foreign-snapshot", 3)
    assert f"--adopt {UID}" in caught.value.hint
    restore.refuse_foreign(foreign, operation.inspect(session, foreign), UID)


def test_pages_that_do_not_fit_are_refused_whatever_the_digest(snapshot: Path, tmp_path: Path) -> None:
    """A digest can be computed anew: reading such a file must end, and with no other error."""
    chance = random.Random(11)
    for number in range(200):
        bad = damaged(snapshot, tmp_path / "bad.db", flip=chance.randrange(20000 * 8) + 4096 * 8 * (number % 8))
        try:
            bolt.read(bad)
        except bolt.Damaged:
            continue


def test_another_clusters_snapshot_is_refused(session: Any, foreign: Path) -> None:
    """Also with no description beside it: its data cannot be decrypted with this cluster's key."""
    with pytest.raises(IntegrityError) as caught:
        operation.verify(session, foreign, lambda text: None)
    assert (caught.value.code, caught.value.exit_code) == ("etcd.snapshot-foreign", 7)


def test_it_is_verified_on_this_machine(programs: Path, snapshot: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, session: Any) -> None:
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    assert scratch.restore(session, Place(None), snapshot) == (104, 101)
    bad = damaged(snapshot, tmp_path / "bad.db", flip=50_000)
    with pytest.raises(IntegrityError):
        scratch.restore(session, Place(None), bad)


