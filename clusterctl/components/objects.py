"""API objects of every cluster: add-ons, bindings, node metadata."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from clusterctl.cluster.model import Cluster, Host
from clusterctl.components import coredns, metrics_server
from clusterctl.components.apiserver import ADMINISTRATORS, KUBELET_CLIENT
from clusterctl.components.common import NODE_IDENTITIES, node_user
from clusterctl.components.render import render
from clusterctl.errors import InputError
from clusterctl.kube.client import CORDONED_FOR, MANAGED_BY, MANAGER, ROLE_LABEL, Object, cordoned_for
from clusterctl.pki import CertificateSpec, Pki

_MEND = "correct the file, or take it out of cluster.addons.manifests"
MANAGED_LABELS = {MANAGED_BY: MANAGER}
"""The label of all objects that are ours."""
METRICS_SECRET: Object = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                          "metadata": {"name": "metrics-server-tls", "namespace": "kube-system", "labels": MANAGED_LABELS}}
"""The Secret with the certificate of metrics-server, without its data: see ``with_certificate``."""
CERTIFICATE_NOTE = "clusterctl.dev/certificate"
"""Annotation of a Secret: what the certificate in it says."""
INVENTORY = "clusterctl.dev/inventory"
"""Label of objects from ``addons.manifests``, with the cluster's name: what leaves the manifests is removed while it bears it."""
GIVEN = "clusterctl.dev/given"
"""Annotation of a node: its labels, annotations and taints of the inventory, which are removed once they leave it."""
CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}


NODE_STATUS = ("addresses", "allocatable", "capacity", "config", "daemonEndpoints", "declaredFeatures", "features", "images",
               "nodeInfo", "phase", "runtimeHandlers", "volumesAttached", "volumesInUse")
"""The fields of NodeStatus beside ``conditions`` (k8s.io/api/core/v1, Kubernetes 1.37)."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Dates stay text, as kubectl reads them."""


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_scalar)


def bindings(cluster: Cluster) -> list[Object]:
    """Return what the identities of the cluster's own programs may do: needed before a node can join."""
    names = [host.name for host in cluster.nodes]
    return _managed(
        "rbac", administrators=ADMINISTRATORS, kubelet_client=KUBELET_CLIENT, node_status=NODE_STATUS,
        kube_proxies=[node_user("kube-proxy", name) for name in names],
        flannels=[node_user("flannel", name) for name in names] if cluster.network.cni == "flannel" else [])


def addons(cluster: Cluster, pki: Pki, *, forward: bool) -> list[Object]:
    """CoreDNS, metrics-server and the user's own manifests, as the settings want them. Raises InputError for a bad manifest.

    ``forward``: whether names outside the cluster are asked of the nodes' own name servers.
    """
    wanted: list[Object] = []
    settings, versions, registry = cluster.settings.addons, cluster.versions, cluster.settings.image_registry
    if settings.coredns:
        wanted += _managed(
            "coredns", domain=cluster.network.domain, address=str(cluster.network.dns_address),
            replicas=min(2, len(cluster.nodes)), forward=forward, image=coredns.IMAGE.reference(versions.coredns, registry))
    if settings.metrics_server:
        authority = pki.authorities["kubernetes"].pem
        wanted.append(METRICS_SECRET)
        wanted += _managed(
            "metrics-server", authority=authority.decode(), bundle=base64.b64encode(authority).decode(),
            image=metrics_server.IMAGE.reference(versions.metrics_server, registry))
    for manifest in settings.manifests:
        path = cluster.base / Path(manifest).expanduser()
        try:
            found = _read(path.read_bytes(), str(path))
        except OSError as error:
            raise InputError(f"a manifest cannot be read: {error.strerror}", where=str(path),
                             code="manifest.unreadable") from None
        for item in found:
            item["metadata"]["labels"] = {**(item["metadata"].get("labels") or {}), INVENTORY: cluster.name}
        wanted += found
    return wanted


REMOVED_NODES = "clusterctl-removed-nodes"
REMOVED_NAMES = "clusterctl.dev/removed-nodes"


def removed_nodes(names: Iterable[str]) -> list[Object]:
    """Deny every change that an identity of a node asks for that was removed while its machine was unreachable."""
    chosen = sorted(names)
    users = [f"'{node_user(program, name)}'" for name in chosen for program in NODE_IDENTITIES]
    return _managed("removed-nodes", policy=REMOVED_NODES, names=chosen, users=users)


def removed_names(policy: Object | None) -> frozenset[str]:
    """The names that such a policy keeps out."""
    text = ((policy or {}).get("metadata", {}).get("annotations") or {}).get(REMOVED_NAMES, "")
    return frozenset(filter(None, str(text).split(",")))


def _metrics_spec(cluster: Cluster) -> CertificateSpec:
    names = ("metrics-server.kube-system.svc", f"metrics-server.kube-system.svc.{cluster.network.domain}")
    return CertificateSpec(
        authority="kubernetes", common_name="metrics-server", dns=names, server=True, days=cluster.settings.certificate_days
    )


def with_certificate(cluster: Cluster, pki: Pki, item: Object, found: Object | None) -> Object:
    """Return the complete desired object: a valid certificate that exists is kept, otherwise a new one is issued."""
    if item is not METRICS_SECRET:
        return item
    if found is not None and _holds(cluster, pki, found):
        return {**item, "data": found["data"]}
    certificate, key = pki.authorities["kubernetes"].issue(_metrics_spec(cluster))
    noted = {**item["metadata"], "annotations": {CERTIFICATE_NOTE: pki.authorities["kubernetes"].note(certificate)}}
    return {**item, "metadata": noted,
            "data": {"tls.crt": base64.b64encode(certificate).decode(), "tls.key": base64.b64encode(key).decode()}}


def _holds(cluster: Cluster, pki: Pki, found: Object) -> bool:
    authority, spec = pki.authorities["kubernetes"], _metrics_spec(cluster)
    try:
        pem = base64.b64decode(found["data"]["tls.crt"]).decode()
    except (KeyError, ValueError):
        return False
    note = str((found["metadata"].get("annotations") or {}).get(CERTIFICATE_NOTE, ""))
    wanted = {"subject": spec.subject, "names": spec.names, "usages": spec.usages, "validity": "long enough",
              "issuer": authority.fingerprint}
    said = authority.describe(pem, note)
    return all(said.get(key) == value for key, value in wanted.items())


def _managed(name: str, **values: object) -> list[Object]:
    """The objects of one of our own templates, labelled as ours."""
    found = _read(render(f"addons/{name}.yaml.j2", **values), f"{name}.yaml")
    for item in found:
        item["metadata"]["labels"] = {**item["metadata"].get("labels", {}), **MANAGED_LABELS}
    return [*found]


def _read(text: bytes, where: str) -> list[dict[str, Any]]:
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document]
        json.dumps(documents, allow_nan=False)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"not YAML that is JSON, too: {error}", where=where, hint=_MEND, code="manifest.malformed") from None
    for document in documents:
        meta = document.get("metadata") if isinstance(document, dict) else None
        named = isinstance(meta, dict) and (document.get("apiVersion"), document.get("kind"), meta.get("name"))
        if not named or not all(isinstance(word, str) and word for word in named):
            raise InputError("a document is not a Kubernetes object with apiVersion, kind and metadata.name, each a text",
                             where=where, hint=_MEND, code="manifest.malformed")
        if not isinstance(document["metadata"].get("labels"), dict | None):
            raise InputError(f"metadata.labels of {document['kind']} is not a mapping", where=where, code="manifest.malformed",
                             hint=_MEND)
    return documents


def node_labels(cluster: Cluster, host: Host) -> dict[str, str]:
    """The labels that a node must have, apart from those that its kubelet gives it."""
    role = {f"{ROLE_LABEL}control-plane": ""} if host.is_control_plane else {}
    if "worker" in host.roles:
        role[f"{ROLE_LABEL}worker"] = ""
    return {**role, **host.labels}


def node_taints(cluster: Cluster, host: Host) -> list[dict[str, str]]:
    """The taints that a node must have: control planes take no pods of users unless they are workers too."""
    wanted = [
        {"key": taint.key, "effect": taint.effect, **({"value": taint.value} if taint.value else {})} for taint in host.taints
    ]
    dedicated = host.is_control_plane and "worker" not in host.roles and not cluster.settings.schedule_on_control_plane
    own = [dict(CONTROL_PLANE_TAINT)] if dedicated else []
    # The API takes a key and effect once; what the inventory says of the control plane's own goes over ours.
    return list({_place(taint): taint for taint in (*own, *wanted)}.values())


def node_changes(cluster: Cluster, nodes: dict[str, Object]) -> Iterator[tuple[str, Object, tuple[str, ...]]]:
    """Yield (node, patch, fields) for each node whose labels, annotations or taints are not as wanted.

    What the inventory gave a node before and gives it no longer is removed; those of others stay.
    """
    for host in cluster.nodes:
        node = nodes.get(host.name)
        if node is not None and (found := _node_change(cluster, host, node)):
            yield host.name, *found


def _node_change(cluster: Cluster, host: Host, node: Object) -> tuple[Object, tuple[str, ...]] | None:
    meta, taints = node["metadata"], node["spec"].get("taints", [])
    before, now = _given(meta), _gives(host)
    wanted_labels, wanted_taints, there = node_labels(cluster, host), node_taints(cluster, host), meta.get("labels", {})
    labels: dict[str, str | None] = {key: value for key, value in wanted_labels.items() if there.get(key) != value}
    labels |= {key: None for key in before["labels"] if key not in wanted_labels and key in there}
    missing = [taint for taint in wanted_taints if not any(_same(taint, other) for other in taints)]
    places = [_place(taint) for taint in wanted_taints]
    stale = [taint for taint in taints if _place(taint) not in places and (
        ":".join(_place(taint)) in before["taints"] or (not _dedicated(cluster, host) and _same(CONTROL_PLANE_TAINT, taint)))]
    forgotten = cordoned_for(node)
    notes, noted = host.settings.kubelet.annotations, meta.get("annotations") or {}
    annotations: dict[str, str | None] = {key: value for key, value in notes.items() if noted.get(key) != value}
    annotations |= {key: None for key in before["annotations"] if key not in notes and key in noted}
    fields = [*sorted(key if value is not None else f"{key} removed" for key, value in (labels | annotations).items()),
              *(f"taint {taint['key']}" for taint in missing), *(["taint removed"] if stale else []),
              *([f"uncordoned: {forgotten}, which did not end, had cordoned it"] if forgotten else [])]
    if not (labels or annotations or missing or stale or forgotten or before != now):
        return None
    patch: dict[str, dict[str, object]] = {"metadata": {"labels": labels}}
    if before != now:
        recorded = {kind: words for kind, words in now.items() if words or kind != "annotations"}
        annotations[GIVEN] = json.dumps(recorded, separators=(",", ":")) if any(now.values()) else None
    if missing or stale:
        # Others may be changing the taints: the list is replaced only in the version that was read.
        patch["metadata"]["resourceVersion"] = meta["resourceVersion"]
        kept = [taint for taint in taints if taint not in stale and not any(_place(taint) == _place(new) for new in missing)]
        patch["spec"] = {"taints": [*kept, *missing]}
    if forgotten:
        # The holder of the lock is the only operator: what was begun before has ended.
        annotations[CORDONED_FOR] = None
        patch.setdefault("spec", {})["unschedulable"] = None
    if annotations:
        patch["metadata"]["annotations"] = annotations
    return patch, tuple(fields or ["record of labels and taints"])


def _gives(host: Host) -> dict[str, list[str]]:
    """Return the keys of labels and annotations, and the keys and effects of taints, that the inventory gives a node."""
    return {"labels": sorted(host.labels), "taints": sorted(f"{taint.key}:{taint.effect}" for taint in host.taints),
            "annotations": sorted(host.settings.kubelet.annotations)}


def _given(meta: Object) -> dict[str, list[str]]:
    """Return the metadata that the inventory set on a node before, from its annotation; empty where that is malformed."""
    try:
        found = json.loads((meta.get("annotations") or {}).get(GIVEN, "{}"))
        return {kind: [str(word) for word in found.get(kind, [])] for kind in ("labels", "taints", "annotations")}
    except (ValueError, AttributeError, TypeError):
        return {"labels": [], "annotations": [], "taints": []}


def _dedicated(cluster: Cluster, host: Host) -> bool:
    return CONTROL_PLANE_TAINT in node_taints(cluster, host)


def _place(taint: Object) -> tuple[str, str]:
    return taint["key"], taint["effect"]


def _same(one: Object, other: Object) -> bool:
    return _place(one) == _place(other) and one.get("value", "") == other.get("value", "")
