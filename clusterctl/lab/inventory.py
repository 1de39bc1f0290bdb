"""The Ansible inventory of a lab, as a person would write it for machines of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from clusterctl.lab.drivers import driver_of
from clusterctl.lab.network import namespace_of
from clusterctl.lab.state import State, write_atomically


def document(state: State) -> dict[str, object]:
    """The inventory as data. Host keys are pinned; the machines are reached from inside the lab's namespace."""
    by_role: dict[str, dict[str, dict[str, str]]] = {"control_plane": {}, "etcd": {}, "worker": {}}
    for machine in state.machines.values():
        if not machine.prepared:
            continue
        by_role[machine.role][machine.name] = {"ansible_host": machine.address, "clusterctl_host_key": machine.host_key}
    variables: dict[str, object] = {
        "ansible_user": state.spec.user,
        "ansible_ssh_private_key_file": str(state.directory / "id_ed25519"),
        "clusterctl_network_namespace": namespace_of(state.spec.name),
    }
    if state.spec.user != "root":
        variables["ansible_become"] = True
    variables["cluster"] = {"name": state.spec.name, **state.spec.cluster, "kubelet": _kubelet(state)}
    etcd: dict[str, dict[str, str]] = by_role["etcd"] or {name: {} for name in by_role["control_plane"]}
    return {"all": {"vars": variables, "children": {
        "control_plane": {"hosts": by_role["control_plane"]},
        "etcd": {"hosts": etcd},
        "workers": {"hosts": by_role["worker"]},
    }}}


def _kubelet(state: State) -> dict[str, object]:
    """A lab's settings for kubelets: what is given for it goes over what all labs of the driver have."""
    given: Any = state.spec.cluster.get("kubelet") or {}
    return {**given, "config": {**driver_of(state.spec.driver).kubelet, **given.get("config", {})}}


def write_inventory(state: State, *copies: Path) -> Path:
    """Write it into the lab's directory, and to ``copies``; readable by root alone. Returns the first."""
    text = yaml.safe_dump(document(state), sort_keys=False, width=1000)
    own = state.directory / "inventory.yaml"
    for path in (own, *copies):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text, 0o600)
    return own


def write_known_hosts(state: State) -> Path:
    """Write the file that ssh compares host keys with."""
    path = state.directory / "known_hosts"
    lines = [f"{machine.address} {machine.host_key}\n" for machine in state.machines.values() if machine.prepared]
    write_atomically(path, "".join(lines), 0o600)
    return path
