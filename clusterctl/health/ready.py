"""Waiting until nodes are Ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from clusterctl.cluster.model import Host
from clusterctl.kube.client import ApiError, Object, node_ready, wait_for
from clusterctl.session.session import Session

NO_NETWORK = "NetworkPluginNotReady"
"""What a kubelet's condition Ready says while the node has no CNI configuration (pkg/kubelet/runtime.go)."""


def wait_nodes(session: Session, hosts: Sequence[Host], *, deadline: float,
               said: Mapping[str, str] = MappingProxyType({}), network: bool = True) -> None:
    """Wait until all these nodes are Ready. Raises Stopped with what was last seen of each that is not.

    ``network``: False where nodes may lack nothing but their pod network, which somebody else installs.
    ``said``: what their kubelets must say in ``nodeInfo``: a node that was Ready before is so for a while.
    """

    def look() -> str:
        try:
            nodes = session.ready_api(deadline=10).nodes()
        except ApiError as error:
            return str(error)
        late = {host.name: state for host in hosts if (state := _late(nodes.get(host.name), said)) != "True"
                and (network or NO_NETWORK not in state)}
        return "; ".join(f"{name} {state}" for name, state in late.items()) or "True"

    wait_for(look, what=f"nodes {', '.join(host.name for host in hosts)} Ready", deadline=deadline)


def _late(node: Object | None, said: Mapping[str, str]) -> str:
    state = node_ready(node)
    if state == "True" and node is not None:
        # A build may add to its version, and containerd's may begin with a v.
        info = {key: str(node["status"]["nodeInfo"][key]).replace("://v", "://") for key in said}
        return next((f"its {key} is {info[key]} still" for key, value in said.items() if not info[key].startswith(value)), "True")
    return state
