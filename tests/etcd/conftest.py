"""What the tests with real members of etcd share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from etcd_programs import UID, member, unpack

from clusterctl.etcd.origin import AUTHENTICATION, NAMESPACE
from clusterctl.pki import Pki


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def ours() -> Pki:
    return Pki.create()


@pytest.fixture(scope="session")
def snapshot(programs: Path, ours: Pki, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot with what tells its cluster, encrypted as an API server does it, and 100 keys."""
    return made(programs, ours, tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="session")
def foreign(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(programs, Pki.create(), tmp_path_factory.mktemp("foreign"))


def sealed(pki: Pki, value: bytes) -> bytes:
    from nacl.secret import SecretBox

    return b"k8s:enc:secretbox:v1:key-1:" + bytes(SecretBox(pki.encryption_key).encrypt(value))


def made(programs: Path, pki: Pki, folder: Path) -> Path:
    with member(programs, folder / "data") as one:
        one.put({NAMESPACE.decode(): f"k8s\0 uid {UID} rest".encode(), AUTHENTICATION.decode(): sealed(pki, b"ca")})
        one.put({f"/registry/things/{number}": b"x" * 500 for number in range(100)})
        one.ctl("del", "/registry/things/7")
        return one.save(folder / "snapshot.db")


@pytest.fixture
def session(ours: Pki) -> Any:
    """As much of a session as checks on this side need."""
    return SimpleNamespace(pki=ours)
