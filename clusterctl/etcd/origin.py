"""Which cluster a snapshot is of, from its data alone: no description beside it and no live cluster is needed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clusterctl.errors import InputError, IntegrityError
from clusterctl.etcd import bolt
from clusterctl.pki import Pki
from clusterctl.pki.sealed import PREFIX, opens

NAMESPACE = b"/registry/namespaces/kube-system"
AUTHENTICATION = b"/registry/configmaps/kube-system/extension-apiserver-authentication"
ROOT = b"/registry/configmaps/kube-system/kube-root-ca.crt"
"""ConfigMaps that hold the certificate of the cluster's authority: API servers write the first one when they start."""

UID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The cluster of a snapshot. ``uid``: of the namespace kube-system, empty where there is none; ``ours``: of this cluster.

    ``why``: what shows that it is another cluster's.
    """

    uid: str
    ours: bool
    why: str
    revision: int
    keys: int


def identify(path: Path, pki: Pki) -> Origin:
    """Read a snapshot on this side. Raises IntegrityError for one that is damaged, InputError for one that cannot be read.

    API servers encrypt ConfigMaps with the cluster's key, which is in the state folder: only this cluster's data can be
    decrypted with it. Where nothing is encrypted the authority's certificate is compared.
    """
    try:
        content = bolt.read(path, frozenset((NAMESPACE, AUTHENTICATION, ROOT)))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path), code="etcd.snapshot-unreadable") from None
    except bolt.Damaged as error:
        raise IntegrityError(f"is no snapshot of etcd: {error}", where=str(path), code="etcd.snapshot-damaged",
                             hint="take another one: clusterctl etcd snapshot save") from None
    uid = UID.search(content.values.get(NAMESPACE, b""))
    why = _foreign(content.values, pki)
    return Origin(uid=uid[0].decode() if uid else "", ours=not why, why=why, revision=content.revision, keys=content.keys)


def _foreign(values: dict[bytes, bytes], pki: Pki) -> str:
    """Why this is another cluster's data; empty where it is this one's."""
    value = values.get(AUTHENTICATION) or values.get(ROOT)
    if value is None:
        return "it holds no data of a Kubernetes cluster"
    if value.startswith(PREFIX):
        return "" if opens(pki.encryption_key, value) else "its data is encrypted with another key than this cluster's"
    return "" if pki.authorities["kubernetes"].pem.strip() in value else "it has another certificate authority than this cluster"
