"""Inventories in the forms that kubespray, k3s-ansible, kubeasz, Terraform and Vagrant write, compared with Ansible's reading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible_reading import by_ansible, by_clusterctl, listing

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import formats, read
from clusterctl.inventory.loader import Inventory
from clusterctl.inventory.sources import Sources

REAL = Path(__file__).with_name("real")

READ = [
    # files                                      control planes               etcd                      workers
    ("kubespray/inventory.ini",                  "node1 node2 node3",         "node1 node2 node3",      "node4 node5 node6"),
    ("kubespray-builder/hosts.yaml",             "node1 node2",               "node1 node2 node3",      "node1 node2 node3"),
    ("kubespray-2.15/inventory.ini",             "node1 node2",               "node1 node2 node3",      "node2 node3"),
    ("kubespray-2.15-yaml/hosts.yml",            "node1",                     "node1",                  "node1 node2"),
    ("kubespray-half-renamed/hosts.yaml",        "node1 node2",               "node1 node2 node3",      "node1 node2 node3"),
    ("kubespray-bastion/inventory.ini",          "cp1",                       "cp1",                    "w1 w2"),
    ("kubespray-patches/inventory.ini",          "n1",                        "n1",                     "n2 n3"),
    ("kubespray-anchors/inventory.ini",          "node1",                     "node1",                  ""),
    ("terraform-aws/hosts",                      "ip-10-250-192-11.eu-central-1.compute.internal", "ip-10-250-192-11.eu-central-1.compute.internal",
     "ip-10-250-192-21.eu-central-1.compute.internal"),
    ("terraform-upcloud/inventory.ini",          "demo-k8s-master-0",         "demo-k8s-master-0",      "demo-k8s-worker-0"),
    ("vagrant/vagrant_ansible_inventory",        "k8s-1 k8s-2",               "k8s-1 k8s-2 k8s-3",      "k8s-1 k8s-2 k8s-3"),
    ("vagrant-groups/vagrant_ansible_inventory", "machine1",                  "machine1",               "machine2"),
    ("k3s-ansible/inventory.yml",                "node-192-16-35-11 node-192-16-35-12 node-192-16-35-13",
     "node-192-16-35-11 node-192-16-35-12 node-192-16-35-13", "node-192-16-35-14 node-192-16-35-15"),
    ("k3s-ansible-old/hosts.ini",                "node-192-168-30-38 node-192-168-30-39 node-192-168-30-40",
     "node-192-168-30-38 node-192-168-30-39 node-192-168-30-40", "node-192-168-30-41 node-192-168-30-42"),
    ("kubeasz/hosts",                            "node-192-168-1-1 node-192-168-1-2 node-192-168-1-3",
     "node-192-168-1-1 node-192-168-1-2 node-192-168-1-3", "node-192-168-1-4 node-192-168-1-5"),
    ("openshift/hosts",                          "ose3-master.test.example.com", "ose3-master.test.example.com",
     "ose3-master.test.example.com ose3-node1.test.example.com ose3-node2.test.example.com"),
    ("addresses-in-groups/hosts",                "node-192-0-2-1",            "node-192-0-2-1",         "node-192-0-2-2 node-192-0-2-3 node-192-0-2-4"),
    ("names/inventory.yml",                      "master-1 master-2 master-3.example.com", "master-1 master-2 master-3.example.com", ""),
    ("listing-yaml/i.yaml",                      "node1",                     "node1",                  "node2"),
    ("listing-export/i.yaml",                    "node1",                     "node1",                  ""),
    ("merge-keys/hosts.yml",                     "a b c",                     "a b c",                  "d"),
    ("ports/hosts.yml",                          "a b1 b2",                   "a b1 b2",                ""),
    ("ranges/hosts",                             "cp01 cp02 cp03",            "cp01 cp02 cp03",         "w-a-1 w-a-3 w-b-1 w-b-3 w-c-1 w-c-3"),
    ("literals/hosts",                           "a b",                       "a b",                    ""),
    ("precedence/hosts.ini",                     "n1",                        "n1",                     ""),
    ("ungrouped/hosts",                          "n1",                        "n1",                     ""),
    ("others/hosts.yml",                         "n1",                        "n1",                     ""),
    ("executable/hosts.ini",                     "n1",                        "n1",                     ""),
    ("script/inventory.sh",                      "n1",                        "n1",                     ""),
    ("folder/inventory",                         "n1",                        "n1",                     "n1 w1"),
    ("several/a/hosts.ini several/b/hosts.yml",  "n1",                        "n1",                     "w1"),
]


def paths(names: str) -> list[Path]:
    return [REAL / name for name in names.split()]


def loaded(names: str) -> Inventory:
    return read(Sources(tuple(paths(names))))


@pytest.mark.parametrize(("names", "control_planes", "members", "workers"), READ, ids=[row[0] for row in READ])
def test_an_inventory_is_read_as_ansible_reads_it(names: str, control_planes: str, members: str, workers: str) -> None:
    assert by_clusterctl(paths(names)) == by_ansible(paths(names))
    cluster = loaded(names).cluster
    found = [sorted(host.name for host in cluster.with_role(role)) for role in ("control_plane", "etcd", "worker")]
    assert found == [sorted(control_planes.split()), sorted(members.split()), sorted(workers.split())]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("names", [row[0] for row in READ])
def test_what_ansible_lists_is_the_same_cluster(names: str, large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if large:
        monkeypatch.setattr(formats, "_LARGE", 0)
    path = tmp_path / "listing.json"
    path.write_text(json.dumps(listing(paths(names)), indent=4))
    hosts, listed = ({host.name: host for host in found.cluster.hosts} for found in (loaded(names), read(path)))
    # A listing does not say where its keys are relative to.
    assert {name: (host.model_copy(update={"ssh": host.ssh.model_copy(update={"private_key": None})})) for name, host in hosts.items()} == {
        name: host.model_copy(update={"ssh": host.ssh.model_copy(update={"private_key": None})}) for name, host in listed.items()}


LISTINGS = [("listing/i.json", "node1", "node1", "node1 node2"), ("terraform-openstack/terraform.json", "demo-k8s-master-1", "demo-k8s-master-1",
                                                                  "demo-k8s-node-1")]


@pytest.mark.parametrize(("name", "control_planes", "members", "workers"), LISTINGS, ids=[row[0] for row in LISTINGS])
def test_a_listing_is_read_as_ansible_reads_a_programs(tmp_path: Path, name: str, control_planes: str, members: str, workers: str) -> None:
    program = tmp_path / "program.sh"
    program.write_text(f"#!/bin/sh\ncat {REAL / name}\n")
    program.chmod(0o755)
    assert by_clusterctl([REAL / name]) == by_clusterctl([program]) == by_ansible([program])
    cluster = loaded(name).cluster
    found = [sorted(host.name for host in cluster.with_role(role)) for role in ("control_plane", "etcd", "worker")]
    assert found == [sorted(control_planes.split()), sorted(members.split()), sorted(workers.split())]


REFUSED = [
    # file                             place     code                               Ansible refuses it, too
    ("terraform-hetzner/inventory.ini", "15:1 16:1", "inventory.ini-undeclared-group", True),
    ("kubespray-calico/inventory.ini", "",      "kubespray.unsupported",           False),
    ("rke2/hosts.yml",                 "",       "inventory.no-roles",              False),
    ("addresses/hosts",                "",       "inventory.no-roles",              False),
    ("names-twice/inventory.ini",      "3:1",    "inventory.host-name-twice",       False),
    ("names-wrong/inventory.ini",      "2:1",    "inventory.host-name",             False),
    ("laughs/hosts.yml",               "8:49",   "inventory.aliases-too-many",      False),
    ("refused/children.ini",           "5:1",    "inventory.ini-undeclared-group",  True),
    ("refused/vars.ini",               "3:1",    "inventory.ini-undeclared-group",  True),
    ("refused/section.ini",            "1:1",    "inventory.ini-section",           True),
    ("refused/kind.ini",               "1:1",    "inventory.ini-section",           True),
    ("refused/word.ini",               "2:1",    "inventory.ini-host",              True),
    ("refused/quote.ini",              "2:1",    "inventory.ini-host",              True),
    ("refused/variable.ini",           "4:1",    "inventory.ini-variable",          True),
    ("refused/child.ini",              "4:1",    "inventory.ini-child",             True),
    ("refused/range.ini",              "2:1",    "inventory.value",                 True),
    ("refused/colon.ini",              "2:1",    "inventory.ini-host",              True),
    ("refused/cycle.ini",              "2:1",    "inventory.group-cycle",           True),
    ("refused/list.yml",               "1:1",    "inventory.value",                 True),
    ("refused/aws_ec2.yml",            "1:1",    "inventory.plugin",                True),
    ("refused/clustr.yml",             "1:14",   "inventory.cluster-misspelt",      False),
    ("refused/beside-vars.yml",        "1:7",    "inventory.cluster-misplaced",     False),
    ("refused/top.yml",                "1:1",    "inventory.cluster-misplaced",     False),
    ("refused/etcds.yml",              "2:1",    "inventory.group-misspelt",        False),
    ("refused/worker.yml",             "2:1",    "inventory.group-misspelt",        False),
    ("refused/control-plane.ini",      "1:1",    "inventory.group-misspelt",        False),
    ("refused/password.ini",           "2:27",   "inventory.secret",                False),
]


@pytest.mark.parametrize(("name", "places", "code", "too"), REFUSED, ids=[row[0] for row in REFUSED])
def test_an_inventory_is_refused_with_its_places(name: str, places: str, code: str, too: bool) -> None:
    with pytest.raises((InputError, Problems)) as caught:
        loaded(name)
    errors = caught.value.errors if isinstance(caught.value, Problems) else [caught.value]
    found = [error for error in errors if error.code == code]
    assert [error.where for error in found] == [f"{REAL / name}:{place}" for place in places.split()] or (not places and found), errors
    assert "hunter2" not in str(caught.value)
    if too:
        with pytest.raises(AnsibleError):
            by_ansible(paths(name))
