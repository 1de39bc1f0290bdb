"""A program of its own: serves one directory over HTTP on one address. Arguments: directory, address, port."""

from __future__ import annotations

import functools
import http.server
import socketserver
import sys


class Server(http.server.ThreadingHTTPServer):
    """Does not look its own name up: there is no name service in a lab."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])


class Handler(http.server.SimpleHTTPRequestHandler):
    """Keeps connections open, as apt likes it."""

    protocol_version = "HTTP/1.1"
    timeout = 60


def main(directory: str, address: str, port: str) -> None:
    """Serve until killed."""
    handler = functools.partial(Handler, directory=directory)
    with Server((address, int(port)), handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
