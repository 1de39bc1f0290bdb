"""The listeners of a probe end with what the controller reads of them, over a real sshd and through sudo."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from ssh_server import PASSWORD, Server, until

from clusterctl.shell import Script, functions
from clusterctl.ssh.transport import Transport

pytestmark = pytest.mark.lab

PORT = 39173


def listens() -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", PORT)) == 0


def program(kind: str, *words: str) -> Script:
    return Script(probes=[(kind, word) for word in words], functions=functions("reach"), shared=True)


@pytest.mark.parametrize("user", ["root", "sudo"])
def test_it_is_ended_by_another_program(
        server: Server, connect: Callable[..., Transport], as_operator: Callable[[str | None], Transport], user: str) -> None:
    """Once that one has ended, nothing is left of the first: no listener and no folder."""
    transport = connect() if user == "root" else as_operator(PASSWORD)
    records = transport.stream(program("reach", "a", "77aa", f"listen tcp 127.0.0.1 {PORT}"))
    runs, folder, process = next(records)
    mine = server.state / Path(folder).relative_to("/var/lib/clusterctl")
    assert runs == "runs" and (mine / "run.sh").exists()
    assert ["listens", f"tcp/{PORT}"] in records and listens()
    assert list(transport.stream(program("reach_end", folder, process))) == []
    assert not listens() and not mine.exists()
    records.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("user", ["root", "sudo"])
@pytest.mark.parametrize("way", ["read-no-more", "cut"])
def test_listeners_end_with_the_channel_and_with_the_connection(
        server: Server, connect: Callable[..., Transport], as_operator: Callable[[str | None], Transport], user: str, way: str) -> None:
    transport = connect() if user == "root" else as_operator(PASSWORD)
    records = transport.stream(program("reach", "a", "77aa", f"listen tcp 127.0.0.1 {PORT}"))
    assert ["listens", f"tcp/{PORT}"] in records and listens()
    if way == "cut":
        transport.close()
    records.close()  # type: ignore[attr-defined]
    until(lambda: not listens(), "the port is free again", 3)
    until(server.idle, "nothing is left on the machine")
