"""Real etcd members whose data is lost: the unit's condition keeps them from starting, and no acknowledged write is lost."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from etcd_programs import free_port

from clusterctl.components.etcd import DATA
from clusterctl.components.render import render

pytestmark = pytest.mark.lab

CONDITION = re.search(r"^ExecCondition=(.*)$", render("etcd/etcd.service.j2", arguments={}, data=DATA, oom=False).decode(), re.M)


class Members:
    """Members on loopback, each with the files that a machine has: a data folder, ``formed`` and what the first start is given."""

    def __init__(self, programs: Path, folder: Path, count: int) -> None:
        self.programs, self.folder, self.count = programs, folder, count
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.clients, self.peers = ([f"http://127.0.0.1:{free_port()}" for _ in range(count)] for _ in range(2))
        for index in range(count):
            self.data(index).mkdir(parents=True)

    def data(self, index: int) -> Path:
        return self.folder / str(index) / "data"

    def formed(self, index: int) -> Path:
        return self.folder / str(index) / "formed"

    def start(self, index: int) -> bool:
        """Start a member as its unit does; False where the unit's condition refuses."""
        assert CONDITION is not None
        command = CONDITION[1].replace("/etc/etcd/formed", str(self.formed(index))).replace(DATA, str(self.data(index)))
        if subprocess.run(["sh", "-c", command], capture_output=True, check=False).returncode:
            return False
        peers = ",".join(f"m{one}={self.peers[one]}" for one in range(self.count))
        peer = self.peers[index]
        with (self.folder / f"{index}.log").open("ab") as log:
            self.running[index] = subprocess.Popen(
                [self.programs / "etcd", "--name", f"m{index}", "--data-dir", self.data(index), "--listen-client-urls", self.clients[index],
                 "--advertise-client-urls", self.clients[index], "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                 "--initial-cluster", peers, "--initial-cluster-state", "new", "--initial-cluster-token", "t", "--unsafe-no-fsync"],
                stdout=log, stderr=log)
        return True

    def stop(self, *indices: int) -> None:
        for index in indices:
            process = self.running.pop(index)
            process.kill()
            process.wait()

    def etcdctl(self, index: int, *words: str) -> str:
        done = subprocess.run([self.programs / "etcdctl", "--endpoints", self.clients[index], "--command-timeout", "10s", *words],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


    def await_health(self, index: int) -> None:
        """Wait until a member answers a linearizable read; after its leader has ended that takes an election."""
        ends = time.monotonic() + 30
        while True:
            try:
                self.etcdctl(index, "endpoint", "health")
                return
            except AssertionError:
                assert time.monotonic() < ends, (self.folder / f"{index}.log").read_text()[-2000:]
                time.sleep(0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def orders(count: int) -> list[tuple[int, ...]]:
    """The orders in which members start: all of them for three; for five each rotation, so that each one is the first once."""
    if count <= 3:
        return list(itertools.permutations(range(count)))
    return [tuple((first + step) % count for step in range(count)) for first in range(count)]


CASES = [(order, how) for count in (1, 3, 5) for order in orders(count) for how in ("emptied", "missing", "new")
         if how == "emptied" or order == tuple(range(count))]
"""Every order with an emptied folder; what else the folder is like is decided before the order matters."""


@pytest.mark.parametrize(("order", "how"), CASES, ids=str)
def test_a_member_without_its_data_does_not_start(programs: Path, folder: Path, order: tuple[int, ...], how: str) -> None:
    """A write is acknowledged by a majority that the last member is not in; all end; the first one loses its data."""
    count = len(order)
    members = Members(programs, folder, count)
    for index in range(count):
        assert members.start(index)
    try:
        for index in range(count):
            members.await_health(index)
            members.formed(index).write_text("This member has served.\n")
        members.etcdctl(0, "put", "before", "1")
        lagging = range(count // 2 + 1, count)
        members.stop(*lagging)
        members.await_health(0)
        members.etcdctl(0, "put", "acknowledged", "yes")
        assert "yes" in members.etcdctl(0, "get", "acknowledged")
        members.stop(*members.running)
        lost = 0
        shutil.rmtree(members.data(lost))
        if how != "missing":
            members.data(lost).mkdir()
        if how == "new":
            (members.data(lost) / "lost+found").mkdir()
        started = [index for index in order if members.start(index)]
        assert set(started) == set(range(count)) - {lost}
        if count > 1:
            for index in started:
                members.await_health(index)
                assert "yes" in members.etcdctl(index, "get", "acknowledged"), f"member {index} forgot a write that was acknowledged"
    finally:
        members.stop(*members.running)
