"""Ansible's inventories, read into a ``Cluster``. All errors of an inventory are reported together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clusterctl.cluster.model import Cluster
    from clusterctl.inventory.loader import Inventory
    from clusterctl.inventory.sources import Sources

__all__ = ["json_schema", "load", "read"]


def load(given: Path | Sources) -> Cluster:
    """The cluster that an inventory wants; raises InputError, or Problems made of them."""
    return read(given).cluster


def read(given: Path | Sources) -> Inventory:
    """The cluster, and what else was found in the inventory: files, ignored variables, notes."""
    from clusterctl.inventory.loader import read as read_inventory

    return read_inventory(given)


def json_schema() -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of an inventory file, for editors."""
    from clusterctl.inventory.schema import json_schema as schema

    return schema()
