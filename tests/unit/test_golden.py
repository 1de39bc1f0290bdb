"""What lands on machines, file by file, beside tests/golden. UPDATE_GOLDEN=1 writes it anew: read the difference before you commit it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from clusterctl.artifacts.catalog import Artifact, Catalog, Pin
from clusterctl.components.base import Context
from clusterctl.inventory import load
from clusterctl.pki import Pki
from clusterctl.plan import planner
from clusterctl.plan.stages import stages
from clusterctl.resources.certificate import Certificate
from clusterctl.resources.file import File
from clusterctl.shell import LOOKS
from clusterctl.shell.facts import Facts, parse_facts

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden"

VM = parse_facts({"arch": "x86_64", "cgroup": "cgroup2fs", "oom_score_adj": "lowers", "container": "none", "resolv_conf": "1", "nameservers": "10.0.0.2",
                   "MemTotal": "8131000 kB", "Cpus_allowed_list": "0-3"})
CONTAINER = parse_facts({"arch": "x86_64", "cgroup": "tmpfs", "oom_score_adj": "fixed", "container": "systemd-nspawn", "resolv_conf": "missing",
                          "MemTotal": "16301000 kB", "Cpus_allowed_list": "0-1"})

CASES = [
    # inventory           host      facts
    ("single", "all-in-one", VM),
    ("ha", "first control plane", VM),
    ("ha", "last worker", VM),
    ("external-etcd", "first etcd", VM),
    ("external-etcd", "first control plane", VM),
    ("lab", "last worker", CONTAINER),
]


class Pins(dict[str, Pin]):
    """Pins everything: what is pinned to what does not show in files."""

    def get(self, path: str, default: object = None) -> Pin | None:  # type: ignore[override]
        return None if path.startswith("images/") else Pin("0" * 64)


def nothing(artifact: Artifact) -> Path:
    raise AssertionError("a rendering fetches nothing")


def context_of(inventory: str, which: str, facts: Facts, formed: bool = False) -> Context:
    cluster = load(ROOT / "inventories" / f"{inventory}.yaml")
    hosts = {"all-in-one": cluster.hosts, "first control plane": cluster.control_planes, "first etcd": cluster.etcd_members,
             "last worker": cluster.with_role("worker")[-1:]}
    names = frozenset(host.name for host in cluster.etcd_members if formed)
    return Context(cluster=cluster, host=hosts[which][0], facts=facts, pki=Pki.create(), catalog=Catalog(Pins(), nothing), etcd_formed=names)


def files(inventory: str, which: str, facts: Facts) -> Iterator[tuple[str, bytes]]:
    """(path, content) of all files of one host whose content is the same for all keys."""
    context = context_of(inventory, which, facts)
    for stage in planner.resources_for(stages(context.cluster), context).values():
        for resource in stage:
            if isinstance(resource, File) and not resource.sensitive and context.pki.identity.encode() not in resource.content \
                    and b"-----BEGIN" not in resource.content:
                yield resource.path, f"# mode {resource.mode} {resource.owner}\n".encode() + resource.content


@pytest.mark.parametrize(("inventory", "which", "facts"), CASES, ids=[f"{name}-{which}".replace(" ", "-") for name, which, _ in CASES])
def test_what_lands_on_a_machine(inventory: str, which: str, facts: Facts) -> None:
    folder = GOLDEN / inventory / which.replace(" ", "-")
    made = {path.strip("/").replace("/", "_"): content for path, content in files(inventory, which, facts)}
    if os.environ.get("UPDATE_GOLDEN"):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, content in made.items():
            (folder / name).write_bytes(content)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == made


@pytest.mark.parametrize("formed", [False, True])
@pytest.mark.parametrize(("inventory", "which", "facts"), CASES, ids=[f"{name}-{which}".replace(" ", "-") for name, which, _ in CASES])
def test_whatever_is_looked_at_may_be_looked_at_again(inventory: str, which: str, facts: Facts, formed: bool) -> None:
    context = context_of(inventory, which, facts, formed)
    wanted = planner.resources_for(stages(context.cluster), context)
    kinds = {kind for stage in wanted.values() for resource in stage for kind, _ in resource.probes()}
    assert kinds <= LOOKS and (not formed or which == "last worker" or inventory == "single" or "etcd_role" in kinds or not context.host.is_etcd)


@pytest.mark.parametrize("number", [0, 1])
def test_nodes_that_are_called_by_dns_names(tmp_path: Path, number: int) -> None:
    """As on AWS, where a machine's own name is its private DNS name."""
    names = [f"ip-10-0-1-{last}.eu-west-1.compute.internal" for last in (11, 21)]
    (tmp_path / "hosts.ini").write_text("[control_plane]\n{} ansible_host=10.0.1.11\n[workers]\n{} ansible_host=10.0.1.21\n".format(*names))
    cluster = load(tmp_path / "hosts.ini")
    context = Context(cluster=cluster, host=cluster.hosts[number], facts=VM, pki=Pki.create(), catalog=Catalog(Pins(), nothing), etcd_formed=frozenset())
    resources = [one for stage in planner.resources_for(stages(cluster), context).values() for one in stage]
    certificates = [one for one in resources if isinstance(one, Certificate)]
    made = {one.path: one.content.decode() for one in resources if isinstance(one, File)}
    assert f"CN=system:node:{names[number]}/O=system:nodes" in {one.spec.subject for one in certificates}
    for one in certificates:
        x509.load_pem_x509_certificate(one.issue()[0])
    assert f'"hostnameOverride": "{names[number]}"' in json.dumps(yaml.safe_load(made["/var/lib/kube-proxy/config.yaml"]))
    assert names[number] in made["/etc/systemd/system/flanneld.service"]
    assert f"  --hostname-override={names[number]} " in made["/etc/systemd/system/kubelet.service"]
    place = "/etc/systemd/system/etcd.service" if number == 0 else next(path for path in made if path.endswith("haproxy.cfg"))
    assert (names[0] if number == 0 else f"server {names[0]} 10.0.1.11:6443") in made[place]
