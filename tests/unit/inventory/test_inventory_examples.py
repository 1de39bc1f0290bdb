"""Every example loads, is what its comment says, fits the schema, and never ends in a traceback when it is cut."""

from __future__ import annotations

import json
import time
from pathlib import Path

import jsonschema
import pytest
import yaml

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import json_schema, load, read

EXAMPLES = Path(__file__).parents[3] / "inventories"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))

ROLES = [
    # file                 control planes                etcd members                    workers
    ("single.yaml",        ["node-1"],                   ["node-1"],                     ["node-1"]),
    ("ha.yaml",            ["cp-1", "cp-2", "cp-3"],     ["cp-1", "cp-2", "cp-3"],       ["w-1", "w-2"]),
    ("external-etcd.yaml", ["cp-1", "cp-2"],             ["etcd-1", "etcd-2", "etcd-3"], ["w-1", "w-2", "w-3"]),
    ("lab.yaml",           ["cp-1"],                     ["cp-1"],                       ["w-1", "w-2"]),
    ("vagrant.yaml",       ["cp-1"],                     ["cp-1"],                       ["w-1", "w-2"]),
    ("kubespray.yaml",     ["node1", "node2"],           ["node1", "node2", "node3"],    ["node3", "node4"]),
]


@pytest.mark.parametrize("name, control_planes, etcd_members, workers", ROLES, ids=[row[0] for row in ROLES])
def test_roles(name: str, control_planes: list[str], etcd_members: list[str], workers: list[str]) -> None:
    cluster = load(EXAMPLES / name)
    assert [host.name for host in cluster.control_planes] == control_planes
    assert [host.name for host in cluster.etcd_members] == etcd_members
    assert [host.name for host in cluster.with_role("worker")] == workers


def test_no_example_is_without_a_row() -> None:
    assert sorted(row[0] for row in ROLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_examples_fit_the_schema(name: str) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load((EXAMPLES / name).read_text()))


WRONG = [
    # case                   what the schema refuses, as the loader does
    ("group key",            {"all": {"hots": {}}}),
    ("cluster key",          {"all": {"vars": {"cluster": {"nam": "x"}}}}),
    ("version as a number",  {"all": {"vars": {"cluster": {"kubernetes": 1.36}}}}),
    ("secret",               {"all": {"vars": {"ansible_become_password": "x"}}}),
    ("clusterctl variable",  {"all": {"vars": {"clusterctl_adress": "x"}}}),
    ("port",                 {"workers": {"hosts": {"a": {"ansible_port": 70000}}}}),
    ("become method",        {"workers": {"vars": {"ansible_become_method": "su"}}}),
    ("taint",                {"workers": {"vars": {"clusterctl_taints": ["a=b"]}}}),
]


@pytest.mark.parametrize("document", [row[1] for row in WRONG], ids=[row[0] for row in WRONG])
def test_schema_refuses(document: object) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(document)


def test_ssh_settings_of_the_lab() -> None:
    ssh = load(EXAMPLES / "lab.yaml").host("w-1").ssh
    assert (ssh.user, ssh.become, ssh.network_namespace) == ("root", False, "cctl-lab")
    assert ssh.private_key == EXAMPLES.absolute() / ".clusterctl/lab/id_ed25519"


def test_kubespray_addresses_and_taints() -> None:
    host = load(EXAMPLES / "kubespray.yaml").host("node4")
    assert (host.ssh.address, str(host.address)) == ("203.0.113.14", "192.0.2.14")
    assert host.labels == {"disk": "ssd"}
    assert [(taint.key, taint.value, taint.effect) for taint in host.taints] == [("dedicated", "storage", "NoSchedule")]


def test_ignored_variables_are_told() -> None:
    assert read(EXAMPLES / "kubespray.yaml").ignored == ("etcd_member_name",)


@pytest.mark.parametrize("name", ["ha.yaml", "single.yaml"])
def test_cut_at_every_byte(tmp_path: Path, name: str) -> None:
    content = (EXAMPLES / name).read_bytes().replace(b"# ", "# Übung ".encode(), 1)
    path = tmp_path / "inventory.yaml"
    outcomes = set()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            load(path)
            outcomes.add("read")
        except (InputError, Problems) as error:
            assert error.exit_code == 2
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_two_hundred_hosts_are_quick(tmp_path: Path) -> None:
    hosts = {
        f"w-{number}": {"ansible_host": f"192.0.2.{number}", "ansible_port": 22, "clusterctl_labels": {"rack": f"r{number}"}}
        for number in range(2, 202)
    }
    path = tmp_path / "inventory.yaml"
    path.write_text(json.dumps({"all": {"children": {
        "control_plane": {"hosts": {"cp-1": {"ansible_host": "192.0.2.1"}}}, "workers": {"hosts": hosts},
    }}}))
    load(path)
    begin = time.process_time()
    assert len(load(path).hosts) == 201
    assert time.process_time() - begin < 0.3
