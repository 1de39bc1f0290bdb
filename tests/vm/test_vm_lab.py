"""The lab's commands with virtual machines; what they share with containers is tested in tests/lab."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from cluster import CLI, until
from lab_leftovers import left_over, own_name

from clusterctl.errors import Refused
from clusterctl.lab import Lab, LabSpec, host, remove_lab
from clusterctl.lab.base import ensure_base
from clusterctl.lab.cgroup import Cgroup
from clusterctl.lab.drivers import check_driver
from clusterctl.lab.host import LabError
from clusterctl.lab.network import banner, remove_namespaces
from clusterctl.lab.state import labs_directory

pytestmark = pytest.mark.vm


def lab_command(*words: str, code: int = 0) -> str:
    done = subprocess.run([*CLI, "lab", *words], capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Two virtual machines, raised with the command line."""
    name = own_name("q")
    try:
        begin = time.monotonic()
        print(lab_command("up", "--driver", "qemu", "--name", name, "--machines", "2", "--memory", "512M", "--user", "admin", "--sudo-password"))
        print(f"two virtual machines are up after {time.monotonic() - begin:.0f} s")
        yield Lab.open(name)
    finally:
        remove_lab(name)
    assert left_over(name) == []


def answers(lab: Lab, machine: str) -> bool:
    try:
        return banner(lab.namespace, lab.machines[machine].address, 22, timeout=5).startswith("SSH-")
    except OSError:
        return False


def reaches(lab: Lab, source: str, target: str) -> bool:
    connect = f"exec 3<>/dev/tcp/{lab.machines[target].address}/22 && head -c 4 <&3"
    return lab.exec(source, ["timeout", "10", "bash", "-c", connect]).returncode == 0


def state(lab: Lab, machine: str) -> str:
    [row] = [row for row in json.loads(lab_command("list", "-o", "json")) if (row["lab"], row["machine"]) == (lab.name, machine)]
    return str(row["state"])


def test_machines_of_their_own(lab: Lab) -> None:
    assert lab_command("shell", "--name", lab.name, "w-1", "--", "hostname").strip() == "w-1"
    password = lab.sudo_password_file.read_text()
    done = subprocess.run([*lab.ssh_command("w-1"), "sudo -S id -un"], input=password, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "root"
    kernels = {lab.exec(name, ["uname", "-r"], check=True).stdout for name in lab.machines}
    assert len(kernels) == 1 and kernels != {os.uname().release}
    assert len({lab.exec(name, ["cat", "/etc/machine-id"], check=True).stdout for name in lab.machines}) == 2
    assert lab.exec("w-1", ["systemctl", "--failed", "--no-legend"], check=True).stdout == ""
    assert lab.exec("w-1", ["sh", "-c", "exit 3"]).returncode == 3
    assert lab.exec("w-1", ["cat"], stdin="a 'b'\n", check=True).stdout == "a 'b'\n"


def test_packages_come_from_the_lab(lab: Lab) -> None:
    lab.exec("w-1", ["sh", "-c", "apt-get update -q && apt-get install -qy --no-install-recommends socat"], check=True, timeout=600)
    assert lab.exec("w-1", ["socat", "-V"]).returncode == 0


@pytest.mark.parametrize("direction", ["both", "in", "out"])
def test_cut_and_heal(lab: Lab, direction: str) -> None:
    lab_command("cut", "--name", lab.name, "w-1", "--direction", direction, "--from", "cp-1")
    assert state(lab, "w-1") == "running, cut"
    assert answers(lab, "w-1"), "the controller is another peer"
    assert not reaches(lab, "w-1", "cp-1") and not reaches(lab, "cp-1", "w-1")
    lab_command("heal", "--name", lab.name, "w-1")
    assert state(lab, "w-1") == "running" and reaches(lab, "cp-1", "w-1")


def test_a_machine_that_is_cut_off_is_not_rebooted(lab: Lab) -> None:
    lab.cut("w-1")
    try:
        assert not answers(lab, "w-1")
        with pytest.raises(LabError) as error:
            lab.reboot("w-1")
        assert error.value.code == "lab.no-login"
    finally:
        lab.heal("w-1")
    until(lambda: answers(lab, "w-1"), "w-1 answers", 60)


def test_freeze_and_thaw(lab: Lab) -> None:
    lab_command("freeze", "--name", lab.name, "w-1")
    assert state(lab, "w-1") == "frozen" and not answers(lab, "w-1")
    lab_command("thaw", "--name", lab.name, "w-1")
    until(lambda: answers(lab, "w-1"), "w-1 answers", 60)


def test_reboot_kill_and_start(lab: Lab) -> None:
    lab.exec("w-1", ["sh", "-c", "echo kept >/root/file && sync"], check=True)
    boot_id = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = lab.exec("w-1", boot_id, check=True).stdout
    lab_command("reboot", "--name", lab.name, "w-1")
    assert lab.exec("w-1", boot_id, check=True).stdout != before
    lab_command("kill", "--name", lab.name, "w-1")
    assert state(lab, "w-1") == "dead"
    with pytest.raises(LabError) as error:
        lab.exec("w-1", ["true"])
    assert error.value.code == "lab.not-running"
    lab_command("start", "--name", lab.name, "w-1")
    assert lab.exec("w-1", ["cat", "/root/file"], check=True).stdout == "kept\n"


def test_reinstall(lab: Lab) -> None:
    before = lab.machines["w-1"].host_key
    lab_command("reinstall", "--name", lab.name, "w-1")
    assert lab.machines["w-1"].host_key != before
    assert lab.exec("w-1", ["ls", "/root"], check=True).stdout == ""


def test_down_after_this_host_lost_processes_and_namespaces(lab: Lab) -> None:
    """As after a reboot of this host: only files are left."""
    Cgroup(lab.namespace).kill()
    remove_namespaces(lab.name)
    Cgroup(lab.namespace).remove()
    assert state(lab, "w-1") == "dead"
    assert "removed" in lab_command("down", "--name", lab.name)
    assert left_over(lab.name) == []
    assert "nothing to remove" in lab_command("down", "--name", lab.name)


@pytest.mark.parametrize("file", ["host_key.pub", "disk.new", "disk.raw", "console.log"])
def test_down_after_up_was_killed(file: str) -> None:
    """Killed once a file of the machine is there."""
    ensure_base(print, check_driver("qemu").recipe)
    name = own_name("k")
    process = subprocess.Popen([*CLI, "lab", "up", "--driver", "qemu", "--name", name, "--machines", "1"],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        ends = time.monotonic() + 120
        while not (labs_directory() / name / "cp-1" / file).exists():
            assert time.monotonic() < ends and process.poll() is None, f"no {file}"
    finally:
        process.kill()
        process.wait()
        lab_command("down", "--name", name)
    assert left_over(name) == []


def test_a_machine_whose_qemu_ends_is_not_waited_for() -> None:
    name = own_name("e")
    begin = time.monotonic()
    with pytest.raises(LabError) as error:
        Lab.up(LabSpec(name=name, machines=1, memory=1 << 50, driver="qemu"))
    assert error.value.code == "lab.not-up" and time.monotonic() - begin < 120
    assert left_over(name) == []


def test_a_host_without_qemu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(host.shutil, "which", lambda program, path: None if program.startswith("qemu") else which(program, path=path))
    with pytest.raises(Refused) as error:
        Lab.up(LabSpec(name=own_name("n"), driver="qemu"))
    assert (error.value.code, error.value.hint) == ("lab.program-missing", "apt-get install qemu-system-x86")


