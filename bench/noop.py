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

from clusterctl.components.products import FOOTPRINT
from clusterctl.engine.events import Events
from clusterctl.lab import Lab
from clusterctl.plan.stages import possible_probes
from clusterctl.session.session import Options, session
from clusterctl.shell.facts import probe_program

RUNS = 15


def timed(*words: str) -> tuple[float, str]:
    """Seconds of a process, and what it printed."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=120, check=True,
                          stdin=subprocess.DEVNULL)
    return time.monotonic() - started, done.stdout


def looks(inventory: Path) -> bytes:
    """The programs that a second apply sends, by host: the whole look, with nothing made of what it says."""
    with session(Options(inventory=inventory), Events()) as opened:
        programs = {name: probe_program(probes, footprint=FOOTPRINT) for name, probes in possible_probes(opened).items()}
        return pickle.dumps(programs)


def measure(lab: Lab) -> dict[str, object]:
    """Medians, of all three in turn: a second apply, the bare peer, and the peer with the program of the look."""
    inventory = str(lab.inventory)
    apply = ("clusterctl", "apply", "--yes", "-o", "json", "-i", inventory)
    timed(*apply)
    walls: dict[str, list[float]] = {"apply": [], "bare": [], "look": []}
    own = []
    with tempfile.NamedTemporaryFile() as programs:
        programs.write(looks(lab.inventory))
        programs.flush()
        for _ in range(RUNS):
            seconds, said = timed(*apply)
            own.append(json.loads(said.splitlines()[-1]))
            walls["apply"].append(seconds)
            walls["bare"].append(timed("bench.bare", inventory)[0])
            walls["look"].append(timed("bench.bare", inventory, programs.name)[0])
    assert not any(summary["changed"] for summary in own)
    found = {name: statistics.median(seconds) for name, seconds in walls.items()}
    return {
        "hosts": len(lab.machines), "apply_seconds": round(found["apply"], 2), "bare_ssh_seconds": round(found["bare"], 2),
        "ratio": round(found["apply"] / found["bare"], 2), "bare_ssh_with_the_look_seconds": round(found["look"], 2),
        "ratio_of_the_look": round(found["look"] / found["bare"], 2), "own_seconds": statistics.median(s["seconds"] for s in own),
        "trips": own[-1]["trips"], "bytes_sent": own[-1]["bytes_sent"],
    }
