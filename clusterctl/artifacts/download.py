"""Files over HTTP: resumed where they broke off, never waited for without end, taken only when their sha256 is right."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

from clusterctl.artifacts.catalog import Pin
from clusterctl.errors import InputError, IntegrityError, Unreachable

if TYPE_CHECKING:
    import urllib.request

Tell = Callable[[int, int | None], None]
BLOCK = 1 << 18
LARGEST = 4 << 30


class _NoFile(Unreachable):
    """No file came. ``status``, ``headers``: of the answer where there was one; names in lower case."""

    status = 0
    headers: Mapping[str, str] = MappingProxyType({})


class NotFound(_NoFile):
    """A source answers, but does not give the file; asking again is of no use."""


class TransferInterrupted(_NoFile):
    """A transfer failed or broke off; it may be taken up again."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a source is waited for. ``stall``: seconds without a byte; ``whole``, ``small``: seconds for one attempt."""

    stall: float = 30.0
    whole: float = 7200.0
    small: float = 30.0
    attempts: int = 3
    pause: float = 1.0


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone, also after redirects; proxies from the environment."""
    import urllib.request

    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.UnknownHandler, urllib.request.HTTPHandler,
                    urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPRedirectHandler,
                    urllib.request.HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


def answers(host: str, seconds: float = 3.0) -> bool:
    """Whether an upstream host can be reached over HTTPS at all."""
    try:
        _opened(f"https://{host}/", 0, Timeouts(stall=seconds), method="HEAD").close()
    except (NotFound, TransferInterrupted) as error:
        return error.status > 0
    return True


def read_small(url: str, limit: int, patience: Timeouts, headers: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """A small file, in a few attempts. Authorization goes to the first host alone. Raises NotFound, TransferInterrupted."""
    for attempt in range(patience.attempts - 1):
        try:
            return _read_in_time(url, limit, patience, headers)
        except TransferInterrupted as error:
            # Only these are transient, and a server that names a time is not asked before it.
            if error.code not in ("download.interrupted", "download.server-error") or "retry-after" in error.headers:
                raise
            time.sleep(patience.pause * 2 ** attempt)
    return _read_in_time(url, limit, patience, headers)


def _read_in_time(url: str, limit: int, patience: Timeouts, headers: Mapping[str, str]) -> bytes:
    # A trickle of bytes, even of headers, keeps a socket from its timeout: such a thread is not awaited.
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
    try:
        return pool.submit(_read_small, url, limit, patience, headers).result(patience.small)
    except TimeoutError:
        raise TransferInterrupted(f"took longer than {patience.small:.0f} s", where=url, code="download.timeout") from None
    finally:
        pool.shutdown(wait=False)


def _read_small(url: str, limit: int, patience: Timeouts, headers: Mapping[str, str]) -> bytes:
    with _opened(url, 0, patience, headers) as response:
        if url.lower().startswith("https:") and not response.geturl().lower().startswith("https:"):
            raise TransferInterrupted("redirects to plain HTTP", where=url, code="download.insecure-redirect")
        try:
            content: bytes = response.read(limit + 1)
        except (OSError, http.client.HTTPException) as error:
            raise TransferInterrupted(_one_line(f"broke off: {error}"), where=url, code="download.interrupted") from error
    if len(content) > limit:
        raise NotFound(f"is larger than {limit} bytes", where=url, code="download.too-large")
    return content


def length_of(url: str, patience: Timeouts) -> int:
    """The size of a file in bytes, 0 where its source does not say."""
    try:
        with _opened(url, 0, patience, method="HEAD") as response:
            length = response.headers.get("Content-Length", "")
    except (NotFound, TransferInterrupted):
        return 0
    return int(length) if length.isascii() and length.isdigit() else 0


def obtain(url: str, part: Path, pin: Pin, patience: Timeouts, tell: Tell) -> None:
    """Bring ``part`` to the whole file that the pin names, going on with what is there of it.

    Raises NotFound and TransferInterrupted, which keeps what came; and IntegrityError, which leaves nothing.
    """
    resumed = _transfer_patiently(url, part, pin, patience, tell)
    found = digest(part)
    if found != pin.sha256 and resumed:
        part.write_bytes(b"")  # its beginning may have come from elsewhere, or of an older file
        _transfer_patiently(url, part, pin, patience, tell)
        found = digest(part)
    if found != pin.sha256:
        size = part.stat().st_size
        part.write_bytes(b"")
        sizes = f"{size} bytes" + (f" of which {pin.size} were expected" if pin.size and size != pin.size else "")
        raise IntegrityError(f"expected sha256 {pin.sha256}, got {found} ({sizes}); the file was deleted", where=url,
                             code="artifact.mismatch",
                             hint="find out what changed it; use another mirror, or correct the pin if that is wrong "
                                  "(of clusterctl.lock: clusterctl lock --update PRODUCT)")


def digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _transfer_patiently(url: str, part: Path, pin: Pin, patience: Timeouts, tell: Tell) -> bool:
    """Transfer in a few attempts. Says whether a part that was there before was gone on with."""
    resumed = part.stat().st_size > 0
    for attempt in range(patience.attempts):
        try:
            _transfer(url, part, pin, patience, tell)
            return resumed
        except TransferInterrupted:
            if attempt + 1 == patience.attempts:
                raise
            time.sleep(patience.pause * 2 ** attempt)
    return resumed


def _transfer(url: str, part: Path, pin: Pin, patience: Timeouts, tell: Tell) -> None:
    """One attempt."""
    offset = part.stat().st_size
    if pin.size and offset == pin.size:
        return
    if pin.size and offset > pin.size:
        offset = 0
    with _opened(url, offset, patience) as response:
        if response.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to send: the digest decides
        offset = _start(response, offset, url, part)
        length = response.headers.get("Content-Length", "")
        total = offset + int(length) if length.isascii() and length.isdigit() else None
        with part.open("r+b") as stream:
            stream.truncate(offset)
            stream.seek(offset)
            _copy(response, stream, url, total, pin, patience, tell)


def _start(response: Any, offset: int, url: str, part: Path) -> int:
    """Where the answer's bytes belong."""
    if response.status == http.client.OK:
        return 0
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", response.headers.get("Content-Range", "").strip())
    if response.status != http.client.PARTIAL_CONTENT or match is None or int(match[1]) != offset:
        part.write_bytes(b"")
        raise TransferInterrupted(f"answered with {response.status} and another range than was asked for", where=url,
                          code="download.interrupted")
    return offset


def _copy(response: Any, stream: IO[bytes], url: str, total: int | None, pin: Pin, patience: Timeouts, tell: Tell) -> None:
    ends = time.monotonic() + patience.whole
    limit = pin.size or LARGEST
    done = stream.tell()
    try:
        while block := response.read1(BLOCK):
            stream.write(block)
            done += len(block)
            tell(done, pin.size or total)
            if done > limit:
                return  # too large: the digest will not match
            if time.monotonic() > ends:
                raise TransferInterrupted(f"took longer than {patience.whole:.0f} s", where=url, code="download.timeout")
    except (OSError, http.client.HTTPException) as error:
        raise TransferInterrupted(f"broke off after {done} bytes: {error}", where=url, code="download.interrupted") from error
    if total is not None and done < total:
        raise TransferInterrupted(f"broke off after {done} of {total} bytes", where=url, code="download.interrupted")


def _unreachable(url: str, error: Exception) -> TransferInterrupted:
    """Return the error for a server that cannot be reached. A ValueError is not quoted: it may hold a header's value."""
    reason = getattr(error, "reason", error)
    text, hint, code = f"cannot be reached: {getattr(reason, 'strerror', None) or reason}", "", "download.unreachable"
    if isinstance(error, ValueError):
        text = "cannot be reached: a header or the target of a redirect is malformed"
    elif isinstance(reason, ssl.SSLCertVerificationError):
        text, code = f"its certificate is not trusted: {reason.verify_message}", "download.not-trusted"
        hint = "if a proxy of your site opens TLS, name the file with the certificate of its authority: SSL_CERT_FILE"
    elif isinstance(reason, ssl.SSLError) or "Tunnel connection failed: 3" in str(reason):
        text, code = "cannot be reached: the answer is not TLS", "download.no-tls"
        hint = "does a proxy answer in place of the server? see HTTPS_PROXY"
    elif "Tunnel connection failed: 407" in str(reason):
        text, code = "the proxy refuses the login (407)", "download.proxy-login"
        hint = "put user and password into HTTPS_PROXY: http://USER:PASSWORD@PROXY:PORT"
    elif isinstance(reason, ConnectionResetError | BrokenPipeError):
        code = "download.interrupted"
    return TransferInterrupted(_one_line(text), where=url, hint=hint, code=code)


def _one_line(text: str) -> str:
    """Return what a server sent as one line without control characters, at most 200 characters."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).split())[:200]


def _refuse_environment(url: str) -> None:
    """Refuse a proxy or a file of authorities in the environment that cannot be used, without quoting its value."""
    import urllib.request

    scheme, host = url.partition(":")[0].lower(), url.partition("//")[2].partition("/")[0]
    kind, named, _ = urllib.request.getproxies().get(scheme, "").partition("://")
    if named and kind.lower() != "http" and not urllib.request.proxy_bypass(host):
        raise InputError(f"names a proxy with {_one_line(kind)}://, only http:// is supported", where=f"{scheme.upper()}_PROXY",
                         code="download.proxy-unsupported", hint="name an HTTP proxy: http://PROXY:PORT")
    if scheme == "https" and (authorities := os.environ.get("SSL_CERT_FILE")):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(authorities)
        except OSError as error:
            why = "holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else f"cannot be read: {error.strerror}"
            raise InputError(f"{authorities}: {why}", where="SSL_CERT_FILE", code="download.no-authorities",
                             hint="name a file with certificates in PEM form, or unset SSL_CERT_FILE") from None


def _opened(url: str, offset: int, patience: Timeouts, headers: Mapping[str, str] = MappingProxyType({}),
            method: str = "GET") -> Any:
    """The answer to a request for a file, from ``offset`` on. An Authorization does not go where the answer redirects."""
    import urllib.error
    import urllib.request

    _refuse_environment(url)
    request = urllib.request.Request(url, method=method, headers={
        "User-Agent": "clusterctl", "Accept-Encoding": "identity", **({"Range": f"bytes={offset}-"} if offset else {})})
    for name, value in headers.items():
        (request.add_unredirected_header if name == "Authorization" else request.add_header)(name, value)
    try:
        return _opener().open(request, timeout=patience.stall)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
            return error
        error.close()
        kind: type[NotFound | TransferInterrupted]
        kind, code = NotFound, "download.refused"
        if error.code >= 500 or error.code == 408 or (error.code == 429 and "x-ratelimit-remaining" not in error.headers):
            kind, code = TransferInterrupted, "download.server-error"
        refusal = kind(_one_line(f"answered with {error.code} {error.reason}"), where=url, code=code)
        refusal.status, refusal.headers = error.code, {name.lower(): value for name, value in error.headers.items()}
        raise refusal from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # Where a redirect leads may be no URL at all.
        raise _unreachable(url, error) from error
