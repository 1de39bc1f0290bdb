"""Images that are sent to nodes, and which versions of images are in use."""

from __future__ import annotations

from clusterctl.artifacts.catalog import ContainerImage
from clusterctl.components.base import Context
from clusterctl.components.common import release_version
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import Image
from clusterctl.resources.file import File


def notes(context: Context, *used: ContainerImage) -> list[Resource]:
    """Which versions of images are in use stands on the machine: no link says it, as one does of a program."""
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
