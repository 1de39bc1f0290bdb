"""What is open is closed, also where a thread that nobody waits for makes more of it meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from clusterctl.cluster.model import Host, Ssh
from clusterctl.cluster.target import Target
from clusterctl.errors import Stopped
from clusterctl.session.opening import Opening, Options
from clusterctl.session.session import Session
from clusterctl.shell import Script
from clusterctl.ssh.https import Https
from clusterctl.ssh.sender import Sender, Statistics
from clusterctl.ssh.transport import Transport


class Door:
    """Something that is open; while the first of them is closed, another one is made."""

    def __init__(self, doors: dict[Any, Any], closed: list[str], name: str) -> None:
        self.doors, self.closed, self.name = doors, closed, name

    def close(self) -> None:
        self.closed.append(self.name)
        if self.name == "first":
            self.doors["late"] = Door(self.doors, self.closed, "late")


def opening(folder: Path) -> Opening:
    inventory = folder / "cluster.yaml"
    inventory.write_text("all:\n  vars: {cluster: {name: closing}}\n  children:\n    control_plane:\n      hosts: {cp-1: {ansible_host: 10.0.0.1}}\n")
    return Opening(Options(inventory=inventory, state=folder / "state"))


def of_opening(folder: Path) -> tuple[dict[Any, Any], Callable[[], None]]:
    made = opening(folder)
    return made.apis, made.close


def of_session(folder: Path) -> tuple[dict[Any, Any], Callable[[], None]]:
    nothing: Any = SimpleNamespace(transports={})
    way = opening(folder)
    made = Session(Target(cluster=way.cluster), way.state, nothing, True, nothing, nothing, way.options, way)
    return made._etcds, made.close


def of_transport(_: Path) -> tuple[dict[Any, Any], Callable[[], None]]:
    made = Transport(Host(name="a", ssh=Ssh(address="10.0.0.1", user="root"), address="10.0.0.1", roles=frozenset({"worker"})))
    return made._forwards, made.close


@pytest.mark.parametrize("of", [of_opening, of_session, of_transport])
def test_what_is_made_meanwhile_is_closed_too(of: Callable[[Path], tuple[dict[Any, Any], Callable[[], None]]], tmp_path: Path) -> None:
    doors, close = of(tmp_path)
    closed: list[str] = []
    for name in ("second", "first"):
        doors[name] = Door(doors, closed, name)
    close()
    assert sorted(closed) == ["first", "late", "second"] and not doors


def test_a_descriptor_is_closed_once() -> None:
    """Its number may be somebody else's by the second time."""
    made = Https(1, authority=b"", certificate=b"", key=b"")
    numbers = list(made._files)
    made.close()
    with open("/dev/null") as other:
        made.close()
        assert other.fileno() in numbers and other.read() == ""


@pytest.mark.parametrize("broken", [EOFError(), OSError("Socket is closed"), paramiko.SSHException("gone")])
def test_what_cannot_be_sent_over_a_connection_that_ends(broken: Exception, tmp_path: Path) -> None:
    """Why is kept for whoever reads the records; the thread that sends prints no traceback."""

    def close() -> None:
        raise broken

    channel: Any = SimpleNamespace(send=len, close=close)
    sender = Sender(channel, Script(blobs={"x": tmp_path / "nothing"}), Statistics())
    sender.run()
    assert isinstance(sender.error, Stopped) and "cannot be sent" in sender.error.message
