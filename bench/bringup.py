"""From bare machines to all nodes Ready, beside the floor."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from bench import floor
from clusterctl.artifacts.places import default_mirror
from clusterctl.components import objects
from clusterctl.inventory import load
from clusterctl.lab import Lab, LabSpec
from clusterctl.local.storage import StateFolder
from clusterctl.pki import CertificateSpec, Pki


def measure(machines: int, control_planes: int) -> dict[str, object]:
    """Seconds of both, and their ratio; the stages of clusterctl's."""
    spec = LabSpec(
        name="bench", machines=machines, control_planes=control_planes, cluster={"artifacts": {"mirror": str(default_mirror())}}
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lab = Lab.up(spec)
        try:
            summary, ready = _apply(lab)
            floor.record(lab, folder)
            bindings = _super(lab, folder)
        finally:
            lab.down()
        lab = Lab.up(spec)
        try:
            for member in (item for item, machine in lab.machines.items() if machine.role == "control_plane"):
                subprocess.run(
                    [*lab.ssh_command(member), "mkdir -p /etc/kubernetes && cat >/etc/kubernetes/super.conf"],
                    input=(folder / "super.conf").read_bytes(),
                    check=True,
                    timeout=30,
                )
            least = floor.bring_up(lab, folder, bindings)
        finally:
            lab.down()
    return {
        "machines": machines,
        "control_planes": control_planes,
        "ready_seconds": round(ready, 1),
        "floor_seconds": round(least, 1),
        "ratio": round(ready / least, 2),
        "whole_apply_seconds": summary["seconds"],
        "stages": summary["stages"],
        "mib_sent": round(int(str(summary["bytes_sent"])) / 2**20),
    }


def _apply(lab: Lab) -> tuple[dict[str, object], float]:
    done = subprocess.run(
        [sys.executable, "-m", "clusterctl", "apply", "--yes", "-o", "json", "-i", str(lab.inventory)],
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    # The nodes are Ready when the stage 'nodes' has ended; images and add-ons come after it.
    after = sum(
        entry["seconds"] for entry in summary["stages"][[entry["stage"] for entry in summary["stages"]].index("nodes") + 1 :]
    )
    return summary, summary["seconds"] - after


def _super(lab: Lab, folder: Path) -> bytes:
    """An administrator's kubeconfig for the floor's kubectl; and the bindings that flannel needs."""
    cluster = load(lab.inventory)
    pki = Pki.load(StateFolder.of(cluster.base, cluster.name))
    assert pki is not None
    authority = pki.authorities["kubernetes"]
    certificate, key = authority.issue(
        CertificateSpec(authority="kubernetes", common_name="bench", organizations=("system:masters",), client=True)
    )
    text = {
        name: base64.b64encode(content).decode() for name, content in (("ca", authority.pem), ("crt", certificate), ("key", key))
    }
    (folder / "super.conf").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "a",
                "clusters": [
                    {"name": "a", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": text["ca"]}}
                ],
                "users": [{"name": "a", "user": {"client-certificate-data": text["crt"], "client-key-data": text["key"]}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            }
        )
    )
    return "\n---\n".join(json.dumps(item) for item in objects.bindings(cluster)).encode()
