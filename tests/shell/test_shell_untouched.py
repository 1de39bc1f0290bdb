"""Observing leaves nothing on machines of other clusters, and of none: neither folders nor the lock's file."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest
from shell_box import SHELLS, Box
from test_shell_lock import until

from clusterctl.components.products import FOOTPRINT
from clusterctl.shell import BOOTSTRAP, Script
from clusterctl.shell.facts import probe_program


class Machine(Box):
    """A box that receives programs as a machine does, with the one command that is ever sent."""

    def __init__(self, path: Path, shell: str) -> None:
        super().__init__(path, shell)
        self.config = self.etc / "config"
        self.config.write_text("x\n")
        self.state.rmdir()

    def send(self, program: Script) -> subprocess.Popen[bytes]:
        parcel, text = io.BytesIO(), self.text(program).encode()
        with tarfile.open(fileobj=parcel, mode="w") as archive:
            info = tarfile.TarInfo("run.sh")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
        command = BOOTSTRAP.replace("/var/lib/clusterctl", str(self.state)).replace("/etc/clusterctl/cluster", str(self.mark))
        shell = SHELLS[self.shell]
        process = subprocess.Popen([*shell, "-c", command.replace("sh $d/run.sh", f"{' '.join(shell)} $d/run.sh")],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        assert process.stdin is not None
        process.stdin.write(parcel.getvalue())
        process.stdin.close()
        process.stdin = None
        return process

    def receive(self, program: Script) -> str:
        out, errors = self.send(program).communicate(timeout=30)
        assert out.endswith(f"{program.nonce}\tend\n".encode()), (out, errors)
        return out.decode()

    def tree(self) -> dict[str, str | None]:
        """What is there: the content of each file, None for a folder."""
        found = (Path(folder) / name for folder, folders, files in os.walk(self.path) for name in (*folders, *files))
        return {str(path.relative_to(self.path)): path.read_text() if path.is_file() else None for path in found}

    def observation(self) -> Script:
        program = probe_program([("text", str(self.config))], footprint=FOOTPRINT)
        return dataclasses.replace(program, holder="one", functions=f"{program.functions}\nlistening() {{ :; }}\n")


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


def test_observing_a_machine_of_no_cluster_leaves_nothing(machine: Machine) -> None:
    before = machine.tree()
    for program in (machine.observation(), Script(probes=[("content", str(machine.config))], holder="one")):
        assert "eAo=" in machine.receive(program) or "x\n" in machine.receive(program)
        assert machine.tree() == before


def test_observing_a_machine_of_a_cluster_leaves_nothing_but_the_lock(machine: Machine) -> None:
    machine.join("another")
    machine.receive(Script(steps=[("true",)], holder="first"))
    before = machine.tree()
    assert {"state", "state/run", "state/lock"} <= set(before)
    for _ in range(2):
        machine.receive(machine.observation())
        assert {path: text for path, text in machine.tree().items() if path != "state/lock"} == \
            {path: text for path, text in before.items() if path != "state/lock"}


def test_an_interrupted_observation_leaves_nothing(machine: Machine) -> None:
    before = machine.tree()
    stall = f"observe_stall() {{ : >{machine.path}/begun; sleep 30; }}"
    process = machine.send(Script(probes=[("stall", "x")], functions=stall))
    until((machine.path / "begun").exists)
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    (machine.path / "begun").unlink()
    assert machine.tree() == before


def test_observations_at_the_same_time_do_not_remove_each_others_folders(machine: Machine) -> None:
    before = machine.tree()
    for _ in range(5):
        programs = [Script(probes=[("stat", str(machine.config))]) for _ in range(8)]
        for program, process in [(program, machine.send(program)) for program in programs]:
            out, errors = process.communicate(timeout=30)
            assert out.endswith(f"{program.nonce}\tend\n".encode()), errors
    assert machine.tree() == before


def test_a_program_that_changes_something_leaves_the_lock(machine: Machine) -> None:
    machine.receive(Script(steps=[("true",)], holder="one"))
    assert (machine.state / "lock").read_text() == "one\n"
