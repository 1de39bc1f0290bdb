"""kube-scheduler."""

from __future__ import annotations

from clusterctl.components.base import Context
from clusterctl.components.common import CIPHERS, ETC, PKI, with_extra
from clusterctl.components.elected import controller, elected, patient_election
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File

PORT = 10259


def arguments(context: Context) -> dict[str, object]:
    """Return its flags, with the user's."""
    conf = f"{ETC}/scheduler.conf"
    return with_extra(
        {
            "config": f"{ETC}/scheduler.yaml",
            "authentication-kubeconfig": conf,
            "authorization-kubeconfig": conf,
            "bind-address": "127.0.0.1",
            "profiling": "false",
            "client-ca-file": f"{PKI}/ca.crt",
            "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
            "tls-cert-file": f"{PKI}/scheduler-server.crt",
            "tls-private-key-file": f"{PKI}/scheduler-server.key",
            "tls-min-version": "VersionTLS12",
            "tls-cipher-suites": ",".join(CIPHERS),
        },
        context.cluster.settings.scheduler.extra_args,
    )


def resources(context: Context) -> list[Resource]:
    """Return kube-scheduler's own resources."""
    content = render("kube-scheduler/config.yaml.j2", election=patient_election(context.cluster))
    config = File(path=f"{ETC}/scheduler.yaml", content=content, mode="600")
    return controller(context, "kube-scheduler", "scheduler", PORT, arguments(context), config)


SCHEDULER = elected("kube-scheduler", PORT, resources)
