"""haproxy on workers: the way to all API servers, on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from clusterctl.components.base import Component, Context, workers_only
from clusterctl.components.common import PKI, ids, unit
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.resources.service import Service


def _api_proxy(context: Context) -> Sequence[Resource]:
    servers = [(host.name, str(host.address)) for host in context.cluster.control_planes]
    content = render("api-proxy/haproxy.cfg.j2", servers=servers, port=context.cluster.api_port)
    config = File(path="/etc/clusterctl/haproxy.cfg", content=content)
    service = unit("api-proxy", "api-proxy/api-proxy.service.j2")
    return [
        config,
        service,
        Service(
            unit="api-proxy.service",
            inputs=(f"file:{PKI}/ca.crt", *ids(config, service)),
            ready=("tcp_open", "127.0.0.1", str(context.cluster.api_port)),
            deadline=30,
        ),
    ]


API_PROXY = Component(name="api-proxy", on=workers_only, resources=_api_proxy)
