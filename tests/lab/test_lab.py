"""The lab, tried out for real: needs root and systemd-nspawn."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from lab_leftovers import left_over, own_name

from clusterctl.errors import InputError
from clusterctl.lab import Lab, LabSpec, remove_lab
from clusterctl.lab.base import Base, ensure_base
from clusterctl.lab.host import LabError, in_network
from clusterctl.lab.network import banner
from clusterctl.lab.nspawn import Nspawn

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("host")]

CLI = [sys.executable, "-c", "from clusterctl.cli.lab import app; app()"]


def cli(*arguments: str) -> str:
    return subprocess.run([*CLI, *arguments], text=True, capture_output=True, timeout=60, check=True).stdout


def ssh(lab: Lab, machine: str, command: str, user: str = "root") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*lab.ssh_command(machine, user=user, options=["-oBatchMode=yes"]), command], text=True,
                          capture_output=True, timeout=60, check=False)


def said(lab: Lab, machine: str, command: str, *, check: bool = True) -> str:
    return lab.exec(machine, ["sh", "-c", command], check=check).stdout.strip()


def reaches(lab: Lab, machine: str, address: str, port: int = 22) -> bool:
    connect = f"exec 3<>/dev/tcp/{address}/{port} && head -c 4 <&3"
    return lab.exec(machine, ["timeout", "1", "bash", "-c", connect]).returncode == 0


def answers(lab: Lab, machine: str) -> bool:
    try:
        return banner(lab.namespace, lab.machines[machine].address, 22, timeout=1).startswith("SSH-")
    except OSError:
        return False


def test_three_machines_are_up_within_ten_seconds() -> None:
    name = own_name("fast")
    begin = time.monotonic()
    try:
        lab = Lab.up(LabSpec(name=name))
        took = time.monotonic() - begin
        assert {answers(lab, machine) for machine in lab.machines} == {True}
    finally:
        remove_lab(name)
    assert left_over(name) == []
    assert took < 10


def test_machines_let_root_and_admin_in(lab: Lab) -> None:
    for machine in lab.machines:
        assert ssh(lab, machine, "id -un; hostname").stdout.split() == ["root", machine]
        assert ssh(lab, machine, "sudo -n id -un", user="admin").stdout.strip() == "root"
    assert len({said(lab, machine, "cat /etc/machine-id") for machine in lab.machines}) == 3
    assert len({machine.host_key for machine in lab.machines.values()}) == 3


def test_another_host_key_is_not_trusted(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "known").write_text(f"{lab.machines['w-1'].address} {lab.machines['w-2'].host_key}\n")
    argv = [word.replace(str(lab.directory / "known_hosts"), str(tmp_path / "known")) for word in lab.ssh_command("w-1")]
    assert subprocess.run([*argv, "true"], capture_output=True, timeout=30, check=False).returncode == 255


def test_inventory(lab: Lab) -> None:
    document = yaml.safe_load(lab.inventory.read_text())["all"]
    assert lab.inventory.stat().st_mode & 0o777 == 0o600
    assert document["vars"]["clusterctl_network_namespace"] == lab.namespace
    assert document["children"]["control_plane"]["hosts"]["cp-1"]["clusterctl_host_key"].startswith("ssh-ed25519 ")
    assert list(document["children"]["etcd"]["hosts"]) == ["cp-1"]
    assert list(document["children"]["workers"]["hosts"]) == ["w-1", "w-2"]


def test_a_machine_is_bare(lab: Lab) -> None:
    programs = "containerd haproxy conntrack curl wget python3 nft iptables openssl chronyd"
    assert said(lab, "cp-1", f"for p in {programs}; do command -v $p; done; true") == ""
    assert said(lab, "cp-1", "systemctl --failed --no-legend") == ""
    assert said(lab, "cp-1", "cat /proc/sys/net/ipv4/ip_forward") == "0"


def test_a_machine_is_fit_for_kubernetes(lab: Lab) -> None:
    assert said(lab, "cp-1", "findmnt -no PROPAGATION /") == "shared"
    assert "ro," not in said(lab, "cp-1", "awk '$3 ~ /^cgroup/ {print $4}' /proc/mounts")
    assert said(lab, "cp-1", "cd /sys/fs/cgroup/memory && mkdir try && rmdir try && test -c /dev/kmsg && echo ok") == "ok"
    assert said(lab, "cp-1", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes") == str(2 << 30)
    assert said(lab, "cp-1", "sysctl -wq net.ipv4.ip_forward=1 && cat /proc/sys/net/ipv4/ip_forward") == "1"
    for name in ("containerd", "etcd", "kubelet"):
        assert said(lab, "cp-1", f"findmnt -no FSTYPE -T /var/lib/{name}") != "overlay"


def test_a_machine_cannot_set_the_clock(lab: Lab) -> None:
    bounding = int(said(lab, "cp-1", "awk '/CapBnd/ {print $2}' /proc/1/status"), 16)
    assert not bounding & 1 << 25


def test_packages_come_from_the_lab(lab: Lab) -> None:
    install = "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy conntrack haproxy nftables socat"
    done = ssh(lab, "w-2", install)
    assert done.returncode == 0, done.stderr
    assert said(lab, "w-2", "systemctl is-active haproxy") == "active"
    assert said(lab, "w-2", "for p in conntrack nft socat; do command -v $p; done | wc -l") == "3"


def test_every_package_of_the_repository_can_be_installed(lab: Lab) -> None:
    from clusterctl.lab.repository import PACKAGES

    done = lab.exec("w-1", ["sh", "-c", f"apt-get update -q && apt-get install -qy --download-only {' '.join(PACKAGES)}"])
    assert done.returncode == 0, done.stderr


def test_machines_reach_each_other_and_nothing_else(lab: Lab) -> None:
    assert reaches(lab, "cp-1", lab.machines["w-1"].address)
    assert not reaches(lab, "cp-1", "192.0.2.1")
    # Nothing leads from the lab to the namespace that this test runs in: every link ends inside the lab.
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        for address in _own_addresses():
            assert not reaches(lab, "cp-1", address, port)
    names = set(_links(lab.namespace))
    assert names == {"lo", "br0", *(f"v{machine.address.rsplit('.', 1)[1]}" for machine in lab.machines.values())}


def test_this_host_has_no_part_of_the_network(lab: Lab) -> None:
    text = subprocess.run(["ip", "addr"], text=True, capture_output=True, timeout=10, check=True).stdout
    assert lab.gateway.rsplit(".", 1)[0] + "." not in text
    assert not answers_here(lab.machines["cp-1"].address)


def answers_here(address: str) -> bool:
    # A proxy may take any connection in this host's network; it would not say what sshd says.
    try:
        with socket.create_connection((address, 22), timeout=1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _own_addresses() -> list[str]:
    shown = subprocess.run(["ip", "-j", "-4", "addr"], text=True, capture_output=True, timeout=10, check=True).stdout
    entries = json.loads(shown)
    return [info["local"] for entry in entries for info in entry["addr_info"] if entry["ifname"] != "lo"]


def _links(namespace: str) -> list[str]:
    return in_network(namespace, lambda: [name for _, name in socket.if_nameindex()])


def test_reboot(lab: Lab) -> None:
    read = "cat /proc/sys/kernel/random/boot_id"
    before = said(lab, "w-1", read)
    lab.exec("w-1", ["touch", "/root/kept"], check=True)
    lab.reboot("w-1")
    assert said(lab, "w-1", read) != before
    assert said(lab, "w-1", "ls /root") == "kept"
    assert lab.status("w-1") == "running"


def test_reboot_from_inside(lab: Lab) -> None:
    before = said(lab, "w-1", "cat /proc/sys/kernel/random/boot_id")
    ssh(lab, "w-1", "systemctl reboot")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        after = ssh(lab, "w-1", "cat /proc/sys/kernel/random/boot_id").stdout.strip()
        if after not in ("", before):
            return
        time.sleep(0.2)
    pytest.fail("it did not come back")


def test_kill_and_start(lab: Lab) -> None:
    lab.exec("w-1", ["sh", "-c", "echo here > /var/lib/etcd/file"], check=True)
    lab.kill("w-1")
    assert lab.status("w-1") == "dead"
    assert not answers(lab, "w-1")
    with pytest.raises(LabError, match="not running"):
        lab.exec("w-1", ["true"])
    lab.start("w-1")
    assert lab.status("w-1") == "running"
    assert said(lab, "w-1", "cat /var/lib/etcd/file") == "here"


def test_freeze_and_thaw(lab: Lab) -> None:
    lab.freeze("w-1")
    assert lab.status("w-1") == "frozen"
    assert not answers(lab, "w-1")
    with pytest.raises(InputError, match="frozen"):
        lab.reboot("w-1")
    lab.thaw("w-1")
    assert answers(lab, "w-1")
    assert lab.status("w-1") == "running"


def ping(lab: Lab, source: str, target: str) -> bool:
    return reaches(lab, source, lab.machines[target].address)


def test_cut_and_heal_both_ways(lab: Lab) -> None:
    lab.cut("w-1")
    assert lab.status("w-1") == "running, cut"
    assert not answers(lab, "w-1")
    assert not ping(lab, "w-1", "w-2")
    lab.heal("w-1")
    assert answers(lab, "w-1")
    assert lab.status("w-1") == "running"
    lab.heal("w-1")


@pytest.mark.parametrize("direction", ["in", "out"])
def test_cut_one_way(lab: Lab, direction: str) -> None:
    lab.cut("w-1", direction)
    try:
        assert not answers(lab, "w-1")
        # A datagram goes the one way that is left: the machine hears it, or the other one does.
        source, target = ("w-1", "w-2") if direction == "in" else ("w-2", "w-1")
        assert _datagram_arrives(lab, source, target)
        assert not _datagram_arrives(lab, target, source)
    finally:
        lab.heal("w-1")
    assert answers(lab, "w-1")


def _datagram_arrives(lab: Lab, source: str, target: str) -> bool:
    """Whether a UDP datagram from ``source`` reaches ``target``; sent and received by sockets of their namespaces."""
    receiver = in_network(lab.machines[target].namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    sender = in_network(lab.machines[source].namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with receiver, sender:
        receiver.bind((lab.machines[target].address, 0))
        receiver.settimeout(0.5)
        try:
            sender.sendto(b"hello", receiver.getsockname())
            return receiver.recv(16) == b"hello"
        except OSError:  # nothing came, or the sender's own rule said no
            return False


def test_cut_from_one_machine(lab: Lab) -> None:
    lab.cut("w-1", peer="w-2")
    assert not ping(lab, "w-2", "w-1")
    assert ping(lab, "cp-1", "w-1")
    assert answers(lab, "w-1")
    lab.heal("w-1")
    assert ping(lab, "w-2", "w-1")


def test_cli(lab: Lab) -> None:
    rows = {row["machine"]: row for row in json.loads(cli("list", "-o", "json")) if row["lab"] == lab.name}
    assert rows["cp-1"]["state"] == "running"
    assert cli("shell", "w-1", "--name", lab.name, "--", "hostname").strip() == "w-1"
    assert "br0" in cli("exec", "--name", lab.name, "--", "ip", "-br", "link")
    assert cli("down", "--name", own_name("none")).strip().endswith("nothing to remove")


def test_wrong_input(lab: Lab) -> None:
    with pytest.raises(InputError, match="there already"):
        Lab.up(LabSpec(name=lab.name))
    with pytest.raises(InputError, match="cannot be called"):
        Lab.up(LabSpec(name="a-b"))
    with pytest.raises(InputError, match="more than"):
        Lab.up(LabSpec(name="x", machines=2, control_planes=3))
    with pytest.raises(InputError, match="no machine"):
        lab.kill("w-9")


def test_two_labs_side_by_side(lab: Lab) -> None:
    name = own_name("b")
    try:
        other = Lab.up(LabSpec(name=name, machines=2, control_planes=1, etcd=1, user="admin", sudo_password=True))
        assert set(other.machines) == {"cp-1", "etcd-1"}
        assert other.gateway != lab.gateway
        assert not reaches(lab, "cp-1", other.machines["cp-1"].address)
        assert ssh(other, "cp-1", "sudo -n true", user="admin").returncode != 0
        password = other.sudo_password_file.read_text().strip()
        assert ssh(other, "cp-1", f"echo {password} | sudo -S id -un", user="admin").stdout.strip() == "root"
        assert [machine.name for machine in other.add(1)] == ["w-1"]
        assert "w-1" in yaml.safe_load(other.inventory.read_text())["all"]["children"]["workers"]["hosts"]
        assert ssh(other, "w-1", "hostname", user="admin").stdout.strip() == "w-1"
        other.freeze("etcd-1")
    finally:
        remove_lab(name)
    assert left_over(name) == []
    assert answers(lab, "cp-1")


def test_down_twice() -> None:
    name = own_name("c")
    Lab.up(LabSpec(name=name, machines=1))
    assert remove_lab(name)
    assert left_over(name) == []
    assert not remove_lab(name)


@pytest.mark.parametrize("moment", [0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0])
def test_down_after_up_was_killed(moment: float) -> None:
    name = own_name("k")
    process = subprocess.Popen([*CLI, "up", "--name", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    remove_lab(name)
    assert left_over(name) == []
    assert not remove_lab(name)


def test_what_up_began_is_removed_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    name = own_name("f")
    monkeypatch.setattr("clusterctl.lab.lab.ensure_base", lambda progress, recipe: Base(Path("/nonexistent")))
    with pytest.raises((LabError, OSError)):
        Lab.up(LabSpec(name=name, machines=1), deadline=3)
    assert left_over(name) == []


def test_the_base_is_in_the_cache_once(host: None) -> None:
    messages: list[str] = []
    assert ensure_base(messages.append, Nspawn.recipe).tree.is_dir()
    assert messages == []


def test_reinstall_gives_a_bare_machine_of_the_same_name(lab: Lab) -> None:
    name = next(iter(lab.machines))
    before = lab.machines[name].host_key
    assert lab.exec(name, ["sh", "-c", "touch /etc/left /var/lib/etcd/left && ip link add left type bridge"]).returncode == 0
    lab.reinstall(name)
    assert lab.machines[name].host_key != before and lab.machines[name].host_key in lab.inventory.read_text()
    left = lab.exec(name, ["sh", "-c", "ls /etc/left /var/lib/etcd/left; ip -o link show left"])
    assert left.stdout == "", left.stdout
