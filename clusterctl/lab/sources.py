"""Where the Debian packages of the lab come from: whatever this host's own apt is configured to use."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from clusterctl.errors import Refused

RELEASES = ("bookworm", "trixie", "bullseye")
"""Debian 12, which is the default, 13 and 11."""
DNF = "dnf"
"""Debian 12 under another name, with dnf in place of apt."""
BASES = (*RELEASES, DNF)
_SUITE = re.compile(rf"\b({'|'.join(RELEASES)})(-updates|-security)?")
OVERRIDE = "CLUSTERCTL_LAB_SOURCES"


def write_sources(directory: Path, release: str = RELEASES[0], etc: Path = Path("/etc/apt"),
                  env: Mapping[str, str] = os.environ) -> list[Path]:
    """Write files with those of this host's apt sources that hold Debian into ``directory``, for ``release``, and return them.

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
            (directory / name).write_text(_SUITE.sub(rf"{release}\2", glue.join(parts)) + "\n")
            written.append(directory / name)
    if not written:
        raise Refused("this host's apt has no source for Debian", where=str(etc), code="lab.no-sources",
                      hint=f"name a sources.list that has one in the variable {OVERRIDE}")
    return written


def _is_debian_stanza(stanza: str) -> bool:
    fields: dict[str, list[str]] = {}
    for line in stanza.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.startswith(("#", " ")):
            fields[key.lower()] = value.split()
    suites = set(fields.get("suites", []))
    of_debian = bool(suites) and all(map(_SUITE.fullmatch, suites))
    return of_debian and "deb" in fields.get("types", []) and "main" in fields.get("components", [])


def _is_debian_line(line: str) -> bool:
    if "]" in line:
        line = "deb " + line.partition("]")[2] if line.startswith("deb ") else line
    words = line.split()
    return len(words) >= 4 and words[0] == "deb" and _SUITE.fullmatch(words[2]) is not None and "main" in words[3:]
