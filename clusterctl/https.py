"""HTTPS to one port on this machine with a client certificate that never touches a disk."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError, ProtocolError


class ApiError(Exception):
    """The other side said no. ``status`` is HTTP's; 0 where there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class Broken(ApiError):
    """The connection broke before the answer was whole."""


class Https:
    """Requests to https://127.0.0.1:PORT. ``authority``, ``certificate``, ``key``: PEM."""

    def __init__(self, port: int, *, authority: bytes, certificate: bytes, key: bytes) -> None:
        self.base = f"https://127.0.0.1:{port}"
        self._files = [_memory_file(content) for content in (authority, certificate, key)]

    @property
    def files(self) -> tuple[str, str, str]:
        """Paths of (authority, certificate, key) for libraries that want files; they are memory of this process."""
        authority, certificate, key = (f"/proc/self/fd/{descriptor}" for descriptor in self._files)
        return authority, certificate, key

    @cached_property
    def _pool(self) -> Any:
        authority, certificate, key = self.files
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        return urllib3.PoolManager(ssl_context=context, retries=False, maxsize=4)

    def read(self, method: str, path: str, body: object = None, *, timeout: float = 20.0) -> Any:
        """What ``request`` gives, of something that changes nothing: where the connection breaks it is asked once more."""
        try:
            return self.request(method, path, body, timeout=timeout)
        except Broken:
            return self.request(method, path, body, timeout=timeout)

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 20.0) -> Any:
        """The answer's JSON, or its text. Raises ApiError. ``timeout`` in seconds."""
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body is not None else {})}
        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, f"{self.base}{path}", headers=headers, body=data, timeout=timeout)
        except ProtocolError as error:
            raise Broken(0, str(error)) from None
        except (HTTPError, OSError) as error:
            raise ApiError(0, str(error)) from None
        return result(answer.status, answer.data, str(answer.reason))

    def lines(self, path: str, body: object, *, timeout: float) -> Iterator[bytes]:
        """The lines of a POST's answer as they come. Raises ApiError. ``timeout``: seconds without a byte."""
        try:
            answer = self._pool.request("POST", f"{self.base}{path}", body=json.dumps(body).encode(), timeout=timeout,
                                        preload_content=False)
            if answer.status != 200:
                raise ApiError(answer.status, message_of(answer.read()) or str(answer.reason))
            rest = b""
            for piece in answer.stream(2**20):
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
            if rest:
                yield rest
        except (HTTPError, OSError) as error:
            raise ApiError(0, str(error)) from None

    def close(self) -> None:
        if "_pool" in self.__dict__:
            self._pool.clear()
        for descriptor in self._files:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("clusterctl", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor


def result(status: int, data: bytes, reason: str) -> Any:
    """What an answer holds. Raises ApiError unless its status is one of success."""
    if not 200 <= status <= 299:
        raise ApiError(status, message_of(data) or reason)
    return json.loads(data) if data[:1] in (b"{", b"[") else data.decode(errors="replace")


def message_of(body: object) -> str:
    """The reason that a body of JSON gives, or its beginning."""
    try:
        said = json.loads(body if isinstance(body, str | bytes) else "{}")
        causes = "; ".join(str(cause["message"]) for cause in (said.get("details") or {}).get("causes", ()) if "message" in cause)
        return f"{said.get('message', '')} {causes}".strip()
    except (ValueError, AttributeError, TypeError):
        return str(body)[:300]
