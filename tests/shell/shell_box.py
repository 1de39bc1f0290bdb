"""Runs compiled programs here, under a chosen shell, with the machine's own folders moved below a temporary one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clusterctl.components.products import FOOTPRINT
from clusterctl.resources.base import Change, Resource
from clusterctl.shell import Blob, Call, Observation, Probe, Records, Script, StepResult, step_result

SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"], "busybox": ["busybox", "sh"]}
PRIVATE = {"private": ["unshare", "--mount", "dash"]}
"""A shell in a mount namespace of its own."""
DEADLINE = 30
OWNER = "root:root"


@dataclass
class Result:
    """What a program printed: its steps and everything else."""

    records: list[list[str]]
    errors: str = ""
    steps: list[StepResult] = field(default_factory=list)
    seen: Observation = field(default_factory=Observation)

    @property
    def failure(self) -> StepResult | None:
        return next((step for step in self.steps if step.code), None)


class Box:
    """A pretended machine below ``path``: its /opt/clusterctl and /var/lib/clusterctl are folders there."""

    def __init__(self, path: Path, shell: str) -> None:
        self.path, self.shell = path, shell
        self.root, self.state, self.commands = path / "opt", path / "state", path / "commands"
        self.etc = path / "etc"
        for folder in (self.root, self.state, self.commands, self.etc):
            folder.mkdir()
        self.etcd_etc, self.etcd_data = self.etc / "etcd", path / "etcd"
        self.mark = self.etc / "clusterctl/cluster"
        self._count = 0
        # A command that runs the shell somewhere else, as in a network namespace.
        self.inside: list[str] = []

    def join(self, cluster: str) -> None:
        """Make it a machine of a cluster."""
        self.mark.parent.mkdir(exist_ok=True)
        self.mark.write_text(f"{cluster}\n")

    def command(self, name: str, text: str) -> None:
        """A fake command, found before the machine's own."""
        path = self.commands / name
        path.write_text(f"#!/bin/dash\n{text}\n")
        path.chmod(0o755)

    def text(self, program: Script) -> str:
        """The program as it is run here."""
        text = program.text.replace("/opt/clusterctl", str(self.root)).replace("/var/lib/clusterctl", str(self.state))
        text = text.replace("/run/containerd/", f"{self.etc}/containerd/")
        text = text.replace("/etc/etcd/", f"{self.etcd_etc}/").replace("/var/lib/etcd/", f"{self.etcd_data}/")
        text = text.replace("/run/systemd/units/", f"{self.etc}/").replace("/etc/clusterctl/", f"{self.etc}/clusterctl/")
        return text.replace("\nPATH=", f"\nPATH={self.commands}:")

    def start(self, program: Script) -> subprocess.Popen[bytes]:
        """Start a program as the machine does: records alone reach its stdout."""
        self._count += 1
        work = self.path / f"work-{self._count}"
        (work / "blobs").mkdir(parents=True)
        (work / "run.sh").write_text(self.text(program))
        for name, blob in program.blobs.items():
            (work / "blobs" / name).write_bytes(blob if isinstance(blob, bytes) else blob.read_bytes())
        line = 'exec "$@" 3>&1 >/dev/null </dev/null'
        return subprocess.Popen(["sh", "-c", line, "sh", *self.inside, *(SHELLS | PRIVATE)[self.shell],
                                 str(work / "run.sh"), str(work)], cwd=work,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)

    def run(self, program: Script) -> Result:
        process = self.start(program)
        try:
            out, errors = process.communicate(timeout=DEADLINE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
        text = out.decode(errors="replace").replace(str(self.root), "/opt/clusterctl").replace(str(self.state), "/var/lib/clusterctl")
        text = text.replace(f"{self.etcd_etc}/", "/etc/etcd/").replace(f"{self.etc}/invocation:", "/run/systemd/units/invocation:")
        records = Records(program.nonce)
        found = (records.read(line) for line in text.removesuffix("\n").split("\n"))
        result = Result([words for words in found if words], errors.decode(errors="replace"))
        for words in result.records:
            if words[0] in ("ok", "failed"):
                result.steps.append(step_result(words))
            elif words[0] != "end":
                result.seen.add(words[0], words[1:])
        return result

    def steps(self, *calls: Call, blobs: Mapping[str, Blob] | None = None) -> Result:
        return self.run(Script(steps=calls, blobs=blobs or {}, footprint=FOOTPRINT))

    def look(self, *probes: Probe, verify: bool = False) -> Observation:
        return self.run(Script(probes=probes, verify=verify, footprint=FOOTPRINT)).seen

    def diff(self, resource: Resource, *, verify: bool = False) -> Change | None:
        return resource.diff(resource.observed(self.look(*resource.probes(), verify=verify)))

    def apply(self, resource: Resource, change: Change | None = None) -> Result:
        """Carry a change out and look again, in one program, as the engine does."""
        change = change or self.diff(resource)
        assert change is not None
        return self.run(Script(steps=resource.apply(change), blobs=resource.payload(change), probes=resource.probes(),
                               footprint=FOOTPRINT))

    def settle(self, *resources: Resource) -> None:
        """Apply all, in one program, and prove that nothing is left to do."""
        seen = self.look(*(probe for resource in resources for probe in resource.probes()))
        changes = [(resource, change) for resource in resources if (change := resource.diff(resource.observed(seen)))]
        assert len(changes) == len(resources)
        result = self.run(Script(
            steps=[call for resource, change in changes for call in resource.apply(change)],
            blobs={name: blob for resource, change in changes for name, blob in resource.payload(change).items()},
            probes=[probe for resource in resources for probe in resource.probes()], footprint=FOOTPRINT))
        assert result.failure is None, result.failure
        assert [change for resource in resources if (change := resource.diff(resource.observed(result.seen)))] == []
