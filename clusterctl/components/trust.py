"""The certificate of the cluster's authority, which everything on a node trusts."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.components.base import Component, Context, nodes
from clusterctl.components.common import ETC, PKI, ca_file
from clusterctl.resources.base import Resource
from clusterctl.resources.file import Folder


def _trust(context: Context) -> Sequence[Resource]:
    return [Folder(path=ETC), Folder(path=PKI), ca_file(context, "kubernetes", f"{PKI}/ca.crt")]


TRUST = Component(name="trust", on=nodes, resources=_trust)
