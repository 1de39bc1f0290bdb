"""Health inside the cluster: objects, pods of kube-system, certificate requests, CoreDNS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from clusterctl.errors import ClusterctlError
from clusterctl.health import dns
from clusterctl.kube import api_objects
from clusterctl.kube.client import Api, ApiError, Object, ObjectChange
from clusterctl.session.session import Session
from clusterctl.shell.facts import Facts

NOT_READY_SECONDS = 60
"""How long a pod of kube-system may be not ready until that is a problem: pods come and go."""


def problems(session: Session, facts: Mapping[str, Facts]) -> Iterator[str]:
    """Yield a line for each problem, with the command that mends it; nothing where no API server answers."""
    api = session.any_api([host for host in session.cluster.control_planes if host.name in facts])
    if api is None:
        return
    try:
        changes = api_objects.look(session, facts).objects
        yield from _objects(changes)
        yield from _pods(api)
        yield from _requests(api)
    except (ApiError, ClusterctlError) as error:
        yield f"the API's objects cannot be compared: {error.message if isinstance(error, ClusterctlError) else error}"
        return
    if session.cluster.settings.addons.coredns and not changes:
        nodes = [host for host in session.cluster.nodes if host.name in facts]
        if why := dns.problem(session, nodes):
            yield f"{why}: kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide"


def _objects(changes: Iterable[ObjectChange]) -> Iterator[str]:
    for change in changes:
        differs = f"differs ({', '.join(change.fields)})"
        what = {"create": "is missing", "remove": "has left the inventory"}.get(change.action, differs)
        yield f"{change.id} {what}: clusterctl apply"


def _pods(api: Api) -> Iterator[str]:
    for pod in api.look("/api/v1/namespaces/kube-system/pods")["items"]:
        if why := late_pod(pod, datetime.now(UTC)):
            name = pod["metadata"]["name"]
            yield f"pod kube-system/{name} is not ready: {why}: kubectl -n kube-system describe pod {name}"


def _requests(api: Api) -> Iterator[str]:
    for request in api.look("/apis/certificates.k8s.io/v1/certificatesigningrequests")["items"]:
        if not request.get("status", {}).get("conditions"):
            name = request["metadata"]["name"]
            yield f"CSR {name} of {request['spec'].get('username')} is pending: kubectl certificate approve {name}, or deny"


def late_pod(pod: Object, now: datetime) -> str:
    """Return why a pod that should serve is not ready, empty where it is, or is so for less than a minute."""
    if pod["metadata"].get("deletionTimestamp") or pod["status"].get("phase") == "Succeeded":
        return ""
    ready = next((one for one in pod["status"].get("conditions", ()) if one["type"] == "Ready"), None)
    if ready is not None and ready["status"] == "True":
        return ""
    since = (ready or {}).get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]
    seconds = (now - datetime.fromisoformat(since)).total_seconds()
    waiting = [state["waiting"].get("reason", "") for one in pod["status"].get("containerStatuses", ())
               for state in [one.get("state", {})] if "waiting" in state]
    why = ", ".join(filter(None, waiting)) or (ready or {}).get("message") or pod["status"].get("phase", "")
    return f"{why} for {seconds:.0f} s" if seconds >= NOT_READY_SECONDS else ""
