"""The examples for CIs are what they seem: YAML, shell without faults, options that exist, secrets that are nowhere else."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import ci_examples
import pytest

from clusterctl import cli

SCRIPTS = ci_examples.scripts()
CALLS = sorted({line for text in SCRIPTS.values() for line in ci_examples.calls(text)})
DOCS = sorted((ci_examples.FOLDER.parent).glob("*.md")) + [ci_examples.FOLDER.parent.parent / "README.md"]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The verb and what its options came to. Fails as the command line does for one that does not exist."""
    command: Any = cli._app()
    name = words[0]
    words = words[1:]
    while hasattr(command, "commands"):
        if command.invoke_without_command and words and words[0] not in command.commands and name != "clusterctl":
            break
        assert words and words[0] in command.commands, f"{name}: no verb {words[:1]}"
        name, command, words = f"{name} {words[0]}", command.commands[words[0]], words[1:]
    context = command.make_context(name, list(words), resilient_parsing=False)
    return name.removeprefix("clusterctl "), dict(context.params)


@pytest.mark.parametrize("line", CALLS)
def test_every_call_is_one_of_the_command_line(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_INVENTORY", "cluster.yaml")
    name, values = parsed(shlex.split(line.replace("$KUBERNETES", "1.37.2")))
    assert [str(path) for path in values["inventory"]] == ["cluster.yaml"]
    if name == "upgrade apply":
        assert (str(values["file"]), values["yes"], values["timeout"], str(values["summary"])) == ("plan.json", True, 3600, "upgrade.xml")
    if name == "upgrade plan":
        assert (values["to"], str(values["out"]), str(values["output"])) == ("1.37.2", "plan.json", "json")


def test_a_call_that_is_none_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_INVENTORY", "cluster.yaml")
    for line in ("clusterctl upgrade plan --nope", "clusterctl upgrade apply --timeout x", "clusterctl upgrade apply a b"):
        with pytest.raises(Exception, match=r"(?i)no such option|valid integer|unexpected extra"):
            parsed(shlex.split(line))
    with pytest.raises(AssertionError, match="no verb"):
        parsed(["clusterctl", "upgrade", "nope"])


@pytest.mark.parametrize("path", [ci_examples.GITLAB, ci_examples.GITHUB, ci_examples.JENKINS], ids=lambda path: path.name)
def test_each_example_does_all_of_it(path: Path) -> None:
    own = "\n".join(text for name, text in SCRIPTS.items() if name.split()[0] in path.name.lower())
    verbs = [" ".join(line.split()[1:3]) for line in ci_examples.calls(own)]
    assert verbs == ["upgrade plan", "upgrade apply", "status"]
    assert path.read_text().count("\n") < 80, "a few lines"
    # What was unpacked goes again, and the snapshot does not get lost with it.
    assert "rm -rf .clusterctl deploy_key" in own and 'cp -R .clusterctl "$BACKUP"' in own and "umask 077" in own


def test_no_call_is_overlooked() -> None:
    """Each line of the files that calls the tool is one that was checked."""
    for path in (ci_examples.GITLAB, ci_examples.GITHUB, ci_examples.JENKINS):
        found = re.findall(r"\bclusterctl (?:upgrade|status|apply|os-update)[^'\n]*", path.read_text())
        assert {line.strip() for line in found} <= set(CALLS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.fail("shellcheck is missing: apt-get install shellcheck")
    found = subprocess.run(["shellcheck", "-s", "sh", "-"], input=SCRIPTS[name], capture_output=True, text=True, timeout=60)
    assert found.stdout + found.stderr == ""


def test_github_shows_secrets_to_steps_that_need_them() -> None:
    content = ci_examples.document(ci_examples.GITHUB)
    # YAML 1.1 takes the key "on" for true.
    assert set(content[True]) == {"workflow_dispatch"} and content["permissions"] == {"contents": "read"}
    assert content["jobs"]["apply"]["environment"] == "production" and content["jobs"]["apply"]["needs"] == "plan"
    for text in ci_examples.github_steps():
        assert "${{" not in text, "what somebody typed becomes shell"


def test_gitlab_jobs_wait_for_a_review() -> None:
    jobs = ci_examples.gitlab_jobs()
    assert (jobs["apply"]["when"], jobs["apply"]["retry"]["exit_codes"]) == ("manual", [5, 6])  # type: ignore[call-overload]
    assert jobs["plan"]["artifacts"] == {"paths": ["plan.json"]}


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_calls_in_the_manual(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of the manual's blocks of code that call the tool: their options exist."""
    monkeypatch.setenv("CLUSTERCTL_INVENTORY", "cluster.yaml")
    blocks = re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    for line in "".join(blocks).splitlines():
        if line.startswith("clusterctl "):
            words = shlex.split(line, comments=True)
            parsed(words)
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), f"{path.name} links to {link}"
