"""The command line at its edges: options that name nothing, questions that nobody answers, output that goes away."""

from __future__ import annotations

import os
import pty
import pwd
import signal
import subprocess
import sys
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer

from clusterctl import cli
from clusterctl.cli import Interrupted, driver, upgrade
from clusterctl.cli.options import PasswordOptions, verb
from clusterctl.errors import InputError, Refused, Stopped
from clusterctl.inventory import secrets
from clusterctl.views.report import Report

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "CLUSTERCTL_DEBUG"}


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """A command line of bash, with ``clusterctl`` in it."""
    command = command.replace("clusterctl", f"{sys.executable} -m clusterctl")
    return subprocess.run(["bash", "-c", command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("limit", ["", ",", ",,"])
def test_a_limit_that_names_nobody_is_not_all(limit: str) -> None:
    with pytest.raises(InputError, match="--limit: names no host"):
        PasswordOptions().gather(Path("cluster.yaml"), limit=limit)


def test_limits() -> None:
    assert PasswordOptions().gather(Path("cluster.yaml"), limit="a,,b").limit == ("a", "b")
    assert PasswordOptions().gather(Path("cluster.yaml")).limit == ()


@pytest.mark.parametrize("words", [
    "reset -i inventories/single.yaml --limit ''", "reset -i inventories/single.yaml --limit ,",
    "status -i inventories/single.yaml --state ''", "trust cp-1 -i inventories/single.yaml --state=",
    "kubeconfig -i inventories/single.yaml --state ''"])
def test_options_that_name_nothing(words: str) -> None:
    done = shell(f"clusterctl {words}")
    assert done.returncode == 2 and "names no" in done.stderr and "next: leave it out" in done.stderr, done.stderr


@pytest.mark.parametrize(("command", "code", "said"), [
    ("clusterctl schema | true; exit ${PIPESTATUS[0]}", 141, ""),
    ("clusterctl --help | true; exit ${PIPESTATUS[0]}", 141, ""),
    ("clusterctl inventory -i nofile -o json | true; exit ${PIPESTATUS[0]}", 2, "clusterctl: nofile: cannot be read"),
    ("clusterctl schema >&-", 0, ""),
    ("clusterctl inventory -i inventories/single.yaml <&- >&- 2>&-", 0, ""),
    ("clusterctl inventory -i nofile 2>/dev/full", 2, ""),
    ("clusterctl inventory -i nofile 2>&-", 2, ""),
])
def test_streams_that_are_gone(command: str, code: int, said: str) -> None:
    done = shell(command)
    assert done.returncode == code and done.stderr.startswith(said) and (said or not done.stderr), done.stderr


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    cli._furnish()
    assert os.environ["USER"] == str(os.getuid())


QUESTION = """
import typer
import clusterctl.cli as cli
from clusterctl.cli.prompts import confirm

def run() -> None:
    confirm(False)
    print("carried out")

app = typer.Typer(pretty_exceptions_enable=False)
app.command()(run)
cli._app = lambda words: typer.main.get_command(app)
cli.main()
"""


@pytest.mark.parametrize(("answer", "code", "said"), [
    ("y\n", 0, ""), (" YES \n", 0, ""), ("n\n", 3, "[cli.cancelled]"), ("\n", 3, "[cli.cancelled]"), ("perhaps\n", 3, "[cli.cancelled]"),
    ("\x04", 3, "[cli.cancelled]"), (signal.SIGINT, 3, "[cli.cancelled]"),
])
def test_a_question(answer: str | signal.Signals, code: int, said: str) -> None:
    keyboard, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", QUESTION], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None and process.stdout.read(len("Carry this out? [y/N]:")) == "Carry this out? [y/N]:"
            if isinstance(answer, str):
                os.write(keyboard, answer.encode())
            else:
                process.send_signal(answer)
            printed, errors = process.communicate(timeout=15)
        finally:
            process.kill()
    os.close(keyboard)
    os.close(terminal)
    assert process.returncode == code and said in errors and ("carried out" in printed) == (code == 0), errors
    assert "Aborted" not in errors and "to continue" not in errors


@pytest.mark.parametrize("stream", ["<&-", "</dev/null"])
def test_nobody_is_there_to_answer(stream: str) -> None:
    done = subprocess.run(["bash", "-c", f'{sys.executable} -c "$0" {stream}', QUESTION], env=ENVIRONMENT, capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 3 and "[cli.no-terminal]\n  next: say --yes" in done.stderr, done.stderr


@pytest.mark.parametrize("error", [Interrupted, EOFError])
def test_no_answer_at_the_password(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]) -> None:
    def asked(prompt: str) -> None:
        raise error

    monkeypatch.setattr(secrets.getpass, "getpass", asked)
    with pytest.raises(Refused) as caught:
        PasswordOptions(ask_sudo_password=True).gather(Path("cluster.yaml"))
    assert caught.value.code == "cli.cancelled"


class Deaf(Report):
    """Whoever it tells has gone."""

    def emit(self, event: str, **fields: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_summary_that_nobody_reads() -> None:
    opened: Any = SimpleNamespace(engine=SimpleNamespace(transports={}))
    with pytest.raises(Stopped, match="Broken pipe"):
        driver.summarise(Deaf(), opened, changed=True, next_steps=[])
    with pytest.raises(BrokenPipeError):
        driver.summarise(Deaf(), opened, changed=False, next_steps=[])


def test_what_is_left_of_a_reviewed_upgrade_that_nobody_reads() -> None:
    def run() -> None:
        raise Stopped("midway", code="run.step-failed")

    reviewed: Any = SimpleNamespace(path="plan.json")
    with pytest.raises(BrokenPipeError):
        upgrade._run(run, Deaf(), reviewed)


@dataclass(frozen=True, kw_only=True)
class Base:
    first: Annotated[str, typer.Option("--first")]
    shared: Annotated[int, typer.Option("--shared")] = 1


@dataclass(frozen=True, kw_only=True)
class Call(Base):
    more: Annotated[bool, typer.Option("--more")] = False
    limit: str | None = None
    """No option unless a verb declares it."""


@pytest.mark.parametrize(("words", "expected"), [
    (["--first", "a"], (Call(first="a"), "x", None)),
    (["--first", "a", "--shared", "2", "--more", "--own", "y"], (Call(first="a", shared=2, more=True), "y", None)),
    (["--first", "a", "--limit", "w-1"], (Call(first="a", limit="w-1"), "x", "w-1")),
])
def test_options_of_a_dataclass(words: list[str], expected: tuple[Call, str, str | None]) -> None:
    found: list[tuple[Call, str, str | None]] = []

    @verb
    def run(call: Call, own: Annotated[str, typer.Option()] = "x", limit: Annotated[str | None, typer.Option()] = None) -> None:
        found.append((call, own, limit))

    app = typer.Typer()
    app.command()(run)
    typer.main.get_command(app).main(words, standalone_mode=False)
    assert found == [expected]
    assert list(signature(run).parameters) == ["first", "own", "limit", "more", "shared"], "required ones first, inherited ones last"
