"""A second apply, beside one bare SSH connection per host that runs one program."""

from __future__ import annotations

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from clusterctl.engine import Events
from clusterctl.facts import probe_program
from clusterctl.lab import Lab
from clusterctl.operations.base import Options, session
from clusterctl.operations.foresight import foresee

RUNS = 15


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
        "trips": summaries[-1]["trips"],
        "bytes_sent": summaries[-1]["bytes_sent"],
    }


def peer(inventory: Path, *words: str) -> float:
    """The median of a process that opens one connection per host and runs one program on each."""
    walls = []
    for _ in range(RUNS):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "bench.bare", str(inventory), *words], timeout=120, check=True)
        walls.append(time.monotonic() - started)
    return round(statistics.median(walls), 2)


def foreseen(inventory: Path) -> bytes:
    """The programs that a second apply sends, by host: the whole look, with nothing made of what it says."""
    with session(Options(inventory=inventory), Events()) as opened:
        guess = foresee(opened)
        assert guess is not None
        return pickle.dumps({name: probe_program(probes) for name, probes in guess.probes.items()})


def measure(lab: Lab) -> dict[str, object]:
    ours, bare = apply_again(lab.inventory), peer(lab.inventory)
    with tempfile.NamedTemporaryFile() as programs:
        programs.write(foreseen(lab.inventory))
        programs.flush()
        look = peer(lab.inventory, programs.name)
    seconds = float(str(ours["process_seconds"]))
    return {"hosts": len(lab.machines), "apply": ours, "bare_ssh_seconds": bare, "ratio": round(seconds / bare, 2),
            "bare_ssh_with_the_look_seconds": look, "ratio_of_the_look": round(look / bare, 2)}
