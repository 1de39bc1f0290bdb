"""Vagrant: the Vagrantfile is valid, and recorded words of Vagrant and its machines become an inventory that loads."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusterctl.cluster.model import Cluster
from clusterctl.errors import InputError, Problems
from clusterctl.inventory import load
from clusterctl.inventory.vagrant import generate, read_machines, write_inventory

ROOT = Path(__file__).parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "{:A<43}"

VIRTUALBOX = """\
Host cp-1
  HostName 127.0.0.1
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/bob/my clusters/.vagrant/machines/cp-1/virtualbox/private_key"
  IdentitiesOnly yes
  LogLevel FATAL
  PubkeyAcceptedKeyTypes +ssh-rsa
  HostKeyAlgorithms +ssh-rsa

Host w-1
  HostName 127.0.0.1
  User vagrant
  Port 2200
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile /home/bob/.vagrant/machines/w-1/virtualbox/private_key
  IdentitiesOnly yes
  LogLevel FATAL

Host w-2
  HostName 127.0.0.1
  User vagrant
  Port 2201
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile /home/bob/.vagrant/machines/w-2/virtualbox/private_key
  IdentityFile /home/bob/.vagrant.d/insecure_private_key
  IdentitiesOnly yes
  LogLevel FATAL

"""
LIBVIRT = """\
Host cp-1
  HostName 192.168.121.47
  User vagrant
  Port 22
  IdentityFile /home/bob/.vagrant/machines/cp-1/libvirt/private_key
  ProxyCommand ssh 'hyper.example.com' -l 'bob' -i '/home/bob/.ssh/id' -W %h:%p

"""


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    for number, name in enumerate(("cp-1", "w-1", "w-2"), 1):
        lines = f"{KEY.format(number)} root@{name}\n10.0.2.15 192.168.60.{10 + number} fd00::{number} \r\n"
        (tmp_path / f"{name}.facts").write_text(lines)
    return tmp_path


def made(facts: Path, ssh_config: str) -> Path:
    path = facts / "inventory.yaml"
    write_inventory(path, generate(ssh_config, ROOT / "vagrant" / "config.yaml", facts))
    return path


def test_virtualbox(facts: Path) -> None:
    cluster = load(made(facts, VIRTUALBOX))
    assert cluster.name == "vagrant"
    assert [(host.name, str(host.address), host.ssh.port) for host in cluster.hosts] == [
        ("cp-1", "192.168.60.11", 2222), ("w-1", "192.168.60.12", 2200), ("w-2", "192.168.60.13", 2201)]
    ssh = cluster.host("cp-1").ssh
    assert (ssh.user, ssh.become, ssh.host_key) == ("vagrant", True, KEY.format(1))
    assert ssh.private_key == Path("/home/bob/my clusters/.vagrant/machines/cp-1/virtualbox/private_key")
    assert [sorted(host.roles) for host in cluster.hosts] == [["control_plane", "etcd"], ["worker"], ["worker"]]


def test_libvirt_behind_another_machine(facts: Path) -> None:
    ssh = load(made(facts, LIBVIRT)).host("cp-1").ssh
    assert (ssh.address, ssh.port) == ("192.168.121.47", 22)
    assert ssh.common_args == ("-o", "ProxyCommand=ssh 'hyper.example.com' -l 'bob' -i '/home/bob/.ssh/id' -W %h:%p")


WRONG = [
    # case                 ssh-config                                             words
    ("nothing is up",      "",                                                    "names no machine"),
    ("message",            "The provider is not ready\n",                         "stands before the first Host"),
    ("another machine",    "Host default\n  HostName x\n",                        "no machine of this Vagrantfile"),
    ("traversal",          "Host ../../x\n",                                      "no machine of this Vagrantfile"),
    ("cut",                VIRTUALBOX[:30],                                   "port, user"),
    ("port",               LIBVIRT.replace("Port 22", "Port x"),                  "missing or wrong"),
    ("port in another script", LIBVIRT.replace("Port 22", "Port ²"),             "missing or wrong"),
    ("port range",         LIBVIRT.replace("Port 22", "Port 99999"),              "missing or wrong"),
]


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "i.yaml" / "x").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_inventory(tmp_path / "i.yaml", "a: 1")
    assert list(tmp_path.iterdir()) == [tmp_path / "i.yaml"]


@pytest.mark.parametrize("text, words", [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_ssh_config(text: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_machines(text)
    assert words in str(caught.value)


WRONG_FACTS = [
    # case                 what the machine said                                  words
    ("no key",             "cat: no such file\n",                                 "no ssh-ed25519 public key"),
    ("no address",         f"{KEY.format(1)}\n10.0.2.15\n",                       "no addresses in 192.168.60.0/24"),
    ("two addresses",      f"{KEY.format(1)}\n192.168.60.11 192.168.60.12\n",     "2 addresses in 192.168.60.0/24"),
]


@pytest.mark.parametrize("text, words", [row[1:] for row in WRONG_FACTS], ids=[row[0] for row in WRONG_FACTS])
def test_wrong_facts(facts: Path, text: str, words: str) -> None:
    (facts / "cp-1.facts").write_text(text)
    with pytest.raises(InputError, match=words):
        made(facts, VIRTUALBOX)


@pytest.mark.parametrize("config, words", [
    ("boxx: a", "did you mean 'box'"), ("[]", "is not a map"), ("network: x", "not an IPv4 network"),
    ("cluster: {name: '{{ x }}'}", "is a template"),
])
def test_wrong_config(facts: Path, config: str, words: str) -> None:
    (facts / "config.yaml").write_text(config)
    with pytest.raises((InputError, Problems), match=words):
        generate(VIRTUALBOX, facts / "config.yaml", facts)


def test_network_from_the_environment(facts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_VAGRANT_NETWORK", "10.0.2.0/24")
    with pytest.raises(Problems, match="have the same node address"):
        load(made(facts, VIRTUALBOX))


FAKE_VAGRANT = """#!/bin/sh
case "$1 $2" in
  "status --machine-readable") cat "$FAKE/status" ;;
  "ssh-config "*) sed -n "/^Host $2\\$/,/^\\$/p" "$FAKE/ssh-config" ;;
  "ssh "*)
    case "$*" in
      *ssh-keygen*) sed -i '1s/AAAAI1111/AAAAI'"$(printf %s "$2" | cksum | cut -c 1-4)"/ "$FAKE/$2.facts" ;;
      *) cat "$FAKE/$2.facts" ;;
    esac ;;
  *) exit 9 ;;
esac
"""
FAKE_CLUSTERCTL = """#!/bin/sh
printf '%s %s\\n' "${CLUSTERCTL_INVENTORY:--}" "$*" >>"$FAKE/calls"
[ "$1" != vagrant-inventory ] || exec "$REAL" -m clusterctl "$@"
"""


class Vagrant:
    """A copy of the folder with a stand-in for Vagrant that prints what Vagrant 2.3.4 prints; clusterctl writes its inventory."""

    def __init__(self, facts: Path) -> None:
        self.facts, self.folder = facts, facts / "copy"
        shutil.copytree(ROOT / "vagrant", self.folder / "vagrant", ignore=shutil.ignore_patterns("inventory.yaml"))
        (facts / "ssh-config").write_text(VIRTUALBOX)
        for name, content in (("vagrant", FAKE_VAGRANT), ("clusterctl", FAKE_CLUSTERCTL)):
            (facts / name).write_text(content)
            (facts / name).chmod(0o755)
        self.states(**{"cp-1": "running", "w-1": "running", "w-2": "running"})
        self.mirror = facts / "mirror"

    def states(self, **states: str) -> None:
        lines = [f"1795807657,{name},metadata,provider,libvirt\n1795807657,{name},state,{state}\n"
                 f"1795807657,{name},state-human-long,The domain, if any. Run `vagrant up`.\n" for name, state in states.items()]
        (self.facts / "status").write_text("".join(lines) + "1795807657,,ui,info,Current machine states:\\n\\nall (libvirt)\n")

    def run(self, script: str, *words: str, code: int = 0) -> str:
        env = {"PATH": f"{self.facts}:{os.environ['PATH']}", "FAKE": str(self.facts), "REAL": sys.executable, "PYTHONPATH": str(ROOT),
               "CLUSTERCTL_MIRROR": str(self.mirror)}
        done = subprocess.run([self.folder / "vagrant" / script, *words], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr

    @property
    def cluster(self) -> Cluster:
        return load(self.folder / "vagrant" / "inventory.yaml")


@pytest.fixture
def vagrant(facts: Path) -> Vagrant:
    return Vagrant(facts)


def test_the_documented_command(vagrant: Vagrant) -> None:
    vagrant.run("apply", "--yes")
    assert (vagrant.facts / "calls").read_text().splitlines() == [
        "- vagrant-inventory --ssh-config .vagrant/clusterctl/ssh-config --facts .vagrant/clusterctl --write vagrant/inventory.yaml",
        "vagrant/inventory.yaml apply --yes",
    ]
    assert [host.name for host in vagrant.cluster.hosts] == ["cp-1", "w-1", "w-2"]


def test_a_filled_mirror_is_used(vagrant: Vagrant) -> None:
    vagrant.run("apply")
    assert vagrant.cluster.settings.artifacts.mirror is None, "nothing was filled"
    vagrant.mirror.mkdir()
    (vagrant.mirror / "catalog.json").write_text("{}")
    vagrant.run("apply")
    assert vagrant.cluster.settings.artifacts.mirror == str(vagrant.mirror)
    config = vagrant.folder / "vagrant" / "config.yaml"
    config.write_text(config.read_text() + "  artifacts: {mirror: https://mirror.example}\n")
    vagrant.run("apply")
    assert vagrant.cluster.settings.artifacts.mirror == "https://mirror.example"


def test_machines_that_do_not_run_are_named_and_not_asked(vagrant: Vagrant) -> None:
    vagrant.states(**{"cp-1": "running", "w-1": "not_created", "w-2": "shutoff"})
    (vagrant.facts / "w-1.facts").unlink()
    (vagrant.facts / "w-2.facts").rename(vagrant.facts / "away")
    errors = vagrant.run("apply", "--yes")
    assert "vagrant up w-1" in errors and "vagrant up w-2" in errors and [host.name for host in vagrant.cluster.hosts] == ["cp-1"]
    vagrant.states(**{"cp-1": "shutoff", "w-1": "not_created", "w-2": "not_created"})
    assert "vagrant up" in vagrant.run("apply", code=6)


def test_a_machine_that_stopped_keeps_its_entry(vagrant: Vagrant) -> None:
    vagrant.run("clusterctl", "status")
    vagrant.states(**{"cp-1": "running", "w-1": "poweroff", "w-2": "not_created"})
    (vagrant.facts / "w-1.facts").unlink()
    vagrant.run("clusterctl", "status")
    assert [host.name for host in vagrant.cluster.hosts] == ["cp-1", "w-1"]


def test_each_verb_has_the_addresses_of_now(vagrant: Vagrant) -> None:
    vagrant.run("apply")
    facts = vagrant.facts / "w-1.facts"
    facts.write_text(facts.read_text().replace("192.168.60.12", "192.168.60.77"))
    vagrant.run("clusterctl", "status", "-o", "json")
    assert str(vagrant.cluster.host("w-1").address) == "192.168.60.77"
    assert (vagrant.facts / "calls").read_text().splitlines()[-1] == "vagrant/inventory.yaml status -o json"


def test_a_changed_ssh_address_is_reported(vagrant: Vagrant) -> None:
    assert "has changed" not in vagrant.run("apply") + vagrant.run("apply")
    config = vagrant.facts / "ssh-config"
    config.write_text(config.read_text().replace("127.0.0.1", "127.0.0.2", 1))
    errors = vagrant.run("clusterctl", "status")
    assert "cp-1: its SSH address has changed (127.0.0.2, before 127.0.0.1)" in errors and "w-1" not in errors
    assert vagrant.cluster.host("cp-1").ssh.address == "127.0.0.2"


def test_machines_of_a_box_with_host_keys_get_their_own(vagrant: Vagrant) -> None:
    for name in ("cp-1", "w-1"):
        facts = vagrant.facts / f"{name}.facts"
        facts.write_text(re.sub(r"AAAAI\w+", "AAAAI1111" + 39 * "A", facts.read_text(), count=1))
    errors = vagrant.run("apply")
    assert "cp-1: its box" in errors and "w-1: its box" in errors and "w-2" not in errors
    assert len({host.ssh.host_key for host in vagrant.cluster.hosts}) == 3


def test_shellcheck() -> None:
    subprocess.run(["shellcheck", ROOT / "vagrant" / "apply", ROOT / "vagrant" / "clusterctl"], check=True, timeout=60)


def validate(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VAGRANT_HOME": str(tmp_path / "home"), "LANG": "C.UTF-8",
           "VAGRANT_CHECKPOINT_DISABLE": "1", "VAGRANT_DOTFILE_PATH": str(tmp_path / "dot"), "VAGRANT_CWD": str(ROOT),
           **variables}
    return subprocess.run(["vagrant", "validate", "--ignore-provider"], env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(shutil.which("vagrant") is None and "CLUSTERCTL_EVERYTHING" not in os.environ,
                    reason="make check does without vagrant; make test does not")
@pytest.mark.parametrize("variables, words, code", [
    ({}, "validated successfully", 0),
    ({"CLUSTERCTL_VAGRANT_CONTROL_PLANE": "3", "CLUSTERCTL_VAGRANT_PROVIDER": "libvirt"}, "cp-3", 0),
    ({"CLUSTERCTL_VAGRANT_WORKERS": "many"}, 'workers.count: "many" is not a number', 1),
    ({"CLUSTERCTL_VAGRANT_MEMORY": "1"}, "memory: 1 is not from 512", 1),
    ({"CLUSTERCTL_VAGRANT_DRIVER": "xen"}, 'driver: "xen" is not one of kvm, qemu', 1),
    ({"CLUSTERCTL_VAGRANT_NETWORK": "10.9.0.0/24", "CLUSTERCTL_VAGRANT_PROVIDER": "virtualbox"}, "192.168.56.0/21", 1),
], ids=["default", "three control planes", "no number", "too little memory", "driver", "network of VirtualBox"])
def test_vagrantfile(tmp_path: Path, variables: dict[str, str], words: str, code: int) -> None:
    result = validate(tmp_path, **variables)
    assert (result.returncode, words in result.stdout + result.stderr) == (code, True), result.stdout + result.stderr


RECORDER = """
class Recorder < BasicObject
  def method_missing(name, *arguments, &block)
    $stdout.puts "#{name.to_s.delete_suffix("=")}=#{arguments.first}" if name.to_s.end_with?("=")
    block&.call(self)
    self
  end
end
module Vagrant
  module Errors; class VagrantError < StandardError; end; end
  def self.configure(_) = yield(Recorder.new)
end
load ARGV.first
"""
"""Prints each setting that the Vagrantfile makes."""


@pytest.mark.skipif(shutil.which("vagrant") is None and "CLUSTERCTL_EVERYTHING" not in os.environ,
                    reason="make check does without vagrant; make test does not")
@pytest.mark.parametrize("given, driver, seconds", [("qemu", "qemu", 900), ("kvm", "kvm", None), ("", None, None)])
def test_the_driver_of_libvirt(given: str, driver: str | None, seconds: int | None) -> None:
    """What the Vagrantfile sets; without a driver, qemu where the processor has no virtualisation to give."""
    if driver is None:
        usable = Path("/dev/kvm").exists() and re.search(r"^flags.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.M)
        driver, seconds = ("kvm", None) if usable else ("qemu", 900)
    result = subprocess.run(["ruby", "-e", RECORDER, ROOT / "Vagrantfile"], capture_output=True, text=True, timeout=60, check=True,
                            env={**os.environ, "CLUSTERCTL_VAGRANT_DRIVER": given, "CLUSTERCTL_VAGRANT_PROVIDER": "libvirt"})
    lines = result.stdout.split()
    assert lines.count(f"driver={driver}") == 3 and [line for line in lines if "timeout" in line] == ([f"boot_timeout={seconds}"] if seconds else [])
