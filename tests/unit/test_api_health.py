"""What status reports of the inside of a cluster: pods that are late, CoreDNS' answers."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from clusterctl.health import dns
from clusterctl.health.api_health import late_pod
from clusterctl.kube.client import apply_order, not_established, not_rolled_out

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def pod(ready: str | None, since: str, *, phase: str = "Running", waiting: str = "", **meta: Any) -> Any:
    conditions = [] if ready is None else [{"type": "Ready", "status": ready, "lastTransitionTime": since}]
    states = [{"state": {"waiting": {"reason": waiting}}}] if waiting else []
    return {"metadata": {"name": "p", "creationTimestamp": since, **meta},
            "status": {"phase": phase, "conditions": conditions, "containerStatuses": states}}


@pytest.mark.parametrize(("found", "late"), [
    (pod("True", "2026-01-01T11:00:00Z"), False),
    (pod("False", "2026-01-01T11:59:30Z"), False),
    (pod("False", "2026-01-01T11:58:00Z", waiting="ImagePullBackOff"), True),
    (pod(None, "2026-01-01T11:58:00Z", phase="Pending"), True),
    (pod("False", "2026-01-01T11:58:00Z", phase="Succeeded"), False),
    (pod("False", "2026-01-01T11:58:00Z", deletionTimestamp="2026-01-01T11:59:00Z"), False),
])
def test_late_pods(found: Any, late: bool) -> None:
    assert bool(late_pod(found, NOW)) is late


def test_the_reason_of_a_late_pod() -> None:
    assert "ImagePullBackOff" in late_pod(pod("False", "2026-01-01T11:58:00Z", waiting="ImagePullBackOff"), NOW)


def server(answer: bytes) -> int:
    """A TCP server that answers one query: its number, then ``answer``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            query = connection.recv(4096)[2:]
            question = query[12:]
            whole = query[:2] + answer.replace(b"QUESTION", question)
            connection.sendall(struct.pack(">H", len(whole)) + whole if answer else b"")

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


RECORD = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 5, 4) + bytes([10, 96, 0, 1])
LONG_NAME = b"\x03abc\x00" + struct.pack(">HHIH", 1, 1, 5, 4) + bytes([10, 96, 0, 2])
CNAME = b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 5, 2) + b"\xc0\x0c"


@pytest.mark.parametrize(("flags", "records", "addresses"), [
    (0x8580, [RECORD], ["10.96.0.1"]),
    (0x8580, [CNAME, LONG_NAME], ["10.96.0.2"]),
    (0x8583, [], []),
    (0x8582, [RECORD], []),
])
def test_answers_of_a_dns_server(flags: int, records: list[bytes], addresses: list[str]) -> None:
    head = struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
    port = server(head + b"QUESTION" + b"".join(records))
    assert dns.resolve("kubernetes.default.svc.cluster.local", port) == [ipaddress.IPv4Address(text) for text in addresses]


@pytest.mark.parametrize("answer", [b"", b"\x00\x01", struct.pack(">HHHHH", 0x8580, 1, 9, 0, 0) + b"QUESTION" + RECORD])
def test_answers_that_are_none(answer: bytes) -> None:
    with pytest.raises((OSError, ValueError)):
        dns.resolve("kubernetes.default.svc.cluster.local", server(answer))


def test_objects_are_applied_in_the_order_that_they_need_each_other() -> None:
    kinds = [("apps/v1", "Deployment"), ("rbac.authorization.k8s.io/v1", "Role"), ("v1", "ServiceAccount"), ("example.com/v1", "Gauge"),
             ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("v1", "Namespace")]
    ordered = sorted(({"apiVersion": version, "kind": kind} for version, kind in kinds), key=apply_order)
    assert [item["kind"] for item in ordered] == ["Namespace", "CustomResourceDefinition", "Role", "ServiceAccount", "Deployment", "Gauge"]


def test_a_definition_is_established() -> None:
    assert not_established(None) and not_established({"status": {}})
    assert not_established({"status": {"conditions": None}}), "as right after it was created"
    assert not_established({"status": {"conditions": [{"type": "Established", "status": "True"}]}}) == ""


@pytest.mark.parametrize(("kind", "status", "done"), [
    ("DaemonSet", {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}, True),
    ("DaemonSet", {"observedGeneration": 1, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}, False),
    ("DaemonSet", {"observedGeneration": 0}, False),
    ("StatefulSet", {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1}, True),
    ("Deployment", {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 2}, False),
])
def test_roll_outs(kind: str, status: dict[str, int], done: bool) -> None:
    assert (not_rolled_out({"kind": kind, "metadata": {"generation": 1}, "spec": {"replicas": 1}, "status": status}) == "") is done
