"""Faults: one clear error each that says where, why and what to do, the promised exit code, and nothing changed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, until
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from clusterctl.artifacts.places import default_mirror
from clusterctl.cluster.versions import known_versions
from clusterctl.lab import LabSpec

pytestmark = pytest.mark.lab

LOOK = r"""cd /
look() { find etc opt var/lib -xdev -path var/lib/systemd -prune -o "$@" | sort; }
look -printf '%p %m %u %g %l\n'
look -type f -exec sha256sum {} +
systemctl list-unit-files --no-legend --state=enabled"""
"""All that an apply could have changed."""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster.up(LabSpec(name="e2efault", machines=2), Path(tmp_path_factory.mktemp("fault")))
    home = made.work / "home"
    home.mkdir(exist_ok=True)
    made.env = {"HOME": str(home), "CLUSTERCTL_CACHE": str(made.work / "cache")}
    made.edit(lambda content: content["all"]["vars"].update(ansible_timeout=3))
    try:
        yield made
    finally:
        made.down()


@contextmanager
def edited(cluster: Cluster, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """The inventory with a change in it, for a while."""
    before = cluster.inventory.read_text()
    cluster.edit(change)
    try:
        yield
    finally:
        cluster.inventory.write_text(before)


@contextmanager
def done_on(cluster: Cluster, machine: str, script: str, undo: str) -> Iterator[None]:
    """Something done on a machine, for a while."""
    cluster.on(machine, script)
    try:
        yield
    finally:
        cluster.on(machine, undo)


def look(cluster: Cluster) -> dict[str, str]:
    return {name: cluster.on(name, LOOK) for name in cluster.lab.machines if "running" in cluster.lab.status(name)}


def refused(cluster: Cluster, code: int, *needles: str, verb: tuple[str, ...] = ("apply", "--yes"), seconds: float = 30,
            **env: str) -> str:
    """apply ends with this code, says all of these and what to do next, and has changed nothing; what it said."""
    before, started = look(cluster), time.monotonic()
    output = cluster.cli(*verb, code=code, **env)
    assert time.monotonic() - started < seconds
    for needle in (*needles, "next: |did you mean"):
        assert re.search(needle, output), f"{needle!r} is missing: {output}"
    after = look(cluster)
    changed = {name: sorted(set(after[name].splitlines()) ^ set(text.splitlines())) for name, text in before.items()}
    assert not any(changed.values()), changed
    assert not (cluster.inventory.parent / ".clusterctl" / "e2efault" / "pki").exists()
    return output


def settings(**values: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the inventory's variable ``cluster``."""
    return lambda content: content["all"]["vars"]["cluster"].update(values)


@pytest.mark.parametrize(("values", "needles"), [
    ({"network": {"pods": "10.0.0.0/8", "services": "10.96.0.0/16"}}, (r"inventory\.yaml:\d+", "overlap")),
    ({"network": {"pods": "10.77.0.0/16"}}, (r"inventory\.yaml:\d+", "10.77.0.0/16")),
    ({"kubernets": "1.36.4"}, (r"inventory\.yaml:\d+", "kubernets", "kubernetes")),
    ({"kubernetes": 1.36}, (r"inventory\.yaml:\d+", "1.36")),
    ({"kubernetes": "1.36.99"}, ("1.36.99",)),
    ({"versions": {"runc": "9.9.9"}}, ("runc 9.9.9", "artifact.not-locked")),
], ids=["overlap", "overlap-with-machines", "unknown-key", "float", "unknown-version", "no-pin"])
def test_wrong_input(bare: Cluster, values: dict[str, Any], needles: tuple[str, ...]) -> None:
    """Found before anything is contacted: the machines cannot even be reached."""

    def change(content: dict[str, Any]) -> None:
        settings(**values)(content)
        content["all"]["vars"]["clusterctl_network_namespace"] = "nowhere"

    with edited(bare, change):
        refused(bare, 2, *needles, verb=("apply", "--yes", "--locked"))


def test_unreachable(bare: Cluster) -> None:
    bare.lab.freeze("w-1")
    try:
        assert "cp-1" not in refused(bare, 6, r"w-1 \(root@10\.77\.", seconds=15)
    finally:
        bare.lab.thaw("w-1")
    bare.lab.kill("w-1")
    refused(bare, 6, r"w-1 \(root@10\.77\.", seconds=15)
    bare.lab.kill("cp-1")
    refused(bare, 6, "cp-1, w-1: cannot be reached", r"root@10\.77\.", seconds=15)
    for name in ("cp-1", "w-1"):
        bare.lab.start(name)


def other_key() -> str:
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def pin(content: dict[str, Any], key: str | None) -> None:
    """Give or take the pinned host key of the worker."""
    host = content["all"]["children"]["workers"]["hosts"]["w-1"]
    host.pop("clusterctl_host_key", None)
    if key is not None:
        host["clusterctl_host_key"] = key


def fingerprint(public: str) -> str:
    done = subprocess.run(["ssh-keygen", "-lf", "-"], input=public, capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


def logins(cluster: Cluster, machine: str) -> int:
    """How often anybody tried to log in; what is refused before that is no attempt."""
    return int(cluster.on(machine, "journalctl --unit ssh --output cat | grep -cE 'Accepted|Failed|Invalid user' || :"))


def test_host_keys(bare: Cluster) -> None:
    """A changed key, an unknown key, a key that is accepted on purpose, and one that changes after that."""
    key = bare.lab.machines["w-1"].host_key
    own, wrong = fingerprint(key), other_key()
    before = logins(bare, "w-1")
    for changed in (wrong, fingerprint(wrong)):
        with edited(bare, lambda content, changed=changed: pin(content, changed)):  # type: ignore[misc]
            refused(bare, 6, "w-1", re.escape(own), re.escape(fingerprint(wrong)), "nothing was sent")
    with edited(bare, lambda content: pin(content, None)):
        refused(bare, 6, "w-1", re.escape(own), "is not known", f"clusterctl trust w-1 --fingerprint {re.escape(own)}")
        assert logins(bare, "w-1") == before
        refused(bare, 3, re.escape(own), "nothing was accepted", verb=("trust", "w-1", "--fingerprint", fingerprint(wrong)))
        bare.cli("trust", "w-1", "--fingerprint", own)
        bare.cli("plan")
        bare.on("w-1", "cd /etc/ssh && mkdir old && cp -p ssh_host_ed25519_key* old && rm ssh_host_ed25519_key* && "
                       "ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key && systemctl restart ssh")
        try:
            new = fingerprint(bare.on("w-1", "cat /etc/ssh/ssh_host_ed25519_key.pub"))
            refused(bare, 6, "w-1", re.escape(own), re.escape(new), f"clusterctl trust w-1 --fingerprint {re.escape(new)}")
            bare.cli("trust", "w-1", "--fingerprint", new)
            bare.cli("plan")
        finally:
            bare.on("w-1", "cd /etc/ssh && mv old/* . && rmdir old && systemctl restart ssh")


@pytest.mark.parametrize(("options", "needles"), [
    ("size=100m", ("w-1", "MiB are free on the file system of /opt", "1500")),
    ("size=4g,nr_inodes=100", ("w-1", "inodes", "/opt")),
    ("size=4g,ro", ("w-1", "/opt is read-only", "remount,rw")),
], ids=["full", "no-inodes", "read-only"])
def test_unfit_disk(bare: Cluster, options: str, needles: tuple[str, ...]) -> None:
    with done_on(bare, "w-1", f"mount -t tmpfs -o {options} tmpfs /opt", "umount /opt"):
        refused(bare, 3, *needles)


def test_read_only_etc(bare: Cluster) -> None:
    with done_on(bare, "w-1", "mount --bind /etc /etc && mount -o remount,bind,ro /etc", "umount /etc"):
        refused(bare, 3, "w-1", "/etc is read-only")


def test_full_var(bare: Cluster) -> None:
    """No room for the first program even."""
    script = ("mkdir -p /var/lib/clusterctl && mount -t tmpfs -o size=64k tmpfs /var/lib/clusterctl && "
              "dd if=/dev/zero of=/var/lib/clusterctl/fill bs=1k 2>/dev/null; :")
    with done_on(bare, "w-1", script, "umount /var/lib/clusterctl; rmdir /var/lib/clusterctl"):
        refused(bare, 3, "w-1", "space")


def test_twins(bare: Cluster) -> None:
    """A machine-id that two machines share; a hostname that they share does not matter."""
    own = bare.on("w-1", "cat /etc/machine-id").strip()
    twin = bare.on("cp-1", "cat /etc/machine-id").strip()
    undo = f"hostname w-1 && echo {own} >/etc/machine-id"
    with done_on(bare, "w-1", f"hostname cp-1 && echo {twin} >/etc/machine-id", undo):
        assert "hostname" not in refused(bare, 3, "cp-1 and w-1: they have the same machine-id")


def test_taken_port(bare: Cluster) -> None:
    squatter = "systemd-run --quiet --unit=squatter systemd-socket-activate --accept --inetd --listen=6443 cat"
    with done_on(bare, "cp-1", squatter, "systemctl stop squatter"):
        until(lambda: ":192B" in bare.on("cp-1", "cat /proc/net/tcp /proc/net/tcp6"), "somebody on port 6443", 10)
        pid = bare.on("cp-1", "systemctl show --property=MainPID --value squatter").strip()
        refused(bare, 3, "cp-1", "port 6443", "systemd-socket", f"pid {pid}")


def test_corrupt_download(bare: Cluster) -> None:
    mirror = bare.work / "mirror"
    shutil.copytree(default_mirror(), mirror, copy_function=lambda source, target: Path(target).symlink_to(source))
    [victim] = mirror.glob(f"github.com/opencontainers/runc/**/v{known_versions().runc}/runc.*")
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.unlink()
    victim.write_bytes(content)
    with edited(bare, settings(artifacts={"mirror": str(mirror)})):
        refused(bare, 7, re.escape(str(victim)), "expected sha256 [0-9a-f]{64}, got [0-9a-f]{64}")


def test_no_source(bare: Cluster) -> None:
    """A mirror that does not answer; and upstream behind a proxy that does not, with a mirror that lacks the files."""
    with edited(bare, settings(artifacts={"mirror": "http://127.0.0.1:9"})):
        refused(bare, 6, "127.0.0.1:9", "mirror", seconds=60)
    proxy = "http://127.0.0.1:9"
    hollow = bare.work / "hollow"
    hollow.mkdir()
    shutil.copy(default_mirror() / "catalog.json", hollow)
    with edited(bare, settings(artifacts={"mirror": str(hollow)})):
        refused(bare, 6, "artifact.unavailable", "cluster.artifacts.mirror", seconds=60, https_proxy=proxy, HTTPS_PROXY=proxy)


def test_two_operators(bare: Cluster) -> None:
    """The second one is told who is at work; the lock goes with its holder."""
    lock = bare.inventory.parent / ".clusterctl" / "e2efault" / "lock"
    bare.lab.freeze("w-1")
    with edited(bare, lambda content: content["all"]["vars"].update(ansible_timeout=60)):
        first = bare.start("apply", "--yes")
        try:
            until(lambda: lock.exists() and f"pid {first.pid}" in lock.read_text(), "the first operator's lock", 10)
            started = time.monotonic()
            output = bare.cli("apply", "--yes", code=5)
            assert time.monotonic() - started < 5
            assert re.search(f"held by .*pid {first.pid}, apply, since .* UTC \\[lock.held\\]\n  next: ", output), output
        finally:
            first.kill()
            first.communicate()
            bare.lab.thaw("w-1")
    bare.cli("plan")


def test_disk_that_fills_midway(bare: Cluster) -> None:
    """apply stops; what was there is whole and nothing half-written stays; with space again the same command ends well."""
    bare.on("w-1", "mount -t tmpfs -o size=1700m tmpfs /opt")
    # The disk shrinks on the machine itself once the first program is begun: no other clock is in it.
    shrink = "until [ -e /opt/clusterctl ]; do sleep 0.005; done; mount -o remount,size=180m /opt"
    bare.on("w-1", f"systemd-run --quiet --collect --property=PrivateMounts=no sh -c {shlex.quote(shrink)}")
    output = bare.cli("apply", "--yes", "-o", "json", code=4)
    assert "no space is left on the file system /opt" in output, output[-3000:]
    assert "w-1: stage prepare: program:" in output
    assert not bare.on("w-1", "find /opt /etc -name '*.new' -o -name '.clusterctl.*'; ls /var/lib/clusterctl/run")
    bare.on("w-1", "cd /opt/clusterctl/*/*/ 2>/dev/null; for f in /opt/clusterctl/*/*/.stamp; do test -s $f; done")
    bare.on("w-1", "mount -o remount,size=1700m /opt")
    bare.apply()
    assert not bare.apply()["changed"]
