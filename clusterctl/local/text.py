"""Texts for people: what came from machines made safe for terminals, and many hosts named shortly."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return the text with control characters (C0 but tab and newline, DEL, C1) escaped as ``\\x1b``.

    A terminal would obey them: OSC 52 writes the clipboard, CSI 2K hides a line.
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def shown_hosts(names: Sequence[str]) -> str:
    """Return the names of hosts, of many the first, the last and their number."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]}..{names[-1]} ({len(names)} hosts)"
