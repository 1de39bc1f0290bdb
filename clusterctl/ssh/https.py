"""HTTPS to one port on this machine with a client certificate."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from http.client import HTTPException, HTTPResponse, HTTPSConnection
from typing import Any

from clusterctl.errors import Refused, Stopped
from clusterctl.ssh.sockets import has_ended


class ApiError(Exception):
    """The other side said no. ``status`` is HTTP's; 0 where there was no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class Broken(ApiError):
    """The connection broke before the answer was whole."""


@contextmanager
def or_refused(what: str) -> Iterator[None]:
    """Turn an ApiError into Refused, where nothing has been changed. ``what``: what cannot be done."""
    try:
        yield
    except ApiError as error:
        raise Refused(f"{what}: {error}", hint="clusterctl status", code="api.request-failed") from None


@contextmanager
def or_stopped(what: str, *, where: str = "", code: str, hint: str = "run the same command again") -> Iterator[None]:
    """Turn an ApiError into Stopped. ``what``: what cannot be done."""
    try:
        yield
    except ApiError as error:
        raise Stopped(f"{what}: {error}", where=where, hint=hint, code=code) from None


class Https:
    """Requests to https://127.0.0.1:PORT. ``authority``, ``certificate``, ``key``: PEM.

    ``why_broken``: the cause of a connection's end, where the way behind the port knows it; empty where not.
    """

    def __init__(self, port: int, *, authority: bytes, certificate: bytes, key: bytes,
                 why_broken: Callable[[], str] = lambda: "") -> None:
        self.port, self._why_broken = port, why_broken
        self._files = [_memory_file(content) for content in (authority, certificate, key)]
        self._idle: list[HTTPSConnection] = []
        """Connections whose last answer was read to its end."""

    @property
    def files(self) -> tuple[str, str, str]:
        """Paths of (authority, certificate, key) for libraries that want files; they are memory of this process."""
        authority, certificate, key = (f"/proc/self/fd/{descriptor}" for descriptor in self._files)
        return authority, certificate, key

    @cached_property
    def _context(self) -> ssl.SSLContext:
        authority, certificate, key = self.files
        context = ssl.create_default_context(cafile=authority)
        context.load_cert_chain(certificate, key)
        return context

    def _connection(self, timeout: float) -> HTTPSConnection:
        """Return an idle connection that the server has not closed, or a new one."""
        with contextlib.suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if connection.sock is not None and not has_ended(connection.sock):
                    connection.sock.settimeout(timeout)
                    return connection
                connection.close()
        return HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=self._context)

    @contextlib.contextmanager
    def _answer(self, method: str, path: str, body: object, timeout: float) -> Iterator[HTTPResponse]:
        """An answer that is to be read. Raises ApiError, Broken."""
        connection, whole = self._connection(timeout), False
        headers = {"Accept": "application/json", **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            yield answer
            whole = answer.isclosed() and not answer.will_close
        except (HTTPException, ConnectionError, ssl.SSLEOFError) as error:
            raise Broken(0, self._why_broken() or str(error) or type(error).__name__) from None
        except OSError as error:
            raise ApiError(0, self._why_broken() or error.strerror or str(error)) from None
        finally:
            if whole:
                self._idle.append(connection)
            else:
                connection.close()

    def read(self, method: str, path: str, body: object = None, *, timeout: float = 20.0) -> Any:
        """Send a request without side effects; where the connection breaks it is sent once more."""
        try:
            return self.request(method, path, body, timeout=timeout)
        except Broken:
            return self.request(method, path, body, timeout=timeout)

    def request(self, method: str, path: str, body: object = None, *, timeout: float = 20.0) -> Any:
        """The answer's JSON, or its text. Raises ApiError. ``timeout`` in seconds."""
        with self._answer(method, path, body, timeout) as answer:
            data = answer.read()
        return result(answer.status, data, answer.reason)

    def lines(self, path: str, body: object, *, timeout: float) -> Iterator[bytes]:
        """The lines of a POST's answer as they come. Raises ApiError. ``timeout``: seconds without a byte."""
        with self._answer("POST", path, body, timeout) as answer:
            if answer.status != 200:
                raise ApiError(answer.status, message_of(answer.read()) or answer.reason)
            yield from (line.rstrip(b"\n") for line in answer)

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
        while self._files:
            with contextlib.suppress(OSError):
                os.close(self._files.pop())


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("clusterctl", os.MFD_CLOEXEC)
    os.write(descriptor, content)
    return descriptor


def result(status: int, data: bytes, reason: str) -> Any:
    """Return the content of an answer. Raises ApiError unless its status is a success."""
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
