"""Random trees of groups, hosts and variables, as INI and YAML: read as Ansible reads them, or refused where it refuses them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_reading import Reading, by_ansible, by_clusterctl
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from clusterctl.errors import InputError, Problems
from clusterctl.inventory.ini import looks_like_ini

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
GROUPS = ["all", "ungrouped", "a", "b", "c", "kube-node"]
NAMES = st.sampled_from(["x", "y", "ansible_port", "ansible_group_priority"])
VALUES = st.one_of(st.integers(-3, 30), st.sampled_from(["text", "a b", "1", "true", "it's", 'say "hi"', "a=b"]), st.booleans(),
                   st.lists(st.integers(0, 3), max_size=2), st.none())
VARIABLES = st.dictionaries(NAMES, VALUES, max_size=3).map(
    lambda found: {name: value if name != "ansible_group_priority" else 5 for name, value in found.items()})
HOSTS = st.sampled_from(["h1", "h2", "H3", "h[1:3]", "h[01:02]x", "h4:2222", "h1:2200", "192.0.2.1"])
GROUP = st.fixed_dictionaries({
    "hosts": st.lists(st.tuples(HOSTS, VARIABLES), max_size=3, unique_by=lambda entry: entry[0]), "vars": VARIABLES,
    "children": st.lists(st.sampled_from(GROUPS[2:]), max_size=2, unique=True)})
TREES = st.dictionaries(st.sampled_from(GROUPS), GROUP, min_size=1, max_size=5).map(
    lambda tree: {name: group if name != "ungrouped" else {**group, "children": []} for name, group in tree.items()})
FILES = st.dictionaries(st.sampled_from(["group_vars/all.yml", "group_vars/a.yml", "group_vars/b/x.json", "host_vars/h1.yml", "host_vars/H3"]),
                        VARIABLES, max_size=3)


def as_yaml(tree: dict[str, Any]) -> str:
    return json.dumps({name: {"hosts": dict(group["hosts"]), "vars": group["vars"], "children": {child: None for child in group["children"]}}
                       for name, group in tree.items()})


def as_ini(tree: dict[str, Any]) -> str:
    lines = []
    for name, group in tree.items():
        lines += [f"[{name}]"] if name != "ungrouped" else []
        for host, variables in group["hosts"]:
            lines.append(" ".join([host, *(f"{key}={quoted(repr(value))}" for key, value in variables.items())]))
        lines += [f"[{name}:children]", *group["children"]] if group["children"] else []
        lines += [f"[{name}:vars]", *(f"{key} = {value!r}" for key, value in group["vars"].items())] if group["vars"] else []
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def outcome(read: Any, path: Path) -> Reading | None:
    try:
        found: Reading = read([path])
    except (InputError, Problems, AnsibleError) as error:
        return {} if getattr(error, "code", "") == "inventory.empty" else None
    return found


def compare(text: str, name: str, files: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text)
        for file, variables in files.items():
            (path.parent / file).parent.mkdir(parents=True, exist_ok=True)
            (path.parent / file).write_text(json.dumps(variables))
        assert outcome(by_clusterctl, path) == outcome(by_ansible, path), text


@QUIET
@given(TREES, FILES)
def test_ini(tree: dict[str, Any], files: dict[str, Any]) -> None:
    # Ansible reads hosts before the first section as ungrouped.
    compare(as_ini({name: tree[name] for name in sorted(tree, key=lambda name: name != "ungrouped")}), "hosts.ini", files)


@QUIET
@given(TREES, FILES)
def test_yaml(tree: dict[str, Any], files: dict[str, Any]) -> None:
    compare(as_yaml(tree), "hosts.yml", files)


LINES = st.sampled_from(["[a]", "[a:children]", "[b:vars]", "[a:vars]", "[b]", "[all:vars]", "h1", "h2 x=1", "h3 x='a b' y=\"c\"", "b", "a # c", "x=1",
                         "x = 'a' # b", "# c", "; c", "", "[a] # c", "[a b]", "[a:b]", "h1 x", "h1 x=a#b y=2", "h[1:2] x=\\'q\\'", "h1 x='a", "  h5  x=1 ",
                         "x", "h1:", "h6:22", "---", "y={'a': [1, 2.5, None, True]}", "[b", "h1 = 2", "n[a:2]", "[ungrouped]"])


@settings(QUIET, max_examples=200)
@given(st.lists(LINES, min_size=1, max_size=8))
def test_lines_of_ini(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n"
    assume(looks_like_ini(text))  # Ansible goes by the name of the file alone.
    compare(text, "hosts.ini", {})
