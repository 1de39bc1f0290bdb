"""The JSON Schema: identified, described, written to a file, and as strict as it can be about names, versions and networks."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import json_schema, load

ROOT = Path(__file__).parents[3]


def properties(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield from ((f"{path}.{name}", entry) for name, entry in (node.get("properties") or {}).items() if isinstance(entry, dict))
        for key, value in node.items():
            yield from properties(value, f"{path}/{key}")


def test_every_property_is_described() -> None:
    assert [path for path, entry in properties(json_schema()) if not entry.get("description")] == []
    assert str(json_schema()["$id"]).startswith("https://")


def document(cluster: Any = None, host: Any = None, *, name: str = "cp-1", group: str = "gpu") -> dict[str, Any]:
    hosts = {name: {"ip": "192.0.2.1", **(host or {})}}
    return {"all": {"vars": {"cluster": cluster or {}}, "children": {"control_plane": {"hosts": hosts}, group: {"hosts": {name: None}}}}}


RIGHT = [
    document({"kubernetes": "1.36"}), document({"kubernetes": "1.36.4", "versions": {"etcd": "3.6.14", "pause": "3.10.1"}}),
    document({"network": {"pods": "10.1.0.0/16"}, "endpoint": {"address": "api.example.com"}}), document({"endpoint": {"address": "192.0.2.9"}}),
    document(host={"ansible_user": "first.last@corp"}), document(host={"node_labels": {"gpu": True, "zone": 1, "name": "a"}}),
    document({"api_server": {"extra_args": {"v": "4"}}}), document(name="cp-[1:1]"),
    document(name="CP_1"), document(name="cp-1.example.com:2222"), document(group="a b"),
]
WRONG = [
    document({"kubernetes": "v1.36.4"}), document({"kubernetes": "latest"}), document({"versions": {"etcd": "x"}}),
    document({"name": "Prod_1"}), document({"network": {"pods": "10.1.0.0"}}), document({"network": {"domain": "a..b"}}),
    document({"endpoint": {"address": "http://x"}}), document({"artifacts": {"pins": {"a": "b"}}}),
    document(host={"ansible_user": "a b"}), document(host={"clusterctl_host_key": "md5"}), document(host={"node_labels": {"a": "b c"}}),
    document({"api_server": {"extra_args": {"--v": "4"}}}), document(name="CP/1"),
]


@pytest.mark.parametrize("content", RIGHT, ids=str)
def test_what_the_loader_takes_is_valid(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "i.yaml").write_text(json.dumps(content))
    load(tmp_path / "i.yaml")
    jsonschema.Draft202012Validator(json_schema()).validate(content)


@pytest.mark.parametrize("content", WRONG, ids=str)
def test_what_the_loader_refuses_is_shown_by_editors(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "i.yaml").write_text(json.dumps(content))
    with pytest.raises((InputError, Problems)):
        load(tmp_path / "i.yaml")
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(content)


def test_schema_is_written_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "inventory.schema.json"
    words = [sys.executable, "-m", "clusterctl", "schema", "--output"]
    done = subprocess.run([*words, path], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(path.read_text()) == json.loads(json.dumps(json_schema())) and f"$schema={path}" in done.stderr
    done = subprocess.run([*words, path / "x"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "[schema.not-written]" in done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "inventories").glob("*.yaml")), ids=lambda path: path.name)
def test_examples_name_the_schema(path: Path) -> None:
    assert re.match(r"# yaml-language-server: \$schema=\S+\n", path.read_text())
