"""Common parts of the controller manager and the scheduler, which elect a leader."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context, Port, Product, control_planes
from clusterctl.components.common import ETC, PKI, daemon, issued, kubeconfig, kubernetes
from clusterctl.resources.base import Resource
from clusterctl.shell.footprint import Footprint


def patient_election(cluster: Cluster) -> dict[str, str]:
    """Return the timings of the leader election where there is one control plane: nothing else could lead.

    A controller manager ends when it cannot renew its lease in time, 10 s by default, and on a slow machine it would end over and
    over again (client-go, leaderelection.go: a renewal may take half of the deadline). A new one waits until the lease ends.
    """
    if len(cluster.control_planes) > 1:
        return {}
    return {"lease-duration": "30s", "renew-deadline": "25s", "retry-period": "3s"}


def controller(context: Context, name: str, short: str, port: int, arguments: dict[str, object], *more: Resource,
               inputs: Sequence[str] = ()) -> list[Resource]:
    """Return a kubeconfig, a serving certificate and a unit. ``short``: the name of its files; ``more``: its further resources.

    ``inputs``: files of others that it reads.
    """
    client = issued(context, f"{PKI}/{short}", f"system:{name}", client=True)
    server = issued(
        context, f"{PKI}/{short}-server", name, dns=("localhost", context.host.name), addresses=("127.0.0.1",), server=True
    )
    conf = kubeconfig(context, f"{ETC}/{short}.conf", f"system:{name}", client.path)
    authorities = (f"file:{PKI}/ca.crt", f"file:{PKI}/front-proxy-ca.crt")
    return daemon(context, kubernetes(name), client, server, conf, *more, inputs=(*inputs, *authorities),
                  ready=("tcp_open", "127.0.0.1", str(port)), arguments=arguments)


def elected(name: str, port: int, resources: Callable[[Context], Sequence[Resource]]) -> Product:
    """Return the product of one of these programs. ``port``: for the machine itself alone."""
    return Product(name=name, on=control_planes, slot="control-plane", resources=resources, releases=(kubernetes(name),),
                   ports=lambda cluster: (Port("tcp", port, cluster.control_planes),),
                   footprint=Footprint(units=(f"{name}.service",)))
