"""Files, folders, links: put in place, looked at, put right."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import re
import signal
import stat
import time
from pathlib import Path

import pytest
from shell_box import Box

from clusterctl.resources.base import Change
from clusterctl.resources.file import File, Folder, Link, WriteOnceFile
from clusterctl.shell import Script

HOSTILE = (
    "$(touch {canary})", "`touch {canary}`", "; touch {canary} #", "'; touch {canary}; '", '"; touch {canary}; "', "a\nb", "\ttabs\t",
    "%s%n%d", "{{{{ 7*7 }}}}", "--help", "-n", "*", "~root", "$HOME", "\\", "\\n", "žluťoučký 🐧 \u202egnp", " leading and trailing ", "!!", "&", "|", ">x",
)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):o}"


@pytest.mark.parametrize("content", [b"", b"x", b"no newline at the end", b"\0\1\2\xff\r\n", b"x" * 200_000, b"$(touch x) `id` ; %s {{ x }}\n"])
def test_file(dash: Box, content: bytes) -> None:
    file = File(path=f"{dash.etc}/a/b/file", content=content, mode="640")
    dash.settle(file)
    assert Path(file.path).read_bytes() == content
    assert mode(Path(file.path)) == "640"
    assert [mode(dash.etc / "a"), mode(dash.etc / "a/b")] == ["755", "755"], "folders that nobody declared are readable by all"
    assert os.listdir(dash.etc / "a/b") == ["file"]


def test_file_in_every_shell(box: Box) -> None:
    file = File(path=f"{box.etc}/file", content=b"one\n")
    box.settle(file)
    Path(file.path).write_bytes(b"two\n")
    change = box.diff(file)
    assert change is not None and change.fields == ("content",)
    box.settle(file)
    Path(file.path).chmod(0o666)
    change = box.diff(file)
    assert change is not None and change.fields == ("mode",)
    inode = Path(file.path).stat().st_ino
    box.settle(file)
    assert Path(file.path).stat().st_ino == inode, "a mode alone is put right in place"


def test_owner(dash: Box) -> None:
    file = File(path=f"{dash.etc}/file", content=b"x", owner="daemon:daemon", mode="600")
    dash.settle(file)
    os.chown(file.path, 0, 0)
    change = dash.diff(file)
    assert change is not None and change.fields == ("owner",)
    dash.settle(file)


def test_hostile_content_and_names_are_data(box: Box) -> None:
    canary = box.path / "canary"
    texts = [text.format(canary=canary) for text in HOSTILE]
    names = {text: text.replace("/", "_") for text in texts if not set(text) & set("\n\t\\")}
    box.settle(
        *(File(path=f"{box.etc}/content{index}", content=text.encode()) for index, text in enumerate(texts)),
        *(File(path=f"{box.etc}/{name}", content=b"x") for name in names.values()),
        *(Folder(path=f"{box.etc}/folder {name}", mode="700") for name in names.values()),
        *(Link(path=f"{box.etc}/link {name}", target=name) for name in names.values()))
    for index, text in enumerate(texts):
        assert (box.etc / f"content{index}").read_bytes() == text.encode()
    for name in names.values():
        assert os.readlink(box.etc / f"link {name}") == name and (box.etc / name).read_bytes() == b"x"
    assert not canary.exists()


def test_hostile_names_never_run(box: Box) -> None:
    canary = box.path / "canary"
    names = [f"{index} {text.format(canary=canary)}" for index, text in enumerate(HOSTILE)]
    box.steps(*(("put_folder", f"{box.etc}/{name}", "755", "root:root") for name in names), ("die", *names))
    box.look(*((kind, name) for kind in ("stat", "sha", "text", "unit", "image", "package", "module", "program") for name in names))
    assert not canary.exists()


def test_stale(box: Box) -> None:
    file = File(path=f"{box.etc}/file", content=b"wanted")
    planned = box.diff(file)
    Path(file.path).write_bytes(b"somebody was faster")
    result = box.apply(file, planned)
    assert result.failure is not None and "stale" in result.failure.output
    assert Path(file.path).read_bytes() == b"somebody was faster"

    planned = box.diff(file)
    Path(file.path).write_bytes(b"and again")
    assert "stale" in (box.apply(file, planned).failure or pytest.fail()).output
    Path(file.path).unlink()
    assert "stale" in (box.apply(file, planned).failure or pytest.fail()).output
    assert os.listdir(box.etc) == []
    box.settle(file)


def test_refuses_a_folder(dash: Box) -> None:
    file = File(path=f"{dash.etc}/file", content=b"x")
    (dash.etc / "file").mkdir()
    (dash.etc / "file" / "precious").touch()
    result = dash.apply(file)
    assert result.failure is not None and "is a folder" in result.failure.output
    assert os.listdir(dash.etc / "file") == ["precious"]
    assert os.listdir(dash.etc) == ["file"]


@pytest.mark.parametrize("target", ["victim", "nowhere", "folder"])
def test_link_at_the_target_is_replaced_and_not_followed(dash: Box, target: str) -> None:
    (dash.path / "victim").write_bytes(b"precious")
    (dash.path / "folder").mkdir()
    file = File(path=f"{dash.etc}/file", content=b"x", mode="600")
    Path(file.path).symlink_to(dash.path / target)
    change = dash.diff(file)
    assert change is not None and "content" in change.fields
    if target == "folder":
        assert "is a folder" in (dash.apply(file, change).failure or pytest.fail()).output
    else:
        dash.settle(file)
        assert not Path(file.path).is_symlink()
    assert (dash.path / "victim").read_bytes() == b"precious"
    assert mode(dash.path / "victim") != "600"
    assert not (dash.path / "nowhere").exists()
    assert os.listdir(dash.path / "folder") == []


def test_a_pipe_neither_blocks_nor_stays(dash: Box) -> None:
    file = File(path=f"{dash.etc}/file", content=b"x")
    os.mkfifo(file.path)
    dash.settle(file)


def test_leftovers_of_a_killed_program_are_removed(dash: Box) -> None:
    (dash.etc / ".clusterctl.abcdef").write_bytes(b"a key, perhaps")
    (dash.etc / ".clusterctl.folder").mkdir()
    dash.settle(File(path=f"{dash.etc}/file", content=b"x"))
    assert sorted(os.listdir(dash.etc)) == [".clusterctl.folder", "file"]


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_killed_at_any_time_leaves_old_or_new(tmp_path: Path, shell: str) -> None:
    """kill -9 at random moments; the mode holds from the first byte of every file that is ever there."""
    box = Box(tmp_path, shell)
    old, new = b"old" * 100_000, b"new" * 100_000
    file = File(path=f"{box.etc}/secret", content=new, mode="600")
    random.seed(shell)
    seen = set()
    for _ in range(12):
        Path(file.path).write_bytes(old)
        Path(file.path).chmod(0o600)
        call = ("put_file", file.path, "600", "root:root", "new", hashlib.sha256(old).hexdigest())
        process = box.start(Script(steps=[call], blobs={"new": new}))
        ends = time.monotonic() + random.uniform(0, 0.03)
        while time.monotonic() < ends:
            for entry in box.etc.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    assert mode(entry) == "600"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
        content = Path(file.path).read_bytes()
        assert content in (old, new)
        seen.add(content)
    box.settle(File(path=file.path, content=b"last", mode="600"))
    assert os.listdir(box.etc) == ["secret"]
    assert old in seen


def test_seed_is_left_alone(dash: Box) -> None:
    seed = WriteOnceFile(path=f"{dash.etc}/initial", content=b"first", mode="600")
    dash.settle(seed)
    (dash.etc / "initial").write_bytes(b"changed by its program")
    assert dash.diff(seed) is None


def test_folder(box: Box) -> None:
    folder = Folder(path=f"{box.etc}/a/b", mode="700", owner="daemon:daemon")
    box.settle(folder)
    assert mode(box.etc / "a") == "755" and mode(box.etc / "a/b") == "700"
    (box.etc / "a/b/kept").touch()
    (box.etc / "a/b").chmod(0o777)
    change = box.diff(folder)
    assert change is not None and change.fields == ("mode",)
    box.settle(folder)
    assert os.listdir(box.etc / "a/b") == ["kept"]


def test_folder_refuses_a_file(dash: Box) -> None:
    (dash.etc / "a").write_text("precious")
    result = dash.apply(Folder(path=f"{dash.etc}/a"))
    assert result.failure is not None and "is not a folder" in result.failure.output
    assert (dash.etc / "a").read_text() == "precious"


def test_link_is_switched_atomically(box: Box) -> None:
    path = box.etc / "bin" / "tool"
    box.settle(Link(path=str(path), target="../one"))
    (box.etc / "one").mkdir()
    inode = path.lstat().st_ino
    change = box.diff(Link(path=str(path), target="../two"))
    assert change is not None and change.before == {"target": "../one"}
    box.settle(Link(path=str(path), target="../two"))
    assert os.readlink(path) == "../two" and path.lstat().st_ino != inode
    assert os.listdir(box.etc / "one") == [], "a link to a folder is replaced, not entered"
    assert os.listdir(box.etc / "bin") == ["tool"]


@pytest.mark.parametrize("strange", ["two\nlines", "a\ttab", "ends with\n", "  spaces  ", "-n"])
def test_many_links_are_seen_whatever_one_of_them_says(box: Box, strange: str) -> None:
    targets = {"a": "../one", "b": strange, "c": "../three"}
    for name, target in targets.items():
        (box.etc / name).symlink_to(target)
    links = {name: Link(path=f"{box.etc}/{name}", target="") for name in [*targets, "missing"]}
    seen = box.look(*(probe for link in links.values() for probe in link.probes()))
    told = {name: link.observed(seen) for name, link in links.items()}
    odd = any(character in strange for character in "\n\t")
    assert told == {"a": {"target": "../one"}, "b": {"target": "not one word" if odd else strange}, "c": {"target": "../three"}, "missing": None}


def test_link_over_a_file_and_a_leftover(dash: Box) -> None:
    (dash.etc / "link").write_text("a file")
    (dash.etc / "link.new").write_text("left by a killed program")
    dash.settle(Link(path=f"{dash.etc}/link", target="x y"))


def test_link_refuses_a_folder(dash: Box) -> None:
    (dash.etc / "link").mkdir()
    result = dash.apply(Link(path=f"{dash.etc}/link", target="x"))
    assert result.failure is not None and "is a folder" in result.failure.output


def test_a_target_of_two_lines_is_not_taken_for_its_first(dash: Box) -> None:
    link = Link(path=f"{dash.etc}/link", target="wanted")
    os.symlink("wanted\nand more", link.path)
    assert dash.diff(link) is not None
    dash.settle(link)


def test_a_change_says_no_content(dash: Box) -> None:
    secret = "the-secret"
    change = dash.diff(File(path=f"{dash.etc}/key", content=secret.encode(), mode="600", sensitive=True))
    assert isinstance(change, Change) and secret not in repr(change.as_dict())


def test_lists_of_packages_wait_for_who_has_their_lock(box: Box) -> None:
    """A fresh machine's own timers fetch them; apt itself waits for dpkg's lock alone."""
    box.command("apt-get", f"echo asked >>{box.path}/asked\n[ $(wc -l <{box.path}/asked) -gt 1 ] || {{ echo 'E: Could not get lock x'; exit 100; }}")
    assert box.run(Script(steps=[("fetch_lists",)])).failure is None
    assert (box.path / "asked").read_text().count("asked") == 2
    box.command("apt-get", "echo 'E: no such source'; exit 100")
    failure = box.run(Script(steps=[("fetch_lists",)])).failure
    assert failure is not None and "no such source" in failure.output


@pytest.mark.parametrize("called", ["fetch_lists", "install_or_refresh"])
def test_the_holder_of_a_package_lock_is_named(box: Box, called: str) -> None:
    """The locks have one deadline, and the process that holds one is named in the failure."""
    lock = box.path / "lock"
    lock.touch()
    box.command("apt-get", f"echo asked >>{box.path}/asked\necho 'E: Could not get lock {lock}'; exit 100")
    with lock.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        result = box.run(Script(steps=[(called, "haproxy")], functions=f"lock_seconds=0 package_locks={lock}\n"))
    assert result.failure is not None and f"(pid {os.getpid()})" in result.failure.output
    assert (box.path / "asked").read_text().count("asked") == 1


def test_apt_waits_ten_minutes_for_the_lock_of_dpkg(box: Box) -> None:
    box.command("apt-get", f'echo "$@" >>{box.path}/asked')
    assert box.run(Script(steps=[("install_or_refresh", "haproxy")])).failure is None
    (timeout,) = re.findall(r"DPkg::Lock::Timeout=(\d+)", (box.path / "asked").read_text())
    assert 590 <= int(timeout) <= 600
