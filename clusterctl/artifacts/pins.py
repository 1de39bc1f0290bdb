"""Which pin holds for a file: clusterctl's own, then the inventory's, then the lock file's, then the mirror's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterctl.artifacts.catalog import CATALOG, Pin
from clusterctl.errors import InputError, IntegrityError, raise_all

INVENTORY = "the inventory"
LOCK = "clusterctl.lock"


@dataclass(frozen=True, slots=True)
class MirrorCatalog:
    """The pins of a mirror. ``vouched``: the operator stands for its content, so it may replace built-in pins."""

    source: str = ""
    pins: Mapping[str, Pin] = field(default_factory=dict)
    vouched: bool = False


def merge(built_in: Mapping[str, Pin], inventory: Mapping[str, Pin], lock: Mapping[str, Pin], mirror: MirrorCatalog,
          product_of: Callable[[str], str] | None = None) -> tuple[dict[str, Pin], dict[str, str]]:
    """Return all pins, and the source of each pin that is not built in.

    Only a vouched mirror replaces a pin that is built in or locked. ``product_of`` names a path's product. Raises InputError,
    IntegrityError.
    """
    raise_all([IntegrityError(f"the locked sha256 of {path} {why}", where=LOCK, code="artifact.pin-conflict",
                              hint="restore the file from version control, or take the checksum anew: "
                                   f"clusterctl lock -i INVENTORY --update {product_of(path) if product_of else 'PRODUCT'}")
               for path, why in conflicts(lock, built_in, {path: pin.sha256 for path, pin in inventory.items()}).items()])
    _refuse_mirror(mirror, built_in, inventory, lock)
    known = {**built_in, **lock, **mirror.pins}
    for path, pin in inventory.items():
        if path in known and known[path].sha256 != pin.sha256:
            raise InputError(f"contradicts the built-in pin of {path} ({pin.sha256}, built in: {known[path].sha256})",
                             where="cluster.artifacts.pins", code="artifact.inventory-pin-conflict",
                             hint="remove this pin: the built-in one is the sha256 of upstream's release")
    sources = {**dict.fromkeys(lock, LOCK), **dict.fromkeys(mirror.pins, mirror.source), **dict.fromkeys(inventory, INVENTORY)}
    pins = {**inventory, **known}
    return pins, {path: source for path, source in sources.items()
                  if path not in built_in or pins[path].sha256 != built_in[path].sha256}


def conflicts(lock: Mapping[str, Pin], built_in: Mapping[str, Pin], inventory: Mapping[str, str]) -> dict[str, str]:
    """Return the locked paths whose checksum contradicts another pin, each with the contradiction.

    A checksum that is built in for another path is one: programs of one version are not to replace each other.
    """
    owners, found = {pin.sha256: path for path, pin in built_in.items()}, dict[str, str]()
    for path, pin in lock.items():
        expected = {"the built-in one": built_in[path].sha256 if path in built_in else "", "the inventory's": inventory.get(path)}
        for whose, sha256 in expected.items():
            if sha256 and sha256 != pin.sha256:
                found.setdefault(path, f"contradicts {whose} (locked: {pin.sha256}, expected: {sha256})")
        if owners.get(pin.sha256, path) != path:
            found.setdefault(path, f"is that of {owners[pin.sha256]}")
    return found


def _refuse_mirror(mirror: MirrorCatalog, built_in: Mapping[str, Pin], inventory: Mapping[str, Pin],
                   lock: Mapping[str, Pin]) -> None:
    for path, pin in mirror.pins.items():
        if path in inventory and pin.sha256 != inventory[path].sha256:
            raise _conflict(mirror, path, pin, inventory[path], "the inventory's", "remove the pin that is wrong")
        for fixed, whose in ((built_in, "the built-in one"), (lock, "the locked one")):
            if path in fixed and pin.sha256 != fixed[path].sha256 and not mirror.vouched:
                raise _conflict(mirror, path, pin, fixed[path], whose, _way_out(mirror))


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
