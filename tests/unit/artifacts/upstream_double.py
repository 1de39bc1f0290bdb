"""A double of upstream: TLS servers under the real names with a CA of their own, reached through an HTTP proxy.

They redirect as the real ones do (dl.k8s.io to a CDN, GitHub's downloads to signed addresses on another host), publish checksums in each
product's own format, serve Range and HEAD, and limit what is asked without a token. The proxy takes the place of name resolution:
the client's own certificate check sees the real names.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = ("dl.k8s.io", "cdn.dl.k8s.io", "github.com", "objects.githubusercontent.com", "api.github.com", "registry.k8s.io",
         "europe-west1-docker.pkg.dev")
REGISTRY = "europe-west1-docker.pkg.dev/v2/k8s-artifacts-prod/images/"
"""Where registry.k8s.io redirects to."""
Answer = Callable[[BaseHTTPRequestHandler], None]
Key = ec.EllipticCurvePrivateKey


class Upstream:
    """``files`` by upstream's path, host first; ``lies`` are given in place of what is there; ``asked``: METHOD HOST/PATH."""

    def __init__(self, folder: Path, files: Mapping[str, bytes | Path], newest: str = "1.36.9") -> None:
        self.files, self.newest = dict(files), newest
        self.images: dict[str, tuple[str, dict[str, bytes]]] = {}
        """Images by name and tag: the digest of the index, and all blobs by digest."""
        self.lies: dict[str, Answer] = {}
        self.asked: list[str] = []
        self.tokens: list[tuple[str, str]] = []
        """The hosts that were sent an Authorization header, and what it said."""
        self.anonymous = 60
        """The requests that GitHub's API answers without a token."""
        self.authority = folder / "upstream-ca.pem"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        self._server.socket = _context(folder, self.authority).wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self._proxies: list[socket.socket] = []
        self.listen(socket.create_server(("127.0.0.1", 0)))

    def listen(self, proxy: socket.socket) -> None:
        """Take connections of clients on one more socket, as one of another network namespace."""
        self._proxies.append(proxy)
        threading.Thread(target=self._tunnels, args=(proxy,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client here."""
        proxy = f"http://127.0.0.1:{self._proxies[0].getsockname()[1]}"
        return {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": "", "SSL_CERT_FILE": str(self.authority)}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        for proxy in self._proxies:
            proxy.close()

    def digest(self, path: str) -> str:
        content = self.files[path]
        return hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                place = f"{self.headers['Host'].partition(':')[0]}{self.path}"
                double.asked.append(f"{self.command} {place}")
                if "Authorization" in self.headers:
                    double.tokens.append((place.partition("/")[0], self.headers["Authorization"]))
                double.answer(self, place)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler

    def answer(self, handler: BaseHTTPRequestHandler, place: str) -> None:
        """Answer as the real servers do, or with a lie."""
        host, _, path = place.partition("/")
        shown = path.partition("?")[0]
        known = {"cdn.dl.k8s.io": "dl.k8s.io/", "objects.githubusercontent.com": "github.com/"}.get(host, f"{host}/") + shown
        if lie := self.lies.get(known):
            return lie(handler)
        if host == "api.github.com":
            return self._release(handler, shown)
        if host == "registry.k8s.io":
            return reply(handler, 307, b"", Location=f"https://{REGISTRY}{path.removeprefix('v2/')}")
        if place.startswith(REGISTRY):
            return self._registry(handler, place.removeprefix(REGISTRY))
        content = self.files.get(known) or self._checksums(known)
        if content is None:
            return reply(handler, 404, b"Not Found")
        if host == "dl.k8s.io":
            return reply(handler, 302, b"", Location=f"https://cdn.dl.k8s.io/{path}")
        if host == "github.com":
            return reply(handler, 302, b"", Location=f"https://objects.githubusercontent.com/{path}?signature=x")
        return serve(handler, content)

    def _checksums(self, path: str) -> bytes | None:
        """A checksum file in the format of its product."""
        folder, _, name = path.rpartition("/")
        if path == f"dl.k8s.io/release/stable-{'.'.join(self.newest.split('.')[:2])}.txt":
            return f"v{self.newest}".encode()
        within = [known for known in self.files if known.startswith(f"{folder}/")]
        lines = "".join(f"{self.digest(known)}  {known.rpartition('/')[2]}\n" for known in within)
        if name == "SHA256SUMS" and lines:
            return lines.encode()
        if name == "runc.sha256sum" and lines:
            lines = "".join(f"{self.digest(known)} *{known.rpartition('/')[2]}\n" for known in within)
            return (f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{lines}-----BEGIN PGP SIGNATURE-----\n\n"
                    "iQIzBAEBCAAdFiEE\n-----END PGP SIGNATURE-----\n").encode()
        subject = re.sub(r"\.sha256(sum)?$", "", path)
        if subject == path or subject not in self.files:
            return None
        bare = "dl.k8s.io" in subject or "crictl" in subject
        return (self.digest(subject) if bare else f"{self.digest(subject)}  {subject.rpartition('/')[2]}\n").encode()

    def _release(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        if "Authorization" not in handler.headers:
            self.anonymous -= 1
            if self.anonymous < 0:
                limits = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1800000000"}
                return reply(handler, 403, b'{"message": "API rate limit exceeded"}', **limits)
        match = re.fullmatch(r"repos/([^/]+/[^/]+)/releases/tags/(.+)", path)
        folder = f"github.com/{match[1]}/releases/download/{match[2]}/" if match else "nothing"
        assets = [{"name": known.rpartition("/")[2], "browser_download_url": f"https://{known}", "digest": f"sha256:{self.digest(known)}",
                   "size": size(self.files[known])} for known in self.files if known.startswith(folder)]
        if not assets:
            return reply(handler, 404, b'{"message": "Not Found"}')
        return reply(handler, 200, json.dumps({"assets": assets}).encode())

    def add_image(self, name: str, tag: str, config: bytes, layer: bytes, arch: str) -> None:
        """Publish an image of one layer for one architecture, with an index."""
        blobs: dict[str, bytes] = {}

        def described(content: bytes, kind: str) -> dict[str, object]:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            blobs[digest] = content
            return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}

        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": described(config, "config.v1+json"), "layers": [described(layer, "layer.v1.tar")]}).encode()
        entry = {**described(manifest, "manifest.v1+json"), "platform": {"os": "linux", "architecture": arch}}
        other = {**described(b"{}", "manifest.v1+json"), "platform": {"os": "windows", "architecture": arch}}
        index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [other, entry]})
        self.images[f"{name}:{tag}"] = (str(described(index.encode(), "index.v1+json")["digest"]), blobs)

    def add_archive(self, archive: Path) -> None:
        """Publish the image of an OCI archive, under the name that it has there."""
        with tarfile.open(archive) as layout:
            contents = {member.name: layout.extractfile(member).read() for member in layout if member.isfile()}  # type: ignore[union-attr]
        index = contents["index.json"]
        reference = json.loads(index)["manifests"][0]["annotations"]["io.containerd.image.name"]
        blobs = {f"sha256:{hashlib.sha256(content).hexdigest()}": content for content in contents.values()}
        self.images[reference.partition("/")[2]] = (f"sha256:{hashlib.sha256(index).hexdigest()}", blobs)

    def _registry(self, handler: BaseHTTPRequestHandler, path: str) -> None:
        """Manifests, by tag or digest to clients that accept them, and blobs."""
        match = re.fullmatch(r"(.+)/(manifests|blobs)/([^/]+)", path)
        for image, (index, blobs) in self.images.items() if match else ():
            name, _, tag = image.rpartition(":")
            found = blobs.get(index if match[3] == tag else match[3]) if match and match[1] == name else None
            if found is not None and match[2] == "blobs":  # type: ignore[index]
                return serve(handler, found)
            accepted = handler.headers.get("Accept", "*/*")
            if found is not None and ((media_type := json.loads(found)["mediaType"]) in accepted or "*/*" in accepted):
                return serve(handler, found, media_type)
        return reply(handler, 404, b"{}")

    def _tunnels(self, proxy: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = proxy.accept()
                threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        """CONNECT HOST:443, to any of the names."""
        with contextlib.suppress(OSError), client, client.makefile("rb") as stream:
            host = stream.readline().split()[1].partition(b":")[0].decode()
            while stream.readline().strip():
                pass
            if host not in HOSTS:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
                return
            with socket.create_connection(self._server.server_address[:2]) as server:  # type: ignore[arg-type]
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.send_header("Connection", "close")
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
    handler.close_connection = True


def serve(handler: BaseHTTPRequestHandler, content: bytes | Path, media_type: str = "application/octet-stream") -> None:
    """A file, or the rest of it."""
    whole, match = size(content), re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    start = int(match[1]) if match else 0
    handler.send_response(206 if match else 200)
    if match:
        handler.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
    handler.send_header("Content-Type", media_type)
    handler.send_header("Content-Length", str(whole - start))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    if handler.command == "HEAD":
        return
    if isinstance(content, bytes):
        handler.wfile.write(content[start:])
        return
    with content.open("rb") as stream:
        stream.seek(start)
        shutil.copyfileobj(stream, handler.wfile, 1 << 20)


def _context(folder: Path, authority: Path) -> ssl.SSLContext:
    """The servers' certificate, of an authority that is written to a file."""
    issuer, ca = _certificate("double of upstream", None)
    key, certificate = _certificate("servers", (issuer, ca))
    authority.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    chain = folder / "upstream.pem"
    chain.touch(0o600)
    chain.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
                      + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context


def _certificate(name: str, issuer: tuple[Key, x509.Certificate] | None) -> tuple[Key, x509.Certificate]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=issuer[1].subject if issuer else subject, subject_name=subject, public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=now - timedelta(hours=1), not_valid_after=now + timedelta(days=1),
    ).add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    if issuer:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in HOSTS]), critical=False)
    return key, builder.sign(issuer[0] if issuer else key, hashes.SHA256())
