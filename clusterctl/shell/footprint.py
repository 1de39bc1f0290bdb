"""Footprints of products on machines, as the lists that programs of sh read."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Words by kind. In sh the list of each kind is a variable: ``our_units`` for ``units``."""

    units: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()
    """Paths that are managed altogether. Their earlier content is kept aside, and restored by a reset."""
    data: tuple[str, ...] = ()
    """Folders that are too large to keep aside: a reset removes what was not in them before."""
    runtime: tuple[str, ...] = ()
    unlinked: tuple[str, ...] = ()
    """Paths that must not be symbolic links: a reset would empty the target."""
    executables: tuple[str, ...] = ()
    """Folders from which programs are executed: links in them tell the versions that run."""
    interfaces: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    """Tables of nftables."""
    prefixes: tuple[str, ...] = ()
    """Prefixes of chains in tables that others share, without the dash."""
    modules: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    packaged_paths: tuple[str, ...] = ()
    packaged_users: tuple[str, ...] = ()
    """``PACKAGE=PATH`` and ``PACKAGE=USER``: what a package of the distribution leaves when it is removed."""
    foreign_programs: tuple[str, ...] = ()
    """Programs of packages that collide with the product."""
    foreign_units: tuple[str, ...] = ()
    """Units, without ``.service``, that collide with the product while they are active."""

    @classmethod
    def merge(cls, parts: Iterable[Footprint]) -> Self:
        """Return one footprint of several, without repeated words."""
        found = list(parts)
        return cls(**{field.name: tuple(dict.fromkeys(word for part in found for word in getattr(part, field.name)))
                      for field in fields(cls)})

    @property
    def assignments(self) -> str:
        """The lists as assignments of sh, a line for each."""
        return "".join(f"our_{field.name}={shlex.quote(' '.join(getattr(self, field.name)))}\n" for field in fields(self))


NOTHING = Footprint()
