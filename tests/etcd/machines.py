"""Machines below a temporary folder that run the programs of a restore with real programs of etcd; systemd is a fake."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from etcd_programs import PROGRAMS, free_port

from clusterctl.commands.etcd.restore import Machine, read_machine
from clusterctl.pki import CertificateSpec, Pki
from clusterctl.shell import Blob, Call, Script, functions

sys.path.insert(0, str(Path(__file__).parent.parent / "shell"))

from shell_box import Box, Result

SYSTEMCTL = """echo "$@" >>{path}/systemctl
case "$*" in
*is-active*) cat {path}/active 2>/dev/null || echo inactive ;;
"stop etcd.service") rm -f {path}/active ;;
"start --no-block etcd.service") [ -e {path}/units/etcd.service.d/90-clusterctl-restore.conf ] || echo active >{path}/active ;;
esac"""


class EtcdBox(Box):
    """One machine with the programs of etcd; ``data``: its /var/lib/etcd."""

    def __init__(self, path: Path, programs: Path, pki: Pki) -> None:
        path.mkdir(parents=True, exist_ok=True)
        super().__init__(path, "dash")
        self.data, self.configuration, self.units = path / "data", path / "etcd", path / "units"
        self.etcd_etc, self.etcd_data = self.configuration, self.data
        for folder in (self.data, self.configuration / "pki", self.units, self.root / "bin"):
            folder.mkdir(parents=True)
        for name in PROGRAMS:
            (self.root / "bin" / name).symlink_to(programs / name)
        (self.units / "etcd.service").write_text("")
        self.command("systemctl", SYSTEMCTL.format(path=path))
        self.command("chown", "exit 0")
        self.command("systemd-run", "exit 1")
        self._certificates(pki)

    def _certificates(self, pki: Pki) -> None:
        folder, authority = self.configuration / "pki", pki.authorities["etcd"]
        (folder / "ca.crt").write_bytes(authority.pem)
        for name in ("server", "peer", "healthcheck-client"):
            spec = CertificateSpec(authority="etcd", common_name=name, dns=("localhost",), addresses=("127.0.0.1",), server=True, client=True)
            certificate, key = authority.issue(spec)
            (folder / f"{name}.crt").write_bytes(certificate)
            (folder / f"{name}.key").write_bytes(key)

    def text(self, program: Script) -> str:
        text = super().text(program).replace("/var/lib/etcd", str(self.data)).replace("/etc/etcd", str(self.configuration))
        return text.replace("units=/etc/systemd/system", f"units={self.units}")

    def call(self, *calls: Call, blobs: dict[str, Blob] | None = None) -> Result:
        return self.run(Script(steps=calls, blobs=blobs or {}, functions=functions("snapshot", "restore")))

    def look_at(self) -> Machine:
        return read_machine(self.run(Script(probes=(("restore", "etcd"),), functions=functions("snapshot", "restore"))).records)


@dataclass
class Restored:
    """Members that run on restored data, on loopback."""

    programs: Path
    boxes: dict[str, EtcdBox]
    peers: dict[str, str]

    @property
    def initial(self) -> str:
        return ",".join(f"{name}={url}" for name, url in self.peers.items())

    def start(self) -> None:
        self.clients = {name: f"http://127.0.0.1:{free_port()}" for name in self.boxes}
        self.processes = [subprocess.Popen(
            [self.programs / "etcd", "--name", name, "--data-dir", box.data, "--listen-client-urls", self.clients[name],
             "--advertise-client-urls", self.clients[name], "--listen-peer-urls", self.peers[name], "--feature-gates", "InitialCorruptCheck=true"],
            stdout=subprocess.DEVNULL, stderr=(box.path / "log").open("wb")) for name, box in self.boxes.items()]
        ends = time.monotonic() + 60
        while self.ctl("endpoint", "health", check=False).returncode:
            assert time.monotonic() < ends, next(iter(self.boxes.values())).path.joinpath("log").read_text()[-2000:]

    def ctl(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.programs / "etcdctl", "--endpoints", ",".join(self.clients.values()), *words], check=check, capture_output=True,
                              text=True, env={**os.environ, "ETCDCTL_API": "3"})

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
