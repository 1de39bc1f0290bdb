"""Where the Debian packages of the lab come from: whatever this host's own apt is configured to use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from clusterctl.errors import Refused

RELEASE = "bookworm"
SUITES = {RELEASE, f"{RELEASE}-updates", f"{RELEASE}-security"}
OVERRIDE = "CLUSTERCTL_LAB_SOURCES"


def write_sources(directory: Path, etc: Path = Path("/etc/apt"), env: Mapping[str, str] = os.environ) -> list[Path]:
    """Write files with those of this host's apt sources that hold Debian 12 into ``directory`` and return them.

    The variable ``CLUSTERCTL_LAB_SOURCES`` names a file (``.list`` or ``.sources``) to use instead. Raises
    :class:`Refused` if there is no source at all.
    """
    if env.get(OVERRIDE):
        return [Path(env[OVERRIDE])]
    stanzas = [stanza for file in sorted((etc / "sources.list.d").glob("*.sources"))
               for stanza in file.read_text().split("\n\n") if _is_debian_stanza(stanza)]
    lines = [line for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))] if file.is_file()
             for line in file.read_text().splitlines() if _is_debian_line(line)]
    written = []
    for name, parts, glue in (("lab.sources", stanzas, "\n\n"), ("lab.list", lines, "\n")):
        if parts:
            (directory / name).write_text(glue.join(parts) + "\n")
            written.append(directory / name)
    if not written:
        raise Refused(f"this host's apt has no source for Debian {RELEASE}", where=str(etc),
                      hint=f"name a sources.list that has one in the variable {OVERRIDE}", code="lab.no-apt-source")
    return written


def _is_debian_stanza(stanza: str) -> bool:
    fields: dict[str, list[str]] = {}
    for line in stanza.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith(("#", " ")):
            fields[key.lower()] = value.split()
    suites = set(fields.get("suites", []))
    return "deb" in fields.get("types", []) and "main" in fields.get("components", []) and bool(suites) and suites <= SUITES


def _is_debian_line(line: str) -> bool:
    if "]" in line:
        line = "deb " + line.partition("]")[2] if line.startswith("deb ") else line
    words = line.split()
    return len(words) >= 4 and words[0] == "deb" and words[2] in SUITES and "main" in words[3:]
