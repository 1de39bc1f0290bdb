"""A member that takes seconds to answer, as under load, is slow and not dead."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from etcd_programs import free_port
from machines import EtcdBox

from clusterctl.etcd.client import ApiError, Etcd
from clusterctl.pki import Pki

pytestmark = pytest.mark.lab

STOPPED = 7
"""Seconds that the member does not run."""


def test_a_member_that_stands_still_for_seconds_answers_then(programs: Path, ours: Pki, tmp_path: Path) -> None:
    keys = EtcdBox(tmp_path / "box", programs, ours).configuration / "pki"
    port, peer = free_port(), free_port()
    url = f"https://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "etcd", "--name", "m", "--data-dir", tmp_path / "data", "--listen-client-urls", url, "--advertise-client-urls", url,
             "--cert-file", keys / "server.crt", "--key-file", keys / "server.key", "--client-cert-auth", "--trusted-ca-file", keys / "ca.crt",
             "--listen-peer-urls", f"http://127.0.0.1:{peer}"], stdout=log, stderr=log)
    certificate, key = ours.client_certificate("etcd")
    member = Etcd(port, authority=ours.authorities["etcd"].pem, certificate=certificate, key=key)
    try:
        until_it_answers(member)
        os.kill(process.pid, signal.SIGSTOP)
        timer = threading.Timer(STOPPED, os.kill, (process.pid, signal.SIGCONT))
        timer.start()
        assert member.status().version
        timer.join()
        member.answers()
    finally:
        member.close()
        process.kill()
        process.wait()


def until_it_answers(member: Etcd) -> None:
    for _ in range(600):
        try:
            member.answers()
            return
        except ApiError as error:
            last = str(error)
            threading.Event().wait(0.1)
    pytest.fail(f"etcd does not answer; last seen: {last}")
