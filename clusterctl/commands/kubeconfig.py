"""``kubeconfig``: the administrator's way into the cluster, with a certificate that does not live long."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from clusterctl.components.apiserver import ADMINISTRATORS
from clusterctl.errors import InputError, Locked, Refused
from clusterctl.local.storage import user_home, write_whole
from clusterctl.pki import CertificateSpec
from clusterctl.session.session import Session

PATIENCE = 5.0
"""Seconds that another writer of the file is waited for."""


def users_own() -> Path:
    """The file that kubectl reads. Raises InputError."""
    chosen = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    return Path(chosen) if chosen else user_home() / ".kube/config"


def make(session: Session, *, days: int = 1, server: str | None = None) -> dict[str, Any]:
    """Return a kubeconfig with a new certificate for ``days``; ``server``: another name of the API than the endpoint's address.

    Raises Refused where the cluster's keys are not here, InputError for a server that the API's certificates do not hold.
    """
    if session.pki_is_new:
        raise Refused("there is no cluster yet: its keys are not here", where=str(session.state.path),
                      code="cluster.not-bootstrapped", hint="clusterctl apply")
    name = session.cluster.name
    authority = session.pki.authorities["kubernetes"]
    certificate, key = authority.issue(
        CertificateSpec(
            authority="kubernetes", common_name="kubernetes-admin", organizations=(ADMINISTRATORS,), client=True, days=days
        )
    )
    endpoint = session.cluster.endpoint
    planes = (host.address for host in session.cluster.control_planes)
    names = [str(name) for name in (endpoint.address, *endpoint.names, *planes)]
    if server is not None and server not in names:
        raise InputError(f"the API's certificates do not hold the name {server!r}", where="--server",
                         code="kubeconfig.unknown-server", hint=f"names: {', '.join(names)}; cluster.endpoint.names adds others")
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "preferences": {},
        "clusters": [
            {
                "name": name,
                "cluster": {
                    "server": f"https://{server or endpoint.address}:{endpoint.port}",
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


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[Path]:
    """The file that a name stands for: a link stays one. Raises InputError for what cannot be read or written."""
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise InputError("is not a regular file", where=str(path), hint="name a file", code="kubeconfig.not-a-file")
        yield target
    except OSError as error:
        raise InputError(f"cannot be used: {error.strerror}", where=str(path), code="kubeconfig.unusable",
                         hint="name another file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"is no kubeconfig: {error}", where=str(path), code="kubeconfig.malformed",
                         hint="correct it, or name another file") from None


def write(config: Mapping[str, Any], path: Path) -> None:
    """Write it to a file, 0600 from its first byte. Raises InputError."""
    with _writable(path) as target:
        if not target.parent.is_dir():
            raise InputError("its folder does not exist", where=str(path), code="kubeconfig.no-folder",
                             hint=f"mkdir -p {path.parent}")
        write_whole(target, _dump(config))


def merge(config: Mapping[str, Any], path: Path) -> None:
    """Put its entries into a file in place of those of the same names; the rest stays. Raises InputError, Locked."""
    with _writable(path) as target:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(Path(f"{path}.lock")):
            found = yaml.safe_load(target.read_text(encoding="utf-8")) if target.exists() else None
            write_whole(target, _dump(_merged(config, {} if found is None else found)))


def _dump(config: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(config), sort_keys=False).encode()


def _merged(config: Mapping[str, Any], found: object) -> dict[str, Any]:
    """Raises ValueError for what kubectl did not write."""
    if not isinstance(found, dict):
        raise ValueError("it is no mapping")
    merged = {**config, **found, "current-context": config["current-context"]}
    for kind in ("clusters", "users", "contexts"):
        ours, theirs = config[kind], found.get(kind) or []
        if not isinstance(theirs, list) or not all(isinstance(entry, dict) for entry in theirs):
            raise ValueError(f"its {kind} are no list of mappings")
        names = [entry["name"] for entry in ours]
        merged[kind] = [entry for entry in theirs if entry.get("name") not in names] + ours
    return merged


@contextlib.contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold the lock that kubectl takes, too. Raises Locked, OSError."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > end:
                raise Locked("another process writes this kubeconfig", where=str(lock),
                             hint=f"wait until it is done; where none does, rm {lock}", code="kubeconfig.locked") from None
        time.sleep(0.1)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
