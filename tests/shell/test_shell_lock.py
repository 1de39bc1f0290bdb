"""The command that holds a machine's lock: who has it, who had it last, and what is left."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from shell_box import SHELLS, Box

from clusterctl.session.operator_lock import LOCK_SCRIPT
from clusterctl.shell import Script


class Holder:
    def __init__(self, shell: str, folder: Path, who: str) -> None:
        command = LOCK_SCRIPT.replace("/run/", f"{folder}/").replace("/var/lib/clusterctl/", f"{folder}/").replace("timeout 20", "timeout 1")
        self.process = subprocess.Popen([*SHELLS[shell], "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"a-nonce\n{who}\n")
        self.process.stdin.flush()
        nonce, _, self.said = self.process.stdout.readline().strip().partition("\t")
        assert nonce == "a-nonce"

    def end(self, word: str = "") -> None:
        """Say a last word and go, or break off."""
        self.process.communicate(word, timeout=10)


@pytest.mark.parametrize("shell", SHELLS)
def test_who_holds_it(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "clusterctl.lock"
    first = Holder(shell, tmp_path, "operator-1")
    assert first.said == "held"
    second = Holder(shell, tmp_path, "another")
    assert second.said == "busy\toperator-1"
    second.end()
    first.end("..x")
    assert not file.exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_a_holder_that_reads_no_more_answers_leaves_nothing_behind(shell: str, tmp_path: Path) -> None:
    """A slow machine reads the last words after the channel was closed."""
    holder = Holder(shell, tmp_path, "operator-1")
    assert holder.process.stdin is not None and holder.process.stdout is not None
    holder.process.stdout.close()
    holder.process.stdin.write("..x")
    holder.process.stdin.close()
    holder.process.wait(10)
    assert not (tmp_path / "clusterctl.lock").exists()


@pytest.mark.parametrize("shell", SHELLS)
def test_one_that_breaks_off_finds_its_name_where_nobody_came_in_between(shell: str, tmp_path: Path) -> None:
    Holder(shell, tmp_path, "operator-1").end(".")
    again = Holder(shell, tmp_path, "operator-1")
    assert again.said == "again"
    again.end()
    other = Holder(shell, tmp_path, "another")
    assert other.said == "held"
    other.end()
    late = Holder(shell, tmp_path, "operator-1")
    assert late.said == "held"
    late.end("x")


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_after_a_reboot_is_told_so(shell: str, tmp_path: Path) -> None:
    """Nothing is left in /run then; the marker of the reboot is on the disk."""
    (tmp_path / "os-update").touch()
    for wanted in ("again", "held"):
        holder = Holder(shell, tmp_path, "whoever")
        assert holder.said == wanted
        holder.end("x")


def test_one_that_is_silent_is_dead(tmp_path: Path) -> None:
    silent = Holder("dash", tmp_path, "operator-1")
    silent.process.wait(timeout=10)
    other = Holder("dash", tmp_path, "another")
    assert other.said == "held"
    other.end("x")
    silent.process.communicate()


@pytest.mark.parametrize("looks", [True, False])
def test_a_program_that_waits_reports_the_holder_of_the_machines_lock(box: Box, looks: bool) -> None:
    go, begun = box.path / "go", box.path / "begun"
    first = box.start(Script(steps=[("eval", f": >{begun}; while [ ! -e {go} ]; do sleep 0.1; done")], holder="root@here, pid 1, apply"))
    until(begun.exists)
    second = box.start(Script(probes=[("stat", "/etc")] if looks else [], steps=[] if looks else [("true",)], holder="another"))
    assert second.stdout is not None
    line = second.stdout.readline().decode().rstrip("\n")
    go.touch()
    rest = second.communicate(timeout=30)[0].decode()
    first.communicate(timeout=30)
    assert line.split("\t")[1:] == ["waiting", "root@here, pid 1, apply"] and rest.endswith("end\n"), (line, rest)
    assert (box.state / "lock").read_text() == ("" if looks else "another\n")


def test_looks_share_the_machines_lock(box: Box) -> None:
    box.command("stat", 'sleep 2; exec /usr/bin/stat "$@"')
    looking = box.start(Script(probes=[("stat", "/etc")], holder="one"))
    assert ["waiting"] not in [words[:1] for words in box.run(Script(probes=[("stat", "/etc")], holder="two")).records]
    looking.communicate(timeout=30)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "the first program did not begin"
        time.sleep(0.02)
