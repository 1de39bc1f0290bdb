"""Many hosts: a command on all of them, and a no-op look, beside pyinfra and Ansible on the same hosts in the same run.

The look of clusterctl is ``plan --limit workers``: connections, facts, all probes of a worker, the comparison. The peers compare
the same files, folders, links, packages and units; of programs and certificates, which clusterctl verifies as well, they compare
only that they are there. The hosts have no systemd: a script in place of systemctl answers all three.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench import peers
from bench.converge import OWN, Work, bootstrap, converge, list_work, write_inventory
from bench.hosts import Hosts
from bench.peers import Peers
from clusterctl.lab import LabSpec, remove_lab
from clusterctl.lab.host import in_network

NAME = "benchscale"
FEW = 10
"""Hosts of the run that the memory of the large one is compared with."""

LIMIT = 3600.0
"""Seconds that one command may take: Ansible's look needs minutes."""


@dataclass(frozen=True)
class Cost:
    """What a process and the children that it waited for cost, by ``bench.cost``. ``peak_mib``: of the largest of them."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


NO_CHANGE: Mapping[str, Callable[[str], bool]] = {
    "clusterctl": lambda said: "plan: no changes" in said,
    "pyinfra": lambda said: re.search(r"Grand total +(\d+) +- +- +\1\b", said) is not None,
    "ansible": lambda said: "changed=0" in said and re.search(r"(changed|unreachable|failed)=[1-9]", said) is None,
}
"""How each program reports that it found everything as wanted."""


def run(lab: Hosts, command: Sequence[str], environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a command in the lab's network; return its cost and what it printed. Raises RuntimeError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.cost", "nsenter", f"--net=/run/netns/{lab.namespace}", *command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False, env={**os.environ, **environment})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-3000:]}")
    return Cost(**json.loads(done.stdout)), done.stderr


def raise_hosts(workers: int) -> tuple[Hosts, Mapping[str, Work]]:
    """Raise hosts on which clusterctl finds nothing to do, and return what each has."""
    peers.install()
    remove_lab(NAME)
    lab = Hosts.up(LabSpec(name=NAME, machines=2))
    try:
        first = write_inventory(lab, 1)
        in_network(lab.namespace, lambda: converge(first))
        bootstrap(lab, "w-1")
        lab.make_template("w-1", OWN)
        lab.grow(workers)
        inventory, contents = write_inventory(lab, workers), lab.directory / "contents"
        contents.mkdir()
        in_network(lab.namespace, lambda: converge(inventory))
        return lab, in_network(lab.namespace, lambda: list_work(inventory, contents))
    except BaseException:
        lab.down()
        raise


def measure(workers: int, rounds: int) -> dict[str, object]:
    """Medians of rounds, all programs in turn; Ansible's look once, as it takes minutes."""
    lab, work = raise_hosts(workers)
    try:
        few = Peers(lab, lab.directory / "few", write_inventory(lab, min(FEW, workers)))
        many = Peers(lab, lab.directory / "many", write_inventory(lab, workers))
        few.prepare({})
        many.prepare(work)
        small = [run(lab, few.commands()["look"]["clusterctl"], {})[0] for _ in range(rounds)]
        print(f"of {min(FEW, workers)} hosts: {_figures(small, min(FEW, workers))}", file=sys.stderr, flush=True)
        costs = _rounds(lab, many, rounds)
    finally:
        lab.down()
    return {
        "hosts": workers, "cores": os.cpu_count(), "rounds": rounds,
        "compared_on_each": {kind: len(entries) for kind, entries in work["w-1"].items()},
        **{kind: _beside(programs, workers) for kind, programs in costs.items()},
        f"clusterctl_look_of_{min(FEW, workers)}": _figures(small, min(FEW, workers)),
        **_more(costs["look"]["clusterctl"], small, workers - FEW),
    }


def _rounds(lab: Hosts, many: Peers, rounds: int) -> dict[str, dict[str, list[Cost]]]:
    """Run all commands in turn, and report each on stderr. Ansible's look comes last, once."""
    costs: dict[str, dict[str, list[Cost]]] = {"exec": defaultdict(list), "look": defaultdict(list)}
    turns = [(kind, name, command) for kind, commands in many.commands().items() for name, command in commands.items()]
    [once] = [turn for turn in turns if turn[:2] == ("look", "ansible")]
    turns.remove(once)
    for kind, name, command in (*turns * rounds, once):
        cost, said = run(lab, command, many.environment)
        if kind == "look" and not NO_CHANGE[name](said):
            raise RuntimeError(f"{name} did not find everything as wanted: {said[-3000:]}")
        print(f"{kind} {name}: {cost.seconds:.2f} s, {cost.cpu_seconds:.2f} s of the processor, {cost.peak_mib:.1f} MiB; "
              f"load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        costs[kind][name].append(cost)
    return costs


def _beside(programs: Mapping[str, Sequence[Cost]], hosts: int) -> dict[str, object]:
    """The figures of each program; those of the peers with their ratio to clusterctl."""
    own = statistics.median(cost.seconds for cost in programs["clusterctl"])
    return {name: {**_figures(costs, hosts),
                   "times_clusterctl": round(statistics.median(cost.seconds for cost in costs) / own, 1)}
            for name, costs in programs.items()}


def _figures(costs: Sequence[Cost], hosts: int) -> dict[str, float]:
    return {
        "seconds": round(statistics.median(cost.seconds for cost in costs), 2),
        "cpu_ms_per_host": round(statistics.median(cost.cpu_seconds for cost in costs) / hosts * 1000, 1),
        "peak_mib": round(statistics.median(cost.peak_mib for cost in costs), 1),
    }


def _more(many: Sequence[Cost], few: Sequence[Cost], hosts: int) -> dict[str, float]:
    """What each further host costs clusterctl's look."""
    if hosts < 1:
        return {}

    def growth(of: Callable[[Cost], float]) -> float:
        return (statistics.median(map(of, many)) - statistics.median(map(of, few))) / hosts

    return {"mib_per_further_host": round(growth(lambda cost: cost.peak_mib), 2),
            "cpu_ms_per_further_host": round(growth(lambda cost: cost.cpu_seconds) * 1000, 1)}
