"""How a run ended, for a CI: written whichever way it ends, and never instead of what really went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from clusterctl.cli import Interrupted
from clusterctl.cli.driver import as_stopped, limited
from clusterctl.errors import ClusterctlError, InputError, IntegrityError, Locked, Problems, Refused, Stopped, Unreachable
from clusterctl.views import junit
from clusterctl.views.junit import Failure, RunResult
from clusterctl.views.report import Report

STAGES = (("staging", 1.25), ("etcd", 2.0), ("staging", 0.5))
DONE = {"cp-1": {"create": 3, "restart": 1}, "w-1": {"update": 2}}
WELL = RunResult(operation="upgrade", seconds=4.5, stages=STAGES, done=DONE)
BAD = RunResult(operation="upgrade", seconds=4.5, stages=STAGES, failure=Failure("Stopped", "w-1: a < b & \"c\"\n  next: go on", 4, "run.step-failed"))


def test_json() -> None:
    assert json.loads(junit.as_json(WELL)) == {
        "operation": "upgrade", "ok": True, "exit_code": 0, "seconds": 4.5, "hosts": DONE,
        "stages": [{"stage": "staging", "seconds": 1.25}, {"stage": "etcd", "seconds": 2.0}, {"stage": "staging", "seconds": 0.5}]}
    found = json.loads(junit.as_json(BAD))
    assert (found["ok"], found["exit_code"], found["error"], found["message"]) == (False, 4, "Stopped", "w-1: a < b & \"c\"\n  next: go on")


def test_junit() -> None:
    suite = ElementTree.fromstring(junit.junit(WELL))
    cases = list(suite.iter("testcase"))
    assert suite.attrib == {"name": "clusterctl upgrade", "tests": "4", "failures": "0", "errors": "0", "time": "4.500"}
    assert [case.get("name") for case in cases] == ["staging", "etcd", "staging (2)", "the whole run"]
    assert [case.get("time") for case in cases] == ["1.250", "2.000", "0.500", "4.500"]
    assert not list(suite.iter("failure"))
    assert suite.findtext("system-out") == "cp-1: 3 create, 1 restart\nw-1: 2 update"


def test_junit_of_a_failure() -> None:
    suite = ElementTree.fromstring(junit.junit(BAD))
    assert suite.get("failures") == "1"
    [case] = [case for case in suite.iter("testcase") if case.find("failure") is not None]
    said = case.find("failure")
    assert case.get("name") == "the whole run" and said is not None
    assert (said.get("type"), said.get("message")) == ("Stopped", "exit code 4")
    assert said.text == "w-1: a < b & \"c\"\n  next: go on"


@pytest.mark.parametrize("text", ["\x1b[31mred\x1b[0m", "a\x00b", "\ud800", "\ufffe", "\x0b\x0c", "é€😀\ttab\nline"])
def test_whatever_a_machine_says_it_stays_xml(text: str) -> None:
    suite = ElementTree.fromstring(junit.junit(RunResult(operation="apply", seconds=1, failure=Failure("Stopped", text, 4, "run.step-failed"))))
    said = suite.findtext(".//failure")
    assert said is not None and len(said) == len(text)
    assert json.loads(junit.as_json(RunResult(operation="apply", seconds=1, failure=Failure("Stopped", text, 4, "run.step-failed"))))["message"] == text


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ends(path: Path | None, *raised: BaseException, timeout: int | None = None) -> dict[str, Any]:
    """What the summary says of a run that ends so."""
    report = Report()
    report.stages.append(("staging", 1.0))
    with limited(report, "upgrade", timeout, path):
        for error in raised:
            raise error
    return dict(json.loads(path.read_text())) if path else {}


def test_a_success(tmp_path: Path) -> None:
    found = ends(tmp_path / "s.json")
    assert (found["ok"], found["exit_code"], found["operation"], found["stages"]) == (True, 0, "upgrade", [{"stage": "staging", "seconds": 1.0}])
    assert (tmp_path / "s.json").stat().st_mode & 0o777 == 0o644
    assert ends(None) == {}


@pytest.mark.parametrize(("error", "kind", "code", "words"), [
    (Refused("no", where="w-1", hint="do this", code="host.clock"), "Refused", 3, "w-1: no [host.clock]\n  next: do this"),
    (Stopped("midway", code="run.step-failed"), "Stopped", 4, "midway [run.step-failed]"),
    (InputError("wrong", code="inventory.value"), "InputError", 2, "wrong [inventory.value]"),
    (Problems([Refused("one", where="a", code="host.clock"), Refused("two", where="b", code="host.clock")]), "Problems", 3, "a: one [host.clock]\nb: two [host.clock]"),
    (KeyError("x"), "KeyError", 1, "this is a bug: KeyError: 'x'"),
    (BrokenPipeError(32, "Broken pipe"), "BrokenPipeError", 141, "its output was closed"),
    (Interrupted(signal.SIGTERM), "Interrupted", 4, "interrupted; what a machine has begun it ends by itself"),
    (Interrupted(signal.SIGALRM), "Interrupted", 4, "the time that --timeout gave is over; what a machine has begun it ends by itself"),
    (KeyboardInterrupt(), "Interrupted", 4, "interrupted; what a machine has begun it ends by itself"),
])
def test_other_endings(tmp_path: Path, error: BaseException, kind: str, code: int, words: str) -> None:
    path = tmp_path / "s.json"
    with pytest.raises(type(error)):
        ends(path, error)
    found = json.loads(path.read_text())
    assert (found["ok"], found["error"], found["exit_code"], found["message"]) == (False, kind, code, words)


@pytest.mark.parametrize(("where", "words"), [
    ("nowhere/s.xml", "the folder for the summary does not exist"),
    ("folder.xml", "the summary cannot be written: Is a directory"),
    ("cluster.yaml", "a summary is a file that ends in .xml or .json"),
    ("summary", "a summary is a file that ends in"),
    ("file/s.xml", "the folder for the summary does not exist"),
    ("x" * 300 + "/s.xml", "the folder for the summary does not exist"),
])
def test_no_summary_can_be_written(tmp_path: Path, where: str, words: str) -> None:
    """Told before anything is done; what is there stays."""
    (tmp_path / "folder.xml").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "cluster.yaml").write_text("mine")
    with pytest.raises(InputError, match=words), limited(Report(), "upgrade", None, tmp_path / where):
        pytest.fail("the run has begun")
    assert (tmp_path / "cluster.yaml").read_text() == "mine"


def test_an_earlier_runs_summary_is_taken_away(tmp_path: Path) -> None:
    """Killed, a run must not seem to have ended as the one before it did."""
    path = tmp_path / "s.json"
    path.write_text("of the last run")
    with limited(Report(), "upgrade", None, path):
        assert list(tmp_path.iterdir()) == []


class Warned(Report):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize("error", [Refused("the reason", code="host.clock"), KeyError("the reason"), Interrupted()])
def test_the_place_goes_away_meanwhile(tmp_path: Path, error: BaseException) -> None:
    """Why the run ended is what is told, and not that it cannot be written down."""
    place = tmp_path / "reports"
    place.mkdir()
    report = Warned()
    with pytest.raises(type(error)), limited(report, "upgrade", None, place / "s.xml"):
        place.rmdir()
        place.write_text("a file now")
        raise error
    assert len(report.warnings) == 1 and "the summary cannot be written" in report.warnings[0]


def test_a_success_that_nobody_can_read_is_none(tmp_path: Path) -> None:
    place = tmp_path / "reports"
    place.mkdir()
    with pytest.raises(Stopped, match="the summary cannot be written") as error, limited(Warned(), "upgrade", None, place / "s.xml"):
        place.rmdir()
        place.write_text("a file now")
    assert error.value.exit_code == 4 and "what is done stays done" in error.value.hint


def test_the_time_is_over(tmp_path: Path) -> None:
    def ring(number: int, frame: object) -> None:
        raise Interrupted(number)

    signal.signal(signal.SIGALRM, ring)
    started = time.monotonic()
    with pytest.raises(Interrupted, match="--timeout"), limited(Report(), "apply", 1, tmp_path / "s.json"):
        time.sleep(10)
    assert 0.9 < time.monotonic() - started < 3
    assert "the time that --timeout gave is over" in json.loads((tmp_path / "s.json").read_text())["message"]
    with limited(Report(), "apply", 1, None):
        pass
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), "nothing rings after the end"


PROGRAM = """
import sys, time
import typer
from pathlib import Path
import clusterctl.cli as cli
from clusterctl.cli.driver import as_stopped, limited
from clusterctl.errors import Refused
from clusterctl.views.report import Report

def run(what: str, path: Path, timeout: int) -> None:
    with limited(Report(), "upgrade", timeout, path):
        try:
            print("begun", flush=True)
            if what == "bug":
                raise RuntimeError("oops")
            if what == "refuse":
                raise Refused("no", code="host.clock")
            if what == "talk":
                with as_stopped():
                    while True:
                        print("on and on", flush=True)
            if what in ("wait", "hang"):
                time.sleep(20)
        finally:
            if what == "hang":
                print("putting away", flush=True)
                time.sleep(20)

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(run)
cli._app = lambda words: typer.main.get_command(app)
cli.main()
"""


def start(*words: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CLUSTERCTL_DEBUG"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize(("what", "timeout", "code", "words"), [
    ("nothing", "9", 0, ""),
    ("refuse", "9", 3, "clusterctl: no [host.clock]"),
    ("bug", "9", 1, "this is a bug: RuntimeError: oops [internal.bug]"),
    ("wait", "1", 4, "clusterctl: the time that --timeout gave is over; what a machine has begun it ends by itself [run.interrupted]\n  next: "),
])
def test_exit_codes(tmp_path: Path, what: str, timeout: str, code: int, words: str) -> None:
    path = tmp_path / "s.json"
    with start(what, str(path), timeout) as process:
        said = process.communicate(timeout=15)[1]
    assert (process.returncode, json.loads(path.read_text())["exit_code"]) == (code, code)
    assert words in said and "Traceback" not in said


@pytest.mark.parametrize(("words", "code", "said"), [
    (("inventory", "-i", "inventories/ha.yaml"), 1, "cannot be written: No space left on device [internal.no-space]"),
    (("inventory", "-i", "inventories/ha.yaml", "-o", "json"), 1, "cannot be written: No space left on device [internal.no-space]"),
    (("inventory", "-i", "nowhere.yaml", "-o", "json"), 2, "nowhere.yaml: cannot be read: No such file or directory [inventory.unreadable]"),
    (("--help",), 1, "cannot be written: No space left on device [internal.no-space]"),
])
def test_nowhere_to_print_to(words: tuple[str, ...], code: int, said: str) -> None:
    """A full disk behind the output is no bug, and what went wrong is told all the same."""
    environment = {name: value for name, value in os.environ.items() if name != "CLUSTERCTL_DEBUG"}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "clusterctl", *words], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30,
                              check=False, env=environment, cwd=Path(__file__).parent.parent.parent)
    assert done.returncode == code and done.stderr.startswith(f"clusterctl: {said}\n  next: "), done.stderr


def test_nobody_reads_what_a_run_that_has_begun_prints(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    with start("talk", str(path), "60") as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert (process.returncode, json.loads(path.read_text())["exit_code"]) == (4, 4)
    assert said.startswith("clusterctl: its output: this side cannot go on: Broken pipe [run.local-error]\n  next: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt(tmp_path: Path, number: int) -> None:
    path = tmp_path / "s.xml"
    with start("wait", str(path), "60") as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(number)
        said = process.communicate(timeout=15)[1]
    assert process.returncode == 4 and said.startswith("clusterctl: interrupted; ")
    assert "interrupted; " in str(ElementTree.fromstring(path.read_bytes()).findtext(".//failure"))


def test_a_second_interrupt_waits_for_nothing(tmp_path: Path) -> None:
    with start("hang", str(tmp_path / "s.xml"), "60") as process:
        assert process.stdout is not None and process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "putting away\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=5)[1]
    assert (process.returncode, said) == (4, "")


@pytest.mark.parametrize(("error", "kind"), [
    (Refused("no", where="w-1", hint="do this", code="host.clock"), Stopped), (Unreachable("no", where="w-1", hint="do this", code="ssh.unreachable"), Stopped),
    (Locked("no", where="w-1", hint="do this", code="lock.held"), Stopped), (Problems([Refused("no", where="w-1", hint="do this", code="host.clock")]), Stopped),
    (Stopped("no", code="run.step-failed"), Stopped), (IntegrityError("no", code="artifact.mismatch"), IntegrityError), (KeyError("no"), KeyError),
    (BrokenPipeError(32, "Broken pipe"), Stopped), (OSError(28, "No space left on device", "/state/journal"), Stopped)])
def test_a_run_that_has_begun_is_stopped(error: Exception, kind: type[Exception]) -> None:
    """Codes 3, 5 and 6 promise that nothing was changed: a pipeline may run the same again."""
    with pytest.raises(kind) as found, as_stopped():
        raise error
    if isinstance(error, Refused):
        assert str(found.value) == "w-1: no [host.clock]\n  next: do this"
    if isinstance(error, OSError):
        assert f"this side cannot go on: {error.strerror} [run.local-error]\n  next: make room, or let its output be read" in str(found.value)


def test_problems_of_a_run_that_has_begun_keep_their_codes() -> None:
    with pytest.raises(Problems) as found, as_stopped():
        raise Problems([Refused("one", where="a", code="host.clock"), Unreachable("two", where="b", code="ssh.unreachable")])
    assert found.value.exit_code == 4
    assert [(type(one), one.code) for one in found.value.errors] == [(Stopped, "host.clock"), (Stopped, "ssh.unreachable")]


def test_every_error_has_an_exit_code_of_the_table() -> None:
    def all_of(kind: type[ClusterctlError]) -> set[int]:
        return {kind.exit_code}.union(*(all_of(one) for one in kind.__subclasses__()))

    assert all_of(ClusterctlError) == {1, 2, 3, 4, 5, 6, 7}
