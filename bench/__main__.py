"""``python -m bench``: all of them, as one JSON object on stdout; ``python -m bench bringup|noop|daytwo``: a part alone."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import bringup, daytwo, noop
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


PARTS: dict[str, Callable[[], dict[str, object]]] = {
    "bringup": lambda: {"bring_up": [bringup.measure(3, 1), bringup.measure(5, 3)]},
    "noop": no_op,
    "daytwo": lambda: {"upgrade": daytwo.upgrade(), "add_and_remove": daytwo.add_and_remove()},
}


def main() -> None:
    chosen = sys.argv[1:] or list(PARTS)
    if unknown := set(chosen) - set(PARTS):
        sys.exit(f"no part is called {unknown.pop()!r}; there are {', '.join(PARTS)}")
    print(json.dumps({key: value for name in chosen for key, value in PARTS[name]().items()}, indent=2))


main()
