"""Which groups give a role, what is left alone, and the names of nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import read
from clusterctl.inventory.findings import distance
from clusterctl.inventory.loader import Inventory


def loaded(folder: Path, text: str) -> Inventory:
    path = folder / "hosts"
    path.write_text(text)
    return read(path)


def others(notes: tuple[str, ...]) -> list[str]:
    """Notes but that of a user who is not named."""
    return [note for note in notes if "ansible_user" not in note]


def ini(**groups: str) -> str:
    """Groups of hosts a to d, whose addresses follow from their names."""
    lines = [f"{name} ansible_host=192.0.2.{number}" for number, name in enumerate("abcd", 1)]
    for group, hosts in groups.items():
        lines += [f"[{group.replace('__', '-')}]", *hosts]
    return "\n".join(lines) + "\n"


def roles(found: Inventory) -> str:
    return " ".join(f"{host.name}={'+'.join(sorted(role[0] for role in host.roles))}" for host in found.cluster.hosts)


TAKEN = [
    # groups                                                           roles                      notes about groups
    ({"control_plane": "a", "workers": "b"},                           "a=c+e b=w",               0),
    ({"kube_control_plane": "a", "kube_node": "b", "etcd": "c"},       "a=c b=w c=e",             0),
    ({"kube__master": "a", "kube__node": "ab", "etcd": "a"},           "a=c+e+w b=w",             2),
    ({"kube_control_plane": "a", "kube__node": "b"},                   "a=c+e b=w",               1),
    ({"kube_control_plane": "a", "kube__master": "ab"},                "a=c+e b=c+e",             1),
    ({"kube_master": "a", "kube_node": "b"},                           "a=c+e b=w",               1),
    ({"server": "a", "agent": "bc"},                                   "a=c+e b=w c=w",           2),
    ({"master": "a", "node": "b"},                                     "a=c+e b=w",               2),
    ({"masters": "a", "workers": "b"},                                 "a=c+e b=w",               1),
    ({"masters": "a", "nodes": "ab"},                                  "a=c+e+w b=w",             2),
    ({"controllers": "a", "workers": "b"},                             "a=c+e b=w",               1),
    ({"control_plane": "a", "server": "b", "workers": "c"},            "a=c+e c=w",               1),
    ({"control_plane": "a", "node": "b"},                              "a=c+e",                   1),
    ({"control_plane": "a", "masters": "b", "agent": "c"},             "a=c+e",                   2),
    ({"masters": "a", "workers": "b", "node": "c"},                    "a=c+e b=w",               2),
]


@pytest.mark.parametrize(("groups", "wanted", "notes"), TAKEN, ids=[" ".join(row[0]) for row in TAKEN])
def test_groups_of_other_tools(tmp_path: Path, groups: dict[str, str], wanted: str, notes: int) -> None:
    found = loaded(tmp_path, ini(**groups))
    assert roles(found) == wanted
    assert len([note for note in found.notes if note.startswith("group ")]) == notes


NEAR = ["worker", "wokers", "Workers", "WORKERS", "etcds", "Etcd", "etdc", "control__plane", "controlplane", "control_planes", "kube__control__plane",
        "kube_nodes", "kube_control_planes", "kubenode"]


@pytest.mark.parametrize("name", NEAR)
def test_a_group_that_is_nearly_a_roles_is_refused_whatever_else_its_hosts_are(tmp_path: Path, name: str) -> None:
    text = ini(control_plane="a", etcd="ab" if "etc" not in name.lower() and "etd" not in name else "a", workers="ac", **{name: "abcd"})
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, text)
    written = name.replace("__", "-")
    assert caught.value.code == "inventory.group-misspelt" and f"group {written} " in caught.value.message
    assert caught.value.where.endswith(f"hosts:{text.splitlines().index(f'[{written}]') + 1}:1")


@pytest.mark.parametrize("groups", [
    {"workers": "bc", "worker": "bc"}, {"workers": "bc", "worker": ""}, {"workers": "b", "gpu_workers": "c"}, {"workers": "b", "prometheus": "c"},
    {"workers": "b", "nfs": "c"}, {"workers": "b", "etcd_backup": "c"}, {"workers": "b", "kube__ingress": "c"}, {"workers": "b", "x" * 300: "c"},
    {"workers": "b", "os_flavor=4,x": "c"},
])
def test_other_groups_are_the_users_own(tmp_path: Path, groups: dict[str, str]) -> None:
    assert loaded(tmp_path, ini(control_plane="a", **groups)).cluster.host("b").roles == {"worker"}


def test_a_part_of_a_roles_group_may_be_called_nearly_so(tmp_path: Path) -> None:
    text = ini(control_plane="a", worker="b", workers1="c") + "[workers:children]\nworker\nworkers1\n"
    assert roles(loaded(tmp_path, text)) == "a=c+e b=w c=w"


def test_hosts_in_no_group_of_the_cluster_are_left_alone_with_one_note(tmp_path: Path) -> None:
    found = loaded(tmp_path, "localhost ansible_connection=local\n" + ini(control_plane="a") + "[lb]\nlb-1 ansible_password=x\nlb-2 ip=nonsense\n")
    assert roles(found) == "a=c+e"
    assert [note for note in found.notes if "lb-1" in note and "lb-2" in note and "localhost" in note] and len(others(found.notes)) == 1


def test_files_of_machines_that_are_left_alone_are_not_read(tmp_path: Path) -> None:
    for name in ("group_vars/lb.yml", "host_vars/lb-1.yml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x: !include y\ncluster: {}\n: [\n")
    assert roles(loaded(tmp_path, ini(control_plane="a") + "[lb]\nlb-1 cluster={}\n")) == "a=c+e"


@pytest.mark.parametrize("text", ["192.0.2.1\n", "[lb]\na ansible_host=192.0.2.1\n", "[k3s_cluster]\na\n", "[bastion]\na\n"])
def test_where_nothing_is_left_it_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, text)
    assert caught.value.code == "inventory.no-roles"


def test_workers_without_a_control_plane(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, ini(workers="a"))
    assert caught.value.code == "inventory.no-control-plane"


NAMES = [
    # in the inventory                                  as a node
    ("cp-1",                                            "cp-1"),
    ("master-1.example.com",                            "master-1.example.com"),
    ("Master_1",                                        "master-1"),
    ("CP-1.Example.COM",                                "cp-1.example.com"),
    ("192.168.30.38",                                   "node-192-168-30-38"),
    ("ip-10-0-1-5.eu-west-1.compute.internal",          "ip-10-0-1-5.eu-west-1.compute.internal"),
    ("1",                                               "1"),
    ("x" * 52,                                          "x" * 52),
    (".".join(["x" * 12] * 4),                          ".".join(["x" * 12] * 4)),
]


@pytest.mark.parametrize(("written", "name"), NAMES)
def test_names_of_nodes(tmp_path: Path, written: str, name: str) -> None:
    (tmp_path / "host_vars").mkdir()
    (tmp_path / f"host_vars/{written}").write_text("ansible_port: 2222\n")
    found = loaded(tmp_path, f"[control_plane]\n{written} clusterctl_address=192.0.2.1\n")
    assert [(host.name, host.ssh.port, host.ssh.address) for host in found.cluster.hosts] == [(name, 2222, written)]
    assert found.written == {name: written} and bool(others(found.notes)) == (name != written)


@pytest.mark.parametrize("written", ["_x", "x_", "-x", "a..b", ".a", "a.", "x" * 64, ".".join(["x" * 60] * 5), "ü", "a/b", "a$b", "a;b", "..", "a*"])
def test_names_that_no_node_can_have(tmp_path: Path, written: str) -> None:
    text = "".join(f"[{group}]\n'{written}' ansible_host=192.0.2.1\n" for group in ("control_plane", "etcd", "workers"))
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, text)
    assert caught.value.code == "inventory.host-name" and caught.value.where.endswith(":2:1"), "one message, not one for each mention"


@pytest.mark.parametrize("pair", [("A", "a"), ("a_b", "a-b"), ("192.0.2.9", "node-192-0-2-9"), ("a_b", "A-B")])
def test_two_hosts_that_become_one_node(tmp_path: Path, pair: tuple[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, "[control_plane]\n" + "".join(f"{name} ansible_host=192.0.2.{number}\n" for number, name in enumerate(pair, 1)))
    assert caught.value.code == "inventory.host-name-twice" and caught.value.where.endswith(":3:1")


@pytest.mark.parametrize(("one", "other", "apart"), [("cluster", "cluster", 0), ("clustr", "cluster", 1), ("clutser", "cluster", 1), ("luster", "cluster", 1),
                                                     ("clusters", "cluster", 1), ("custers", "cluster", 2), ("", "ab", 2), ("abc", "cba", 2)])
def test_distance(one: str, other: str, apart: int) -> None:
    assert distance(one, other) == distance(other, one) == apart


@pytest.mark.parametrize("name", ["clustr", "Cluster", "clusters", "clutser", "cluste", "lcuster"])
@pytest.mark.parametrize("place", ["inventory", "file", "listing"])
def test_a_misspelt_cluster_variable_is_refused(tmp_path: Path, name: str, place: str) -> None:
    text = "control_plane: {hosts: {a: {ip: 192.0.2.1}}}\n"
    if place == "inventory":
        text += f"all: {{vars: {{{name}: {{name: prod}}}}}}\n"
    elif place == "file":
        (tmp_path / "group_vars").mkdir()
        (tmp_path / "group_vars/all.yml").write_text(f"{name}: {{name: prod}}\n")
    else:
        text = f'{{"_meta": {{"hostvars": {{"a": {{"ip": "192.0.2.1", "{name}": {{"name": "prod"}}}}}}}}, "control_plane": ["a"]}}'
    with pytest.raises(InputError) as caught:
        loaded(tmp_path, text)
    assert caught.value.code == "inventory.cluster-misspelt"


@pytest.mark.parametrize("variables", ["clustr: text", "clusters: [a, b]", "clusters: {a: b}, cluster: {name: prod}"])
def test_other_variables_with_such_names(tmp_path: Path, variables: str) -> None:
    assert loaded(tmp_path, f"all: {{vars: {{{variables}}}}}\ncontrol_plane: {{hosts: {{a: {{ip: 192.0.2.1}}}}}}\n")


@pytest.mark.parametrize("text", ["cluster: {name: prod}", "cluster: {kubernetes: '1.36', hosts: {b: }}", "all: {cluster: {name: prod}}", "control_plane: {cluster: {name: x}}"])
def test_a_misplaced_cluster_variable_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises((InputError, Problems)) as caught:
        loaded(tmp_path, f"{text}\nworkers: {{hosts: {{a: {{ip: 192.0.2.1}}}}}}\n")
    errors = caught.value.errors if isinstance(caught.value, Problems) else (caught.value,)
    assert [error.code for error in errors if "cluster" in error.message][0] == "inventory.cluster-misplaced"


def test_a_group_may_be_called_cluster(tmp_path: Path) -> None:
    assert loaded(tmp_path, "cluster: {children: {control_plane: {hosts: {a: {ip: 192.0.2.1}}}}}\n")
