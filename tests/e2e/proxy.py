"""A program of its own: an HTTP proxy that asks for a login and prints what it is asked for. Arguments: address, port, login in base64."""

from __future__ import annotations

import select
import socket
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Passes on GET, and tunnels what is encrypted."""

    def allowed(self) -> bool:
        given = self.headers.get("Proxy-Authorization") == f"Basic {sys.argv[3]}"
        print(self.command, self.path, "passed" if given else "refused", flush=True)
        if not given:
            self.send_response(407)
            self.send_header("Proxy-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
        return given

    def do_GET(self) -> None:
        if not self.allowed():
            return
        with urllib.request.urlopen(self.path, timeout=30) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        if not self.allowed():
            return
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port)), 30) as other:
            self.send_response(200)
            self.end_headers()
            while ready := select.select([self.connection, other], [], [], 60)[0]:
                for one in ready:
                    block = one.recv(65536)
                    if not block:
                        return
                    (other if one is self.connection else self.connection).sendall(block)

    def log_message(self, *_: object) -> None:
        return


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
