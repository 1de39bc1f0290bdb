"""Each code that clusterctl raises is in the table with the exit code of its class, and the table has no other codes."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import pytest

from clusterctl.cli import words
from clusterctl.engine.engine import STEP_CODES, step_failed
from clusterctl.errors import AccessRefused, ClusterctlError, InputError, Refused, Stopped, Unreachable
from clusterctl.errors.codes import markdown, table

PACKAGE = Path(__file__).parent.parent.parent / "clusterctl"

POSITIONS = {"_refused": (1, Refused.exit_code), "Finding": (0, Refused.exit_code), "PydanticCustomError": (0, InputError.exit_code),
             "RuleViolation": (3, InputError.exit_code), "_once": (1, InputError.exit_code), "_bad_certificate": (0, AccessRefused.exit_code)}
"""Functions that take a code by position: where, and the exit code of the error that they lead to."""

NAMED = {"run.interrupted": Stopped.exit_code, "etcd.not-added": Stopped.exit_code,
         "etcd.member-exists": Stopped.exit_code, "cli.usage": InputError.exit_code, "host.unreachable": Refused.exit_code,
         "host.foreign-runtime": Refused.exit_code, "internal.bug": 1, "internal.no-space": 1, "internal.output-closed": 141,
         **dict.fromkeys(("download.unreachable", "download.refused", "download.server-error", "download.not-trusted", "download.no-tls",
                          "download.proxy-login"), Unreachable.exit_code)}
"""Codes of constants and of errors that are not ClusterctlError, and their exit codes."""


def exit_codes() -> dict[str, int]:
    for module in ("artifacts.download", "lab.host"):
        import_module(f"clusterctl.{module}")

    def below(kind: type[ClusterctlError]) -> Iterator[type[ClusterctlError]]:
        yield kind
        for one in kind.__subclasses__():
            yield from below(one)

    return {kind.__name__: kind.exit_code for kind in below(ClusterctlError)} | {"refuse": InputError.exit_code, "or_stopped": Stopped.exit_code}


def is_passed_on(value: ast.expr) -> bool:
    """Return whether a code is that of another error or an argument, whose own origin is looked at."""
    return isinstance(value, ast.Attribute) and value.attr in ("code", "UNREACHABLE") or isinstance(value, ast.Name)


def given(value: ast.expr) -> Iterator[str]:
    """Yield the codes that an expression may have."""
    if isinstance(value, ast.IfExp):
        yield from (*given(value.body), *given(value.orelse))
    elif isinstance(value, ast.BoolOp):
        yield from (code for one in value.values for code in given(one))
    elif isinstance(value, ast.Constant):
        yield from [str(value.value)] if value.value else ()
    else:
        assert is_passed_on(value), f"line {value.lineno}: a code that cannot be read here: {ast.unparse(value)}"


def raised() -> dict[str, set[int]]:
    """Return the exit codes of each code."""
    found: dict[str, set[int]] = defaultdict(set)
    exits, texts = exit_codes(), set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                texts.add(node.value)
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
            at, code = POSITIONS.get(name, (0, exits.get(name, 0)))
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code" and name in {**exits, **POSITIONS}]
            for value in (*values, *(node.args[at:at + 1] if name in POSITIONS else ())):
                for text in given(value):
                    found[text].add(code)
    assert set(NAMED) <= texts
    for text, code in NAMED.items():
        found[text].add(code)
    return found


def test_each_code_has_one_exit_code_and_is_in_the_table() -> None:
    found = raised()
    assert not {code: exits for code, exits in found.items() if len(exits) > 1}, "one code, one exit code"
    assert {code: min(exits) for code, exits in found.items()} == {code: entry.exit_code for code, entry in table().items()}


def test_a_step_names_its_code() -> None:
    scripts = "".join(path.read_text() for path in (PACKAGE / "shell").glob("*.sh"))
    assert set(re.findall(r'die "([a-z-]+\.[a-z-]+): ', scripts)) == set(STEP_CODES)
    found = step_failed("warning\netcd.not-added: no learner was added", "w-1")
    assert found.code == "etcd.not-added" and found.code not in found.message
    assert step_failed("oops", "w-1").code == "run.step-failed"


def test_entries_are_sentences_in_order() -> None:
    assert list(table()) == sorted(table())
    for entry in table().values():
        assert re.fullmatch(r"[a-z][a-z-]*\.[a-z0-9-]+", entry.code) and len(entry.code) <= 40
        for text in (entry.cause, entry.remedy):
            assert text.endswith(".") and len(text) <= 160 and not {"|", "\n"} & set(text), entry


def test_the_page_is_made_from_the_table() -> None:
    assert (PACKAGE.parent / "docs" / "errors.md").read_text() == markdown(), "make docs-pages"


def explain(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "clusterctl", "explain", *words], capture_output=True, text=True, timeout=60, check=False)


def test_explain_prints_an_entry_or_all() -> None:
    entry = table()["etcd.no-quorum"]
    done = explain(entry.code)
    assert done.returncode == 0 and {entry.cause, entry.remedy} <= {line.partition(": ")[2].strip() for line in done.stdout.splitlines()}
    assert json.loads(explain(entry.code, "-o", "json").stdout) == asdict(entry)
    assert [line.split()[:2] for line in explain().stdout.splitlines()] == [[code, str(one.exit_code)] for code, one in table().items()]
    assert len(json.loads(explain("-o", "json").stdout)["codes"]) == len(table())


def test_explain_refuses_an_unknown_code() -> None:
    done = explain("etcd.no-quorm")
    assert done.returncode == 2 and "did you mean 'etcd.no-quorum'" in done.stderr and "[cli.unknown-code]" in done.stderr
    event = json.loads(explain("nope", "-o", "json").stdout)
    assert (event["code"], event["exit_code"]) == ("cli.unknown-code", 2)


def test_codes_are_completed() -> None:
    assert words.error_codes("etcd.no-q") == ["etcd.no-quorum"]


@pytest.mark.parametrize(("line", "code"), [("plan -o json", "MissingParameter"), ("plan -o json --nope", "NoSuchOption")])
def test_wrong_usage_has_a_code(line: str, code: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "CLUSTERCTL_INVENTORY"}
    done = subprocess.run([sys.executable, "-m", "clusterctl", *line.split()], capture_output=True, text=True, timeout=60, check=False,
                          env=environment)
    event = json.loads(done.stdout)
    assert (done.returncode, event["error"], event["code"], event["exit_code"]) == (2, code, "cli.usage", 2)
    assert done.stderr.endswith(" [cli.usage]\n")
