"""The programs of every product, put on machines before anything is touched that runs, and the images of addons."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.artifacts.catalog import ContainerImage
from clusterctl.components.base import Component, Context, everywhere, nodes
from clusterctl.components.common import binary, images, notes
from clusterctl.components.products import enabled
from clusterctl.resources.base import Resource


def _programs(context: Context) -> Sequence[Resource]:
    products = [product for product in enabled(context.cluster) if product.on(context.host)]
    return [binary(context, release) for product in products for release in product.releases]


def _addons(context: Context) -> list[ContainerImage]:
    """Return the images of products that have nothing else on machines."""
    return [image for product in enabled(context.cluster) if product.slot is None for image in product.images]


PROGRAMS = Component(name="programs", on=everywhere, resources=_programs)

ADDON_IMAGES = Component(name="addon-images", on=nodes, resources=lambda context: images(context, *_addons(context)))
"""The images of what runs in the cluster: sent when the nodes are Ready, as nothing waits for them before."""

ADDON_VERSIONS = Component(name="addon-versions", on=nodes, resources=lambda context: notes(context, *_addons(context)))
"""Records the versions of add-ons, after all other changes of the machine."""
