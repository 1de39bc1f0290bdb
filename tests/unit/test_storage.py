"""Files on this side: whole or not at all, for this user alone, one operation at a time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clusterctl.errors import InputError, Locked, Refused
from clusterctl.operations import snapshot
from clusterctl.storage import Journal, StateFolder, write_whole


def test_killed_200_times_leaves_old_or_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([65 + number]) * 300_000 for number in range(3)}
    write_whole(path, min(contents))
    random.seed(1)
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            while True:
                for content in contents:
                    write_whole(path, content)
        time.sleep(random.uniform(0, 0.004))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert path.read_bytes() in contents
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", b"x")
    with pytest.raises(TypeError):
        write_whole(tmp_path / "file", "text")  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "file").symlink_to(tmp_path / "victim")
    write_whole(tmp_path / "file", b"x")
    assert (tmp_path / "victim").read_text() == "precious" and not (tmp_path / "file").is_symlink()


def test_the_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    folder = StateFolder.of(tmp_path, "kubernetes")
    folder.prepare()
    folder.write("deep/file", b"x")
    assert folder.path == tmp_path / ".clusterctl" / "kubernetes"
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert (folder.path / ".gitignore").read_text() == "*\n"
    assert folder.read("deep/file") == b"x" and folder.read("nothing") is None
    assert StateFolder.of(tmp_path, "x", tmp_path / "chosen").path == tmp_path / "chosen"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_lax_modes_are_refused(tmp_path: Path, mode: int) -> None:
    folder = StateFolder(tmp_path)
    folder.write("key", b"x")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(Refused, match="others") as raised:
        folder.read("key")
    assert f"chmod 600 {tmp_path / 'key'}" in raised.value.hint


def test_what_cannot_be_read_or_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o600)
    with pytest.raises(InputError):
        StateFolder(tmp_path / "file").read("x")
    with pytest.raises(Refused):
        StateFolder(tmp_path / "file").prepare()
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(InputError):
        StateFolder(tmp_path).read("folder")


HOLD = """
import sys
from pathlib import Path
from clusterctl.operations import snapshot
from clusterctl.storage import StateFolder
with StateFolder(Path(sys.argv[1])).locked("upgrade"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_excludes_tells_and_dies_with_its_process(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(Locked) as raised, folder.locked("apply"):
            pass
        assert f"pid {process.pid}, upgrade, since" in str(raised.value) and raised.value.exit_code == 5
    finally:
        process.kill()
        process.communicate()
    with folder.locked("apply"):
        pass
    with folder.locked("apply"), pytest.raises(Locked), folder.locked("again"):
        pass


def test_the_lock_ends_with_an_error(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    with pytest.raises(KeyError), folder.locked("apply"):
        raise KeyError
    with folder.locked("apply"):
        pass


def test_journal(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    for number in range(2):
        journal = Journal(folder, "today")
        journal.write("began", number=number, path=Path("/x"))
        journal.close()
    lines = (tmp_path / "journal" / "today.jsonl").read_text().splitlines()
    assert len(lines) == 2 and '"event": "began", "number": 1, "path": "/x"' in lines[1]
    assert (tmp_path / "journal" / "today.jsonl").stat().st_mode & 0o777 == 0o600


def test_several_files_appear_at_once(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    (tmp_path / ".keys.new").mkdir()
    (tmp_path / ".keys.new" / "stale").touch()
    folder.write_all("keys", {"a": b"1", "b": b"2"})
    assert sorted(os.listdir(tmp_path / "keys")) == ["a", "b"] and os.listdir(tmp_path) == ["keys"]
    folder.write_all("keys", {"a": b"3"})
    assert folder.read("keys/a") == b"3" and folder.read("keys/b") == b"2"


def test_what_killed_snapshots_left_is_not_listed_and_goes(tmp_path: Path) -> None:
    place = snapshot.folder(StateFolder(tmp_path))
    place.mkdir()
    described = {"taken": "2026-01-01T00:00:00+00:00", "cluster": "c", "cluster_id": "1", "authority": "a", "identity": "i", "etcd": "3.6",
                 "size": 1, "sha256": "x"}
    for name in ("whole", "never"):
        (place / f"{name}.json").write_text(json.dumps({"file": f"{name}.db", **described}))
    for name in ("whole.db", "foreign.db", "never.partial", ".never.json.abc"):
        (place / name).write_text("x")
    assert [entry.file for entry in snapshot.saved(StateFolder(tmp_path))] == ["whole.db"]
    snapshot._tidy(place)
    assert sorted(path.name for path in place.iterdir()) == ["foreign.db", "whole.db", "whole.json"]
