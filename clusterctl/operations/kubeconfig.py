"""``kubeconfig``: the administrator's way into the cluster, with a certificate that does not live long."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from clusterctl.components.control_plane import ADMINISTRATORS
from clusterctl.errors import InputError, Refused
from clusterctl.operations.base import Session
from clusterctl.pki import CertificateSpec
from clusterctl.storage import write_whole


def make(session: Session, *, days: int = 1) -> dict[str, Any]:
    """A kubeconfig with a new certificate for ``days``. Raises Refused where the cluster's keys are not here."""
    if session.pki_is_new:
        raise Refused("there is no cluster yet: its keys are not here", where=str(session.state.path), hint="clusterctl apply")
    name = session.cluster.name
    authority = session.pki.authorities["kubernetes"]
    certificate, key = authority.issue(
        CertificateSpec(
            authority="kubernetes", common_name="kubernetes-admin", organizations=(ADMINISTRATORS,), client=True, days=days
        )
    )
    endpoint = session.cluster.endpoint
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "preferences": {},
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": f"https://{endpoint.address}:{endpoint.port}",
                    "certificate-authority-data": _base64(authority.pem),
                },
            }
        ],
        "users": [
            {"name": f"{name}-admin", "user": {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}}
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-admin"}}],
    }


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def write(config: Mapping[str, Any], path: Path) -> None:
    """Write it to a file, 0600 from its first byte."""
    write_whole(path, yaml.safe_dump(dict(config), sort_keys=False).encode())


def merge(config: Mapping[str, Any], path: Path) -> None:
    """Put its entries into an existing file in place of those of the same names; the rest stays. Raises InputError."""
    found: dict[str, Any] = {}
    if path.exists():
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(
                f"is not YAML: {error}", where=str(path), hint="mend it, or write to another file with --output"
            ) from None
        if not isinstance(found, dict):
            raise InputError("is not a kubeconfig", where=str(path), hint="write to another file with --output")
    for kind in ("clusters", "users", "contexts"):
        ours = {entry["name"] for entry in config[kind]}
        found[kind] = [entry for entry in found.get(kind) or [] if entry.get("name") not in ours] + list(config[kind])
    write({**config, **found, "current-context": config["current-context"]}, path)
