"""pyinfra and Ansible, from PyPI: the same files, folders, links, packages and units on the same hosts as clusterctl.

Each has the settings that its manual recommends for many hosts: pyinfra 50 hosts at a time; Ansible 50 forks, pipelining,
ControlPersist, and no facts gathered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.converge import Work
from clusterctl.lab.base import cache_directory
from clusterctl.lab.lab import Lab

PINS = ("pyinfra==3.10.0", "ansible-core==2.19.14")
PARALLEL = 50

ANSIBLE_CONFIG = """[defaults]
forks = {parallel}
gathering = explicit
interpreter_python = /usr/bin/python3
host_key_checking = True
retry_files_enabled = False
display_ok_hosts = False

[ssh_connection]
pipelining = True
ssh_args = -o ControlMaster=auto -o ControlPersist=60s -o UserKnownHostsFile={known_hosts}
control_path_dir = {folder}/control
"""

PLAYBOOK: list[dict[str, object]] = [{
    "hosts": "workers",
    "gather_facts": False,
    "tasks": [
        {"apt": {"name": "{{ work.packages | map(attribute='name') | list }}", "state": "present"}},
        {"file": {"path": "{{ item.path }}", "state": "directory", "mode": "{{ item.mode }}", "owner": "{{ item.user }}",
                  "group": "{{ item.group }}"}, "loop": "{{ work.folders }}"},
        {"copy": {"src": "{{ item.source }}", "dest": "{{ item.path }}", "mode": "{{ item.mode }}", "owner": "{{ item.user }}",
                  "group": "{{ item.group }}"}, "loop": "{{ work.files }}"},
        {"file": {"path": "{{ item.path }}", "state": "file", "mode": "{{ item.mode }}", "owner": "{{ item.user }}",
                  "group": "{{ item.group }}"}, "loop": "{{ work.pairs }}"},
        {"file": {"src": "{{ item.target }}", "dest": "{{ item.path }}", "state": "link"}, "loop": "{{ work.links }}"},
        {"systemd_service": {"name": "{{ item.name }}", "enabled": True, "state": "started"}, "loop": "{{ work.units }}"},
    ],
}]

DEPLOY = '''from pyinfra import host
from pyinfra.operations import apt, files, systemd

if "workers" in host.groups:
    work = host.data.work
    apt.packages(packages=[one["name"] for one in work["packages"]])
    for one in work["folders"]:
        files.directory(path=one["path"], mode=one["mode"], user=one["user"], group=one["group"])
    for one in work["files"]:
        files.put(src=one["source"], dest=one["path"], mode=one["mode"], user=one["user"], group=one["group"])
    for one in work["pairs"]:
        files.file(path=one["path"], mode=one["mode"], user=one["user"], group=one["group"])
    for one in work["links"]:
        files.link(path=one["path"], target=one["target"])
    for one in work["units"]:
        systemd.service(service=one["name"], running=True, enabled=True)
'''


@dataclass(frozen=True)
class Peers:
    """The commands of both, and what they read, in ``folder``. ``inventory``: clusterctl's, which is Ansible's as well."""

    lab: Lab
    folder: Path
    inventory: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """Of Ansible: where its settings are."""
        return {"ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "False"}

    def prepare(self, work: Mapping[str, Work]) -> None:
        """Install both, and write their settings, inventories and what to compare."""
        install()
        (self.folder / "control").mkdir(parents=True, exist_ok=True)
        (self.folder / "ansible.cfg").write_text(ANSIBLE_CONFIG.format(
            parallel=PARALLEL, folder=self.folder, known_hosts=self.lab.directory / "known_hosts"))
        (self.folder / "playbook.yaml").write_text(yaml.safe_dump(PLAYBOOK, sort_keys=False))
        for name, entries in work.items():
            variables = self.inventory.parent / "host_vars" / f"{name}.json"
            variables.parent.mkdir(exist_ok=True)
            variables.write_text(json.dumps({"work": entries}))
        (self.folder / "deploy.py").write_text(DEPLOY)
        common = {"ssh_user": "root", "ssh_key": str(self.lab.key), "ssh_look_for_keys": False, "ssh_allow_agent": False,
                  "ssh_known_hosts_file": str(self.lab.directory / "known_hosts"), "ssh_strict_host_key_checking": "yes"}
        groups = {group: [(self.lab.machines[name].address, {**common, **more}) for name, more in hosts.items()]
                  for group, hosts in (("control_plane", {"cp-1": {}}), ("workers", {
                      name: {"work": entries} for name, entries in work.items()}))}
        (self.folder / "hosts.py").write_text("".join(f"{group} = {hosts!r}\n" for group, hosts in groups.items()))

    def commands(self) -> dict[str, dict[str, list[str]]]:
        """The command line of each program, by what it does."""
        pyinfra = [str(programs() / "pyinfra"), "-y", "--parallel", str(PARALLEL), str(self.folder / "hosts.py")]
        ansible = ["-i", str(self.inventory)]
        own = [sys.executable, "-m", "clusterctl"]
        forks = ["--forks", str(PARALLEL), "-i", str(self.inventory)]
        return {
            "exec": {
                "clusterctl": [*own, "exec", *forks, "all", "--", "true"],
                "pyinfra": [*pyinfra, "exec", "--", "true"],
                "ansible": [str(programs() / "ansible"), *ansible, "all", "-m", "raw", "-a", "true"],
            },
            "look": {
                "clusterctl": [*own, "plan", *forks, "--limit", "workers", "--exit-code"],
                "pyinfra": [*pyinfra, str(self.folder / "deploy.py")],
                "ansible": [str(programs() / "ansible-playbook"), *ansible, str(self.folder / "playbook.yaml")],
            },
        }


def programs() -> Path:
    """Where the programs of the peers are."""
    return cache_directory().parent / "bench" / "bin"


def install() -> None:
    """Install the peers into a virtual environment of their own, once."""
    folder = programs().parent
    installed = folder / "installed"
    if installed.exists() and installed.read_text() == " ".join(PINS):
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True, timeout=120)
    subprocess.run([str(programs() / "pip"), "install", "-q", *PINS], check=True, timeout=600)
    installed.write_text(" ".join(PINS))
