"""What programs report of other installations, with files planted on a pretended machine."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from shell_box import SHELLS
from test_shell_undo import Machine

from clusterctl.components.flannel import CONFLIST
from clusterctl.components.products import FOOTPRINT
from clusterctl.shell import Script
from clusterctl.shell.facts import Facts, probe_program, read_facts

MOUNTS = """1 0 254:0 / / rw,relatime - ext4 /dev/vda rw
2 1 254:1 / {opt} rw,{options} - ext4 /dev/vdb rw
3 1 0:21 / {run} rw,nosuid,nodev,noexec - tmpfs tmpfs rw
"""


class Loaded(Machine):
    """A machine whose kernel has nf_tables."""

    def text(self, program: Script) -> str:
        return super().text(program).replace("/sys/module/nf_tables", str(self.path))


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    found = Loaded(tmp_path, request.param)
    found.command("systemctl", "exit 1")
    return found


def plant(machine: Machine, *paths: str, text: str = "x\n") -> None:
    for path in paths:
        place = machine.path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755)


def start(machine: Machine, *units: str) -> None:
    """Leave the links that systemd keeps for active units."""
    for unit in units:
        os.symlink("0123", machine.etc / f"invocation:{unit}.service")


def look(machine: Machine) -> Facts:
    result = machine.run(probe_program(footprint=FOOTPRINT))
    assert result.records[-1] == ["end"], result.errors
    records = [[word.replace(str(machine.path), "") for word in words] for words in result.records[:-1]]
    return read_facts(records, asked=0, answered=1e12)[0]


def test_a_bare_machine_has_nothing_foreign(machine: Machine) -> None:
    assert look(machine).foreign == {}


def test_drop_ins_of_our_units(machine: Machine) -> None:
    planted = ["/etc/systemd/system/containerd.service.d/a b.conf", "/etc/systemd/system.control/kubelet.service.d/50-CPUQuota.conf", "/run/systemd/system/etcd.service.d/x.conf",
               "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"]
    plant(machine, *planted, "/etc/systemd/system/etcd.service.d/90-clusterctl-restore.conf", "/etc/systemd/system/sshd.service.d/y.conf",
          "/etc/systemd/system/kubelet.service.d/notes.txt")
    os.symlink("/dev/null", machine.path / "etc/systemd/system/containerd.service.d/masked.conf")
    assert look(machine).foreign.get("restore", ()) == ("/etc/systemd/system/etcd.service.d/90-clusterctl-restore.conf",)
    assert look(machine).foreign.get("drop-in", ()) == tuple(planted)
    plant(machine, "/etc/clusterctl/cluster", text="ours\n")
    assert look(machine).foreign.get("drop-in", ()) == tuple(planted), "drift on a machine of the cluster"


def test_cni_configurations(machine: Machine) -> None:
    planted = ["/etc/cni/net.d/00-multus.conf", "/etc/cni/net.d/10-calico.conflist", CONFLIST, "/etc/cni/net.d/99-x.json"]
    plant(machine, *planted, "/etc/cni/net.d/calico-kubeconfig", "/etc/cni/net.d/200.conf.bak")
    assert look(machine).foreign.get("cni", ()) == tuple(planted)


def test_linked_folders(machine: Machine) -> None:
    (machine.path / "etc/kubernetes").mkdir()
    os.symlink("/data", machine.path / "etc/containerd")
    os.symlink("/nowhere", machine.path / "etc/etcd")
    assert look(machine).foreign.get("link", ()) == ("/etc/containerd", "/etc/etcd")


def test_packaged_programs_and_active_units(machine: Machine, tmp_path: Path) -> None:
    plant(machine, "/usr/bin/kubelet", "/usr/bin/containerd", "/usr/bin/dockerd")
    start(machine, "containerd", "docker", "cron")
    found = look(machine)
    assert found.foreign.get("program", ()) == ("/usr/bin/containerd", "/usr/bin/dockerd", "/usr/bin/kubelet")
    assert found.foreign.get("active", ()) == ("containerd", "docker") and found.foreign.get("socket", ()) == ()
    folder = tmp_path / "run/docker/containerd"
    folder.mkdir(parents=True)
    # The address of a socket has room for 107 characters.
    handle = os.open(folder, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(f"/proc/self/fd/{handle}/containerd.sock")
    os.close(handle)
    assert look(machine).foreign.get("socket", ()) == ("/run/docker/containerd/containerd.sock",)
    plant(machine, "/etc/clusterctl/cluster", text="ours\n")
    assert look(machine).foreign.get("program", ()) == look(machine).foreign.get("active", ()) == ()


@pytest.mark.parametrize(("options", "found"), [("noexec,nosuid", 1), ("nosuid", 0)])
def test_noexec(machine: Machine, options: str, found: int) -> None:
    """A /run that is noexec, as on Ubuntu, is no obstacle: nothing is executed from it."""
    mounts = MOUNTS.format(opt=machine.path / "opt", run=machine.path / "run", options=options)
    (machine.path / "proc/self/mountinfo").write_text(mounts)
    assert len(look(machine).foreign.get("noexec", ())) == found


def test_cloud_init_that_runs(machine: Machine) -> None:
    plant(machine, "/run/cloud-init/enabled")
    assert look(machine).foreign.get("cloud-init", ()) == ("/run/cloud-init",)
    machine.command("systemctl", 'case "$*" in *is-failed*cloud-final.service) exit 0 ;; esac; exit 1')
    assert look(machine).foreign.get("cloud-init", ()) == (), "one that failed does not end any more"
    machine.command("systemctl", "exit 1")
    plant(machine, "/run/cloud-init/result.json")
    assert look(machine).foreign.get("cloud-init", ()) == ()


@pytest.mark.parametrize(("policy", "enabled", "found"), [
    ("drop", "yes", ("firewalld", "ufw", "nftables (table inet mine)")), ("accept", "no", ("firewalld",))])
def test_firewalls(machine: Machine, policy: str, enabled: str, found: tuple[str, ...]) -> None:
    start(machine, "firewalld")
    plant(machine, "/etc/ufw/ufw.conf", text=f"# comment\nENABLED={enabled}\nLOGLEVEL=low")
    chain = f"type filter hook input priority filter; policy {policy};"
    machine.command("nft", f"printf 'table inet mine {{\\n\\tchain in {{\\n\\t\\t{chain}\\n\\t}}\\n}}\\n'")
    assert look(machine).foreign.get("firewall", ()) == found
