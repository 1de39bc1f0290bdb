"""A second apply, beside one bare SSH connection per host that runs one program."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusterctl.inventory import load
from clusterctl.lab import Lab
from clusterctl.model import Host
from clusterctl.shell import Program
from clusterctl.transport import Transport

RUNS = 5


def apply_again(inventory: Path) -> dict[str, object]:
    """The medians of a no-op apply as a process, and of its own clock."""
    walls, summaries = [], []
    for _ in range(RUNS):
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "clusterctl", "apply", "--yes", "-o", "json", "-i", str(inventory)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        walls.append(time.monotonic() - started)
        summaries.append(json.loads(done.stdout.splitlines()[-1]))
    assert not any(summary["changed"] for summary in summaries)
    return {
        "process_seconds": round(statistics.median(walls), 2),
        "seconds": round(statistics.median(s["seconds"] for s in summaries), 2),
        "trips": summaries[0]["trips"],
        "bytes_sent": summaries[0]["bytes_sent"],
    }


def bare(inventory: Path) -> dict[str, object]:
    """The peer: a process that opens one connection per host and runs one program on it (``python -m bench.noop INVENTORY``)."""
    walls = []
    for _ in range(RUNS):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "bench.noop", str(inventory)], timeout=120, check=True)
        walls.append(time.monotonic() - started)
    return {"process_seconds": round(statistics.median(walls), 2)}


def _one(host: Host) -> None:
    transport = Transport(host)
    try:
        list(transport.stream(Program(probes=(("stat", "/etc/hostname"),))))
    finally:
        transport.close()


def measure(lab: Lab) -> dict[str, object]:
    ours, theirs = apply_again(lab.inventory), bare(lab.inventory)
    ratio = float(str(ours["process_seconds"])) / float(str(theirs["process_seconds"]))
    return {"hosts": len(lab.machines), "apply": ours, "bare_ssh": theirs, "ratio": round(ratio, 2)}


if __name__ == "__main__":
    hosts = load(Path(sys.argv[1])).hosts
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        list(pool.map(_one, hosts))
