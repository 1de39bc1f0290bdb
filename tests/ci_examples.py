"""The shell commands of docs/ci, read out of the files that people copy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import yaml

FOLDER = Path(__file__).parent.parent / "docs" / "ci"
GITLAB, GITHUB, JENKINS = (FOLDER / name for name in ("gitlab-ci.yml", "github-actions.yml", "Jenkinsfile"))
STEP = re.compile(r"\bsh (?:'''(?P<many>.*?)'''|'(?P<one>[^'\n]*)')", re.DOTALL)


def document(path: Path) -> dict[Any, Any]:
    """A YAML file as data."""
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict), path
    return content


def gitlab_jobs() -> dict[str, dict[str, list[str]]]:
    """By job: ``before_script``, ``script`` and ``after_script``, the defaults filled in."""
    content = document(GITLAB)
    return {name: {**content["default"], **job} for name, job in content.items() if isinstance(job, dict) and "script" in job}


def gitlab_script(job: str) -> str:
    """What a runner gives to the shell: the lines before and of the script, as one."""
    found = gitlab_jobs()[job]
    return "\n".join([*found["before_script"], *found["script"]])


def github_steps() -> Iterator[str]:
    for job in document(GITHUB)["jobs"].values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


def jenkins_steps() -> Iterator[str]:
    for found in STEP.finditer(JENKINS.read_text()):
        yield dedent(found["many"]) if found["many"] is not None else found["one"]


def scripts() -> dict[str, str]:
    """Every piece of shell of all examples, by a name for it."""
    gitlab = {f"gitlab {name} {part}": "\n".join(job[part]) for name, job in gitlab_jobs().items()
              for part in ("before_script", "script", "after_script")}
    github = {f"github {number}": text for number, text in enumerate(github_steps())}
    return gitlab | github | {f"jenkins {number}": text for number, text in enumerate(jenkins_steps())}


def calls(text: str) -> list[str]:
    """The lines of a piece of shell that call clusterctl."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith("clusterctl ")]
