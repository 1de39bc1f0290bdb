"""haproxy on workers: the way to all API servers, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context, Port, Product, workers_only
from clusterctl.components.common import PKI, ids, unit
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.resources.service import Service
from clusterctl.shell.footprint import Footprint


def _api_proxy(context: Context) -> Sequence[Resource]:
    servers = [(host.name, str(host.address)) for host in context.cluster.control_planes]
    content = render("api-proxy/haproxy.cfg.j2", servers=servers, port=context.cluster.api_port)
    config = File(path="/etc/clusterctl/haproxy.cfg", content=content)
    service = unit("api-proxy", "api-proxy/api-proxy.service.j2")
    ready = ("tcp_open", "127.0.0.1", str(context.cluster.api_port))
    inputs = (f"file:{PKI}/ca.crt", *ids(config, service))
    return [config, service, Service(unit="api-proxy.service", inputs=inputs, ready=ready, deadline=30)]


def _ports(cluster: Cluster) -> Iterator[Port]:
    yield Port("tcp", cluster.api_port, tuple(host for host in cluster.hosts if workers_only(host)))


API_PROXY = Product(
    name="api-proxy", on=workers_only, slot="nodes", resources=_api_proxy, packages=("haproxy",), ports=_ports,
    footprint=Footprint(
        units=("api-proxy.service",),
        # Its package leaves them until the next boot.
        packaged_paths=("haproxy=/run/haproxy", "haproxy=/run/adduser"), packaged_users=("haproxy=haproxy",),
    ),
)
