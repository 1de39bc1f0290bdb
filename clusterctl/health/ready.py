"""Waiting until nodes are Ready."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from clusterctl.cluster.model import Host
from clusterctl.health import checks
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import ApiError
from clusterctl.session.session import Session

NO_NETWORK = "NetworkPluginNotReady"
"""The text of a kubelet's condition Ready while the node has no CNI configuration (pkg/kubelet/runtime.go)."""


def wait_nodes(session: Session, hosts: Sequence[Host], *, deadline: float, expected: Mapping[str, str] | None = None,
               network: bool = True) -> None:
    """Wait until all these nodes are Ready. Raises Stopped with what was last seen of each that is not.

    ``network``: False where nodes may lack nothing but their pod network, which clusterctl does not install.
    ``expected``: see ``checks.node``.
    """

    def look() -> str:
        try:
            nodes = session.ready_api().nodes()
        except ApiError as error:
            return str(error)
        late = {host.name: checks.node(nodes.get(host.name), expected=expected) for host in hosts}
        return "; ".join(f"{name} {wrong}" for name, wrong in late.items() if wrong and (network or NO_NETWORK not in wrong))

    wait_for(look, what=f"nodes {', '.join(host.name for host in hosts)} Ready", deadline=deadline)
