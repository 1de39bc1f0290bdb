"""Parts that several components share: the installation of a product, kubeconfigs, kinds of certificates."""

from __future__ import annotations

from collections.abc import Mapping

from clusterctl.artifacts.catalog import ContainerImage, Release
from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context
from clusterctl.components.render import render
from clusterctl.pki import AuthorityName, CertificateSpec
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import ROOT, Binary, Image
from clusterctl.resources.certificate import Certificate
from clusterctl.resources.file import File, Link
from clusterctl.resources.service import Service
from clusterctl.shell import Call

ETC = "/etc/kubernetes"
PKI = f"{ETC}/pki"

NODE_IDENTITIES = ("system:node", "flannel", "kube-proxy")
"""The prefixes of the API users that a node's programs have, each followed by ``:`` and the name of the node.

One user per program and node, so that admission can limit a program to its own Node and removal of a node covers all of them.
"""

CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
)
"""Cipher suites that CIS 1.2.29 and 4.2.12 accept, without those of TLS 1.3, which Go does not make configurable."""


def kubernetes(name: str) -> Release:
    """A program of Kubernetes' own releases."""
    return Release(name, "kubernetes", f"dl.k8s.io/release/v{{version}}/bin/linux/{{arch}}/{name}")


def binary(context: Context, release: Release) -> Binary:
    """The bytes of a release in the cluster's version; putting them there disturbs nothing."""
    version = release_version(context.cluster, release)
    artifact = context.catalog.artifact(release, version, context.facts.arch)
    return Binary(name=release.name, version=version, source=artifact, members=artifact.members)


def release_version(cluster: Cluster, of: Release | ContainerImage) -> str:
    """Return the cluster's version of a program or an image."""
    return str(getattr(cluster.versions, of.field))


def links(program: Binary, *names: str) -> list[Resource]:
    """/opt/clusterctl/bin/NAME for each name, switched to this version."""
    return [Link(path=f"{ROOT}/bin/{name}", target=f"../{program.name}/{program.version}/{name}") for name in names]


def daemon(context: Context, release: Release, *read: Resource, name: str = "", inputs: tuple[str, ...] = (f"file:{PKI}/ca.crt",),
           ready: Call = (), deadline: int = 60, **values: object) -> list[Resource]:
    """Return what a program reads, the link to it, its unit and its service. ``name``: of program and unit, if not the release's.

    ``inputs``: the ids of other resources that it reads; ``values``: those of the unit's template.
    """
    name = name or release.name
    program = binary(context, release)
    switch = links(program, name)
    file = unit(name, f"{release.name}/{name}.service.j2", **values)
    uses = (*inputs, *ids(program, *read, *switch, file))
    return [*read, *switch, file, Service(unit=f"{name}.service", inputs=uses, ready=ready, deadline=deadline)]


def unit(name: str, template: str, **values: object) -> File:
    """A unit file; 0600 as CIS asks."""
    return File(path=f"/etc/systemd/system/{name}.service", content=render(template, **values), mode="600")


def issued(
    context: Context,
    path: str,
    common_name: str,
    *,
    authority: AuthorityName = "kubernetes",
    owner: str = "root:root",
    organizations: tuple[str, ...] = (),
    dns: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
    server: bool = False,
    client: bool = False,
) -> Certificate:
    """A certificate of the cluster's with the lifetime that its settings give."""
    spec = CertificateSpec(
        authority=authority,
        common_name=common_name,
        organizations=organizations,
        dns=dns,
        addresses=addresses,
        server=server,
        client=client,
        days=context.cluster.settings.certificate_days,
    )
    return Certificate(path=path, spec=spec, authority=context.pki.authorities[authority], owner=owner)


def kubeconfig(context: Context, path: str, user: str, certificate: str) -> File:
    """A kubeconfig of the API on this machine, its own or its proxy's.

    It names its certificate's files, which its reader loads anew when they change.
    """
    content = render(
        "kubeconfig/kubeconfig.j2",
        cluster=context.cluster.name,
        server=f"https://127.0.0.1:{context.cluster.api_port}",
        authority=f"{PKI}/ca.crt",
        user=user,
        certificate=f"{certificate}.crt",
        key=f"{certificate}.key",
    )
    return File(path=path, content=content, mode="600")


def ca_file(context: Context, authority: AuthorityName, path: str, owner: str = "root:root") -> File:
    """An authority's certificate, without its key."""
    return File(path=path, content=context.pki.authorities[authority].pem, owner=owner)


def node_user(program: str, node: str) -> str:
    """Return the API user of a program on a node, such as ``flannel:w-1``. ``program``: one of NODE_IDENTITIES."""
    assert program in NODE_IDENTITIES
    return f"{program}:{node}"


def with_extra(arguments: Mapping[str, object], extra: Mapping[str, str]) -> dict[str, object]:
    """A component's flags with the user's put in their place or added, in a stable order."""
    return {**arguments, **dict(sorted(extra.items()))}


def ids(*resources: Resource) -> tuple[str, ...]:
    return tuple(resource.id for resource in resources)


def notes(context: Context, *used: ContainerImage) -> list[Resource]:
    """Return the files that record which versions of images are in use; programs have links for that."""
    return [File(path=f"/etc/clusterctl/images/{one.name}",
                 content=f"{one.name}/{release_version(context.cluster, one)}/image\n".encode()) for one in used]


def images(context: Context, *used: ContainerImage) -> list[Resource]:
    """Those of the images that a mirror holds; the others containerd pulls by itself.

    An archive names its image as upstream does: with another registry containerd pulls all of them.
    """
    found: list[Resource] = []
    if context.cluster.settings.image_registry:
        return found
    for one in used:
        version = release_version(context.cluster, one)
        archive = context.catalog.image(one.name, version, context.facts.arch)
        if archive is not None:
            found.append(Image(reference=one.reference(version), source=archive))
    return found
