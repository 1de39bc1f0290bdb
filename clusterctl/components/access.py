"""Files by which machines reach the outside: the environment of a proxy, and containerd's registries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from clusterctl.cluster.access_settings import PROXY, Proxy, Reference, Registry
from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.render import render
from clusterctl.errors import InputError
from clusterctl.inventory.secrets import reveal
from clusterctl.resources.additions import AddedFile

PROXY_FILE = "/etc/clusterctl/proxy.env"
CERTIFICATES = "/etc/containerd/certs.d"
CREDENTIALS = "/etc/containerd/conf.d/clusterctl-registries.toml"
_DOCKER = "docker.io"


def proxy_environment(cluster: Cluster, host: Host) -> bytes:
    """Return the environment of programs that use the host's proxy, for sh and systemd; empty where there is none.

    Raises InputError for a secret that is not given.
    """
    return _environment(cluster, host, *(str(one.address) for one in cluster.hosts))


def proxy_digest(cluster: Cluster, host: Host) -> str:
    """Return what a program depends on that reads the environment at its start; empty without a proxy.

    Machines that join or leave change no digest, as they should restart nothing: they are not asked for images.
    """
    content = _environment(cluster, host)
    return hashlib.sha256(content).hexdigest() if content else ""


def _environment(cluster: Cluster, host: Host, *machines: str) -> bytes:
    proxy, base = host.settings.proxy, cluster.base
    urls = {"http_proxy": _url(proxy.http, base), "https_proxy": _url(proxy.https, base)}
    if not any(urls.values()):
        return b""
    network = cluster.network
    endpoint = (str(cluster.endpoint.address),) if cluster.control_planes else ()
    direct = ("localhost", "127.0.0.0/8", "127.0.0.1", *machines, str(network.pods), str(network.services), f".{network.domain}",
              network.domain, ".svc", *endpoint, *proxy.no_proxy)
    values = {**{name: url for name, url in urls.items() if url}, "no_proxy": ",".join(dict.fromkeys(direct))}
    return "".join(f"{spelt}='{value}'\n" for name, value in values.items() for spelt in (name, name.upper())).encode()


def _url(value: str | Reference | None, base: Path) -> str:
    if not isinstance(value, Reference):
        return value or ""
    found = reveal(value, base)
    if not PROXY.fullmatch(found):
        raise InputError("is not the URL of a proxy, or holds characters that must be percent-encoded", where="cluster.proxy",
                         hint="write it as http://USER:PASSWORD@proxy.example:3128", code="inventory.proxy-url")
    return found


def proxy_file(cluster: Cluster, host: Host) -> Iterator[AddedFile]:
    """Yield the environment as a file, where the host has a proxy."""
    if content := proxy_environment(cluster, host):
        yield AddedFile(path=PROXY_FILE, content=content, mode="600", sensitive=_has_secret(host.settings.proxy))


def _has_secret(proxy: Proxy) -> bool:
    return any(isinstance(one, Reference) for one in (proxy.http, proxy.https))


def registry_files(cluster: Cluster, host: Host) -> Iterator[AddedFile]:
    """Yield what containerd reads of registries: hosts.toml and certificates at each pull, credentials at its start."""
    registries = host.settings.registries
    for name, registry in registries.items():
        yield from _hosts_file(name, registry, cluster.base)
    logins = [_login(name, one, cluster.base) for name, one in registries.items() if one.password is not None]
    if logins:
        yield AddedFile(path=CREDENTIALS, content="\n".join(("version = 3", *logins, "")).encode(), mode="600", sensitive=True)


def _hosts_file(name: str, registry: Registry, base: Path) -> Iterator[AddedFile]:
    folder, mirrors = f"{CERTIFICATES}/{name}", []
    for number, mirror in enumerate(registry.mirrors):
        files = dict.fromkeys(("ca", "client_cert", "client_key"), "")
        for kind in files:
            if (source := getattr(mirror, kind)) is not None:
                files[kind] = f"{folder}/mirror-{number}-{kind}.pem"
                yield _pem(files[kind], source, base, secret=kind == "client_key")
        mirrors.append({"url": mirror.url, "override_path": mirror.override_path, "skip_verify": mirror.skip_verify, **files})
    ca = ""
    if registry.ca is not None:
        ca = f"{folder}/ca.pem"
        yield _pem(ca, registry.ca, base)
    if mirrors or ca or registry.skip_verify:
        yield AddedFile(path=f"{folder}/hosts.toml", content=render(
            "containerd/hosts.toml.j2", mirrors=mirrors, ca=ca, skip_verify=registry.skip_verify))


def _pem(path: str, source: str, base: Path, *, secret: bool = False) -> AddedFile:
    found = base / Path(source).expanduser()
    try:
        content = found.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(found), code="inventory.file-unreadable",
                         hint="it is named by cluster.registries") from None
    if b"-----BEGIN " not in content:
        raise InputError("is not PEM", where=str(found), code="inventory.not-pem")
    return AddedFile(path=path, content=content, mode="600" if secret else "644", sensitive=secret)


def _login(name: str, registry: Registry, base: Path) -> str:
    """Return a section of containerd's configuration. What it asks at docker.io is called otherwise."""
    assert registry.password is not None
    host = "registry-1.docker.io" if name == _DOCKER else name
    words = [json.dumps(word, ensure_ascii=False).replace("\x7f", "\\u007f")
             for word in (host, registry.username, reveal(registry.password, base))]
    return ("[plugins.'io.containerd.cri.v1.images'.registry.configs.{}.auth]\nusername = {}\npassword = {}".format(*words))
