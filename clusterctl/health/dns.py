"""A DNS query to the cluster's CoreDNS, over TCP through the SSH connection of a node."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import struct
from collections.abc import Sequence

from clusterctl.cluster.model import Host
from clusterctl.errors import Unreachable
from clusterctl.session.session import Session

TIMEOUT = 5.0
"""Seconds."""


def problem(session: Session, hosts: Sequence[Host]) -> str:
    """Return why CoreDNS does not resolve the Service ``kubernetes`` from the first of these nodes; empty where it does."""
    network = session.cluster.network
    name = f"kubernetes.default.svc.{network.domain}"
    if not hosts:
        return ""
    host = hosts[0]
    try:
        port = session.engine.transports[host.name].forward(str(network.dns_address), 53).port
        found = resolve(name, port)
    except (OSError, Unreachable, ValueError) as error:
        return f"CoreDNS does not answer on {host.name} at {network.dns_address}:53 ({error or type(error).__name__})"
    if network.api_address not in found:
        return f"CoreDNS resolves {name} to {', '.join(map(str, found)) or 'nothing'}, not to {network.api_address}"
    return ""


def resolve(name: str, port: int) -> list[ipaddress.IPv4Address]:
    """Ask a DNS server on a local TCP port for A records (RFC 1035, 4.1 and 4.2.2). Raises OSError, ValueError."""
    number = secrets.token_bytes(2)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = number + struct.pack(">HHHHH", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), TIMEOUT)) as connection:
        connection.settimeout(TIMEOUT)
        connection.sendall(struct.pack(">H", len(query)) + query)
        answer = _exactly(connection, struct.unpack(">H", _exactly(connection, 2))[0])
    if answer[:2] != number or len(answer) < 12:
        raise ValueError("not a DNS answer")
    _, flags, questions, answers = struct.unpack(">HHHH", answer[:8])
    if flags & 0xF or not answers or questions != 1:
        return []
    return _addresses(answer, 12 + len(labels) + 5, answers)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("the connection was closed before the answer")
        data += piece
    return data


def _addresses(answer: bytes, place: int, count: int) -> list[ipaddress.IPv4Address]:
    """The A records among ``count`` records that begin at ``place``."""
    found = []
    for _ in range(count):
        while answer[place : place + 1] not in (b"", b"\0") and answer[place] < 0xC0:
            place += answer[place] + 1
        place += 2 if answer[place : place + 1] >= b"\xc0" else 1
        if len(answer) < place + 10:
            raise ValueError("not a DNS answer")
        kind, _, _, length = struct.unpack(">HHIH", answer[place : place + 10])
        if kind == 1 and length == 4:
            found.append(ipaddress.IPv4Address(answer[place + 10 : place + 14]))
        place += 10 + length
    return found
