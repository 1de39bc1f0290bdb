"""What Ansible reads from an inventory, by its own library, and what clusterctl does, in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from clusterctl.inventory.document import Node
from clusterctl.inventory.findings import Diagnostics
from clusterctl.inventory.formats import read_tree
from clusterctl.inventory.loader import host_variables
from clusterctl.inventory.sources import Sources
from clusterctl.inventory.vars_files import VarsFiles

Reading = Mapping[str, tuple[set[str], dict[str, Any]]]
"""The groups of each host, without ``all``, and its variables."""

_MAGIC = frozenset(("inventory_hostname", "inventory_hostname_short", "inventory_file", "inventory_dir", "group_names", "groups", "omit",
                    "playbook_dir", "environment", "hostvars", "vars", "role_names"))


@cache
def _prepared() -> None:
    from ansible import constants
    from ansible.plugins.loader import init_plugin_loader
    from ansible.utils.display import Display

    constants.INVENTORY_ANY_UNPARSED_IS_FAILED = True
    init_plugin_loader()
    for name in ("warning", "error", "error_as_warning"):
        setattr(Display, name, lambda self, *args, **kwargs: None)


def by_ansible(paths: list[Path]) -> Reading:
    """Raises AnsibleError where Ansible refuses one of them."""
    _prepared()
    from ansible.inventory.manager import InventoryManager
    from ansible.parsing.dataloader import DataLoader
    from ansible.vars.manager import VariableManager

    loader = DataLoader()
    loader.set_basedir("/nonexistent")
    inventory = InventoryManager(loader=loader, sources=[str(path) for path in paths])
    variables = VariableManager(loader=loader, inventory=inventory)
    found = {}
    for host in inventory.get_hosts():
        values = variables.get_vars(host=host, include_hostvars=False, stage="all")
        found[host.name] = ({group.name for group in host.get_groups()} - {"all"},
                            {str(key): _plain(value) for key, value in values.items() if key not in _MAGIC and not key.startswith("ansible_version")
                             and key not in ("ansible_config_file", "ansible_playbook_python", "ansible_facts")})
    return found


def by_clusterctl(paths: list[Path]) -> Reading:
    """Raises InputError or Problems."""
    findings = Diagnostics()
    sources = Sources(tuple(paths))
    tree, _ = read_tree(sources, findings)
    findings.raise_problems()
    files = VarsFiles(sources.folders, findings)
    found = {}
    for host in tree.host_places:
        groups = {group.name for group in tree.groups_of(host)}
        found[host] = groups, {name: _bare(node) for name, node in host_variables(tree, files, host).items()}
    findings.raise_problems()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _bare(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _bare(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [_bare(item) for item in node.value]
    return _plain(yaml.safe_load(node.written)) if node.odd else node.value


def listing(paths: list[Path]) -> dict[str, Any]:
    """What ``ansible-inventory --list`` prints."""
    found = by_ansible(paths)
    groups = sorted({group for names, _ in found.values() for group in names})
    return {"_meta": {"hostvars": {host: variables for host, (_, variables) in found.items()}}, "all": {"children": groups},
            **{group: {"hosts": [host for host, (names, _) in found.items() if group in names]} for group in groups}}
