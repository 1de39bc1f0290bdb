"""A snapshot beside a member that writes, on a small file system, over a real sshd."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ssh_server import Server, until

from clusterctl.errors import Refused
from clusterctl.etcd import members, origin, snapshot
from clusterctl.etcd.client import Member
from clusterctl.etcd.members import Membership, MemberState
from clusterctl.ssh.transport import Transport

pytestmark = pytest.mark.lab

WRITER = """while :; do
  dd if=/dev/zero of=/var/lib/wal bs=64k count=1 conv=notrunc,fsync 2>/dev/null && dd if=/dev/zero of=/var/lib/wal.new bs=64k count=1 conv=fsync 2>/dev/null \\
    && echo ok || echo failed
done"""


def inside(server: Server, *words: str) -> list[str]:
    return ["nsenter", f"--mount=/proc/{server.pid}/ns/mnt", *words]


def test_a_writer_never_sees_a_full_disk(another: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 MiB would be restored on a file system of 64 MiB to which a member writes and syncs."""
    subprocess.run(inside(another, "mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", "/var/lib"), check=True)
    blob = tmp_path / "snapshot.db"
    content = os.urandom(1 << 20) * 80
    blob.write_bytes(content + hashlib.sha256(content).digest())
    transport = Transport(another.host())
    state = MemberState(member=Member(id="1", name="machine", peer_urls=(), client_urls=("x",)), host="machine", leader=True, size=80 << 20)
    session: Any = SimpleNamespace(pki=None, engine=SimpleNamespace(transports={"machine": transport}),
                                   cluster=SimpleNamespace(host=lambda name: another.host()))
    monkeypatch.setattr(members, "look", lambda _: Membership(cluster_id="1", members=(state,)))
    monkeypatch.setattr(origin, "identify", lambda path, pki: origin.Origin(uid="u", ours=True, why="", revision=1, keys=1))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    writer = subprocess.Popen(inside(another, "sh", "-c", WRITER), stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        before = transport.statistics.sent
        with pytest.raises(Refused) as caught:
            snapshot.verify(session, blob, lambda text: None)
        assert caught.value.code == "etcd.snapshot-no-room" and caught.value.exit_code == 3
        assert "machine: /var/lib/clusterctl" in caught.value.message
        assert transport.statistics.sent - before < 1 << 20, "nothing of the snapshot was sent"
        until(another.idle, "the question has ended")
    finally:
        os.killpg(writer.pid, 15)
        said = writer.communicate(timeout=10)[0].split()
        transport.close()
    assert said and set(said) == {"ok"}, said.count("failed")


def test_the_room_of_a_machine(server: Server, connect: Callable[..., Transport]) -> None:
    from clusterctl.etcd import room

    session: Any = SimpleNamespace(engine=SimpleNamespace(transports={"machine": connect()}))
    first, second = room.ask(session, server.host(), "/var/lib/clusterctl", "/var/lib/etcd/member")
    assert (first.where, first.path, second.path) == ("machine", "/var/lib/clusterctl", "/var/lib/etcd/member")
    assert first.device == second.device and 0 < first.free <= first.total
