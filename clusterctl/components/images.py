"""Images that are sent to nodes, and which versions of images are in use."""

from __future__ import annotations

from clusterctl.artifacts.catalog import IMAGES
from clusterctl.components.base import Component, Context, nodes
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import Image
from clusterctl.resources.file import File


def notes(**named: str) -> list[Resource]:
    """Which versions of images are in use stands on the machine: no link says it, as one does of a program."""
    return [File(path=f"/etc/clusterctl/images/{name}", content=f"{name}/{version}/image\n".encode())
            for name, version in named.items()]


def images(context: Context, **named: str) -> list[Resource]:
    """The images that a mirror holds, by name and version; the others containerd pulls by itself.

    An archive names its image as upstream does: with another registry containerd pulls all of them.
    """
    found: list[Resource] = []
    if context.cluster.settings.image_registry:
        return found
    for name, version in named.items():
        archive = context.catalog.image(name, version, context.facts.arch)
        if archive is not None:
            found.append(Image(reference=IMAGES[name].format(version=version), source=archive))
    return found


def _addons(context: Context) -> dict[str, str]:
    versions, addons = context.cluster.versions, context.cluster.settings.addons
    named = {"coredns": versions.coredns} if addons.coredns else {}
    return {**named, **({"metrics-server": versions.metrics_server} if addons.metrics_server else {})}


ADDON_IMAGES = Component(name="addon-images", on=nodes, resources=lambda context: images(context, **_addons(context)))
"""The images of what runs in the cluster: sent when the nodes are Ready, as nothing waits for them before."""

ADDON_VERSIONS = Component(name="addon-versions", on=nodes, resources=lambda context: notes(**_addons(context)))
"""What is about to run in the cluster, noted when nothing else is left to be done on the machine."""
