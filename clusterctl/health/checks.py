"""Checks of what serves on one machine. Each returns what is wrong, or an empty string."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from clusterctl.cluster.model import Cluster, Host
from clusterctl.errors import Unreachable
from clusterctl.health.wait import wait_for
from clusterctl.kube.client import Api, ApiError, Object, node_problem
from clusterctl.session.session import Session

Check = Callable[[Session, Host], str]

LEASES = ("kube-controller-manager", "kube-scheduler")
"""The leases of kube-system by which the daemons of these names elect their leaders."""


def etcd(session: Session, host: Host) -> str:
    """Check that the machine's etcd member serves a read that a majority agrees to."""
    try:
        session.etcd(host).answers()
    except (ApiError, Unreachable) as error:
        return str(error).partition("\n")[0]
    return ""


def api_server(session: Session, host: Host) -> str:
    """Check that the machine's API server is ready."""
    try:
        return "" if session.api(host).ready() else "is not ready"
    except Unreachable as error:
        return error.message


CONTROL_PLANE: Mapping[str, tuple[Check, Callable[[Cluster], Iterable[Host]]]] = {
    "etcd": (etcd, lambda cluster: cluster.etcd_members),
    "the API": (api_server, lambda cluster: cluster.control_planes),
}
"""The checks of the control plane by name, each with the machines that it applies to."""


def failing(session: Session, name: str, hosts: Iterable[Host]) -> str:
    """Run the check ``name`` of CONTROL_PLANE on hosts and return the failures of all of them in one line."""
    check, _ = CONTROL_PLANE[name]
    found = ((host.name, check(session, host)) for host in hosts)
    return "; ".join(f"{name} on {host}: {wrong}" for host, wrong in found if wrong)


def await_passing(session: Session, name: str, hosts: Sequence[Host], *, deadline: float) -> None:
    """Wait until the check ``name`` passes on all hosts; ``deadline``: seconds. Raises Stopped."""
    what = f"{name} on {', '.join(host.name for host in hosts)}"
    if hosts:
        wait_for(lambda: failing(session, name, hosts), what=what, deadline=deadline)


def others(session: Session, host: Host) -> str:
    """Check every etcd member and API server of the cluster but this machine's."""
    found = (failing(session, name, [one for one in hosts(session.cluster) if one.name != host.name])
             for name, (_, hosts) in CONTROL_PLANE.items())
    return "; ".join(filter(None, found))


def node(found: Object | None, boot_id: str = "", expected: Mapping[str, str] | None = None) -> str:
    """Check that a Node is Ready as of the current boot and versions of its machine.

    A Node stays Ready for about 40 s after its kubelet has stopped: a reboot or an upgrade counts only once the kubelet has
    reported it. ``boot_id``: the machine's; ``expected``: prefixes of further fields of ``status.nodeInfo``.
    """
    wrong = node_problem(found)
    if found is None or wrong:
        return wrong
    info = found["status"].get("nodeInfo", {})
    if boot_id and info.get("bootID", "") != boot_id:
        return f"is Ready as of boot {info.get('bootID', '')}, and the machine is in boot {boot_id}"
    for key, value in (expected or {}).items():
        # A build may add to its version, and containerd's may begin with a v.
        reported = str(info[key]).replace("://v", "://")
        if not reported.startswith(value):
            return f"its {key} is still {reported}"
    return ""


def renewals(api: Api) -> dict[str, str]:
    """Return the time of the last renewal of each lease in LEASES, as its holder recorded it. Raises ApiError."""
    path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    leases = {lease["metadata"]["name"]: lease["spec"] for lease in api.look(path)["items"]}
    return {name: str(leases[name].get("renewTime", "")) for name in LEASES if name in leases}
