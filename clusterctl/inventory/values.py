"""From a node to a value of the wanted type; None where it does not fit, which is then among the findings."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket

from clusterctl.inventory.document import VAULT_HINT, Node, quoted
from clusterctl.inventory.findings import Diagnostics, did_you_mean

_TEMPLATE = re.compile(r"\{\{|\{%|\{#")
_WORDS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}
_DOTTED = re.compile(r"[0-9.]+")
TEMPLATE_HINT = "clusterctl takes values as they are and does not render templates; write the value itself"


def is_template(text: str) -> bool:
    return bool(_TEMPLATE.search(text))


def refuse_sealed(node: Node, findings: Diagnostics) -> None:
    findings.refuse(node.place, f"{node.path}: is encrypted with ansible-vault, and its value is needed", VAULT_HINT,
                    code="inventory.vaulted")


def text(node: Node, findings: Diagnostics) -> str | None:
    """One line of text that YAML cannot take for anything else."""
    if node.sealed:
        refuse_sealed(node, findings)
        return None
    if isinstance(node.value, dict | list) or node.value is None:
        findings.refuse(node.place, f"{node.path}: text is wanted, not {node.kind}")
        return None
    if node.odd or not isinstance(node.value, str):
        findings.refuse(node.place, f"{node.path}: text is wanted, but {node.shown} is read as {node.kind}",
                        f"quote it: {quoted(node)}")
        return None
    if is_template(node.value):
        findings.refuse(node.place, f"{node.path}: {node.shown} is a template", TEMPLATE_HINT)
        return None
    if not node.value.isprintable():
        findings.refuse(node.place, f"{node.path}: one line of printable text is wanted")
        return None
    return node.value


def label(node: Node, findings: Diagnostics) -> str | None:
    """Return the text of a label's value; of true, false and whole numbers, which kubespray takes, the text as written."""
    if not node.odd and (node.written in ("true", "false") or type(node.value) is int) and not isinstance(node.value, str):
        return node.written
    return text(node, findings)


def integer(node: Node, findings: Diagnostics, least: int, most: int) -> int | None:
    """A whole number; Ansible's users also write it in quotes."""
    value = node.value
    if isinstance(value, str) and not node.odd and re.fullmatch(r"[1-9][0-9]{0,8}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        findings.refuse(node.place, f"{node.path}: a number from {least} to {most} is wanted, not {node.shown}")
        return None
    return value


def flag(node: Node, findings: Diagnostics) -> bool | None:
    """True or false, also as the words that Ansible accepts."""
    if isinstance(node.value, bool):
        return node.value
    word = str(node.value).lower()
    if not isinstance(node.value, str | int) or word not in _WORDS:
        findings.refuse(node.place, f"{node.path}: true or false is wanted, not {node.shown}")
        return None
    return _WORDS[word]


def one_of(node: Node, findings: Diagnostics, *wanted: str) -> str | None:
    value = text(node, findings)
    if value is None or value in wanted:
        return value
    findings.refuse(node.place, f"{node.path}: {node.shown} is not supported, only {' or '.join(wanted)}"
                    f"{did_you_mean(value, wanted)}")
    return None


def address(node: Node, findings: Diagnostics) -> ipaddress.IPv4Address | None:
    value = text(node, findings)
    if value is None:
        return None
    found = as_address(value)
    if found is None:
        findings.refuse(node.place, f"{node.path}: {node.shown} is not an IPv4 address{ipv6_note(value)}")
    return found


def ipv6_note(value: str) -> str:
    """Return a remark where a value is an IPv6 address, which is not supported."""
    try:
        ipaddress.IPv6Address(value.strip("[]"))
    except ValueError:
        return ""
    return ": IPv6 is not supported"


def as_address(value: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(value)
    except ValueError:
        return None


def own_address() -> str:
    """Return the address from which this computer reaches others; empty where it has no route. Nothing is sent."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.connect(("192.0.2.1", 9))  # TEST-NET-1 (RFC 5737)
        return str(found.getsockname()[0])
    return ""


def looks_like_address(value: str) -> bool:
    """Whether a text is meant to be an address and not a name."""
    return bool(_DOTTED.fullmatch(value)) or ":" in value
