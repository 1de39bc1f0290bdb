"""Secrets: where they may come from, and that they do not show or spread."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest

from clusterctl.errors import InputError
from clusterctl.inventory import secrets
from clusterctl.inventory.secrets import Secret, Source, key_passphrase, sudo_password


@pytest.fixture
def descriptor() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def test_it_does_not_show() -> None:
    secret = Secret("hunter2")
    shown = (repr(secret), str(secret), f"{secret}", f"{secret!r}", str([secret]), repr([secret]), repr({"a": secret}))
    assert not any("hunter2" in text for text in shown)
    assert secret.reveal() == "hunter2"
    assert secret == Secret("hunter2") and secret != Secret("x") and secret != "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_environment_is_read_once_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_SUDO_PASSWORD", "hunter2")
    monkeypatch.setenv("CLUSTERCTL_KEY_PASSPHRASE", "swordfish")
    assert sudo_password() == Secret("hunter2")
    assert key_passphrase() == Secret("swordfish")
    assert "CLUSTERCTL_SUDO_PASSWORD" not in os.environ and "CLUSTERCTL_KEY_PASSPHRASE" not in os.environ
    assert sudo_password() is None


@pytest.mark.parametrize("content, expected", [(b"a b\n", "a b"), (b"x", "x"), (b"x\r\nmore", "x"), ("ü\n".encode(), "ü")])
def test_descriptor(descriptor: tuple[int, int], content: bytes, expected: str) -> None:
    os.write(descriptor[1], content)
    os.close(descriptor[1])
    assert sudo_password(Source(fd=descriptor[0])) == Secret(expected)


@pytest.mark.parametrize("content, words", [(b"", "is empty"), (b"\nx", "is empty"), (b"\xff\n", "not UTF-8"), (b"a\0b\n", "NUL"),
                                            (b"x" * 5000, "too long")])
def test_descriptor_with_nonsense(descriptor: tuple[int, int], content: bytes, words: str) -> None:
    os.write(descriptor[1], content)
    os.close(descriptor[1])
    with pytest.raises(InputError, match=words):
        sudo_password(Source(fd=descriptor[0]))


def test_descriptor_that_says_nothing(descriptor: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "DEADLINE", 0.1)
    with pytest.raises(InputError, match="gave no line within"):
        sudo_password(Source(fd=descriptor[0]))
    os.close(descriptor[1])


def test_descriptor_that_is_closed(descriptor: tuple[int, int]) -> None:
    os.close(descriptor[1])
    with pytest.raises(InputError, match="cannot be read"):
        sudo_password(Source(fd=descriptor[1]))


@pytest.mark.parametrize("fd", [-1, 2**70])
def test_descriptor_that_is_none(fd: int) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        sudo_password(Source(fd=fd))


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERCTL_SUDO_PASSWORD", "from the environment")
    assert sudo_password(Source(command="printf 'hunter2\\nsecond line\\n'")) == Secret("hunter2")
    assert "CLUSTERCTL_SUDO_PASSWORD" not in os.environ


@pytest.mark.parametrize("command, words", [
    ("", "is empty"), ("'", "cannot be split"), ("false", "exit code 1"), ("true", "is empty"),
    ("/nonexistent/x", "cannot be run"), ("echo $(id)", None), ("sleep 9", "did not end"),
])
def test_commands_that_fail(command: str, words: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "DEADLINE", 0.2)
    if words is None:
        assert sudo_password(Source(command=command)) == Secret("$(id)")
        return
    with pytest.raises(InputError, match=words):
        sudo_password(Source(command=command))


def test_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: "hunter2")
    assert sudo_password(Source(ask=True)) == Secret("hunter2")


def test_prompt_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_terminal(prompt: str) -> str:
        raise secrets.getpass.GetPassWarning

    monkeypatch.setattr("getpass.getpass", no_terminal)
    with pytest.raises(InputError, match="no terminal"):
        sudo_password(Source(ask=True))


def test_one_place_only() -> None:
    with pytest.raises(InputError, match="several ways"):
        sudo_password(Source(fd=3, ask=True))
