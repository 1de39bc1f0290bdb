"""A control plane: kube-apiserver, kube-controller-manager, kube-scheduler, and kubectl with an administrator's kubeconfig."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.components import apiserver, controller_manager, scheduler
from clusterctl.components.base import Component, Context, control_planes
from clusterctl.components.common import ETC, PKI, issued, kubeconfig, links, product
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import ROOT
from clusterctl.resources.file import Link


def _control_plane(context: Context) -> Sequence[Resource]:
    admin = issued(context, f"{PKI}/admin", "kubernetes-admin", organizations=(apiserver.ADMINISTRATORS,), client=True)
    kubectl = product(context, "kubectl", context.cluster.versions.kubernetes)
    return [
        *apiserver.keys(context),
        admin,
        kubeconfig(context, f"{ETC}/admin.conf", "kubernetes-admin", admin.path),
        *links(kubectl, "kubectl"),
        Link(path="/usr/local/bin/kubectl", target=f"{ROOT}/bin/kubectl"),
        *apiserver.resources(context),
        *controller_manager.resources(context),
        *scheduler.resources(context),
    ]


CONTROL_PLANE = Component(name="control-plane", on=control_planes, resources=_control_plane)
