"""shellcheck has nothing to say about the functions, nor about a program that calls all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from shell_box import SHELLS

from clusterctl import facts
from clusterctl.shell import PRELUDE, Program, functions, prelude

ADDED = sorted({path.stem for path in (Path(facts.__file__).parent / "shell").glob("*.sh")} - set(PRELUDE))


def shellcheck(text: str) -> str:
    if shutil.which("shellcheck") is None:
        pytest.fail("shellcheck is missing: apt-get install shellcheck")
    # 2317, 2329: not all functions are called by every program.
    found = subprocess.run(["shellcheck", "-s", "sh", "-e", "SC2317,SC2329", "-"], input=text, capture_output=True, text=True, timeout=60)
    return found.stdout + found.stderr


@pytest.mark.parametrize("name", ADDED)
def test_functions_of_some_programs(name: str) -> None:
    assert shellcheck(functions(name)) == ""


def test_a_program_with_everything() -> None:
    functions = re.findall(r"^(\w+)\(\) \{", prelude(), re.MULTILINE)
    observing = [name.removeprefix("observe_") for name in functions if name.startswith("observe_")]
    doing = [name for name in functions if name.startswith(("put_", "remove_", "stop_", "forget_"))]
    assert len(observing) > 8 and len(doing) > 8
    program = Program(probes=[(name, "a 'b'; c") for name in observing] + [("facts", "all")], verify=True, functions=facts.probe_program().functions,
                      steps=[(name, "one", "two 'three'", "; four", "5", "six") for name in doing])
    # A directive belongs in front of the first command alone.
    assert shellcheck(re.sub(r"# shellcheck shell=sh.*\n", "", program.text)) == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_it(shell: str) -> None:
    text = Program(functions="\n".join(functions(name) for name in ADDED)).text
    found = subprocess.run([*SHELLS[shell], "-n"], input=text, capture_output=True, text=True, timeout=10)
    assert (found.returncode, found.stderr) == (0, "")
