"""Day two: a worker that is added to few and to many machines, one that is removed, and nodes that are upgraded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.lab import Lab, LabSpec

AFTER = "1.37.2"
AT_ONCE = 8
"""Workers that join in one run while a large cluster is raised: this machine has few processors."""

QUIET = "pkill -STOP -x 'kubelet|kube-proxy|flanneld'"
"""Idle nodes cost processors that only the lab's machines share: of the old ones it is the looks that are measured."""

RESTART = """systemctl restart containerd kubelet kube-proxy flanneld
until (exec 3<>/dev/tcp/127.0.0.1/10248) 2>/dev/null; do sleep 0.1; done"""


def clusterctl(lab: Lab, *words: str) -> dict[str, object]:
    """Run a verb; its summary, with the seconds of the whole process."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "clusterctl", *words, "--yes", "-o", "json", "-i", str(lab.inventory)],
        capture_output=True, text=True, timeout=1800, check=False, stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}: {done.stdout[-3000:]}{done.stderr[-1000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": round(time.monotonic() - started, 2)}


def raised(name: str, machines: int) -> Lab:
    return Lab.up(LabSpec(name=name, machines=machines, cluster={"artifacts": {"mirror": str(default_mirror())}}))


def add_and_remove(sizes: Sequence[int] = (3, 10, 50)) -> list[dict[str, object]]:
    """One cluster that grows: at each size a second apply, one worker more, and that worker removed again."""
    found = []
    lab = raised("benchday", min(sizes))
    try:
        clusterctl(lab, "apply")
        for size in sizes:
            while (lacking := size - len(lab.machines)) > 0:
                lab.add(min(AT_ONCE, lacking))
                clusterctl(lab, "apply")
                if size > 10:
                    for machine in lab.machines.values():
                        if machine.role == "worker":
                            lab.exec(machine.name, ["sh", "-c", QUIET], timeout=30, check=True)
            found.append(_one_more(lab, size))
    finally:
        lab.down()
    return found


def _one_more(lab: Lab, size: int) -> dict[str, object]:
    again = clusterctl(lab, "apply")
    [fresh] = lab.add(1)
    added = clusterctl(lab, "apply")
    # The inventory names it still: the next apply, of a larger cluster, takes it in again.
    removed = clusterctl(lab, "node", "remove", fresh.name)
    return {
        "machines": size,
        "no_op_seconds": again["process_seconds"],
        "no_op_bytes_per_machine": int(str(again["bytes_sent"])) // size,
        "add_seconds": added["process_seconds"],
        "add_trips": added["trips"],
        "trips_of_the_old": int(str(again["trips"])) // size,
        "changed_hosts": sorted(added["hosts"]),  # type: ignore[call-overload]
        "remove_seconds": removed["process_seconds"],
    }


def upgrade() -> dict[str, object]:
    """Seconds for each node from one minor to the next, beside what must be waited for anyway: drain, restart, ready."""
    lab = raised("benchup", 4)
    with tempfile.TemporaryDirectory() as folder:
        try:
            clusterctl(lab, "apply")
            summary = clusterctl(lab, "upgrade", "apply", "--to", AFTER)
            stages = {entry["stage"]: entry["seconds"] for entry in summary["stages"]}  # type: ignore[attr-defined]
            least = [_floor(lab, name, Path(folder)) for name in lab.machines]
        finally:
            lab.down()
    ours, theirs = stages["nodes"] / len(least), sum(least) / len(least)
    return {
        "nodes": len(least), "whole_seconds": summary["process_seconds"], "stages": stages,
        "seconds_per_node": round(ours, 1), "floor_per_node": round(theirs, 1), "ratio": round(ours / theirs, 2),
    }


def _floor(lab: Lab, node: str, folder: Path) -> float:
    """By hand, with nothing checked: kubectl drain, restart, until the kubelet answers, uncordon."""
    config, kubectl = folder / "kubeconfig", folder / "kubectl"
    if not config.exists():
        subprocess.run([sys.executable, "-m", "clusterctl", "kubeconfig", "--output", str(config), "-i", str(lab.inventory)],
                       check=True, capture_output=True, timeout=60)
        shutil.copy(default_mirror() / f"dl.k8s.io/release/v{AFTER}/bin/linux/{own_architecture()}/kubectl", kubectl)
        kubectl.chmod(0o755)

    def ask(*words: str) -> None:
        command = ["ip", "netns", "exec", lab.namespace, str(kubectl), "--kubeconfig", str(config), *words]
        subprocess.run(command, check=True, capture_output=True, timeout=300)

    started = time.monotonic()
    ask("drain", node, "--ignore-daemonsets")
    lab.exec(node, ["bash", "-c", RESTART], timeout=120, check=True)
    ask("uncordon", node)
    return time.monotonic() - started
