"""Where inventories come from: stdin, folders, several sources, large listings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterctl.errors import InputError, Problems, Refused
from clusterctl.inventory import read
from clusterctl.inventory.edit import remove_host
from clusterctl.inventory.ini import looks_like_ini
from clusterctl.inventory.loader import Inventory
from clusterctl.inventory.sources import Sources
from clusterctl.local.storage import StateFolder

INI = "[control_plane]\ncp-1 ansible_host=192.0.2.1\n"
YAML = "control_plane: {hosts: {cp-1: {ansible_host: 192.0.2.1}}}\n"
LISTING = json.dumps({"_meta": {"hostvars": {"cp-1": {"ansible_host": "192.0.2.1"}}}, "control_plane": {"hosts": ["cp-1"]}})


def loaded(*paths: Path) -> Inventory:
    return read(Sources(paths))


def run(*words: str, given: str | None = None, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "clusterctl", *words], capture_output=True, text=True, timeout=60, check=False, input=given,
                          cwd=cwd, env={**os.environ, **environment})


@pytest.mark.parametrize("text", [INI, YAML, LISTING], ids=["ini", "yaml", "listing"])
def test_stdin_is_an_inventory(tmp_path: Path, text: str) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "host_vars/cp-1.yml").write_text("ansible_port: 2222\n")
    done = run("inventory", "-i", "-", "-o", "json", given=text, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["files"][0] == "stdin" and found["cluster"]["hosts"][0]["ssh"]["port"] == 2222


def test_a_pipe_is_read_once() -> None:
    reader, writer = os.pipe()
    os.write(writer, INI.encode())
    os.close(writer)
    sources = Sources((Path(f"/dev/fd/{reader}"),))
    assert read(sources).cluster == read(sources).cluster and read(sources).cluster.base == Path.cwd()
    with pytest.raises(Refused) as caught:
        remove_host(sources, "cp-1")
    assert caught.value.code == "inventory.edit-not-a-file"
    os.close(reader)


def test_stdin_is_read_once_by_a_verb_that_reads_the_inventory_again(tmp_path: Path) -> None:
    done = run("node", "remove", "cp-9", "-i", "-", given=INI, cwd=tmp_path)
    assert done.returncode == 2 and "[inventory.no-host]" in done.stderr, done.stderr


@pytest.mark.parametrize(("text", "place", "code"), [
    ("[control_plane]\nn1 ansible_port=x ansible_host=192.0.2.1\n", "stdin:2:17", "inventory.value"), ("", "stdin", "inventory.empty")])
def test_messages_about_stdin(tmp_path: Path, text: str, place: str, code: str) -> None:
    done = run("inventory", "-i", "-", given=text, cwd=tmp_path)
    assert done.returncode == 2 and f"{place}: " in done.stderr and f"[{code}]" in done.stderr, done.stderr


def test_several_sources_on_the_command_line_and_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text(INI)
    (tmp_path / "b.yml").write_text("control_plane: {vars: {ansible_port: 2222}}\nworkers: {hosts: {w-1: {ip: 192.0.2.2}}}\n")
    for done in (run("inventory", "-i", "a.ini", "--inventory", "b.yml", "-o", "json", cwd=tmp_path),
                 run("inventory", "-o", "json", cwd=tmp_path, CLUSTERCTL_INVENTORY="a.ini:b.yml")):
        assert done.returncode == 0, done.stderr
        assert [(host["name"], host["ssh"]["port"]) for host in json.loads(done.stdout)["cluster"]["hosts"]] == [("cp-1", 2222), ("w-1", 22)]


def test_the_first_source_says_where_the_state_is(tmp_path: Path) -> None:
    for name, text in (("one/hosts.ini", INI), ("two/b.yml", "all: {vars: {cluster: {name: prod}}}\n")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    for first in (tmp_path / "one/hosts.ini", tmp_path / "one"):
        cluster = loaded(first, tmp_path / "two").cluster
        assert StateFolder.of(cluster.base, cluster.name).path == tmp_path / "one/.clusterctl/prod"


def test_a_folder_leaves_out_what_ansible_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "hosts.ini").write_text(INI)
    broken = "a: [\n"
    for name in (".hidden.yml", "a.yml~", "a.yml.orig", "a.bak", "ansible.cfg", "README.md", "notes.txt", "a.retry", "a.pyc", "clusterctl.lock"):
        (tmp_path / name).write_text(broken)
    for name in (".clusterctl", "group_vars", "host_vars"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yml").write_text(broken)
    (tmp_path / "empty.yml").write_text("---\n")
    assert [host.name for host in loaded(tmp_path).cluster.hosts] == ["cp-1"]
    (tmp_path / "other.yml").write_text(broken)
    with pytest.raises(InputError) as caught:
        loaded(tmp_path)
    assert caught.value.where.startswith(f"{tmp_path}/other.yml:")


def test_a_folder_of_kubespray_with_what_it_makes(tmp_path: Path) -> None:
    """Ansible reads the files as inventories and warns of each that is none."""
    key = "4f5c1b0d" * 8
    others = {"artifacts/admin.conf": "apiVersion: v1\nclusters: []\nkind: Config\n", "patches/kube-scheduler+merge.yaml": "a: {b: c}\n",
              "credentials/kubeadm_certificate_key.creds": f"{key}\n", "terraform.tfstate": '{"version": 4, "outputs": {}, "resources": []}',
              "playbook.yml": "- hosts: all\n", "picture": b"\xff\xfe\x00".decode("latin-1"), "kubeconfig": "kind: Config\nusers: []\n"}
    for name, text in {"inventory.ini": INI, **others}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    found = loaded(tmp_path)
    assert [Path(file).name for file in found.files] == ["inventory.ini"] and key not in str(found)
    foreign = {Path(note.split(" ")[0]).name for note in found.notes if note.startswith(str(tmp_path))}
    assert foreign == {"terraform.tfstate", "playbook.yml", "picture", "kubeconfig"}


@pytest.mark.parametrize("text", ["kube_nod: {host: {a: }}\nkube_node: {hosts: {b: }}\n", "all: {child: {}}\n", "cluster: {name: x}\n", "a: [\n"])
def test_a_mistake_in_a_file_of_a_folder_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.ini").write_text(INI)
    (tmp_path / "b.yml").write_text(text)
    with pytest.raises((InputError, Problems)):
        loaded(tmp_path)


@pytest.mark.parametrize("names", [[], ["README.md"], [".git"]])
def test_a_folder_without_inventories(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        loaded(tmp_path)
    assert caught.value.code == "inventory.folder-empty"


def test_a_folder_that_contains_itself(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to(tmp_path)
    with pytest.raises(InputError) as caught:
        loaded(tmp_path)
    assert caught.value.code == "inventory.folder-depth"


def test_programs_in_a_folder_are_run(tmp_path: Path) -> None:
    program = tmp_path / "list"
    program.write_text(f"#!/bin/sh\necho '{LISTING}'\n")
    program.chmod(0o755)
    assert loaded(tmp_path).cluster.host("cp-1")


def large(hosts: int) -> dict[str, Any]:
    """What ``ansible-inventory --list`` prints where all hosts have kubespray's variables: about 8 kB for each."""
    shared = {f"kubespray_setting_{number}": ["a value", 6443, True, ["a", "b"], {"k": {"x": 1}}, None][number % 6] for number in range(170)}
    names = [f"node{number}.example.com" for number in range(1, hosts + 1)]
    variables = {name: {"ansible_host": f"192.0.{2 + number // 250}.{number % 250 + 1}", **shared, "cluster": {"name": "prod"}}
                 for number, name in enumerate(names)}
    return {"_meta": {"hostvars": variables}, "kube_control_plane": {"hosts": names[:3]}, "kube_node": {"hosts": names[3:]}}


MEASURE = """
import re, sys, time
from pathlib import Path
import clusterctl.inventory.loader as loader
begin = time.process_time()
found = loader.read(Path(sys.argv[1]))
print(len(found.cluster.hosts), found.cluster.name, len(found.ignored), time.process_time() - begin,
      int(re.search("VmHWM: *([0-9]+)", Path("/proc/self/status").read_text().replace("\t", " "))[1]) // 1024)
"""


def test_two_hundred_hosts_with_all_variables_are_quick_and_small(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    path.write_text(json.dumps(large(200), indent=4))
    assert path.stat().st_size > 1_600_000
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, timeout=60, check=True)
    hosts, name, ignored, seconds, memory = done.stdout.split()
    assert (hosts, name, ignored) == ("200", "prod", "170")
    assert float(seconds) < 1 and int(memory) < 150


WRONG = [
    # more variables of a host                                  code
    ({"ansible_port": 70000},                                   "inventory.value"),
    ({"ansible_hots": "x"},                                     "inventory.value"),
    ({"ansible_become_password": "hunter2"},                    "inventory.secret"),
    ({"clusterctl_labels": {"a": {"b": 1}}},                    "inventory.value"),
    ({"cluster": {"name": "other"}},                            "inventory.cluster-wide"),
]


@pytest.mark.parametrize(("more", "code"), WRONG, ids=[next(iter(row[0])) for row in WRONG])
def test_a_large_listing_is_checked_and_its_host_named(tmp_path: Path, more: dict[str, Any], code: str) -> None:
    data = large(20)
    data["_meta"]["hostvars"]["node7.example.com"] |= more
    path = tmp_path / "i.json"
    path.write_text(json.dumps(data, indent=4))
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if text.strip() == '"node7.example.com": {')
    with pytest.raises((InputError, Problems)) as caught:
        loaded(path)
    errors = caught.value.errors if isinstance(caught.value, Problems) else (caught.value,)
    assert any(error.code == code and error.where.startswith(f"{path}:{line}:") for error in errors), errors
    assert "hunter2" not in str(caught.value)


def test_a_large_listing_is_read_as_a_small_one(tmp_path: Path) -> None:
    small = large(20)
    for variables in small["_meta"]["hostvars"].values():
        for number in range(170):
            del variables[f"kubespray_setting_{number}"]
    for name, data in (("large", large(20)), ("small", small)):
        (tmp_path / name).write_text(json.dumps(data))
    assert (tmp_path / "small").stat().st_size < 64 * 1024 < (tmp_path / "large").stat().st_size
    assert loaded(tmp_path / "large").cluster == loaded(tmp_path / "small").cluster


@pytest.mark.parametrize("cut", [-1, -2, -30, 1000, 70_000, 100_000])
def test_a_part_of_a_large_listing(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "i.json"
    text = json.dumps(large(20))[:cut]
    path.write_text(text)
    with pytest.raises((InputError, Problems)) as caught:
        loaded(path)
    assert isinstance(caught.value, Problems | InputError) and caught.value.exit_code == 2


@pytest.mark.parametrize("change", [lambda text: "{" + "[" * 200_000, lambda text: '{"_meta": ' + "[" * 200_000,
                                    lambda text: '{"_meta": {"hostvars": {"a": ' + '{"b":' * 200_000, lambda text: text + "x", lambda text: text.replace(":", ";", 1),
                                    lambda text: text.replace(":", ": ,", 1), lambda text: text.replace('"hostvars": {', '"hostvars": [', 1)])
def test_a_large_listing_that_is_broken(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "i.json"
    path.write_text(change(json.dumps(large(20))))
    with pytest.raises((InputError, Problems)):
        loaded(path)


def test_a_listing_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "i.json"
    with path.open("w") as file:
        file.write('{"_meta": {')
        file.truncate(65 * 1024 * 1024)
    with pytest.raises(InputError) as caught:
        loaded(path)
    assert caught.value.code == "inventory.too-large"


INI_LINES = ["[a]", " [a]  # c", "[a b]", "h1", "h1 x=1", "192.0.2.1:22 x=1", "; c", "h1 motd='a: b'", "h[1:3] x=1", "h1 # c: d", "- h1"[2:], "-h1", "[a:vars]"]
YAML_LINES = ["all:", "all: {}", "all : {}", "'w-[1:3]': x", '"a b": c', "---", "--- # c", "{all: }", "- a", "? a", "%YAML 1.1", "&a all:", "os_flavor=4: {}", "w-[1:3]: x",
              "key with blanks: x", "!!map", "*a : b", "<<: {}", "[[a]]", "[a, b"]


@pytest.mark.parametrize(("line", "ini"), [*((line, True) for line in INI_LINES), *((line, False) for line in YAML_LINES)])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n# all:\n\n", "# c\r\n"])
def test_the_first_line_says_what_a_file_is(line: str, ini: bool, before: str) -> None:
    assert looks_like_ini(f"{before}{line}\n[x]\n") is ini


def test_an_empty_file_is_neither() -> None:
    assert not looks_like_ini("") and not looks_like_ini("# [a]\n\n")
