"""A program as an inventory: Ansible's JSON, a deadline, no secrets."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import dynamic, load
from clusterctl.inventory.command import run

GOOD = {
    "_meta": {"hostvars": {"cp-1": {"ansible_host": "192.0.2.1"}, "w-1": {"ansible_host": "192.0.2.2"}}},
    "all": {"vars": {"cluster": {"name": "dynamic"}}, "children": ["ungrouped", "site"]},
    "site": {"children": ["control_plane", "workers"], "vars": {"ansible_port": 2200}},
    "control_plane": {"hosts": ["cp-1"]},
    "workers": ["w-1"],
}


def program(folder: Path, body: str) -> Path:
    path = folder / "inventory.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def printing(folder: Path, data: object) -> Path:
    (folder / "out.json").write_text(json.dumps(data, indent=1))
    return program(folder, '[ "$1" = --list ] && cat out.json')


def test_list(tmp_path: Path) -> None:
    cluster = load(printing(tmp_path, GOOD))
    assert cluster.name == "dynamic"
    assert {host.name: (str(host.address), sorted(host.roles), host.ssh.port) for host in cluster.hosts} == {
        "cp-1": ("192.0.2.1", ["control_plane", "etcd"], 2200), "w-1": ("192.0.2.2", ["worker"], 2200)}


def test_settings_of_a_group_in_a_listing(tmp_path: Path) -> None:
    """A group's map takes the place of that of all hosts; settings of the whole cluster in the latter still hold."""
    whole = {"name": "dynamic", "network": {"pods": "10.50.0.0/16"}, "kubelet": {"max_pods": 90}}
    hosts = {"cp-1": {"ansible_host": "192.0.2.1", "cluster": whole},
             "w-1": {"ansible_host": "192.0.2.2", "cluster": {"kubelet": {"max_pods": 200}}}}
    cluster = load(printing(tmp_path, {"_meta": {"hostvars": hosts}, "control_plane": ["cp-1"], "workers": ["w-1"]}))
    assert (cluster.name, str(cluster.network.pods)) == ("dynamic", "10.50.0.0/16")
    assert {host.name: host.settings.kubelet.max_pods for host in cluster.hosts} == {"cp-1": 90, "w-1": 200}


def test_characters_beyond_the_first_plane(tmp_path: Path) -> None:
    hosts = {"cp-1": {"ansible_host": "192.0.2.1", "motd": chr(0x1f680)}}
    assert load(printing(tmp_path, {"_meta": {"hostvars": hosts}, "control_plane": ["cp-1"]})).hosts


def test_group_vars_beside_it_count(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars/workers.yml").write_text("ansible_port: 2222")
    assert load(printing(tmp_path, GOOD)).host("w-1").ssh.port == 2222


WRONG = [
    # case             what is printed                                               words
    ("no name",        GOOD | {"workers": [3]},                                      "a list of names is wanted"),
    ("nothing",        None,                                                         "printed no JSON object"),
    ("a list",         [],                                                           "printed no JSON object"),
    ("no _meta",       {"workers": ["w-1"]},                                         "_meta.hostvars is missing"),
    ("group key",      GOOD | {"workers": {"host": ["w-1"]}},                        "did you mean 'hosts'?"),
    ("hosts as a map", GOOD | {"workers": {"hosts": {"w-1": {}}}},                   "a list of names is wanted"),
    ("host name",      GOOD | {"workers": {"hosts": ["../w"]}},                      "'../w' is not a host name"),
    ("version",        GOOD | {"all": {"vars": {"cluster": {"kubernetes": 1.36}}}},  'quote it: "1.36"'),
    ("all as a child", GOOD | {"workers": {"hosts": ["w-1"], "children": ["all"]}},  "all holds every group"),
    ("circle",         GOOD | {"workers": {"hosts": ["w-1"], "children": ["site"]}}, "contains itself"),
]


@pytest.mark.parametrize("data, words", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_output(tmp_path: Path, data: object, words: str) -> None:
    with pytest.raises((InputError, Problems)) as caught:
        load(printing(tmp_path, data))
    assert words in str(caught.value)
    assert "inventory.sh --list" in str(caught.value)


FAILURES = [
    # case              body                                words
    ("exit code",       "exit 3",                           "failed with exit code 3"),
    ("endless output",  "cat /dev/zero",                    "printed more than 67108864 bytes"),
    ("slow",            "sleep 60",                         "did not end within 0.5 s"),
    ("closes output",   "exec >&-; sleep 60",               "did not end within 0.5 s"),
]


@pytest.mark.parametrize("body, words", [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failures(tmp_path: Path, body: str, words: str) -> None:
    begin = time.monotonic()
    with pytest.raises(InputError, match=words):
        dynamic.run_program(program(tmp_path, body), deadline=30 if "zero" in body else 0.5)
    assert time.monotonic() - begin < 20


def test_what_cannot_be_run(tmp_path: Path) -> None:
    path = tmp_path / "inventory"
    path.write_text("#!/none/such\n")
    path.chmod(0o755)
    with pytest.raises(InputError, match="cannot be run"):
        load(path)


def test_a_program_ends_with_its_process_whatever_child_keeps_its_stdout() -> None:
    began = time.monotonic()
    assert run(["sh", "-c", "sleep 30 & echo all"], what="it", deadline=20, most_bytes=100) == b"all\n"
    assert time.monotonic() - began < 10


def test_yaml_with_the_execute_bit_is_data(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text("control_plane: {hosts: {a: {ip: 192.0.2.1}}}")
    path.chmod(0o755)
    assert load(path).hosts[0].name == "a"


def test_it_gets_no_secrets_but_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_SUDO_PASSWORD", "hunter2")
    monkeypatch.setenv("CLUSTERCTL_KEY_PASSPHRASE", "hunter2")
    monkeypatch.setenv("CLOUD_REGION", "north")
    output = run(["env"], what="env", deadline=10, most_bytes=1 << 20)
    assert b"hunter2" not in output
    assert b"CLOUD_REGION=north" in output
    assert os.environ["CLUSTERCTL_SUDO_PASSWORD"] == "hunter2"
