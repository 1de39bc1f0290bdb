"""Brings hosts without systemd to the state in which clusterctl finds nothing to do, and lists that state for the peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from bench.hosts import Hosts
from clusterctl.artifacts.places import default_mirror
from clusterctl.commands.apply import make_plan, observe
from clusterctl.engine.delivery import deliver
from clusterctl.engine.engine import NOTHING, Gates
from clusterctl.engine.events import Events
from clusterctl.lab.state import write_atomically
from clusterctl.plan.planner import Parallel, Plan, StagePlan
from clusterctl.plan.stages import formed, resources_by_host, stages
from clusterctl.resources.base import Change, Resource
from clusterctl.resources.binary import Binary
from clusterctl.resources.certificate import Certificate
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.footprint import STAMPS
from clusterctl.resources.service import Service
from clusterctl.resources.system import Packages
from clusterctl.session.session import Options, session
from clusterctl.shell import MARK

OWN = ("var/lib/clusterctl", "etc/clusterctl", "etc/kubernetes", "etc/systemd/system", "var/lib/kubelet")
"""What a host has of its own, and no other host gets from it."""

FORMED = f"""mkdir -p {Path(MARK).parent} /etc/etcd /var/lib/etcd/member/wal {STAMPS}
cat > {MARK}
touch /etc/etcd/formed /var/lib/etcd/member/wal/0.wal
cd {STAMPS}
touch etcd.service kube-apiserver.service kubelet.service"""
"""Makes a host look like a control plane that has been bootstrapped, whose API server does not run."""

AT_ONCE = 10
"""Hosts that are converged at a time: all of them share the processors of this machine."""

Work = Mapping[str, list[dict[str, str]]]
"""What a host has, by kind: files, folders, links, pairs, units, packages."""


def write_inventory(lab: Hosts, workers: int) -> Path:
    """Write the inventory of the first hosts of a lab. It is also Ansible's; all must run in the lab's network namespace."""
    names = [name for name in lab.machines if name != "cp-1"][:workers]

    def hosts(*these: str) -> dict[str, dict[str, str]]:
        return {name: {"ansible_host": lab.machines[name].address, "clusterctl_host_key": lab.machines[name].host_key}
                for name in these}

    # Images need a containerd that runs: with a registry of one's own none are preloaded. The ports between machines are probed
    # for new ones alone, and not at a look.
    cluster = {"name": lab.name, "artifacts": {"mirror": str(default_mirror())}, "image_registry": "registry.example",
               "addons": {"coredns": False}, "firewall": "ignore"}
    variables = {"ansible_user": "root", "ansible_ssh_private_key_file": str(lab.key), "cluster": cluster}
    document = {"all": {"vars": variables, "children": {
        "control_plane": {"hosts": hosts("cp-1")}, "etcd": {"hosts": {"cp-1": {}}}, "workers": {"hosts": hosts(*names)}}}}
    path = lab.directory / f"scale-{len(names)}.yaml"
    write_atomically(path, yaml.safe_dump(document, sort_keys=False, width=1000), 0o600)
    return path


def converge(inventory: Path) -> None:
    """Carry out what ``apply`` plans for workers, without waiting for services to serve: none of them runs."""
    with session(Options(inventory=inventory, forks=AT_ONCE, limit=("workers",)), Events()) as opened:
        plan = make_plan(opened)
        if opened.pki_is_new:
            opened.pki.save(opened.state)
        at_once = Plan(tuple(
            StagePlan(replace(stage.stage, strategy=Parallel()),
                      tuple(replace(part, changes=tuple(map(_unasked, part.changes))) for part in stage.hosts))
            for stage in plan.machines.stages))
        opened.engine.execute(deliver(opened, at_once), Gates())


def _unasked(change: Change) -> Change:
    """Return a change whose service is not asked whether it serves; its stamp is the same."""
    return replace(change, resource=replace(change.resource, ready=())) if isinstance(change.resource, Service) else change


def bootstrap(lab: Hosts, worker: str) -> None:
    """Mark the host that stands for the control plane."""
    mark = lab.exec(worker, ["cat", MARK], check=True).stdout
    lab.exec("cp-1", ["sh", "-c", FORMED], stdin=mark, check=True)


def list_work(inventory: Path, contents: Path) -> dict[str, Work]:
    """Return what each worker has, and write the contents of its files to a folder, for the peers."""
    with session(Options(inventory=inventory, forks=AT_ONCE, limit=("workers",)), Events()) as opened:
        _, facts, _ = observe(opened, NOTHING)
        by_host = resources_by_host(opened, stages(opened.cluster, formed(facts)), opened.chosen, facts)
    found: dict[str, Work] = {}
    for host, by_stage in by_host.items():
        work: dict[str, list[dict[str, str]]] = {
            kind: [] for kind in ("files", "folders", "links", "pairs", "units", "packages")}
        for resource in (one for resources in by_stage.values() for one in resources):
            for kind, entry in _entries(resource, contents):
                work[kind].append(entry)
        found[host] = work
    return found


def _entries(resource: Resource, contents: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield what the peers can compare of a resource: of programs and certificates only that they are there."""
    match resource:
        case File():
            source = contents / resource.sha256
            source.write_bytes(resource.content)
            yield "files", {"source": str(source), **_permissions(resource.path, resource.mode, resource.owner)}
        case Folder():
            yield "folders", _permissions(resource.path, resource.mode, resource.owner)
        case Binary():
            yield "folders", _permissions(resource.folder, "755", "root:root")
        case Link():
            yield "links", {"path": resource.path, "target": resource.target}
        case Certificate():
            yield "pairs", _permissions(f"{resource.path}.crt", "644", resource.owner)
            yield "pairs", _permissions(f"{resource.path}.key", "600", resource.owner)
        case Service():
            yield "units", {"name": resource.unit}
        case Packages():
            yield from (("packages", {"name": name}) for name in resource.names)


def _permissions(path: str, mode: str, owner: str) -> dict[str, str]:
    user, _, group = owner.partition(":")
    return {"path": path, "mode": mode.zfill(4), "user": user, "group": group}
