"""What the tests over real SSH share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import PASSWORD, SUDOERS, USER, Server, until

from clusterctl.cluster.model import Host
from clusterctl.ssh.transport import Transport


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One sshd for all tests that do it no harm."""
    made = Server(tmp_path_factory.mktemp("sshd"), sudoers=SUDOERS)
    yield made
    made.stop()


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Server]:
    """An sshd for one test alone."""
    made = Server(tmp_path)
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without keys, known hosts and agents."""
    (tmp_path / "home-here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home-here"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@pytest.fixture
def connect(server: Server) -> Iterator[Callable[..., Transport]]:
    """Makes transports, and looks that nothing of them is left at the end."""
    before = set(threading.enumerate())
    made: list[Transport] = []

    def make(host: Host | None = None, **options: object) -> Transport:
        transport = Transport(host or server.host(), **options)  # type: ignore[arg-type]
        made.append(transport)
        return transport

    yield make
    for transport in made:
        transport.close()
    until(lambda: not [thread for thread in threading.enumerate() if thread not in before], "all threads of transports ended")


@pytest.fixture
def as_operator(server: Server, connect: Callable[..., Transport]) -> Callable[[str | None], Transport]:
    """A transport of the user who is not root, with a sudo password."""

    def make(password: str | None = PASSWORD) -> Transport:
        return connect(server.host(user=USER, become=True), sudo_password=lambda: password)

    return make
