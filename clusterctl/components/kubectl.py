"""kubectl on control planes, with the administrator's credentials."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.components.apiserver import ADMINISTRATORS
from clusterctl.components.base import Context, Product, control_planes
from clusterctl.components.common import ETC, PKI, binary, issued, kubeconfig, kubernetes, links
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import ROOT
from clusterctl.resources.file import Link
from clusterctl.shell.footprint import Footprint

RELEASE = kubernetes("kubectl")
LINK = "/usr/local/bin/kubectl"


def _kubectl(context: Context) -> Sequence[Resource]:
    admin = issued(context, f"{PKI}/admin", "kubernetes-admin", organizations=(ADMINISTRATORS,), client=True)
    program = binary(context, RELEASE)
    return [
        admin,
        kubeconfig(context, f"{ETC}/admin.conf", "kubernetes-admin", admin.path),
        *links(program, "kubectl"),
        Link(path=LINK, target=f"{ROOT}/bin/kubectl"),
    ]


KUBECTL = Product(name="kubectl", on=control_planes, slot="control-plane", resources=_kubectl, releases=(RELEASE,),
                  footprint=Footprint(configuration=(LINK,)))
