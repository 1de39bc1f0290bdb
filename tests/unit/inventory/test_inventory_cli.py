"""The verbs `inventory`, `schema` and `vagrant-inventory` as people call them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from clusterctl.cli.inventory import register
from clusterctl.errors import InputError

EXAMPLES = Path(__file__).parents[3] / "inventories"
APP = typer.Typer()
register(APP)


def call(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(APP, arguments, env=env, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_text() -> None:
    text = call("inventory", "-i", str(EXAMPLES / "ha.yaml"))
    assert text.startswith("cluster production, Kubernetes 1.36.4, from ")
    assert "cp-2  192.0.2.12  ops@192.0.2.12:22 sudo  control_plane,etcd  -\n" in text
    assert "topology.kubernetes.io/zone=b dedicated=batch:NoSchedule\n" in text
    assert "endpoint: api.example.com:6443" in text
    assert "cluster.max_unavailable: 25%" in text


def test_json() -> None:
    data = json.loads(call("inventory", "-o", "json", env={"CLUSTERCTL_INVENTORY": str(EXAMPLES / "kubespray.yaml")}))
    assert data["cluster"]["hosts"][2]["roles"] == ["etcd", "worker"]
    assert data["ignored"] == ["etcd_member_name"]
    assert data["cluster"]["settings"]["network"]["pods"] == "10.244.0.0/16"


def test_schema() -> None:
    schema = json.loads(call("schema"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "cluster" in schema["$defs"]["AllVariables"]["properties"]


def test_refusals_are_left_to_the_main_program(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        call("inventory", "-i", str(tmp_path / "none.yaml"))


def test_importing_the_verbs_is_cheap() -> None:
    code = "import sys, clusterctl.inventory; print([name for name in ('yaml', 'pydantic', 'jsonschema') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=EXAMPLES.parent)
    assert result.stdout.strip() == "[]"
