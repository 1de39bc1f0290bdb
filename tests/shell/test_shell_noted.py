"""What stands is asked once for each state of what it is made of, and never believed where that has changed."""

from __future__ import annotations

import dataclasses
import grp
import os
import pwd
import re
import stat
import time
from pathlib import Path

import pytest
from shell_box import Box

from clusterctl.shell import Observation, Probe, facts

CONTENT = "a 'quoted' \"word\", $HOME ${nonce} `id` \\n \\\\ \t$(id)\nnoted_state=\n"


NAMES = ("a 'config'", "other", "absent", "link", "dpkg")


class Machine:
    """Files, a unit, a package, a user; and what is run to know of them."""

    def __init__(self, box: Box) -> None:
        self.box = box
        box.join("ours")
        self.config, self.other, self.absent = box.etc / "a 'config'", box.etc / "other", box.etc / "absent"
        self.config.write_text(CONTENT)
        self.other.write_text("other\n")
        self.status = box.etc / "dpkg/status"
        self.invocation, self.wanted = box.etc / "invocation:a.service", box.etc / "multi-user.target.wants/a.service"
        for path in (self.status, self.wanted):
            path.parent.mkdir()
        self.status.write_text("x")
        self.invocation.symlink_to("0123")
        (box.etc / "link").symlink_to("other")
        self.wanted.symlink_to("../a.service")
        box.command("systemctl", f"echo systemctl >>{box.path}/asked; echo Id=a.service; echo LoadState=loaded; "
                                 f"echo ActiveState=$(cat {box.path}/active); [ ! -L {self.wanted} ] || echo UnitFileState=enabled")
        box.command("dpkg-query", f"echo dpkg-query >>{box.path}/asked; echo 'one ii '")
        (box.path / "active").write_text("active\n")

    @property
    def probes(self) -> list[Probe]:
        paths = (str(path) for path in (self.config, self.other, self.absent))
        return [*((kind, path) for path in paths for kind in ("sha", "text")), ("unit", "a.service"), ("package", "one"), ("user", "daemon"),
                ("text", "/proc/sys/kernel/random/uuid"), *(("stat", str(self.box.etc / name)) for name in NAMES)]

    def look(self, *more: Probe, verify: bool = False) -> Observation:
        program = facts.probe_program((*self.probes, *more), verify=verify)
        # Who listens on this machine's ports takes long to find out, and is never noted.
        return self.box.run(dataclasses.replace(program, cluster="ours", functions=f"{program.functions}\nlistening() {{ :; }}\n")).seen

    @property
    def asked(self) -> int:
        """How often since the last time."""
        path = self.box.path / "asked"
        found = path.read_text().count("\n") if path.exists() else 0
        path.write_text("")
        return found

    @property
    def note(self) -> Path:
        return next((self.box.state / "noted").iterdir())


@pytest.fixture
def machine(box: Box) -> Machine:
    made = Machine(box)
    made.look()
    assert made.asked == 2
    return made


def test_the_same_is_seen_without_being_asked(machine: Machine) -> None:
    first, second = machine.look(), machine.look()
    assert machine.asked == 0 and machine.note.stat().st_mode & 0o777 == 0o600
    for seen in (first, second):
        assert seen.get("text", str(machine.config)) == CONTENT.removesuffix("\n").split("\n")
        assert seen.get("unit", "a.service") == ["Id=a.service", "LoadState=loaded", "ActiveState=active", "UnitFileState=enabled"]
        assert seen.get("package", "one") == [] and (seen.get("user", "daemon") or [])[0] == "daemon"
        assert seen.get("sha", str(machine.absent)) is None and (seen.get("stat", str(machine.config)) or [])[:3] == ["regular file", "644", "root:root"]
        assert (seen.get("stat", f"{machine.box.etc}/link") or [])[4:] == ["other"]
    assert first.get("sha", str(machine.config)) == second.get("sha", str(machine.config)) != second.get("sha", str(machine.other))
    assert first.get("text", "/proc/sys/kernel/random/uuid") != second.get("text", "/proc/sys/kernel/random/uuid"), "what passes is asked"


@pytest.mark.parametrize("change", ["{config} of one size", "touch -d '1 hour ago' other", "chmod 600 other", "rm other", "echo x >absent", "mkdir absent",
                                    "cp other x && mv x other", "ln -sf 4567 invocation:a.service", "rm invocation:a.service",
                                    "rm multi-user.target.wants/a.service", "echo y >dpkg/status", "mv other x && ln -s x other",
                                    "chown daemon other", "chgrp daemon other", "chmod 700 dpkg", "chgrp daemon dpkg", "rm -r dpkg", "ln -sfn dpkg link", "rm link && touch link"])
def test_whatever_has_changed_is_seen(machine: Machine, change: str) -> None:
    if change.startswith("{config}"):
        # The size and the time of writing say nothing of it.
        before = machine.config.stat()
        if machine.box.shell == "busybox":  # Its stat(1) counts whole seconds, and no rest is waited for here.
            time.sleep(1 - time.time() % 1)
        machine.config.write_text(CONTENT.replace("word", "WORD"))
        os.utime(machine.config, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        assert os.system(f"cd '{machine.box.etc}' && {change}") == 0
    seen = machine.look()
    assert machine.asked >= 2
    config = machine.config.read_text()
    assert seen.get("text", str(machine.config)) == config.removesuffix("\n").split("\n")
    for path in (machine.other, machine.absent):
        assert seen.get("text", str(path)) == (path.read_text().removesuffix("\n").split("\n") if path.is_file() else None)
    for name in NAMES:
        path = machine.box.etc / name
        mode = path.lstat() if os.path.lexists(path) else None
        assert (seen.get("stat", str(path)) or [""] * 3)[1:3] == (
            [f"{stat.S_IMODE(mode.st_mode):o}", f"{pwd.getpwuid(mode.st_uid).pw_name}:{grp.getgrgid(mode.st_gid).gr_name}"] if mode else [""] * 2)
        assert (seen.get("stat", str(path)) or [])[4:] == ([os.readlink(path)] if path.is_symlink() else [])
    assert ("UnitFileState=enabled" in (seen.get("unit", "a.service") or [])) == machine.wanted.is_symlink()


def test_what_is_behind_a_link_is_asked_each_time(machine: Machine) -> None:
    target = machine.box.etc / "target"
    machine.other.rename(target)
    machine.other.symlink_to("target")
    for text in ("one", "two"):
        target.write_text(text)
        assert machine.look().get("text", str(machine.other)) == [text]


def test_a_unit_that_does_not_run_is_asked_for_each_time(machine: Machine) -> None:
    (machine.box.path / "active").write_text("failed\n")
    machine.note.unlink()
    for _ in range(2):
        machine.look()
        assert machine.asked == 2


def test_a_question_that_fails_is_an_answer(machine: Machine) -> None:
    for _ in range(2):
        seen = machine.look(("user", "no-such-user"), ("sha", str(machine.absent)), ("program", "/no/such/folder"))
        assert seen.get("user", "no-such-user") is None and seen.get("user", "daemon") and seen.get("text", str(machine.other)) == ["other"]
    assert machine.asked == 2


def test_other_questions_are_asked(machine: Machine) -> None:
    for times in (2, 0):
        assert machine.look(("sha", "/etc/hostname")).get("sha", "/etc/hostname") is not None and machine.asked == times
    machine.look()
    assert machine.asked == 0, "each has a note of its own"


def test_what_was_noted_long_ago_is_forgotten(machine: Machine) -> None:
    old = machine.note
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    machine.look(("sha", "/etc/hostname"))
    assert not old.exists() and machine.note.stat().st_size > 0


def test_a_note_of_last_week_is_not_believed(machine: Machine) -> None:
    text = machine.note.read_text()
    for days, asked in ((6, 0), (8, 2)):
        machine.note.write_text(re.sub(r"noted_at=\d+", f"noted_at={time.time() - days * 86400:.0f}", text))
        machine.look()
        assert machine.asked == asked


def test_verify_asks(machine: Machine) -> None:
    machine.look(verify=True)
    assert machine.asked == 2


def test_what_is_not_at_rest_is_not_noted(dash: Box) -> None:
    machine = Machine(dash)
    dash.rest = 3
    for _ in range(2):
        machine.look()
        assert machine.asked == 2


def test_what_is_written_to_meanwhile_is_not_noted(dash: Box) -> None:
    machine = Machine(dash)
    dash.command("dpkg-query", f"echo dpkg-query >>{dash.path}/asked; echo 'one ii '; echo more >>'{machine.other}'")
    for _ in range(2):
        machine.look()
        assert machine.asked == 2


@pytest.mark.parametrize("note", ["", "\n", "one\ntwo\n", "noted_state=''\n", "noted_records=x\n"])
def test_a_note_that_says_nothing_is_no_answer(dash: Box, note: str) -> None:
    machine = Machine(dash)
    machine.look()
    machine.note.write_text(note)
    assert machine.asked == 2
    assert machine.look().get("text", str(machine.other)) == ["other"] and machine.asked == 2
