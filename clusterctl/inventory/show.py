"""Output of a read inventory, for people and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from clusterctl.cluster.host_settings import HostSettings
from clusterctl.cluster.model import Host
from clusterctl.inventory.document import Node, leaves
from clusterctl.inventory.loader import Inventory
from clusterctl.ssh.ssh_config import resolve

MOST_NAMES = 5
"""Of ignored variables, that are named in one line."""
HIDDEN = "(hidden)"
_HEADINGS = ("HOST", "ADDRESS", "SSH", "ROLES", "LABELS AND TAINTS")
_ROLE_ORDER = ("control_plane", "etcd", "worker")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
"""Keys that YAML needs no quotes for, unless it reads them as something else than text, such as ``on``."""


def as_data(inventory: Inventory) -> dict[str, object]:
    """The inventory as values that JSON knows."""
    cluster = inventory.cluster.model_dump(mode="json")
    cluster["settings"] = _redacted(cluster["settings"], inventory.settings)
    for host, one in zip(cluster["hosts"], inventory.cluster.hosts, strict=True):
        host["settings"] = _redacted(host["settings"], inventory.provenance.get(one.name))
        host["labels"] = _labels(one)
        host["taints"] = [taint if _shown_taint(one, taint) != HIDDEN else HIDDEN for taint in host["taints"]]
        host["roles"], host["groups"] = sorted(host["roles"]), sorted(host["groups"])
    return {"cluster": cluster, "files": inventory.files, "ignored": inventory.ignored, "notes": inventory.notes}


def as_text(inventory: Inventory, *, verbose: bool = False) -> str:
    """Return what was understood, notes first, as they may mean a mistake. ``verbose``: with all files and ignored variables."""
    cluster, others = inventory.cluster, inventory.files[1:]
    beside = f" and {len(others)} more file{'s' if len(others) > 1 else ''}{'' if verbose else ' (-v)'}" if others else ""
    lines = [f"cluster {cluster.name}, Kubernetes {cluster.versions.kubernetes}, from {inventory.files[0]}{beside}"]
    lines += [f"  {file}" for file in others if verbose]
    lines += [f"note: {note}" for note in inventory.notes]
    if inventory.ignored:
        names = f": {', '.join(inventory.ignored)}" if verbose or len(inventory.ignored) <= MOST_NAMES else " (-v names them)"
        lines.append(f"note: {len(inventory.ignored)} variables mean nothing here{names}")
    lines += ["", *table((_HEADINGS, *(_row(host) for host in cluster.hosts)))]
    settings = cluster.settings.model_dump(mode="json", exclude_defaults=True, exclude={"name", "kubernetes"})
    settings = _redacted(settings, inventory.settings)
    lines += ["", f"networks: pods {cluster.network.pods}, services {cluster.network.services}",
              f"endpoint: {cluster.endpoint.address}:{cluster.endpoint.port}" if cluster.control_planes else ""]
    lines += ["", "settings that differ from the defaults:", *(f"  {line}" for line in flat(settings))] if settings else []
    differ = [host.name for host in cluster.hosts if any(
        getattr(host.settings, name) != getattr(cluster.settings, name) for name in HostSettings.model_fields)]
    lines += ["", f"settings of their own: {', '.join(differ)} (-o yaml --explain HOST)"] if differ else []
    versions = cluster.versions.model_dump()
    lines += ["", "versions: " + ", ".join(f"{name} {version}" for name, version in versions.items() if name != "kubernetes")]
    return "\n".join(lines)


def _row(host: Host) -> tuple[str, ...]:
    labels = [f"{key}={value}" for key, value in _labels(host).items()]
    taints = [_shown_taint(host, taint.model_dump()) for taint in host.taints]
    roles = sorted(host.roles, key=_ROLE_ORDER.index)
    way = resolve(host.ssh)
    ssh = "local" if host.ssh.local else way.name + (" sudo" if way.ssh.become else "")
    return host.name, str(host.address), ssh, ",".join(roles), " ".join((*labels, *taints)) or "-"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns of equal width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def flat(value: object, path: str = "cluster") -> Iterator[str]:
    """Nested values as lines of ``path: value``."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}")
    else:
        yield f"{path}: {value}"


def explain(inventory: Inventory, host: Host) -> str:
    """Return the settings that apply to a host as YAML, each value with the place that it comes from."""
    settings = inventory.cluster.settings.model_dump(mode="json") | host.settings.model_dump(mode="json")
    return "\n".join((f"# {host.name}", "cluster:", *_explained(settings, inventory.provenance.get(host.name), "  ")))


def _explained(value: dict[str, object], node: Node | None, indent: str) -> Iterator[str]:
    entries = node.value if node and isinstance(node.value, dict) else {}
    for key, item in value.items():
        inner = entries.get(key)
        name = key if _PLAIN.fullmatch(key) and isinstance(yaml.safe_load(key), str) else json.dumps(key)
        if isinstance(item, dict) and item:
            yield f"{indent}{name}:"
            yield from _explained(item, inner, f"{indent}  ")
        elif isinstance(item, list) and item and inner and isinstance(inner.value, list):
            yield f"{indent}{name}:"
            yield from (f"{indent}- {_shown(one, at)}" for one, at in zip(item, inner.value, strict=True))
        else:
            yield f"{indent}{name}: {_shown(item, inner)}"


def _shown(value: object, node: Node | None) -> str:
    """Return a value and its place. Decrypted ones are hidden."""
    shown = json.dumps(HIDDEN if node is not None and _has_secret(node) else value)
    return f"{shown}  # {_place(node)}"


def _has_secret(node: Node) -> bool:
    return node.secret or any(leaf.secret for leaf in leaves(node))


def _redacted(value: Any, node: Node | None) -> Any:
    """Return values, and text in place of each that ansible-vault decrypted."""
    if node is None or not _has_secret(node):
        return value
    if isinstance(value, dict) and isinstance(node.value, dict):
        return {key: _redacted(item, node.value.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(node.value, list):
        return [_redacted(*pair) for pair in zip(value, node.value, strict=True)]
    return HIDDEN


def _labels(host: Host) -> dict[str, str]:
    return {key: HIDDEN if host.settings.reveals(value) else value for key, value in host.labels.items()}


def _shown_taint(host: Host, taint: Mapping[str, str]) -> str:
    """Return a taint as it may be written, ``key:Effect`` where it has no value; decrypted ones are hidden."""
    text = f"{taint['key']}={taint['value']}:{taint['effect']}"
    return HIDDEN if host.settings.reveals(f"{text} {text.replace('=:', ':')}") else text


def _place(node: Node | None) -> str:
    return f"{node.place.file}:{node.place.line}" if node else "default"
