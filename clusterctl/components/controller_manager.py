"""kube-controller-manager."""

from __future__ import annotations

from clusterctl.components.base import Context
from clusterctl.components.common import CIPHERS, ETC, PKI, with_extra
from clusterctl.components.elected import controller, elected, patient_election
from clusterctl.resources.base import Resource

PORT = 10257


def arguments(context: Context) -> dict[str, object]:
    """Return its flags, with the user's."""
    cluster, network, conf = context.cluster, context.cluster.network, f"{ETC}/controller-manager.conf"
    return with_extra(
        {
            "kubeconfig": conf,
            "authentication-kubeconfig": conf,
            "authorization-kubeconfig": conf,
            "client-ca-file": f"{PKI}/ca.crt",
            "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
            "root-ca-file": f"{PKI}/ca.crt",
            "cluster-signing-cert-file": f"{PKI}/ca.crt",
            "cluster-signing-key-file": f"{PKI}/ca.key",
            "cluster-signing-duration": "8760h",
            "service-account-private-key-file": f"{PKI}/sa.key",
            "use-service-account-credentials": "true",
            "leader-elect": "true",
            **{f"leader-elect-{name}": value for name, value in patient_election(cluster).items()},
            "bind-address": "127.0.0.1",
            "profiling": "false",
            "terminated-pod-gc-threshold": 1000,
            "tls-cert-file": f"{PKI}/controller-manager-server.crt",
            "tls-private-key-file": f"{PKI}/controller-manager-server.key",
            "tls-min-version": "VersionTLS12",
            "tls-cipher-suites": ",".join(CIPHERS),
            "allocate-node-cidrs": "true",
            "cluster-cidr": network.pods,
            "node-cidr-mask-size": network.node_mask,
            "service-cluster-ip-range": network.services,
            "cluster-name": cluster.name,
            "configure-cloud-routes": "false",
            # A new leader asks some hundred things before its controllers run: at 20 a second, the default, 4 s long.
            "kube-api-qps": 150,
            "kube-api-burst": 300,
        },
        cluster.settings.controller_manager.extra_args,
    )


def resources(context: Context) -> list[Resource]:
    """Return kube-controller-manager's own resources."""
    keys = (f"file:{PKI}/ca.key", f"file:{PKI}/sa.key")
    return controller(context, "kube-controller-manager", "controller-manager", PORT, arguments(context), inputs=keys)


CONTROLLER_MANAGER = elected("kube-controller-manager", PORT, resources)
