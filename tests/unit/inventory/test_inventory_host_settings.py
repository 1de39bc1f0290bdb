"""The variable ``cluster`` of groups and hosts: merged key by key, and limited to what may differ between hosts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import json_schema, load, read
from clusterctl.inventory.show import explain

INVENTORY = """\
all:
  vars:
    cluster: {name: prod, kubelet: {max_pods: 100, labels: {zone: a}, config: {podPidsLimit: 1, featureGates: {A: true}}}}
  children:
    control_plane: {hosts: {cp-1: {ansible_host: 192.0.2.11}}}
    workers:
      hosts:
        w-1: {ansible_host: 192.0.2.21, clusterctl_labels: {zone: own}}
        w-2: {ansible_host: 192.0.2.22}
        w-3: {ansible_host: 192.0.2.23}
    gpu:
      vars:
        cluster:
          kubelet:
            max_pods: 50
            taints: ["gpu=yes:NoSchedule"]
      hosts: {w-1: {}, w-2: {}}
"""


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder / "i.yaml"


def test_maps_are_merged_and_all_else_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, {
        "i.yaml": INVENTORY, "group_vars/all.yaml": "cluster: {kubelet: {max_pods: 80, extra_args: {v: '4'}}}",
        "group_vars/gpu.yaml": "cluster: {kubelet: {config: {featureGates: {B: false}}, labels: {gpu: 'yes'}}}",
        "host_vars/w-2.yaml": "cluster: {kubelet: {max_pods: 20, taints: [{key: own, effect: NoExecute}]}}",
    })
    cluster = load(path)
    kubelets = {host.name: host.settings.kubelet for host in cluster.hosts}
    # group_vars/all is stronger than a group in the inventory, as in Ansible.
    assert {name: one.max_pods for name, one in kubelets.items()} == {"cp-1": 80, "w-1": 80, "w-2": 20, "w-3": 80}
    assert kubelets["w-1"].config == {"podPidsLimit": 1, "featureGates": {"A": True, "B": False}}
    assert kubelets["w-3"].config == {"podPidsLimit": 1, "featureGates": {"A": True}}
    assert [taint.key for taint in kubelets["w-1"].taints] == ["gpu"] and [taint.key for taint in kubelets["w-2"].taints] == ["own"]
    assert cluster.settings.name == "prod" and cluster.settings.kubelet.extra_args == kubelets["w-2"].extra_args == {"v": "4"}


def test_labels_and_taints_of_a_hosts_own_variables_win(tmp_path: Path) -> None:
    cluster = load(write(tmp_path, {"i.yaml": INVENTORY, "host_vars/w-1.yaml": "node_taints: ['gpu=no:NoSchedule', 'x:NoExecute']"}))
    assert cluster.host("w-1").labels == {"zone": "own"} and cluster.host("w-3").labels == {"zone": "a"}
    assert [(taint.key, taint.value) for taint in cluster.host("w-1").taints] == [("gpu", "no"), ("x", "")]
    assert [(taint.key, taint.value) for taint in cluster.host("w-2").taints] == [("gpu", "yes")]


def test_hosts_without_settings_of_their_own_share_one_object(tmp_path: Path) -> None:
    cluster = load(write(tmp_path, {"i.yaml": INVENTORY}))
    assert cluster.host("cp-1").settings is cluster.host("w-3").settings
    assert cluster.host("w-1").settings is cluster.host("w-2").settings is not cluster.host("w-3").settings


WRONG = [
    # case            file                    content                                          place             code
    ("cluster-wide",  "host_vars/w-1.yaml",   "cluster:\n  kubelet: {}\n  network: {}",        ":3:3",           "inventory.cluster-wide"),
    ("name of group", "group_vars/gpu.yaml",  "cluster: {name: x}",                            ":1:11",          "inventory.cluster-wide"),
    ("unknown",       "group_vars/gpu.yaml",  "cluster: {kubelets: {}}",                       ":1:11",          "inventory.value"),
    ("not a map",     "host_vars/w-1.yaml",   "cluster: [a]",                                  ":1:10",          "inventory.value"),
    ("wrong type",    "host_vars/w-1.yaml",   "cluster: {kubelet: {max_pods: many}}",          ":1:31",          "inventory.value"),
    ("unknown below", "host_vars/w-1.yaml",   "cluster: {kubelet: {max_pod: 3}}",              ":1:21",          "inventory.value"),
    ("no room",       "host_vars/w-1.yaml",   "cluster: {kubelet: {max_pods: 300}}",           ":1:31",          "inventory.value"),
    ("taint",         "group_vars/gpu.yaml",  "cluster: {kubelet: {taints: ['a=b:Never']}}",   ":1:30",          "inventory.value"),
    ("taint twice",   "group_vars/gpu.yaml",  "cluster: {kubelet: {taints: ['a:NoExecute', 'a=b:NoExecute']}}", ":1:29", "inventory.value"),
    ("reserves",      "host_vars/w-1.yaml",   "cluster: {kubelet: {reserves: some}}",          ":1:31",          "inventory.value"),
    ("quantity",      "host_vars/w-1.yaml",   "cluster: {kubelet: {reserves: {cpu: much}}}",   ":1:37",          "inventory.value"),
    ("resource",      "host_vars/w-1.yaml",   "cluster: {kubelet: {reserves: {disk: '1'}}}",   ":1:32",          "inventory.value"),
    ("label",         "group_vars/gpu.yaml",  "cluster: {kubelet: {labels: {a/b/c: x}}}",      ":1:30",          "inventory.value"),
]


@pytest.mark.parametrize(("name", "content", "place", "code"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_settings_are_refused_where_they_stand(tmp_path: Path, name: str, content: str, place: str, code: str) -> None:
    path = write(tmp_path, {"i.yaml": INVENTORY, name: content})
    with pytest.raises((InputError, Problems)) as caught:
        load(path)
    error = caught.value.errors[0] if isinstance(caught.value, Problems) else caught.value
    assert isinstance(error, InputError)
    assert (error.where, error.code) == (f"{tmp_path / name}{place}", code or "inventory.value")


def test_the_schema_refuses_cluster_wide_settings_of_groups_and_hosts() -> None:
    valid = jsonschema.Draft202012Validator(json_schema()).is_valid
    document = yaml.safe_load(INVENTORY)
    assert valid(document)
    document["all"]["children"]["gpu"]["vars"]["cluster"] = {"network": {}}
    assert not valid(document)
    document["all"]["children"]["gpu"] = {"hosts": {"w-1": {"cluster": {"kubelet": {"taints": ["a"]}}}}}
    assert not valid(document)


def test_each_value_is_explained_by_its_place(tmp_path: Path) -> None:
    path = write(tmp_path, {"i.yaml": INVENTORY, "host_vars/w-1.yaml": "cluster:\n  kubelet:\n    labels: {on: 'yes'}"})
    found = read(path)
    text = explain(found, found.cluster.host("w-1"))
    lines = {line.partition(" #")[0].strip(): line.partition("# ")[2] for line in text.splitlines()}
    assert lines['name: "prod"'] == f"{path}:3" and lines["max_pods: 50"] == f"{path}:15"
    assert lines['"on": "yes"'] == f"{tmp_path}/host_vars/w-1.yaml:3" and lines["certificate_days: 365"] == "default"
    assert lines['- {"key": "gpu", "value": "yes", "effect": "NoSchedule"}'] == f"{path}:16"
    shown = yaml.safe_load(text)["cluster"]
    assert shown["kubelet"] == json.loads(found.cluster.host("w-1").settings.kubelet.model_dump_json())


def test_explain_on_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"i.yaml": INVENTORY})

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "clusterctl", "inventory", "-i", str(path), *words], capture_output=True, text=True,
                              timeout=60, check=False)

    assert yaml.safe_load(run("-o", "yaml", "--explain", "w-2").stdout)["cluster"]["kubelet"]["max_pods"] == 50
    assert yaml.safe_load(run("-o", "yaml").stdout)["cluster"]["hosts"][1]["settings"]["kubelet"]["max_pods"] == 50
    unknown = run("-o", "yaml", "--explain", "w-9")
    assert unknown.returncode == 2 and "[inventory.no-host]" in unknown.stderr
    assert "[inventory.explain-output]" in run("--explain", "w-1").stderr
