"""``python -m bench``: all of them, as one JSON object on stdout; ``python -m bench bringup|noop|daytwo|scale``: a part alone."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import bringup, daytwo, noop, scale
from clusterctl.artifacts.places import default_mirror
from clusterctl.lab import Lab, LabSpec

HERE = Path(__file__).parent.parent


def _seconds(*command: str) -> float:
    walls = []
    for _ in range(7):
        started = time.monotonic()
        subprocess.run(command, capture_output=True, check=True, timeout=60)
        walls.append(time.monotonic() - started)
    return round(statistics.median(walls[1:]), 3)


def small(inventory: Path) -> dict[str, object]:
    """The program itself: start-up, one host's plan, memory, lines, wheel."""
    cli = (sys.executable, "-m", "clusterctl")
    lines = sum(len(path.read_text().splitlines()) for path in (HERE / "clusterctl").rglob("*.py"))
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(HERE)],
            check=True,
            timeout=300,
            capture_output=True,
        )
        [wheel] = Path(folder).glob("*.whl")
        size = wheel.stat().st_size
    return {
        "help_seconds": _seconds(*cli, "--help"),
        "python_seconds": _seconds(sys.executable, "-c", "pass"),
        "plan_seconds": _seconds(*cli, "plan", "-i", str(inventory), "--limit", "cp-1"),
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "python_lines": lines,
        "wheel_kib": size // 1024,
    }


def with_cluster(machines: int) -> tuple[dict[str, object], dict[str, object] | None]:
    lab = Lab.up(LabSpec(name="bench", machines=machines, cluster={"artifacts": {"mirror": str(default_mirror())}}))
    try:
        subprocess.run(
            [sys.executable, "-m", "clusterctl", "apply", "--yes", "-i", str(lab.inventory)],
            check=True,
            timeout=1200,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
        return noop.measure(lab), small(lab.inventory) if machines == 3 else None
    finally:
        lab.down()


def no_op() -> dict[str, object]:
    """With few and with many machines; and the program itself, asked on the way."""
    three, program = with_cluster(3)
    ten, _ = with_cluster(10)
    return {"no_op": [three, ten], "program": program}


PARTS = ("bringup", "noop", "daytwo", "scale")


def part(name: str, hosts: int, rounds: int) -> dict[str, object]:
    """Measure one part."""
    found: dict[str, Callable[[], dict[str, object]]] = {
        "bringup": lambda: {"bring_up": [bringup.measure(3, 1), bringup.measure(5, 3)]},
        "noop": no_op,
        "daytwo": lambda: {"upgrade": daytwo.upgrade(), "add_and_remove": daytwo.add_and_remove()},
        "scale": lambda: {"scale": scale.measure(hosts, rounds)},
    }
    return found[name]()


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m bench", description="Benchmarks, beside peers in the same run.")
    arguments.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    arguments.add_argument("--hosts", type=int, default=50, help="hosts of the part scale")
    arguments.add_argument("--rounds", type=int, default=5, help="rounds of the part scale")
    given = arguments.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        arguments.error(f"no part is called {unknown.pop()!r}; there are {', '.join(PARTS)}")
    chosen = given.parts or PARTS
    print(json.dumps({key: value for name in chosen for key, value in part(name, given.hosts, given.rounds).items()}, indent=2))


main()
