"""Inventories as people write them, and what they get: the value that they meant, or one message that leads to what works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import ansible
import pytest

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import load, names, read
from clusterctl.ssh.keys import refuse_unreadable

ONE = "all: {{vars: {{cluster: {{{settings}}}}}, children: {{control_plane: {{hosts: {{a: {{ip: 192.0.2.1, {host}}}}}}}}}}}"


def written(folder: Path, settings: str = "", host: str = "", name: str = "i.yaml") -> Path:
    path = folder / name
    path.write_text(ONE.format(settings=settings, host=host))
    return path


@pytest.mark.parametrize(("version", "meant"), [('"1.36"', "1.36.4"), ('"1.35"', "1.35.8"), ("1.36.4", "1.36.4")])
def test_a_minor_means_its_pinned_patch(tmp_path: Path, version: str, meant: str) -> None:
    found = read(written(tmp_path, f"kubernetes: {version}"))
    assert found.cluster.versions.kubernetes == meant
    assert any(meant in note for note in found.notes) == (version[0] == '"')


def test_the_hint_for_an_unquoted_minor_works(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(written(tmp_path, "kubernetes: 1.36"))
    assert caught.value.hint == 'quote it: "1.36"'


@pytest.mark.parametrize("name", ["hosts.ini", "inventory", "i.yaml", "i.json"])
def test_the_executable_bit_alone_makes_no_program(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name=name)
    path.chmod(0o755)
    assert load(path).hosts[0].name == "a"


def listing(folder: Path, **cluster: str) -> Path:
    """What ``ansible-inventory --list`` prints: each host has the variables of its groups. ``cluster``: name by host."""
    hosts = {name: {"ansible_host": f"192.0.2.{number}", "ansible_user": "ops", "cluster": {"name": cluster.get(name, "prod")}}
             for number, name in enumerate(("a", "b"), 1)}
    path = folder / "i.json"
    path.write_text(json.dumps({"_meta": {"hostvars": hosts}, "all": {"children": ["ungrouped", "control_plane", "workers"]},
                                "control_plane": {"hosts": ["a"]}, "workers": {"hosts": ["b"]}}))
    return path


def test_the_output_of_ansible_inventory_is_read(tmp_path: Path) -> None:
    cluster = load(listing(tmp_path))
    assert [(host.name, str(host.address), sorted(host.roles)) for host in cluster.hosts] == [
        ("a", "192.0.2.1", ["control_plane", "etcd"]), ("b", "192.0.2.2", ["worker"])]
    assert cluster.name == "prod" and cluster.host("a").ssh.user == "ops"


def test_settings_that_differ_between_hosts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Problems, match=r"\[inventory.cluster-wide\]"):
        load(listing(tmp_path, b="test"))


def test_hosts_without_an_address_are_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "i.yaml"
    path.write_text("{control_plane: {hosts: {'cp-[1:3]': }}, workers: {hosts: {'w-[1:5]': }}}")
    with pytest.raises(InputError) as caught:
        load(path)
    assert all(name in caught.value.message for name in ("cp-1", "cp-3", "w-1", "w-5")) and str(caught.value).count("next:") == 1


def test_the_first_example_of_the_readme_is_an_inventory(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text()
    example = text[text.index("# cluster.yaml"):]
    (tmp_path / "cluster.yaml").write_text(example[:example.index("```")])
    cluster = load(tmp_path / "cluster.yaml")
    assert len(cluster.control_planes) == 3 and len(cluster.nodes) == 5


@pytest.mark.parametrize(("value", "text"), [("true", "true"), ("false", "false"), ("1", "1"), ("-a-", None), ("yes", None), ("1.5", None),
                                             ("0x10", None), ('"yes"', "yes")])
@pytest.mark.parametrize("variable", ["node_labels", "clusterctl_labels"])
def test_labels_of_true_and_whole_numbers(tmp_path: Path, value: str, text: str | None, variable: str) -> None:
    path = written(tmp_path, host=f"{variable}: {{gpu: {value}}}")
    if text is None:
        with pytest.raises(InputError):
            load(path)
    else:
        assert load(path).hosts[0].labels == {"gpu": text}


@pytest.mark.parametrize("host", [
    "access_ip: $(x)", "clusterctl_address: 255.255.255.255", "clusterctl_address: 0.1.2.3", "clusterctl_address: 240.0.0.1",
    "clusterctl_address: 127.0.0.1",
])
def test_addresses_that_cannot_work_are_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError):
        load(written(tmp_path, host=host))


@pytest.mark.parametrize("host", ["ansible_host: 'fd00::1'", "access_ip: 'fd00::1'", "ansible_host: '2001:db8::1'"])
def test_ipv6_is_named_as_not_supported(tmp_path: Path, host: str) -> None:
    with pytest.raises(InputError, match="IPv6 is not supported"):
        load(written(tmp_path, host=host))


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError) as caught:
        load(tmp_path / "fifo")
    assert caught.value.code == "inventory.not-a-file"
    with pytest.raises(InputError) as caught:
        refuse_unreadable("a", [tmp_path / "fifo"])
    assert caught.value.code == "ssh.key-not-a-file"


def test_a_shells_own_pipe_is_read(tmp_path: Path) -> None:
    path = written(tmp_path)
    done = subprocess.run(["bash", "-c", f"{sys.executable} -m clusterctl inventory -i <(cat {path})"], capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode == 0 and "192.0.2.1" in done.stdout, done.stderr


def test_notes_come_first_and_long_lists_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, host="ansible_user: root, metallb_enabled: true, " + ", ".join(f"mine_{number}: 1" for number in range(20)))
    (tmp_path / "group_vars").mkdir()
    for name in ("all", "control_plane"):
        (tmp_path / "group_vars" / f"{name}.yml").write_text("{other: 1}")
    words = [sys.executable, "-m", "clusterctl", "inventory", "-i", str(path)]
    short, whole = (subprocess.run([*words, *more], capture_output=True, text=True, timeout=60, check=True).stdout for more in ([], ["-v"]))
    lines = short.splitlines()
    assert "2 more files" in lines[0] and "group_vars" not in short and lines[1].startswith("note: metallb_enabled")
    assert "21 variables" in lines[2] and "mine_7" not in short and max(map(len, lines)) < 200
    assert "mine_7" in whole and "group_vars/all.yml" in whole


@pytest.mark.parametrize("form", ["[control_plane]\na ansible_host=192.0.2.1 ansible_user={}\n", "[control_plane]\na ansible_host=192.0.2.1\n[all:vars]\nansible_user={}\n"])
def test_the_hint_for_a_number_in_ini_works(tmp_path: Path, form: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(form.format("1000"))
    with pytest.raises(InputError) as caught:
        load(path)
    path.write_text(form.format(caught.value.hint.removeprefix("quote it: ")))
    with pytest.raises(InputError, match="is not a user's name"):
        load(path)


def test_values_of_ini_have_their_places(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("[control_plane]\n  a ip=192.0.2.1 ansible_port='x' \"ansible_timeout=0\" ansible_usr=1\n\n[all:vars]\n ansible_connection = winrm\n"
                    "cluster={'nam': 1}\nansible_become_user=\"bob\"\n")
    with pytest.raises(Problems) as caught:
        load(path)
    assert [error.where.removeprefix(f"{path}:") for error in caught.value.errors] == ["2:31", "2:52", "2:55", "5:23", "6:9", "7:21"]


def of_ansible() -> set[str]:
    """Return all variables that the sources of ansible-core name."""
    root = Path(ansible.__file__).parent
    return {name for path in (*root.rglob("plugins/**/*.py"), *root.rglob("facts/**/*.py"), root / "constants.py", root / "vars/manager.py")
            for name in re.findall(r"\bansible_[a-z0-9_]+", path.read_text())} - names.SECRETS - names.USED


ORDINARY = ["hostname", "fqdn", "become_timeout", "sudo", "env", "user_id", "date_time", "nodename", "machine", "system", "ssh_agent", "docker_extra_args", "sudo_user", "admin_users", "default_ipv4", "distribution", "os_family", "user_dir", "user_uid", "interfaces", "dns"]


def test_variables_of_ansible_are_not_taken_for_misspelt_ones(tmp_path: Path) -> None:
    known = of_ansible() - {"ansible_fact"} | {f"ansible_{name}" for name in ORDINARY}
    assert len(known) > 100
    assert known >= set(read(written(tmp_path, host=", ".join(f"{name}: x" for name in sorted(known)))).ignored) - {"ansible_facts"}


@pytest.mark.parametrize("name", ["hots", "prot", "usr", "hosts", "ports", "users", "ssh_timeouts", "ssh_comon_arg", "ssh_private_key_fil", "become_methd", "become_passwort"])
def test_misspelt_variables_of_ansible_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError) as caught:
        load(written(tmp_path, host=f"ansible_{name}: x"))
    assert caught.value.code == "inventory.value"


@pytest.mark.parametrize(("name", "text", "refused"), [
    ("i.yaml", "control_plane: {vars: {clustr: {kubelet: {max_pods: 50}}}, hosts: {a: {ip: 192.0.2.1}}}", True),
    ("i.yaml", "control_plane: {hosts: {a: {ip: 192.0.2.1, clustr: {kubelet: {max_pods: 50}}}}}", True),
    ("i.yaml", "control_plane: {hosts: {a: {ip: 192.0.2.1}}}\nall: {vars: {cluster: {}, clusters: {name: prod}}}", True),
    ("i.yaml", "control_plane: {hosts: {a: {ip: 192.0.2.1, clusters: {prod: {}}}}}", False),
    ("i.yaml", "control_plane: {hosts: {a: {ip: 192.0.2.1}}}\nall: {vars: {cluster: {}, clusters: {prod: x}}}", False)])
def test_a_misspelt_cluster_is_refused_wherever_it_stands(tmp_path: Path, name: str, text: str, refused: bool) -> None:
    (tmp_path / name).write_text(text)
    if not refused:
        assert load(tmp_path / name)
        return
    with pytest.raises(InputError) as caught:
        load(tmp_path / name)
    assert caught.value.code == "inventory.cluster-misspelt"


@pytest.mark.parametrize("host", ["ansible_port: ", "access_ip: ''", "ansible_host: ''", "clusterctl_labels: , ansible_user: ''"])
def test_empty_values_are_not_set(tmp_path: Path, host: str) -> None:
    """Templates of Terraform write them."""
    found = load(written(tmp_path, host=host)).hosts[0]
    assert (found.ssh.address, found.ssh.port, str(found.address)) == ("a", 22, "192.0.2.1")


TEMPLATE = "kubectl get nodes -o go-template={{.items}}"


@pytest.mark.parametrize(("settings", "accepted"), [
    (f"hooks: [{{name: a, after: nodes, run: '{TEMPLATE}', when: '{TEMPLATE}'}}]", True), (f"files: [{{path: /etc/a, content: '{TEMPLATE}'}}]", True),
    ("files: [{path: '/etc/{{ a }}', content: a}]", False), ("hooks: [{name: '{{ a }}', after: nodes, run: a}]", False)])
def test_braces_are_for_commands_and_contents(tmp_path: Path, settings: str, accepted: bool) -> None:
    path = written(tmp_path, settings)
    if accepted:
        found = load(path).settings
        assert TEMPLATE in (found.hooks[0].run if found.hooks else "", found.files[0].content if found.files else "")
    else:
        with pytest.raises((InputError, Problems)):
            load(path)


@pytest.mark.parametrize("settings", ["hooks: [{name: a, after: nodes, run: ''}]", "kubelet: {max_pods: '{{ x }}'}", "sysctls: {a.b: 'x  y'}",
                                      "files: [{path: /etc/a, content: a, mode: '999'}]"])
def test_a_message_names_what_is_wanted(tmp_path: Path, settings: str) -> None:
    with pytest.raises((InputError, Problems)) as caught:
        load(written(tmp_path, settings))
    assert "another type" not in str(caught.value) and "^" not in str(caught.value)


@pytest.mark.parametrize(("name", "text"), [("i.ini", "[control_plane]\n[2001:db8::1]:22\n"), ("i.yaml", "control_plane: {hosts: {'fd00::1': }}")])
def test_an_ipv6_address_as_a_name_is_named_as_such(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises((InputError, Problems), match="IPv6 is not supported"):
        load(tmp_path / name)


def test_anchors_may_stand_at_the_top(tmp_path: Path) -> None:
    (tmp_path / "i.yaml").write_text("x-common: &common {ansible_port: 2222}\ncontrol_plane: {hosts: {a: {ip: 192.0.2.1, <<: *common}}}\n")
    assert load(tmp_path / "i.yaml").hosts[0].ssh.port == 2222
