"""The credentials that lie on a worker, and what each of them is asked to do against the real API server and etcd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import Cluster

FIND = r"""cd / && find etc/kubernetes var/lib/kubelet \( -name '*.crt' -o -name '*.pem' -o -path '*kubernetes.io~projected*/token' \) -not -name ca.crt"""
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@dataclass(frozen=True)
class Credential:
    """A client certificate with its key, or a token, copied from a worker. ``name``: its path there."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Request:
    """A request to the API. ``only``: the part of a credential's name that it is sent with; empty for all."""

    what: str
    method: str
    path: str
    body: Any = None
    content: str = MERGE
    only: str = ""


def take(cluster: Cluster, machine: str, folder: Path) -> list[Credential]:
    """Copy every credential of a worker into a folder."""
    folder.mkdir(mode=0o700)
    return list(_taken(cluster, machine, folder))


def _taken(cluster: Cluster, machine: str, folder: Path) -> Iterator[Credential]:
    for number, path in enumerate(sorted(cluster.on(machine, FIND).split())):
        copy = folder / str(number)
        copy.write_text(cluster.on(machine, f"cat '/{path}'"))
        if path.endswith("token"):
            header = folder / f"{number}.header"
            header.write_text(f"Authorization: Bearer {copy.read_text().strip()}")
            yield Credential(path, ("--header", f"@{header}"))
        elif path.endswith(".pem"):
            yield Credential(path, ("--cert", str(copy), "--key", str(copy)))
        else:
            key = folder / f"{number}.key"
            key.write_text(cluster.on(machine, f"cat '/{path.removesuffix('crt')}key'"))
            yield Credential(path, ("--cert", str(copy), "--key", str(key)))


def send(cluster: Cluster, credential: Credential, request: Request, *, port: int = 6443, machine: str = "cp-1") -> tuple[int, str]:
    """(HTTP status, answer) of a request; status 0 where the server refuses the certificate."""
    body = () if request.body is None else ("--header", f"Content-Type: {request.content}", "--data", json.dumps(request.body))
    address = cluster.lab.machines[machine].address
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{cluster.lab.namespace}", "curl", "-sS", "-k", "-m", "20", "-X", request.method,
         "-w", "\n%{http_code}", *credential.options, *body, f"https://{address}:{port}{request.path}"],
        capture_output=True, text=True, check=False)
    answer, _, code = done.stdout.rpartition("\n")
    return int(code or 0), answer + done.stderr


def _status(node: str) -> str:
    return f"/api/v1/nodes/{node}/status"


def forbidden(own: str, other: str, pod: str) -> list[Request]:
    """What no credential of the worker ``own`` may do. ``other``: another node; ``pod``: NAMESPACE/NAME of a pod that runs there."""
    namespace, _, name = pod.partition("/")
    address = {"status": {"addresses": [{"type": "InternalIP", "address": "10.66.66.66"}]}}
    public = {"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "10.66.66.66"}}}
    protected = {"metadata": {"labels": {"node-restriction.kubernetes.io/secret": "yes"}}}
    ready = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Forged"}]}}
    network = {"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "Forged"}]}}
    admin = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"forged-{own}"},
             "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
             "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"flannel:{own}"}]}
    fresh = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "forged"}}
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    return [
        *(Request(f"{what} of another node", "PATCH", _status(other), body, content) for what, body, content in (
            ("address", address, MERGE), ("overlay address", public, MERGE), ("label by status", protected, MERGE),
            ("readiness", ready, STRATEGIC), ("network condition", network, STRATEGIC))),
        *(Request(f"{what} of another node", "PATCH", f"/api/v1/nodes/{other}", body) for what, body in (
            ("annotation", public), ("label", protected), ("cordon", {"spec": {"unschedulable": True}}))),
        Request("protected label of its own", "PATCH", f"/api/v1/nodes/{own}", protected),
        Request("protected label of its own by status", "PATCH", _status(own), protected),
        Request("finalizer of its own by status", "PATCH", _status(own), {"metadata": {"finalizers": ["example.com/kept"]}},
                only="flannel"),
        Request("foreign annotation of its own", "PATCH", _status(own), {"metadata": {"annotations": {"example.com/a": "b"}}},
                only="flannel"),
        Request("its own address", "PATCH", _status(own), address, only="flannel"),
        Request("its own readiness", "PATCH", _status(own), ready, STRATEGIC, only="flannel"),
        Request("deletion of another node", "DELETE", f"/api/v1/nodes/{other}"),
        Request("a new node", "POST", "/api/v1/nodes", fresh, "application/json"),
        Request("eviction of a pod elsewhere", "POST", f"/api/v1/namespaces/{namespace}/pods/{name}/eviction", eviction, "application/json"),
        Request("deletion of a pod elsewhere", "DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}"),
        Request("all secrets", "GET", "/api/v1/secrets"),
        Request("a secret of no pod of its own", "GET", "/api/v1/namespaces/default/secrets/unmounted"),
        Request("administration", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", admin, "application/json"),
    ]


def permitted(own: str) -> list[Request]:
    """What the programs of the worker ``own`` do in service: proof that the forbidden requests are denied for what they ask."""
    network = {"status": {"conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp", "message": "test"}]}}
    public = {"metadata": {"annotations": {"flannel.alpha.coreos.com/test": "here"}}}
    return [
        Request("its own network condition", "PATCH", _status(own), network, STRATEGIC, only="flannel"),
        Request("its own annotation", "PATCH", _status(own), public, only="flannel"),
        Request("all nodes", "GET", "/api/v1/nodes", only="flannel"),
        Request("services", "GET", "/api/v1/services", only="kube-proxy"),
        Request("its own status", "PATCH", _status(own), {"status": {"phase": "Running"}}, only="kubelet-client"),
    ]


def sent_with(request: Request, credentials: list[Credential]) -> list[Credential]:
    """The credentials that a request concerns."""
    return [one for one in credentials if request.only in one.name]
