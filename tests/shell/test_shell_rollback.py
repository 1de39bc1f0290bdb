"""What was there before a change that interrupts something, and the way back, also after a run that was killed."""

from __future__ import annotations

import base64

from shell_box import Box, Result

from clusterctl.shell import Call, Script, functions

UNIT = "tool.service true"


def run(box: Box, *steps: Call) -> Result:
    return box.run(Script(steps=steps, functions=functions("rollback")))


def prepare(box: Box) -> None:
    box.command("systemctl", f"echo \"$*\" >>{box.path}/calls")
    for name in ("one", "two"):
        (box.etc / name).write_text("before")
    (box.state / "stamps").mkdir()
    for unit in ("tool.service", "other.service"):
        (box.state / "stamps" / unit).write_text("before")


def test_a_unit_that_never_came_up_is_not_rolled_back(box: Box) -> None:
    """Nor is one whose stamp was taken by a run that failed: it came up once."""
    prepare(box)
    (box.state / "stamps/tool.service").unlink()
    result = run(box, ("save_previous", UNIT, f"{box.etc}/one"), ("eval", f"echo after >{box.etc}/one; die broken"))
    assert not [record for record in result.records if record[0] == "back"]
    assert (box.etc / "one").read_text() == "after\n"
    (box.state / "stamps/tool.service").write_text("before")
    run(box, ("forget_stamps", "tool.service"))
    result = run(box, ("save_previous", UNIT, f"{box.etc}/one"), ("eval", f"echo later >{box.etc}/one; die broken"))
    assert [record[1] for record in result.records if record[0] == "back"] == ["0"]
    assert (box.etc / "one").read_text() == "after\n"


def test_the_way_back(box: Box) -> None:
    prepare(box)
    (box.etc / "link").symlink_to("old")
    new = box.etc / "new"
    assert run(box, ("save_previous", UNIT, f"{box.etc}/one", f"{box.etc}/link", str(new))).failure is None
    (box.etc / "one").write_text("after")
    (box.etc / "link").unlink()
    (box.etc / "link").symlink_to("newer")
    new.write_text("after")
    assert run(box, ("roll_back", "5")).failure is None
    assert (box.etc / "one").read_text() == "before" and str((box.etc / "link").readlink()) == "old" and not new.exists()
    assert "restart --no-block -- tool.service" in (box.path / "calls").read_text()


def test_what_a_killed_run_kept_stays(box: Box) -> None:
    """The run after it sees half of what is new: that is not what ran before."""
    prepare(box)
    run(box, ("save_previous", UNIT, f"{box.etc}/one"))
    (box.etc / "one").write_text("after")
    run(box, ("save_previous", f"{UNIT}\nother.service true", f"{box.etc}/two", f"{box.etc}/one"))
    (box.etc / "two").write_text("after")
    assert run(box, ("roll_back", "5")).failure is None
    assert [(box.etc / name).read_text() for name in ("one", "two")] == ["before", "before"]
    calls = (box.path / "calls").read_text()
    assert calls.count("restart --no-block -- tool.service") == calls.count("restart --no-block -- other.service") == 1


def test_what_came_to_its_end_is_not_kept_for_ever(box: Box) -> None:
    prepare(box)
    run(box, ("save_previous", UNIT, f"{box.etc}/one"))
    (box.etc / "one").write_text("after")
    run(box, ("forget_previous",))
    run(box, ("save_previous", UNIT, f"{box.etc}/one"))
    (box.etc / "one").write_text("later")
    run(box, ("roll_back", "5"))
    assert (box.etc / "one").read_text() == "after"


def test_what_ran_to_its_end_unheard_is_not_kept_for_ever(box: Box) -> None:
    """The connection broke in the last wait: all units came up, and nobody was there to say so."""
    prepare(box)
    both = f"{UNIT}\nother.service true"
    run(box, ("save_previous", both, f"{box.etc}/one"))
    (box.etc / "one").write_text("after")
    stamps = box.state / "stamps"
    stamps.mkdir(exist_ok=True)
    (stamps / "tool.service").write_text("new")
    run(box, ("save_previous", "other.service true", f"{box.etc}/two"))
    (stamps / "other.service").write_text("new")
    (box.etc / "two").write_text("after")
    run(box, ("save_previous", both, f"{box.etc}/one"))
    (box.etc / "one").write_text("later")
    run(box, ("roll_back", "5"))
    assert [(box.etc / name).read_text() for name in ("one", "two")] == ["after", "after"]


def systemd(box: Box, process: str, restarts: str) -> None:
    """A unit that nothing can be asked of. ``process``, ``restarts``: sh that prints them; ``$asked``: how often its process was."""
    prepare(box)
    box.command("systemctl", f"""
case $* in *MainPID*) echo x >>{box.path}/asked ;; esac
asked=$(grep -c x {box.path}/asked 2>/dev/null)
case $* in
*MainPID*) {process} ;;
*NRestarts*) {restarts} ;;
is-failed*) exit 1 ;;
esac""")
    box.command("sleep", "exit 0")
    box.command("journalctl", "echo its last words")


def test_a_process_that_is_still_about_to_end_is_not_the_one_that_must_stay(box: Box) -> None:
    """systemd restarts in its own time: who is seen first may be the one before."""
    systemd(box, process='[ "$asked" = 1 ] && echo 17 || echo 18', restarts="echo 0")
    result = run(box, ("save_previous", "tool.service", f"{box.etc}/one"), ("eval", f"echo after >{box.etc}/one; die broken"))
    assert result.failure is not None and "broken" in result.failure.output
    assert ["back", "0", ""] in result.records and (box.etc / "one").read_text() == "before"


def test_a_program_that_falls_again_and_again_is_not_waited_for(box: Box) -> None:
    systemd(box, process='echo "$asked"', restarts='[ -n "$asked" ] && echo 3 || echo 0')
    result = run(box, ("save_previous", "tool.service", f"{box.etc}/one"), ("eval", "die broken"))
    [back] = [record for record in result.records if record[0] == "back"]
    assert back[1] == "1" and "does not stay up" in base64.b64decode(back[2]).decode()
