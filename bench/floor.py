"""The floor of bringing a cluster up: the same files copied in parallel, the same daemons started, nothing checked."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusterctl.lab import Lab

PATHS = (
    "opt/clusterctl",
    "opt/cni",
    "etc/kubernetes",
    "etc/etcd",
    "etc/clusterctl",
    "etc/containerd",
    "etc/cni",
    "etc/kube-flannel",
    "etc/crictl.yaml",
    "etc/sysctl.d/99-zz-clusterctl.conf",
    "var/lib/kube-proxy",
    "var/lib/kubelet/config.yaml",
)
UNITS = (
    "containerd",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "api-proxy",
    "kubelet",
    "kube-proxy",
    "flanneld",
)
PACKAGES = "openssl zstd conntrack iptables nftables haproxy"

START = f"""
sysctl -q --system
apt-get -q update >/dev/null && apt-get -y -q --no-install-recommends install {PACKAGES} >/dev/null 2>&1
systemctl disable -q --now haproxy 2>/dev/null
getent passwd etcd >/dev/null || useradd --system --user-group --home-dir /var/lib/etcd etcd
if [ -d /etc/etcd ]; then mkdir -p /var/lib/etcd; chmod 700 /var/lib/etcd; chown -R etcd:etcd /var/lib/etcd /etc/etcd/pki; fi
systemctl daemon-reload
for unit in {" ".join(UNITS)}; do [ ! -e /etc/systemd/system/$unit.service ] || systemctl enable -q $unit; done
systemctl start --no-block containerd
"""


def record(lab: Lab, folder: Path) -> None:
    """Keep what a finished cluster has on each machine, as one tar each: the bytes that the floor copies."""
    for name in lab.machines:
        script = f"cd / && tar -cf /root/state.tar $(ls -d {' '.join(PATHS)} etc/systemd/system/*.service 2>/dev/null)"
        lab.exec(name, ["sh", "-c", script], timeout=120, check=True)
        with (folder / f"{name}.tar").open("wb") as out:
            subprocess.run([*lab.ssh_command(name), "cat /root/state.tar"], stdout=out, check=True, timeout=120)


def bring_up(lab: Lab, folder: Path, bindings: bytes) -> float:
    """Seconds from bare machines to all nodes Ready."""
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=len(lab.machines)) as pool:
        list(pool.map(lambda name: _copy(lab, folder, name), lab.machines))
        list(pool.map(lambda name: _start(lab, name), lab.machines))
    first = next(name for name, machine in lab.machines.items() if machine.role == "control_plane")
    kubectl = "/opt/clusterctl/bin/kubectl --kubeconfig /etc/kubernetes/super.conf"
    _until(lab, first, f"{kubectl} apply -f -", bindings)
    count = sum(machine.role != "etcd" for machine in lab.machines.values())
    _until(lab, first, f"test $({kubectl} get nodes --no-headers | grep -cw Ready) -eq {count}")
    return time.monotonic() - started


def _copy(lab: Lab, folder: Path, name: str) -> None:
    with (folder / f"{name}.tar").open("rb") as source:
        subprocess.run([*lab.ssh_command(name), "tar -xf - -C /"], stdin=source, check=True, timeout=300)
    subprocess.run([*lab.ssh_command(name), START], check=True, timeout=300, stdin=subprocess.DEVNULL)


def _start(lab: Lab, name: str) -> None:
    units = " ".join(f"{unit}.service" for unit in UNITS)
    script = f"systemctl start --no-block $(cd /etc/systemd/system && ls {units} 2>/dev/null)"
    subprocess.run([*lab.ssh_command(name), script], check=True, timeout=60, stdin=subprocess.DEVNULL)


def _until(lab: Lab, name: str, script: str, given: bytes = b"") -> None:
    ends = time.monotonic() + 180
    while subprocess.run([*lab.ssh_command(name), script], input=given, capture_output=True, timeout=60, check=False).returncode:
        if time.monotonic() > ends:
            raise TimeoutError(f"{name}: {script}")
        time.sleep(0.1)
