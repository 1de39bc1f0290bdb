"""Which pin holds for a file: clusterctl's own, then the inventory's, then the mirror's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterctl.artifacts.catalog import CATALOG, Pin
from clusterctl.errors import InputError, IntegrityError

INVENTORY = "the inventory"


@dataclass(frozen=True, slots=True)
class MirrorCatalog:
    """The pins of a mirror. ``vouched``: the operator stands for its content, so it may replace built-in pins."""

    source: str = ""
    pins: Mapping[str, Pin] = field(default_factory=dict)
    vouched: bool = False


def merge(built_in: Mapping[str, Pin], inventory: Mapping[str, Pin],
          mirror: MirrorCatalog) -> tuple[Mapping[str, Pin], Mapping[str, str]]:
    """Return all pins, and the source of each pin that is not built in.

    Only a vouched mirror replaces a built-in pin. Raises InputError, IntegrityError.
    """
    for path, pin in mirror.pins.items():
        if path in inventory and pin.sha256 != inventory[path].sha256:
            raise _conflict(mirror, path, pin, inventory[path], "the inventory's", "remove the pin that is wrong")
        if path in built_in and pin.sha256 != built_in[path].sha256 and not mirror.vouched:
            raise _conflict(mirror, path, pin, built_in[path], "the built-in one", _way_out(mirror))
    known = {**built_in, **mirror.pins}
    for path, pin in inventory.items():
        if path in known and known[path].sha256 != pin.sha256:
            raise InputError(f"contradicts the built-in pin of {path} ({pin.sha256}, built in: {known[path].sha256})",
                             where="cluster.artifacts.pins", code="artifact.pin-conflict",
                             hint="remove this pin: the built-in one is the sha256 of upstream's release")
    sources = {**dict.fromkeys(mirror.pins, mirror.source), **dict.fromkeys(inventory, INVENTORY)}
    pins = {**inventory, **known}
    return pins, {path: source for path, source in sources.items() if pins[path].sha256 != _sha256(built_in.get(path))}


def _sha256(pin: Pin | None) -> str:
    return pin.sha256 if pin else ""


def _conflict(mirror: MirrorCatalog, path: str, pin: Pin, other: Pin, whose: str, hint: str) -> IntegrityError:
    return IntegrityError(f"the mirror's pin of {path} contradicts {whose} (mirror: {pin.sha256}, expected: {other.sha256})",
                          where=f"{mirror.source}/{CATALOG}", code="artifact.pin-conflict", hint=hint)


def _way_out(mirror: MirrorCatalog) -> str:
    review = f"if you built the mirror's files, review its catalog and pin it: cluster.artifacts.pins[{CATALOG!r}]"
    return review if "://" in mirror.source else f"{review}; or let its owner alone write to it: chmod go-w {mirror.source}"


def is_own_folder(folder: Path) -> bool:
    """Whether only this user or root may change the catalog of a folder. Raises OSError."""
    return all(found.st_uid in (os.geteuid(), 0) and not found.st_mode & 0o022
               for found in (folder.stat(), (folder / CATALOG).stat()))
