"""What the lab says of a host and of input, without a machine; needs no root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterctl.cli.lab import parse_size
from clusterctl.errors import InputError, Locked, Refused
from clusterctl.lab import LabSpec, host
from clusterctl.lab.drivers import check_driver
from clusterctl.lab.lock import FileLock
from clusterctl.lab.sources import write_sources
from clusterctl.lab.state import State


def test_it_says_that_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match="root") as error:
        host.check_host()
    assert "sudo" in error.value.hint


def test_it_names_the_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host.shutil, "which", lambda program, path: None if program in ("systemd-nspawn", "qemu-system-x86_64") else program)
    host.check_host()
    for driver, package in (("nspawn", "systemd-container"), ("qemu", "qemu-system-x86")):
        with pytest.raises(Refused) as error:
            check_driver(driver)
        assert (error.value.code, error.value.hint) == ("lab.program-missing", f"apt-get install {package}")


def test_a_program_that_hangs_is_given_up() -> None:
    with pytest.raises(host.LabError, match="did not end within"):
        host.run(["sleep", "10"], timeout=0.1)


def test_what_a_failed_program_said_is_told() -> None:
    with pytest.raises(host.LabError, match="no such thing"):
        host.run(["sh", "-c", "echo no such thing >&2; exit 3"])


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("512M", 512 << 20), ("1024", 1024), ("2GiB", 2 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_a_size_that_is_none() -> None:
    with pytest.raises(InputError, match="much"):
        parse_size("much")


@pytest.mark.parametrize("spec", [
    LabSpec(name="Lab"), LabSpec(name="a-b"), LabSpec(name="9"), LabSpec(name="a" * 17), LabSpec(machines=0),
    LabSpec(control_planes=0), LabSpec(machines=3, control_planes=2, etcd=2), LabSpec(user="nobody"), LabSpec(memory=5),
    LabSpec(etcd=-1), LabSpec(base="sarge"), LabSpec(base="dnf", driver="qemu"),
])
def test_what_cannot_be_had(spec: LabSpec) -> None:
    with pytest.raises(InputError):
        spec.check()


def test_labs_have_ranges_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLUSTERCTL_LAB_DIRECTORY", str(tmp_path))
    first = State.create(LabSpec(name="a", machines=7, control_planes=3, etcd=1))
    second = State.create(LabSpec(name="b"))
    assert first.number != second.number
    assert list(first.machines) == ["cp-1", "cp-2", "cp-3", "etcd-1", "w-1", "w-2", "w-3"]
    addresses = [machine.address for state in (first, second) for machine in state.machines.values()]
    assert len(set(addresses)) == len(addresses)
    assert State.load("a") == first


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock"), pytest.raises(Locked), FileLock(tmp_path / "lock", wait=0.1):
        pass
    with FileLock(tmp_path / "lock", wait=0.1) as lock:
        lock.remove()
    assert not tmp_path.exists()


STANZAS = """\
Types: deb
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.test/debian-security
Suites: bookworm-security
Components: main contrib

Types: deb
URIs: http://else.test/
Suites: nodistro
Components: main
"""


def test_sources_are_those_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "etc/sources.list.d").mkdir(parents=True)
    (tmp_path / "etc/sources.list.d/debian.sources").write_text(STANZAS)
    (tmp_path / "etc/sources.list.d/more.list").write_text(
        "# deb http://off.test bookworm main\n"
        "deb [arch=amd64] http://mirror.test bookworm main\ndeb http://tool.test stable main\n")
    files = write_sources(tmp_path, etc=tmp_path / "etc", env={})
    text = "".join(file.read_text() for file in files)
    assert [file.name for file in files] == ["lab.sources", "lab.list"]
    assert "debian-security" in text
    assert "deb [arch=amd64] http://mirror.test bookworm main" in text
    assert not any(word in text for word in ("else.test", "tool.test", "off.test"))


def test_a_host_without_debian_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no source"):
        write_sources(tmp_path, etc=tmp_path, env={})
    assert write_sources(tmp_path, etc=tmp_path, env={"CLUSTERCTL_LAB_SOURCES": "/my.list"}) == [Path("/my.list")]
