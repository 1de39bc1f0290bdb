"""Runs of a verb that are killed or cut off and started again, and what must be the same after all of them."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import checks
from cluster import Cluster, until

FOLDERS = "/etc/kubernetes /etc/etcd /etc/clusterctl /etc/containerd /etc/systemd/system /etc/cni /var/lib/kube-proxy /opt /usr/local/bin"
LOOK = f"""find {FOLDERS} /var/lib/kubelet/config.yaml -printf '%p %y %m %u:%g %l\\n' | sort
find {FOLDERS} /var/lib/kubelet/config.yaml -type f ! -name '*.key' ! -name '*.crt' ! -name '*.pub' ! -name .stamp ! -name cluster \
  ! -name encryption.yaml ! -name initial.env ! -path '/opt/*' -print | sort | while read -r file; do
  echo "$file $(sed 's/10[.]77[.][0-9]*[.]/10.77.N./g; s/e2e[a-z]*/LAB/g' "$file" | sha256sum)"
done
for file in /opt/clusterctl/*/*/.stamp; do echo "$file $(head -n 1 "$file")"; done
ls /var/lib/clusterctl/stamps
cd /etc/systemd/system && for unit in *.service; do systemctl show --property=Id,ActiveState,UnitFileState "$unit"; done
cat /proc/sys/net/ipv4/ip_forward; /opt/clusterctl/bin/ctr -n k8s.io images ls -q | sort"""
"""A machine's end state. Keys and what follows from them are new in each cluster; programs are known by their stamps.

Each lab has a network and a name of its own, which are taken out of what is compared.
"""

KINDS = "clusterrolebindings,clusterroles,rolebindings,roles,serviceaccounts,configmaps,secrets,services,deployments,apiservices"
BOUNDARIES = ("stage-started", "stage-ended")
PLANS = ("plan", "drain-plan", "os-update-plan", "restore-plan")
NOT_READY = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
AGAIN = (4, 6)
"""The exit codes of a run that says: run the same command again."""


def state(cluster: Cluster) -> dict[str, object]:
    """All that must be the same, however often a verb was interrupted."""
    checks.nodes_ready(cluster)
    nodes = cluster.json("get", "nodes")["items"]
    found: dict[str, object] = {
        node["metadata"]["name"]: (sorted(node["metadata"]["labels"].items()), node["spec"].get("taints")) for node in nodes}
    found["objects"] = sorted(cluster.kubectl("get", KINDS, "--all-namespaces", "-o", "name").split())
    for machine in cluster.lab.machines:
        found[f"machine {machine}"] = cluster.on(machine, LOOK).splitlines()
    return found


@dataclass(frozen=True)
class Undisturbed:
    """A cluster of two machines, made by one apply that nobody disturbed: its events, and the state right after it."""

    cluster: Cluster
    events: list[dict[str, Any]]
    end: dict[str, object]


def settled(cluster: Cluster) -> dict[str, object]:
    """The state once the cluster's own controllers have made what they always make."""
    until(lambda: cluster.json("get", "deployment", "-n", "kube-system", "coredns")["status"].get("readyReplicas"), "CoreDNS", 120)
    until(lambda: welcome(cluster), "nodes without the taints of such that are not ready", 60)
    return state(cluster)


def welcome(cluster: Cluster) -> bool:
    """No node is tainted as not ready: the controller looks every five seconds, and may be late to see that one is ready."""
    for node in cluster.json("get", "nodes")["items"]:
        left = [taint for taint in node["spec"].get("taints", ()) if taint["key"] in NOT_READY]
        assert not left, f"{node['metadata']['name']}: {left}"
    return True


def same(found: dict[str, object], wanted: dict[str, object]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        left, right = ([str(line) for line in side] for side in (found[key], value))  # type: ignore[attr-defined]
        assert left == right, f"{key}:\n" + "\n".join(difflib.unified_diff(right, left, "uninterrupted", "killed", lineterm="", n=0))


def comes_to(cluster: Cluster, wanted: dict[str, object]) -> None:
    """It is so, at the latest once the cluster's own controllers, and units that end by themselves, are done. Looks change nothing."""
    until(lambda: same(settled(cluster), wanted) is None, "the state of an uninterrupted run", 60)


def no_leftovers(cluster: Cluster) -> None:
    """No temporary file and no program that still runs, on any machine."""
    for machine in cluster.lab.machines:
        found = cluster.on(machine, "find /etc /opt /usr/local /var/lib/clusterctl /var/lib/kubelet /var/lib/kube-proxy -xdev "
                                    r"\( -name '.clusterctl.*' -o -name '*.new' -o -name .all -o -path '*/run/*' \) 2>/dev/null; "
                                    "pgrep -f '[/]var/lib/clusterctl/run' || :")
        assert not found, f"{machine}: {found}"


def read_until(process: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool], seconds: float = 120) -> list[dict[str, Any]]:
    """The events up to one that is wanted, or all where none is. The process is killed after ``seconds``."""
    assert process.stdout is not None
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    events = []
    try:
        for line in process.stdout:
            assert line.startswith("{"), line + process.stdout.read()
            events.append(json.loads(line))
            if wanted(events[-1]):
                break
    finally:
        timer.cancel()
    return events


def cut(cluster: Cluster, machines: Sequence[str] = ()) -> None:
    """Machines (all of them by default) reset every SSH connection that they have."""
    for name in machines or list(cluster.lab.machines):
        namespace = cluster.lab.machines[name].namespace
        subprocess.run(["ip", "netns", "exec", namespace, "ss", "-K", "sport", "=", ":22"], check=True, capture_output=True, timeout=10)


@dataclass
class Series:
    """One operation, started again and again until it ends well; each run is interrupted further on.

    Where: at every stage boundary that no run was at before, and after a random number of events, at most ``stride``, and a
    random part of ``pause`` seconds. ``cuts``: every how-manieth of the latter is a cut of all connections and not a kill.
    ``within``: for a verb with few events that may be run again: a random part of so many seconds from its start, in place of
    events; runs that were faster do not count, until there were ``least`` kills.
    ``batches``: a verb whose stages all have one name: the hosts of each tell them apart.
    ``also``: what else it is killed at as at a boundary: changes (STAGE HOST RESOURCE) and beginnings of texts.
    ``enough``: random moments from which on runs are interrupted at boundaries alone; ``most``: runs.
    """

    cluster: Cluster
    words: Sequence[str]
    stride: int = 3
    pause: float = 0.5
    cuts: int = 3
    within: float = 0.0
    least: int = 0
    batches: bool = False
    also: Sequence[str] = ()
    enough: int = 10
    most: int = 60
    seed: int = field(default_factory=lambda: int(os.environ.get("CLUSTERCTL_SEED") or random.randrange(10**6)))
    moments: list[str] = field(default_factory=list)
    boundaries: set[tuple[str, str]] = field(default_factory=set)
    kills: int = 0
    severed: int = 0
    at_random: int = 0
    _ended: bool = False
    _batch: str = ""
    ALL: ClassVar[int] = 10**6

    def run(self) -> Series:
        chance = random.Random(self.seed)
        started = time.monotonic()
        try:
            for _ in range(self.most):
                cutting = self.cuts > 0 and self.at_random % self.cuts == self.cuts - 1
                count = chance.randint(0, self.stride) if self._may_be_random() else self.ALL
                self._once(count, chance.random() * (self.within or self.pause), cutting)
                if self._ended:
                    break
            else:
                raise AssertionError(f"not at its end after {self.most} runs")
            self.cluster.cli(*self.words)
        finally:
            print(f"\n{' '.join(self.words)}: {self.kills} kills, {self.severed} cuts, {self.at_random} of them at random "
                  f"(CLUSTERCTL_SEED={self.seed}), {len(self.boundaries)} stage boundaries, {time.monotonic() - started:.0f} s")
            print("   " + "\n   ".join(self.moments))
        return self

    def _may_be_random(self) -> bool:
        return bool(self.within) or self.at_random < self.enough

    def _once(self, count: int, delay: float, cutting: bool) -> None:
        """One run, to the moment that it is interrupted at, or to its end where that comes before."""
        process = self.cluster.start(*self.words, "-o", "json")
        # An eviction that is cut off midway counts against its budget for two minutes (the disruption controller's DeletionTimeout).
        timer = threading.Timer(280, process.kill)
        timer.start()
        said: list[str] = []
        severed = False
        try:
            last, boundary = self._read(process, count, said) if not self.within else ({"event": f"after {delay:.1f} s"}, None)
            if last is not None and boundary is None:
                self._wait(process, delay)
                if cutting:
                    self._tell("cut", last)
                    cut(self.cluster)
                    self.severed, severed = self.severed + 1, True
                    # It connects again. While there are to be more moments it is killed a little later, and runs on then.
                    further = count if self.at_random < self.enough and not self.within else self.ALL
                    last, boundary = self._read(process, further, said, planned=True)
            if last is not None and process.poll() is None:
                self._tell("kill", last)
                process.send_signal(signal.SIGKILL)
                self.kills += 1
            said += process.communicate(timeout=300)[0].splitlines(keepends=True)
        finally:
            timer.cancel()
            process.kill()
            process.wait()
        self._judge(process.returncode, "".join(said), killed=last is not None, severed=severed)

    def _read(self, process: subprocess.Popen[str], count: int, said: list[str], *,
              planned: bool = False) -> tuple[dict[str, Any] | None, tuple[str, str] | None]:
        """The event to interrupt at, and the boundary that it is where it is one; None where the run ended before."""
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            said.append(line)
            # An error may quote a program's own log, whose lines are JSON as well.
            if not line.startswith('{"event"'):
                continue
            event = json.loads(line)
            key = self._boundary(event)
            if key is not None and key not in self.boundaries:
                self.boundaries.add(key)
                return event, key
            planned = planned or event["event"] in PLANS
            seen += planned or event["event"] == "progress"
            if seen > count and event["event"] not in ("summary", "error"):
                return event, None
        return None, None

    def _boundary(self, event: dict[str, Any]) -> tuple[str, str] | None:
        told = " ".join(str(event[name]) for name in ("stage", "host", "resource", "text") if name in event)
        if event["event"] in BOUNDARIES:
            if self.batches:
                self._batch = " ".join(event.get("hosts", [self._batch]))
            return event["event"], f"{told} {self._batch}".strip()
        return next(((event["event"], one) for one in self.also if told.startswith(one)), None)

    def _wait(self, process: subprocess.Popen[str], delay: float) -> None:
        """The random part of a moment: it is within what comes after the event."""
        self.at_random += 1
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(delay)

    def _tell(self, what: str, event: dict[str, Any]) -> None:
        where = " ".join(str(event[key])[:60] for key in ("event", "stage", "host", "resource", "text") if key in event)
        self.moments.append(f"{what} {where}")

    def _judge(self, code: int, said: str, *, killed: bool, severed: bool) -> None:
        assert "Traceback" not in said, said[-6000:]
        allowed = (0, *([-signal.SIGKILL] if killed else []), *(AGAIN if severed else []))
        assert code in allowed, f"after {self.moments[-3:]} exit code {code}:\n{said[-6000:]}"
        if severed:
            self.moments[-1] += f" (exit code {code})"
        self._ended = code == 0 and self.kills >= self.least
