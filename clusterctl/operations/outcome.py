"""How a run ended, in a file that a CI shows: JUnit's XML or JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from clusterctl.errors import InputError
from clusterctl.storage import write_whole


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run did not come to its end."""

    kind: str
    message: str
    exit_code: int


def write(path: Path, operation: str, stages: Sequence[tuple[str, float]], done: Mapping[str, Mapping[str, int]],
          failure: Failure | None) -> None:
    """Write it, whole or not at all. ``stages``: (name, seconds); ``done``: by host, how often each action. Raises InputError."""
    content = junit(operation, stages, done, failure) if path.suffix == ".xml" else as_json(operation, stages, done, failure)
    try:
        write_whole(path, content, mode=0o644)
    except OSError as error:
        raise InputError(f"the summary cannot be written: {error.strerror}", where=str(path)) from None


def as_json(operation: str, stages: Sequence[tuple[str, float]], done: Mapping[str, Mapping[str, int]],
            failure: Failure | None) -> bytes:
    content = {
        "operation": operation,
        "ok": failure is None,
        "exit_code": failure.exit_code if failure else 0,
        "stages": [{"stage": name, "seconds": round(seconds, 3)} for name, seconds in stages],
        "hosts": {name: dict(actions) for name, actions in done.items()},
        **({"error": failure.kind, "message": failure.message} if failure else {}),
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def junit(operation: str, stages: Sequence[tuple[str, float]], done: Mapping[str, Mapping[str, int]],
          failure: Failure | None) -> bytes:
    """One test case for each stage that was done, and one for the whole, which fails where the run did."""
    seconds = sum(taken for _, taken in stages)
    suite = ElementTree.Element("testsuite", name=f"clusterctl {operation}", tests=str(len(stages) + 1),
                                failures=str(int(failure is not None)), errors="0", time=f"{seconds:.3f}")
    for name, taken in stages:
        ElementTree.SubElement(suite, "testcase", classname=operation, name=name, time=f"{taken:.3f}")
    whole = ElementTree.SubElement(suite, "testcase", classname=operation, name="the whole run", time=f"{seconds:.3f}")
    if failure is not None:
        said = ElementTree.SubElement(whole, "failure", type=failure.kind, message=f"exit code {failure.exit_code}")
        said.text = failure.message
    lines = [f"{name}: " + ", ".join(f"{count} {action}" for action, count in actions.items()) for name, actions in done.items()]
    ElementTree.SubElement(suite, "system-out").text = "\n".join(lines)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
