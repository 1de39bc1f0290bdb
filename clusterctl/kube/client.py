"""The Kubernetes API, as far as clusterctl speaks it: objects wanted, nodes, health. The only user of ``kubernetes``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clusterctl.ssh.https import ApiError as ApiError
from clusterctl.ssh.https import Https, message_of, result

Object = Mapping[str, Any]
"""A Kubernetes object, as its YAML says it."""

MANAGER = "clusterctl"
MANAGED_BY = "app.kubernetes.io/managed-by"
"""The label, with MANAGER as its value, by which objects of ours are read together."""
ROLE_LABEL = "node-role.kubernetes.io/"
CORDONED_FOR = "clusterctl.dev/cordoned-for"
"""Annotation of a node that clusterctl cordoned, with the operation; one that a person cordoned has none, and stays cordoned."""
AT_ONCE = 3
"""Objects that are read at the same time."""

PLURALS: Mapping[tuple[str, str], tuple[str, bool]] = {
    ("v1", "ServiceAccount"): ("serviceaccounts", True),
    ("v1", "ConfigMap"): ("configmaps", True),
    ("v1", "Service"): ("services", True),
    ("v1", "Namespace"): ("namespaces", False),
    ("v1", "Node"): ("nodes", False),
    ("v1", "Secret"): ("secrets", True),
    ("apps/v1", "Deployment"): ("deployments", True),
    ("apps/v1", "DaemonSet"): ("daemonsets", True),
    ("apps/v1", "StatefulSet"): ("statefulsets", True),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): ("customresourcedefinitions", False),
    ("policy/v1", "PodDisruptionBudget"): ("poddisruptionbudgets", True),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"): ("clusterroles", False),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): ("clusterrolebindings", False),
    ("rbac.authorization.k8s.io/v1", "Role"): ("roles", True),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): ("rolebindings", True),
    ("apiregistration.k8s.io/v1", "APIService"): ("apiservices", False),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"): ("validatingadmissionpolicies", False),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"): ("validatingadmissionpolicybindings", False),
}
"""(apiVersion, kind) -> (name in paths, namespaced); other kinds are asked of the API."""


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """One object of the API that differs from its desired state. ``fields``: the paths that differ, none for a new one."""

    wanted: Object
    action: str
    fields: tuple[str, ...] = ()
    later: bool = False
    """Whether the API does not have its kind yet."""

    @property
    def id(self) -> str:
        return object_id(self.wanted)

    def as_dict(self) -> dict[str, object]:
        return {"object": self.id, "action": self.action, "fields": list(self.fields), "later": self.later}


class UnknownKind(ApiError):
    """The API has no such kind."""


def apply_order(item: Object) -> int:
    """Return the place of an object among others that are applied together: what the rest depends on comes first."""
    if item["kind"] == "Namespace":
        return 0
    if item["kind"] == "CustomResourceDefinition":
        return 1
    return 2 if item["kind"] == "ServiceAccount" or str(item["apiVersion"]).startswith(("rbac.", "admissionregistration.")) else 3


def not_established(definition: Object | None) -> str:
    """Return why the API does not serve the kinds of a CustomResourceDefinition yet; an empty string where it does."""
    if definition is None:
        return "is gone"
    conditions = definition.get("status", {}).get("conditions") or ()
    served = any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
    return "" if served else "is not established"


def object_id(item: Object) -> str:
    """``Kind namespace/name``."""
    meta = item["metadata"]
    return f"{item['kind']} {meta['namespace']}/{meta['name']}" if meta.get("namespace") else f"{item['kind']} {meta['name']}"


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """The paths where ``found`` lacks or contradicts ``wanted``; what only ``found`` has is the API's own business."""
    if isinstance(wanted, Mapping):
        if not isinstance(found, Mapping):
            return [path] if wanted or found is not None else []
        return [
            line
            for key, value in wanted.items()
            for line in differences(value, found.get(key), f"{path}.{key}" if path else str(key))
        ]
    if isinstance(wanted, list):
        # RBAC lists are owned as a whole; to other lists the API server and other clients may add items.
        whole = bool(wanted) and path in ("rules", "subjects")
        if not isinstance(found, list) or len(found) < len(wanted) or (whole and len(found) > len(wanted)):
            return [path] if wanted or found else []
        return [line for index, value in enumerate(wanted) for line in differences(value, found[index], f"{path}[{index}]")]
    return [] if wanted == found or (wanted in (None, "") and found in (None, "")) else [path]


class Api:
    """One API server, through a local port. ``certificate``, ``key``, ``authority``: PEM."""

    def __init__(self, port: int, *, authority: bytes, certificate: bytes, key: bytes,
                 why_broken: Callable[[], str] = lambda: "") -> None:
        self._https = Https(port, authority=authority, certificate=certificate, key=key, why_broken=why_broken)
        self._why_broken = why_broken
        self._base = f"https://127.0.0.1:{port}"
        self._kinds = dict(PLURALS)

    @cached_property
    def _client(self) -> Any:
        """For changes alone: the package takes half a second to load, and most looks find nothing to change."""
        from kubernetes import client

        configuration = client.Configuration()
        configuration.host = self._base
        configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file = self._https.files
        configuration.retries = False
        configuration.proxy = None
        return client.ApiClient(configuration)

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()
        self._https.close()

    def look(self, path: str, *, timeout: float = 20.0) -> Any:
        """A GET; the answer's JSON, or its text. Raises ApiError. ``timeout`` in seconds."""
        return self._https.read("GET", path, timeout=timeout)

    def call(self, method: str, path: str, body: object, *, content: str = "application/json", timeout: float = 20.0) -> Any:
        """A request that changes something; the answer's JSON. Raises ApiError. ``timeout`` in seconds."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Content-Type": content, "Accept": "application/json"}
        try:
            answer = self._client.call_api(method, f"{self._base}{path}", headers, body, _request_timeout=timeout)
            data = answer.read()
        except ApiException as error:
            raise ApiError(error.status or 0, message_of(error.body) or str(error.reason)) from None
        except (HTTPError, OSError) as error:
            raise ApiError(0, self._why_broken() or str(error)) from None
        return result(answer.status, data, str(answer.reason))

    def path(self, item: Object) -> str:
        """Return the path of an object.

        Raises:
            UnknownKind: the API has no such kind (yet): its CustomResourceDefinition may still have to be applied.
        """
        version, kind, meta = item["apiVersion"], item["kind"], item["metadata"]
        plural, namespaced = self._kind(version, kind)
        base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        scope = f"/namespaces/{meta.get('namespace', 'default')}" if namespaced else ""
        return f"{base}{scope}/{plural}/{meta['name']}"

    def _kind(self, version: str, kind: str) -> tuple[str, bool]:
        if (version, kind) not in self._kinds:
            base = f"/api/{version}" if "/" not in version else f"/apis/{version}"
            try:
                resources = self.look(base)["resources"] or []
            except ApiError as error:
                if error.status != 404:
                    raise
                resources = []
            for found in resources:
                if "/" not in found["name"]:
                    self._kinds[version, found["kind"]] = (found["name"], found["namespaced"])
        if (version, kind) not in self._kinds:
            raise UnknownKind(404, f"the API knows no {kind} of {version}")
        return self._kinds[version, kind]

    def get(self, item: Object) -> Object | None:
        """The object as it is; None where there is none."""
        try:
            found: Object = self.look(self.path(item))
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return found

    def compare(self, wanted: Iterable[Object], completed: Callable[[Object, Object | None], Object]) -> list[ObjectChange]:
        """Return the changes that make these objects as desired; ``completed(wanted, found)``: the complete desired object."""
        items, unknown = self._known(wanted)
        changes = [ObjectChange(item, "create", later=True) for item in unknown]
        pool = ThreadPoolExecutor(max_workers=AT_ONCE, thread_name_prefix="api")
        try:
            listed = dict(pair for pairs in pool.map(self._listed, self._collections(items)) for pair in pairs)
            # Objects without our label are read by name.
            there = list(pool.map(lambda item: listed.get(self.path(item)) or self.get(item), items))
        finally:
            # After an interrupt answers are not awaited.
            pool.shutdown(wait=False, cancel_futures=True)
        for wanted_item, found in zip(items, there, strict=True):
            item = completed(wanted_item, found)
            if found is None:
                changes.append(ObjectChange(item, "create"))
            elif fields := differences(item, found):
                changes.append(ObjectChange(item, "update", tuple(fields)))
        return changes

    def _known(self, items: Iterable[Object]) -> tuple[list[Object], list[Object]]:
        """Divide objects into those of kinds that the API has, and those whose kind is not there yet."""
        known: list[Object] = []
        unknown: list[Object] = []
        for item in items:
            try:
                self.path(item)
            except UnknownKind:
                unknown.append(item)
            else:
                known.append(item)
        return known, unknown

    def _collections(self, items: Iterable[Object]) -> list[tuple[str, str, str]]:
        """(path, apiVersion, kind) of where at least two of these are that bear our label."""
        counted = Counter((self.path(item).rpartition("/")[0], item["apiVersion"], item["kind"]) for item in items
                          if (item["metadata"].get("labels") or {}).get(MANAGED_BY) == MANAGER)
        return [place for place, count in counted.items() if count > 1]

    def _listed(self, place: tuple[str, str, str]) -> list[tuple[str, Object]]:
        """(path, object) of everything in one place that bears our label."""
        path, version, kind = place
        found = self.look(f"{path}?labelSelector={MANAGED_BY}%3D{MANAGER}")["items"]
        return [(f"{path}/{item['metadata']['name']}", {"apiVersion": version, "kind": kind, **item}) for item in found]

    def apply(self, item: Object) -> None:
        """Server-side apply, as the field manager ``clusterctl``."""
        path = f"{self.path(item)}?fieldManager={MANAGER}&force=true"
        self.call("PATCH", path, item, content="application/apply-patch+yaml")

    def nodes(self) -> dict[str, Object]:
        """All nodes by name."""
        return {node["metadata"]["name"]: node for node in self.look("/api/v1/nodes")["items"]}

    def patch_node(self, name: str, patch: Object) -> None:
        """Merge into a node (RFC 7386: lists are replaced whole); 409 where ``resourceVersion`` is no longer current."""
        self.call("PATCH", f"/api/v1/nodes/{name}", patch, content="application/merge-patch+json")

    def delete(self, path: str) -> bool:
        """Delete what is at a path; False where nothing was there. Raises ApiError."""
        try:
            self.call("DELETE", path, None)
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    def delete_node(self, name: str) -> None:
        """Delete a Node; one that is gone already is no error. Raises ApiError."""
        self.delete(f"/api/v1/nodes/{name}")

    def ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            self.look("/readyz", timeout=5)
        except ApiError:
            return False
        return True


def node_problem(node: Object | None) -> str:
    """Return why a node is not Ready, in a word or two; an empty string where it is."""
    if node is None:
        return "is not registered"
    for condition in node["status"].get("conditions", ()):
        if condition["type"] == "Ready":
            ready = condition["status"] == "True"
            return "" if ready else f"{condition['status']} ({condition.get('reason', '')}: {condition.get('message', '')})"
    return "has no condition Ready"


def cordoned_for(node: Object) -> str:
    """The operation that a node is cordoned for by us; empty where it is not."""
    return str((node["metadata"].get("annotations") or {}).get(CORDONED_FOR, "")) if node["spec"].get("unschedulable") else ""


def not_rolled_out(workload: Object | None) -> str:
    """Return how far a Deployment, DaemonSet or StatefulSet is; an empty string where all pods are new and available."""
    if workload is None:
        return "is gone"
    status = workload.get("status", {})
    if status.get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return "has not been seen by its controller"
    if workload.get("kind") == "DaemonSet":
        wanted = status.get("desiredNumberScheduled", 0)
        ready = [int(status.get(name, 0)) for name in ("updatedNumberScheduled", "numberAvailable")]
        return "" if ready == [wanted] * 2 else f"{ready[0]} of {wanted} pods are new, {ready[1]} available"
    wanted = workload["spec"].get("replicas", 1)
    counts = [int(status.get(name, 0)) for name in ("updatedReplicas", "availableReplicas", "replicas")]
    return "" if counts == [wanted] * 3 else f"{counts[0]} of {wanted} pods are new, {counts[1]} of {counts[2]} available"
