"""Help fits a terminal and names the values of options; usage errors name the option and the value it requires."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from clusterctl import cli


def run(*words: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "clusterctl", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                          env={**os.environ, "COLUMNS": str(columns)}, timeout=60, check=False)


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


def test_summaries_of_commands_are_whole_sentences() -> None:
    for path, command in commands(cli._app()):
        names = getattr(command, "commands", {})
        limit = 80 - 2 - 6 - max(map(len, names), default=0)
        for name, inner in names.items():
            assert not inner.get_short_help_str(limit).endswith("..."), (*path, name)


def test_values_have_placeholders_and_not_types() -> None:
    for path, command in commands(cli._app()):
        for param in command.params:
            shown = f"{param.metavar or ''}{param.display_type_rich(None) or ''}" if hasattr(param, "display_type_rich") else ""
            assert "<" not in shown or getattr(param, "is_flag", False), (path, param.name, shown)


@pytest.mark.parametrize(("words", "usage"), [
    ("exec", "[OPTIONS] HOSTS -- CMD"), ("node drain", "[OPTIONS] NAME..."), ("node replace", "[OPTIONS] OLD [NEW]"),
    ("upgrade apply", "[OPTIONS] [FILE]"), ("trust", "[OPTIONS] [HOST]"), ("image load", "[OPTIONS] FILE"),
    ("lab shell", "[OPTIONS] MACHINE [COMMAND]..."), ("completion", "[OPTIONS] SHELL"),
])
def test_usage_lines(words: str, usage: str) -> None:
    assert run(*words.split(), "--help").stdout.splitlines()[0].endswith(f"{words} {usage}")


def test_help_takes_the_width_of_the_terminal() -> None:
    widths = [max(map(len, run("apply", "--help", columns=columns).stdout.splitlines())) for columns in (60, 80, 150)]
    assert widths[0] <= 60 < widths[1] <= 80 < widths[2] <= 150


@pytest.mark.parametrize(("words", "expected"), [
    ("plan -o yaml -i x", "'yaml' is not one of 'text', 'json'"), ("plan", "--inventory"), ("plan -i x --none", "No such option"), ("none", "none"),
])
def test_wrong_usage(words: str, expected: str) -> None:
    done = run(*words.split())
    assert done.returncode == 2 and expected in done.stderr and "Value error" not in done.stderr, done.stderr


def test_exit_codes_of_help_and_version() -> None:
    assert [run(word).returncode for word in ("--help", "--version", "version")] == [0, 0, 0]
