"""Ansible's rules: ranges, groups in groups, precedence of variables, files beside the inventory."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import jsonschema
import pytest
import yaml

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import json_schema, load, read
from clusterctl.inventory.document import parse
from clusterctl.inventory.findings import Diagnostics, Place
from clusterctl.inventory.groups import expand

RANGES = [
    # pattern           names
    ("w",               ["w"]),
    ("w[1:3]",          ["w1", "w2", "w3"]),
    ("w[01:03]",        ["w01", "w02", "w03"]),
    ("w[08:10]",        ["w08", "w09", "w10"]),
    ("w[:2]",           ["w0", "w1", "w2"]),
    ("w[0:6:3]",        ["w0", "w3", "w6"]),
    ("[a:c]",           ["a", "b", "c"]),
    ("w-[a:b]-[1:2]x",  ["w-a-1x", "w-a-2x", "w-b-1x", "w-b-2x"]),
]


@pytest.mark.parametrize("pattern, names", RANGES, ids=[row[0] for row in RANGES])
def test_ranges(pattern: str, names: list[str]) -> None:
    findings = Diagnostics()
    assert list(expand(pattern, Place("i"), findings)) == names
    assert not findings.problems


@pytest.mark.parametrize("pattern", ["w[3:1]", "w[01:100]", "w[a:3]", "w[1:3:0]", "w[0:99999999999999999999]", "w[aa:bb]"])
def test_wrong_ranges(pattern: str) -> None:
    findings = Diagnostics()
    assert not list(expand(pattern, Place("i"), findings))
    assert len(findings.problems) == 1


BASE = """\
all:
  vars: {ansible_port: 1}
  children:
    site:
      vars: {ansible_port: 2}
      children:
        control_plane:
          vars: {ansible_port: 3}
          hosts:
            cp-1: {ip: 192.0.2.1%s}
"""

PRECEDENCE = [
    # the strongest place      files beside the inventory                      host port
    ("inventory, child group", {},                                             "",  3),
    ("group_vars/all",         {"group_vars/all.yaml": "ansible_port: 4"},     "",  4),
    ("group_vars of the parent", {"group_vars/all": "ansible_port: 4", "group_vars/site.yml": "ansible_port: 5"}, "", 5),
    ("group_vars of the child", {"group_vars/site.yml": "ansible_port: 5", "group_vars/control_plane": "ansible_port: 6"},
     "", 6),
    ("inventory, host", {"group_vars/control_plane": "ansible_port: 6"}, ", ansible_port: 7", 7),
    ("host_vars", {"host_vars/cp-1.yml": "ansible_port: 8"}, ", ansible_port: 7", 8),
    ("directory, last file", {"host_vars/cp-1/a.yml": "ansible_port: 8", "host_vars/cp-1/b.yml": "ansible_port: 9"}, "", 9),
    ("directory in a directory", {"host_vars/cp-1/z/a.yml": "ansible_port: 9", "host_vars/cp-1/b.yml": "ansible_port: 8"}, "", 9),
    ("hidden files and backups", {"host_vars/cp-1/.a.yml": "ansible_port: 9", "host_vars/cp-1/b.yml~": "ansible_port: 8"}, "", 3),
    ("other files", {"host_vars/cp-1/readme.md": "# no", "host_vars/cp-2.yml": "ansible_port: 9"}, "", 3),
    ("json",                   {"group_vars/all.json": '{"ansible_port": 4}'}, "",  4),
    ("empty file",             {"group_vars/all.yaml": "---\n"},               "",  3),
]


@pytest.mark.parametrize("files, host, port", [row[1:] for row in PRECEDENCE], ids=[row[0] for row in PRECEDENCE])
def test_precedence(tmp_path: Path, files: dict[str, str], host: str, port: int) -> None:
    write(tmp_path, {"inventory.yaml": BASE % host, **files})
    assert load(tmp_path / "inventory.yaml").host("cp-1").ssh.port == port


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


WRONG_FILES = [
    # case          file                        content                       words
    ("two at once", "group_vars/all.yml",       "x: 1",                       "all.yaml and all.yml are both there"),
    ("syntax",      "group_vars/site.yaml",     "a: b: c",                    "group_vars/site.yaml:1:5: is not YAML"),
    ("not a map",   "group_vars/site.yaml",     "[1]",                        "site.yaml:1:1: a map of variables"),
    ("cluster of a group", "group_vars/site.yaml", "cluster: {name: x}", "one for the whole cluster"),
    ("wrong value", "host_vars/cp-1.yaml",      "ansible_user: no",           'host_vars/cp-1.yaml:1:15: ansible_user'),
    ("secret",      "group_vars/control_plane", "ansible_sudo_pass: hunter2", "group_vars/control_plane:1:1"),
]


@pytest.mark.parametrize("name, content, words", [row[1:] for row in WRONG_FILES], ids=[row[0] for row in WRONG_FILES])
def test_wrong_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    write(tmp_path, {"inventory.yaml": BASE % "", "group_vars/all.yaml": "x: 1", name: content})
    with pytest.raises((InputError, Problems)) as caught:
        load(tmp_path / "inventory.yaml")
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_cluster_in_group_vars_is_merged_over_the_one_in_the_inventory(tmp_path: Path) -> None:
    write(tmp_path, {
        "inventory.yaml": "all: {vars: {cluster: {name: one, certificate_days: 3}}}\n"
                          "control_plane: {hosts: {a: {ip: 192.0.2.1}}}\n",
        "group_vars/all/cluster.yaml": "cluster: {name: two}",
    })
    found = read(tmp_path / "inventory.yaml")
    assert (found.cluster.name, found.cluster.settings.certificate_days) == ("two", 3)
    assert found.files[1].endswith("group_vars/all/cluster.yaml")


def test_a_cluster_variable_in_group_vars_has_its_own_places(tmp_path: Path) -> None:
    write(tmp_path, {"inventory.yaml": BASE % "", "group_vars/all.yaml": "x: 1\ncluster: {nam: two}"})
    with pytest.raises(InputError, match=r"group_vars/all.yaml:2:11: cluster.nam: unknown key \(did you mean 'name'"):
        load(tmp_path / "inventory.yaml")


def test_depth_then_priority_then_name_decide_between_groups(tmp_path: Path) -> None:
    write(tmp_path, {"inventory.yaml": (
        "control_plane: {hosts: {a: {ip: 192.0.2.1}}, vars: {ansible_port: 1}}\n"
        "zebra: {hosts: {a: }, vars: {ansible_port: 2}}\n"
        "ape: {hosts: {a: }, vars: {ansible_port: 3, ansible_group_priority: 10}}\n")})
    assert load(tmp_path / "inventory.yaml").host("a").ssh.port == 3


def test_a_priority_in_quotes_counts(tmp_path: Path) -> None:
    write(tmp_path, {"inventory.yaml": (
        "control_plane: {hosts: {a: {ip: 192.0.2.1}}, vars: {ansible_port: 1}}\n"
        "ape: {hosts: {a: }, vars: {ansible_port: 3, ansible_group_priority: \"10\"}}\n")})
    assert load(tmp_path / "inventory.yaml").host("a").ssh.port == 3


def test_what_ansible_takes_too(tmp_path: Path) -> None:
    """One name for a map of it, full names of plugins, JSON's pairs of escapes; kubespray's bastion is no machine of the cluster."""
    write(tmp_path, {"inventory.yaml": (
        "all: {vars: {ansible_connection: ansible.builtin.ssh, ansible_become_method: ansible.builtin.sudo, cluster: {max_unavailable: 2}}}\n"
        "control_plane: {hosts: a}\nk8s_cluster: {children: control_plane}\nbastion: {hosts: {b: {ansible_host: 192.0.2.9}}}\n"),
        "host_vars/a.json": json.dumps({"ip": "192.0.2.1", "motd": chr(0x1f680), "path": "\\ud83d\\ude80"})})
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.safe_load((tmp_path / "inventory.yaml").read_text()))
    found = read(tmp_path / "inventory.yaml")
    assert [host.name for host in found.cluster.hosts] == ["a"]
    assert found.cluster.settings.max_unavailable == "2"
    assert any("bastion" in note for note in found.notes)


def test_pairs_of_escapes_are_one_character_in_json_alone() -> None:
    for text, value in ((r'{"a": "\ud83d\ude80 \\ud83d\\ude80"}', chr(0x1f680) + r" \ud83d\ude80"), (r"{a: '\ud83d\ude80'}", r"\ud83d\ude80")):
        node = parse(text.encode(), "x", Diagnostics())
        assert node is not None and isinstance(node.value, dict) and node.value["a"].value == value


def test_a_user_who_is_not_root_becomes_root(tmp_path: Path) -> None:
    write(tmp_path, {"inventory.yaml": BASE % ", ansible_user: bob"})
    found = read(tmp_path / "inventory.yaml")
    assert found.cluster.host("cp-1").ssh.become
    assert found.notes == ("ansible_become is not set and the user is 'bob': sudo is used",)


def test_ssh_arguments_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/bob")
    more = ", ansible_ssh_common_args: \"-o 'ProxyCommand=ssh -W %h:%p b' -J x\""
    more += ", ansible_ssh_private_key_file: ~/k, ansible_timeout: 5"
    write(tmp_path, {"inventory.yaml": BASE.replace("%s", more)})
    ssh = load(tmp_path / "inventory.yaml").host("cp-1").ssh
    assert ssh.common_args == ("-o", "ProxyCommand=ssh -W %h:%p b", "-J", "x")
    assert (ssh.private_key, ssh.connect_timeout) == (Path("/home/bob/k"), 5.0)


def test_users_own_variables_may_be_anything(tmp_path: Path) -> None:
    own = ", x: {1: [no, 0644, 22:30, 2024-01-01, '{{ y }}']}"
    own += ", ansible_python_interpreter: /x, ansible_distribution: y, kube_owner: v1, ansible_user: root"
    write(tmp_path, {"inventory.yaml": BASE % own})
    found = read(tmp_path / "inventory.yaml")
    assert found.ignored == ("ansible_distribution", "ansible_python_interpreter", "kube_owner", "x")
    assert not found.notes


def test_a_directory_that_contains_itself(tmp_path: Path) -> None:
    write(tmp_path, {"inventory.yaml": BASE % "", "group_vars/all/x.yaml": "x: 1"})
    (tmp_path / "group_vars/all/loop").symlink_to(tmp_path / "group_vars/all")
    with pytest.raises(InputError, match="nested more than 5 deep"):
        load(tmp_path / "inventory.yaml")


@pytest.mark.parametrize("closed", ["group_vars/all", "group_vars", "."])
def test_what_may_not_be_read(closed: str) -> None:
    """By somebody who is not root."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), {"inventory.yaml": BASE % "", "group_vars/all/x.yaml": "x: 1"})
        Path(name).chmod(0o755)
        (Path(name) / closed).chmod(0)
        us = os.geteuid()
        os.seteuid(us or 65534)
        try:
            with pytest.raises(InputError, match="cannot be read: Permission denied"):
                load(Path(name) / "inventory.yaml")
        finally:
            os.seteuid(us)
            (Path(name) / closed).chmod(0o755)
