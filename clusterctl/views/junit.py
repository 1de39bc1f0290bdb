"""How a run ended, in a file that a CI shows: JUnit's XML or JSON."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from clusterctl.errors import InputError, Stopped
from clusterctl.local.storage import write_whole

FORMATS = (".xml", ".json")
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML forbids even as references; lines of a machine's journal may have them."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run did not come to its end."""

    kind: str
    message: str
    exit_code: int
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How a run went. ``seconds``: the whole of it; ``stages``: (name, seconds); ``done``: by host, how often each action."""

    operation: str
    seconds: float
    stages: Sequence[tuple[str, float]] = ()
    done: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    failure: Failure | None = None


def prepare(path: Path) -> None:
    """Take away what an earlier run left, which would tell of that one. Raises InputError where no summary could be written."""
    if path.suffix not in FORMATS:
        raise InputError(f"a summary is a file that ends in {' or '.join(FORMATS)}", where=str(path), code="summary.format",
                         hint="summary.xml is JUnit")
    if not os.path.isdir(path.parent):
        raise InputError("the folder for the summary does not exist", where=str(path), code="summary.no-folder",
                         hint=f"mkdir -p {path.parent}")
    try:
        write_whole(path, b"", mode=0o644)
        path.unlink()
    except OSError as error:
        raise InputError(f"the summary cannot be written: {error.strerror}", where=str(path), code="summary.unwritable") from None


def write(path: Path, ending: RunResult) -> None:
    """Write it, whole or not at all. Raises Stopped."""
    try:
        write_whole(path, junit(ending) if path.suffix == ".xml" else as_json(ending), mode=0o644)
    except OSError as error:
        raise Stopped(f"the summary cannot be written: {error.strerror}", where=str(path),
                      hint="run the same command again: what is done stays done", code="summary.not-written") from None


def as_json(ending: RunResult) -> bytes:
    failure = ending.failure
    content = {
        "operation": ending.operation,
        "ok": failure is None,
        "exit_code": failure.exit_code if failure else 0,
        "seconds": round(ending.seconds, 3),
        "stages": [{"stage": name, "seconds": round(seconds, 3)} for name, seconds in ending.stages],
        "hosts": {name: dict(actions) for name, actions in ending.done.items()},
        **({"error": failure.kind, "code": failure.code, "message": failure.message} if failure else {}),
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def junit(ending: RunResult) -> bytes:
    """One test case for each stage that was done, and one for the whole, which fails where the run did."""
    failure, operation = ending.failure, ending.operation
    suite = ElementTree.Element("testsuite", name=f"clusterctl {operation}", tests=str(len(ending.stages) + 1),
                                failures=str(int(failure is not None)), errors="0", time=f"{ending.seconds:.3f}")
    seen: Counter[str] = Counter()
    for name, taken in ending.stages:
        seen[name] += 1
        # A CI takes two of one name for one.
        unique = name if seen[name] == 1 else f"{name} ({seen[name]})"
        ElementTree.SubElement(suite, "testcase", classname=operation, name=unique, time=f"{taken:.3f}")
    whole = ElementTree.SubElement(suite, "testcase", classname=operation, name="the whole run", time=f"{ending.seconds:.3f}")
    if failure is not None:
        said = ElementTree.SubElement(whole, "failure", type=failure.kind, message=f"exit code {failure.exit_code}")
        said.text = NOT_XML.sub("\ufffd", failure.message)
    lines = [f"{name}: " + ", ".join(f"{count} {action}" for action, count in actions.items())
             for name, actions in ending.done.items()]
    ElementTree.SubElement(suite, "system-out").text = "\n".join(lines)
    return bytes(ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
