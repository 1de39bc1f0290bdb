"""Machines that cannot be reached: each verb ends after one timeout, with exit code 6 and each machine's reason once."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clusterctl.cli.node import serving_api
from clusterctl.cluster.model import Host, Ssh
from clusterctl.errors import Refused, Stopped, Unreachable
from clusterctl.ssh.transport import Transport

TIMEOUT = 8
"""Seconds that the inventories here give a connection: long beside the start of the program on a loaded machine."""


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of an sshd that never says a word."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def inventory(folder: Path, port: int) -> Path:
    path = folder / "cluster.yaml"
    hosts = {f"{name}-{number}": f"{{ansible_host: 127.0.0.{first + number}, ip: 192.0.2.{first + number}}}"
             for name, first in (("cp", 0), ("w", 10)) for number in (1, 2, 3)}
    planes, workers = (", ".join(f"{name}: {hosts[name]}" for name in hosts if name.startswith(kind)) for kind in ("cp", "w"))
    path.write_text(f"""
all:
  vars: {{cluster: {{name: prod}}, ansible_port: {port}, ansible_ssh_timeout: {TIMEOUT}}}
  children:
    control_plane: {{hosts: {{{planes}}}}}
    workers: {{hosts: {{{workers}}}}}
""")
    return path


def start(path: Path, words: Sequence[str], **more: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "clusterctl", *words, "-i", str(path)], stdin=subprocess.DEVNULL, text=True,
                            env={**os.environ, "CLUSTERCTL_CACHE": str(path.parent / "cache"), "HOME": str(path.parent)}, **more)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("words", ["node cordon w-1", "node uncordon w-1 w-2", "node drain w-1 --yes"])
def test_a_verb_ends_after_one_timeout_with_each_reason_once(tmp_path: Path, silent: int, words: str) -> None:
    began = time.monotonic()
    _, errors = start(inventory(tmp_path, silent), words.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE).communicate(timeout=60)
    assert time.monotonic() - began < 2 * TIMEOUT, errors
    assert "cp-1, cp-2, cp-3: cannot be reached" in errors and errors.count("cannot be reached") == 1, errors


@pytest.mark.parametrize("words", ["node cordon w-1", "node uncordon w-1", "node drain w-1 --yes"])
def test_unreachable_control_planes_end_with_6(tmp_path: Path, closed: int, words: str) -> None:
    process = start(inventory(tmp_path, closed), words.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 6 and "Connection refused" in errors and "Errno" not in errors, errors


@pytest.mark.parametrize("verb", ["status", "etcd members"])
def test_looking_at_silent_machines_takes_one_timeout(tmp_path: Path, silent: int, verb: str) -> None:
    began = time.monotonic()
    process = start(inventory(tmp_path, silent), verb.split(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 2 * TIMEOUT, (out, errors)


def test_a_thread_that_waited_for_an_attempt_gets_its_outcome(silent: int) -> None:
    host = Host(name="w-1", address="192.0.2.1", roles=frozenset({"worker"}),  # type: ignore[arg-type]
                ssh=Ssh(address="127.0.0.1", port=silent, connect_timeout=1))
    transport = Transport(host)
    errors: list[Unreachable] = []

    def connect() -> None:
        try:
            transport.connect()
        except Unreachable as error:
            errors.append(error)

    began = time.monotonic()
    threads = [threading.Thread(target=connect) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 3 and len(set(map(id, errors))) == 1 and time.monotonic() - began < 2
    connect()
    assert errors[3] is not errors[0], "a later call tries again"
    transport.close()


@pytest.mark.parametrize("verb", ["status", "etcd members", "node drain w-1 --yes"])
def test_a_terminal_shows_within_seconds_which_machines_are_waited_for(tmp_path: Path, silent: int, verb: str) -> None:
    ours, theirs = pty.openpty()
    path = inventory(tmp_path, silent)
    path.write_text(path.read_text().replace(f"timeout: {TIMEOUT}", "timeout: 30"))
    process = start(path, verb.split(), stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        text = ""
        while "..." not in text:
            text += os.read(ours, 4096).decode()
        assert process.poll() is None and text.startswith("connecting to cp-1, cp-2, cp-3"), text
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_verbose_shows_addresses_keys_and_jump_hosts(tmp_path: Path, closed: int) -> None:
    key = tmp_path / "id_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    path = inventory(tmp_path, closed)
    path.write_text(path.read_text().replace("  vars: {", f"  vars: {{ansible_ssh_private_key_file: {key}, ansible_ssh_common_args: '-J root@127.0.0.99:{closed}', "))
    process = start(path, ["status", "-vvv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=60)
    assert f"cp-1: connecting to root@127.0.0.1:{closed}; key files: {key}; jump hosts: root@127.0.0.99:{closed}" in errors, errors
    quiet = start(path, ["status"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "key files" not in quiet.communicate(timeout=60)[1]


def test_cordon_is_refused_where_no_api_server_gets_ready() -> None:
    """The machines can be reached, and serve no API: nothing was changed, so that this is no stop midway."""
    deadlines = []

    def ready_api(*, deadline: float) -> None:
        deadlines.append(deadline)
        raise Stopped("the API: not within 15 s", code="run.step-failed")

    opened: Any = SimpleNamespace(cluster=SimpleNamespace(control_planes=()), connect_any=lambda hosts: None, ready_api=ready_api)
    with pytest.raises(Refused) as caught:
        serving_api(opened)
    assert caught.value.code == "api.not-ready" and deadlines[0] <= 15
