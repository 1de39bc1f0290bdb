"""etcd's programs, out of the mirror, for tests that run them on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.cluster.versions import known_versions

UID = "11111111-2222-3333-4444-555555555555"
PROGRAMS = ("etcd", "etcdctl", "etcdutl")


def unpack(folder: Path) -> Path:
    """Unpack the default version into a folder; skips where the mirror has none, unless everything must run."""
    version = known_versions().etcd
    name = f"etcd-v{version}-linux-{own_architecture()}"
    archive = default_mirror() / f"github.com/etcd-io/etcd/releases/download/v{version}/{name}.tar.gz"
    if not archive.exists():
        assert not os.environ.get("CLUSTERCTL_EVERYTHING"), f"{archive} is missing"
        pytest.skip(f"{archive} is missing: tools/fill-mirror")
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for program in PROGRAMS:
            member = tar.extractfile(f"{name}/{program}")
            assert member is not None
            (folder / program).write_bytes(member.read())
            (folder / program).chmod(0o755)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Member:
    """A single member on loopback, without TLS. ``data``: its folder."""

    def __init__(self, programs: Path, data: Path, *more: str) -> None:
        self.programs, self.data = programs, data
        client, peer = free_port(), free_port()
        self.url = f"http://127.0.0.1:{client}"
        self.process = subprocess.Popen(
            [programs / "etcd", "--name", "one", "--data-dir", data, "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
             "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
             "--initial-cluster", f"one=http://127.0.0.1:{peer}", *more],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 30
        while self.ctl("endpoint", "health", check=False).returncode != 0:
            assert time.monotonic() < ends, "the member serves"

    def ctl(self, *words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.programs / "etcdctl", "--endpoints", self.url, "--command-timeout", "5s", *words], check=check, capture_output=True,
                              text=True, input=stdin)

    def put(self, pairs: dict[str, bytes]) -> None:
        """Write values of any bytes."""
        for key, value in pairs.items():
            subprocess.run([self.programs / "etcdctl", "--endpoints", self.url, "put", key], input=value, check=True, capture_output=True)

    def save(self, path: Path) -> Path:
        self.ctl("snapshot", "save", str(path))
        path.chmod(0o600)
        return path

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextmanager
def member(programs: Path, data: Path, *more: str) -> Iterator[Member]:
    made = Member(programs, data, *more)
    try:
        yield made
    finally:
        made.stop()


def damaged(path: Path, into: Path, *, truncate: int | None = None, flip: int | None = None) -> Path:
    """Write a copy of a file that ends early, or with one bit that is another."""
    content = bytearray(path.read_bytes())
    if truncate is not None:
        del content[truncate:]
    if flip is not None:
        content[flip // 8] ^= 1 << flip % 8
    into.write_bytes(content)
    return into


