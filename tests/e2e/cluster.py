"""A cluster in the lab as a user has it: raised, asked and changed with the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.cluster.versions import DEFAULT_KUBERNETES
from clusterctl.lab import Lab, LabSpec

CLI = (sys.executable, "-m", "clusterctl")
APP = "example/app:1"
"""The app of the tests: agnhost, in an image that no registry has."""


@dataclass
class Cluster:
    """A lab and the commands of its user. ``env`` is added to every command's environment; ``patience``: seconds for each."""

    lab: Lab
    work: Path
    env: dict[str, str] = field(default_factory=dict)
    patience: float = 600

    @classmethod
    def up(cls, spec: LabSpec, work: Path) -> Cluster:
        settings = {"artifacts": {"mirror": str(default_mirror())}, **spec.cluster}
        return cls(Lab.up(LabSpec(**{**spec.__dict__, "cluster": settings})), work)

    @property
    def inventory(self) -> Path:
        return self.lab.inventory

    @property
    def control_planes(self) -> list[str]:
        return [machine.name for machine in self.lab.machines.values() if machine.role == "control_plane"]

    @property
    def workers(self) -> list[str]:
        return [machine.name for machine in self.lab.machines.values() if machine.role == "worker"]

    def start(self, *words: str, **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*CLI, *words, "-i", str(self.inventory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.env},
            **more,
        )

    def cli(self, *words: str, code: int = 0, timeout: float | None = None, **env: str) -> str:
        """Run clusterctl; what it printed, both streams. Fails on another exit code."""
        done = subprocess.run(
            [*CLI, *words, "-i", str(self.inventory)],
            capture_output=True,
            text=True,
            timeout=timeout or self.patience,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **self.env, **env},
        )
        output = done.stdout + done.stderr
        assert "Traceback" not in output, output
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}: {' '.join(words)}\n{output[-6000:]}"
        return output

    def plan(self) -> dict[str, Any]:
        """What ``plan`` says, as data."""
        for line in self.cli("plan", "-o", "json").splitlines():
            event = json.loads(line)
            if event["event"] == "plan":
                return dict(event)
        raise AssertionError("plan printed no plan")

    def apply(self, **env: str) -> dict[str, Any]:
        """Run apply; its summary."""
        lines = self.cli("apply", "--yes", "-o", "json", **env).splitlines()
        summary = json.loads(lines[-1])
        assert summary["event"] == "summary", lines[-3:]
        return dict(summary)

    def kubectl(self, *words: str, stdin: str | None = None, code: int | None = 0, timeout: float = 120) -> str:
        """kubectl in the lab's network, as the administrator."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.lab.namespace}", str(self._kubectl()), "--kubeconfig", str(self._config()), *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            input=stdin,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, f"kubectl {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.kubectl(*words, "-o", "json"))

    def _kubectl(self) -> Path:
        target = self.work / "kubectl"
        if not target.exists():
            source = default_mirror() / f"dl.k8s.io/release/v{DEFAULT_KUBERNETES}/bin/linux/{own_architecture()}/kubectl"
            shutil.copy(source, target.with_suffix(".new"))
            target.with_suffix(".new").chmod(0o755)
            target.with_suffix(".new").rename(target)
        return target

    def _config(self) -> Path:
        target = self.work / "kubeconfig"
        if not target.exists():
            self.cli("kubeconfig", "--out", str(target))
        return target

    def on(self, machine: str, script: str, *, check: bool = True, timeout: float = 60) -> str:
        """A shell command on a machine, past the product."""
        done = self.lab.exec(machine, ["sh", "-c", script], timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{machine}: {script}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def edit(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the inventory file, as its owner would with an editor."""
        content = yaml.safe_load(self.inventory.read_text())
        change(content)
        self.inventory.write_text(yaml.safe_dump(content, sort_keys=False))

    def down(self) -> None:
        self.lab.down()


def until(look: Callable[[], object], what: str, seconds: float = 120) -> Any:
    """Wait until a look gives something true; a failed assertion counts as not yet. Fails with what was last seen.

    It looks less often the longer it waits: looks cost processor time, which what is waited for needs as well.
    """
    begins = time.monotonic()
    ends = begins + seconds
    last: object = None
    while True:
        try:
            last = look()
            if last:
                return last
        except (AssertionError, KeyError, IndexError, subprocess.SubprocessError) as error:
            last = error
        assert time.monotonic() < ends, f"{what}: not within {seconds} s; last seen: {last}"
        time.sleep(min(0.3 + (time.monotonic() - begins) / 20, 1.5))


def deployment(
    name: str,
    *,
    replicas: int = 1,
    args: Sequence[str] = ("netexec", "--http-port=8080"),
    spread: bool = True,
    requests: dict[str, str] | None = None,
    **pod: Any,
) -> dict[str, Any]:
    """A Deployment of agnhost."""
    constraint = [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": name}},
        }
    ]
    container = {
        "name": "main",
        "image": APP,
        "imagePullPolicy": "Never",
        "args": list(args),
        "resources": {"requests": requests or {"cpu": "10m", "memory": "16Mi"}},
    }
    spec = {
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
        **({"topologySpreadConstraints": constraint} if spread else {}),
        **pod,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }


def service(name: str, port: int = 80, target: int = 8080, **spec: Any) -> dict[str, Any]:
    """A Service in front of a Deployment of the same name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}], **spec},
    }
