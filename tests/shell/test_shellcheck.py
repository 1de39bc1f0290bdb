"""shellcheck has nothing to say about the functions, nor about a program that calls all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from shell_box import SHELLS

from clusterctl.components.products import FOOTPRINT
from clusterctl.shell import LOOKS, PRELUDE, UNDOING, Script, facts, functions

ADDED = sorted({path.stem for path in Path(facts.__file__).parent.glob("*.sh")} - {*PRELUDE, *UNDOING})
"""The files of functions that only some programs have."""


LISTS = "SC2317,SC2329,SC2086,SC2034"
"""2086: the footprint's lists are words on purpose; 2034: not every program uses all of them."""


def shellcheck(text: str, but: str = "SC2317,SC2329") -> str:
    if shutil.which("shellcheck") is None:
        pytest.fail("shellcheck is missing: apt-get install shellcheck")
    # 2317, 2329: not all functions are called by every program.
    found = subprocess.run(["shellcheck", "-s", "sh", "-e", but, "-"], input=text, capture_output=True, text=True, timeout=60)
    return found.stdout + found.stderr


@pytest.mark.parametrize("name", ADDED)
def test_functions_of_some_programs(name: str) -> None:
    assert shellcheck(functions(name)) == ""


def program_with(names: list[str]) -> Script:
    observing = [name.removeprefix("observe_") for name in names if name.startswith("observe_")]
    doing = [name for name in names if name.startswith(("put_", "remove_", "stop_", "forget_", "record_", "undo_", "return_"))]
    assert len(observing) > 1 and len(doing) > 8
    return Script(probes=[(name, "a 'b'; c") for name in observing] + [("facts", "all")], verify=True, footprint=FOOTPRINT, functions=facts.probe_program(footprint=FOOTPRINT).functions,
                  steps=[(name, "one", "two 'three'", "; four", "5", "six") for name in doing])


def without_directives(program: Script) -> str:
    """A directive belongs in front of the first command alone."""
    return re.sub(r"# shellcheck shell=sh.*\n", "", program.text)


def names_of(text: str) -> list[str]:
    return re.findall(r"^(\w+)\(\) \{", text, re.MULTILINE)


def test_a_program_with_everything() -> None:
    assert shellcheck(without_directives(program_with(names_of(functions(*PRELUDE)))), LISTS) == ""


@pytest.mark.parametrize("but", ["", "etcd_role"])
def test_a_program_that_only_looks_needs_no_function_that_it_does_not_bring(but: str) -> None:
    program = Script(probes=[(name, "x") for name in sorted(LOOKS - {but})], functions=facts.probe_program(footprint=FOOTPRINT).functions)
    absent = set(names_of(functions(*PRELUDE))) - set(names_of(program.text))
    assert "put_file" in absent and ("http_get" in absent) == (but == "etcd_role")
    assert absent.isdisjoint(re.findall(r"\w+", re.sub(r"#.*", "", program.text)))


def test_a_program_that_undoes() -> None:
    assert shellcheck(without_directives(program_with(names_of(functions(*UNDOING)))), LISTS) == ""


def test_no_name_is_taken_twice() -> None:
    """Files of functions are put together in many ways: of two functions of one name all would call the later one."""
    counted = Counter([*names_of(functions(*PRELUDE, *UNDOING, *ADDED)), "look"])
    assert {name for name, count in counted.items() if count > 1} == set()


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_can_read_it(shell: str) -> None:
    text = Script(functions=functions(*ADDED), probes=(("remains", ""),)).text
    found = subprocess.run([*SHELLS[shell], "-n"], input=text, capture_output=True, text=True, timeout=10)
    assert (found.returncode, found.stderr) == (0, "")
