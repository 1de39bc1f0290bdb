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
from clusterctl.etcd import snapshot
from clusterctl.local.storage import Journal, StateFolder, user_cache, write_whole


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


def fill(folder: Path, *files: str) -> list[str]:
    """Files, with the word after = in them; what is then in the folder."""
    for name, _, content in (file.partition("=") for file in files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("files", [
    # A project, a home folder, /etc and /run of some machines.
    (".git/config", "main.py"), (".gitignore=*.pyc\n", "main.py"), ("known_hosts", "id_ed25519"), ("pki/other.crt", "passwd"), ("lock/x",)])
@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_other_folders_are_left_alone(tmp_path: Path, files: tuple[str, ...], mode: int) -> None:
    before = fill(tmp_path, *files)
    tmp_path.chmod(mode)
    with pytest.raises(Refused, match="neither empty nor a state folder") as raised:
        StateFolder(tmp_path).prepare()
    assert "--state DIR" in raised.value.hint
    assert sorted(os.listdir(tmp_path)) == before and tmp_path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(("place", "files"), [
    # What a killed run, a backup, another version or a person may have left.
    ("chosen", ()), ("chosen", ("..gitignore.a1b2c3",)), ("chosen", (".gitignore=*\n", ".pki.new/sa.key", "notes")),
    ("chosen", ("pki/kubernetes.crt",)), ("chosen", ("known_hosts",)), (".clusterctl/prod", ("id_ed25519",))])
def test_whatever_is_begun_is_gone_on_with(tmp_path: Path, place: str, files: tuple[str, ...]) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place).chmod(0o700)
    before = fill(tmp_path / place, *files)
    with StateFolder(tmp_path / place).locked("apply"), pytest.raises(Locked), StateFolder(tmp_path / place).locked("apply"):
        pass
    assert set(os.listdir(tmp_path / place)) == {*before, ".gitignore", "lock"}


def test_a_folder_that_others_may_read_is_refused(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    folder.prepare()
    folder.path.chmod(0o750)
    with pytest.raises(Refused, match="others") as raised:
        folder.prepare()
    assert raised.value.hint == f"chmod 700 {folder.path}" and folder.path.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(("mode", "taken"), [(0o755, True), (0o700, True), (0o1777, False), (0o775, False)])
def test_an_empty_folder_is_taken_where_it_is_nobody_elses(tmp_path: Path, mode: int, taken: bool) -> None:
    tmp_path.chmod(mode)
    if taken:
        StateFolder(tmp_path).prepare()
    else:
        with pytest.raises(Refused, match="others"):
            StateFolder(tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o7777 == (0o700 if taken else mode) and os.listdir(tmp_path) == [".gitignore"] * taken


def test_parts_that_cannot_be_opened(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    (folder.path / "lock").mkdir(parents=True)
    (folder.path / ".gitignore").write_text("*\n")
    folder.path.chmod(0o700)
    with pytest.raises(Refused, match="Is a directory") as raised, folder.locked("apply"):
        pytest.fail("it is not held")
    assert raised.value.where == str(folder.path / "lock")
    (folder.path / "journal").touch()
    with pytest.raises(Refused, match="cannot be used"):
        Journal(folder, "today")
    with pytest.raises(Refused, match="name too long"):
        StateFolder(tmp_path / ("x" * 300)).prepare()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for variable in ("CLUSTERCTL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(Path, "home", none)
    with pytest.raises(InputError, match="no home folder"):
        user_cache()
    monkeypatch.setenv("CLUSTERCTL_CACHE", "/somewhere")
    assert user_cache() == Path("/somewhere")


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
from clusterctl.etcd import snapshot
from clusterctl.local.storage import StateFolder
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
        journal.write({"event": "began", "number": number, "path": Path("/x")})
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


def test_what_is_no_plain_file_stays(tmp_path: Path) -> None:
    """As root, a rename would put a file in the place of a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        write_whole(pipe, b"x")
    assert pipe.is_fifo() and [one.name for one in tmp_path.iterdir()] == ["pipe"]
