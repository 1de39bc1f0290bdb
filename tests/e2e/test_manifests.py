"""Manifests of the user: a CNI that nodes need to become Ready, kinds that the manifests define themselves, objects that depend on others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checks
import credentials
import pytest
import yaml
from cluster import CLI, Cluster, until

from clusterctl.artifacts.places import own_architecture
from clusterctl.lab import Lab, LabSpec
from clusterctl.mirror.image import ImageSpec, write_docker_archive

pytestmark = pytest.mark.lab

CNI_IMAGE = "example/cni:1"
SET_UP = """
last=${NODE_IP##*.}
cat >/etc/cni/net.d/.new <<END
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
 {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$last.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
END
mv /etc/cni/net.d/.new /etc/cni/net.d/10-pods.conflist
for peer in $PEERS; do
 [ "$peer" = "$NODE_IP" ] || ip route replace "10.244.${peer##*.}.0/24" via "$peer"
done
while :; do sleep 60; done
"""


def cni(addresses: list[str]) -> list[dict[str, Any]]:
    """A CNI of bridge, host-local and routes, in a Namespace of its own that comes last in the file."""
    labels = {"app": "cni"}
    pod = {
        "hostNetwork": True, "priorityClassName": "system-node-critical", "tolerations": [{"operator": "Exists"}],
        "serviceAccountName": "cni", "terminationGracePeriodSeconds": 1,
        "containers": [{
            "name": "cni", "image": CNI_IMAGE, "imagePullPolicy": "Never", "command": ["/busybox", "sh", "-c", SET_UP],
            "env": [{"name": "NODE_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
                    {"name": "PEERS", "value": " ".join(addresses)}],
            "securityContext": {"privileged": True},
            "volumeMounts": [{"name": "conf", "mountPath": "/etc/cni/net.d"}]}],
        "volumes": [{"name": "conf", "hostPath": {"path": "/etc/cni/net.d"}}]}
    return [
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "cni", "namespace": "pod-network"},
         "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "cni", "namespace": "pod-network"},
         "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "cni", "namespace": "pod-network"}},
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "pod-network", "labels": {
            "pod-security.kubernetes.io/enforce": "privileged"}}},
    ]


def defined(kind: str) -> list[dict[str, Any]]:
    """A custom object, and after it the CustomResourceDefinition of its kind."""
    plural, group = f"{kind.lower()}s", "example.com"
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return [
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": "first", "namespace": "default"}, "size": 1},
        {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{group}"},
         "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
                  "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}]}},
    ]


def write(path: Path, objects: list[dict[str, Any]]) -> None:
    path.write_text(yaml.safe_dump_all(objects))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two machines whose only CNI comes from a manifest; its image is loaded while apply waits for the nodes."""
    work = Path(tmp_path_factory.mktemp("manifests"))
    made = Cluster.up(LabSpec(name="e2eown", machines=2, cluster={
        "network": {"cni": "none"}, "addons": {"manifests": ["cni.yaml", "kinds.yaml"]}}), work)
    try:
        write(made.inventory.parent / "cni.yaml", cni([machine.address for machine in made.lab.machines.values()]))
        write(made.inventory.parent / "kinds.yaml", defined("Gauge"))
        with made.start("apply", "--yes") as apply:
            try:
                load(made.lab, work)
                output, _ = apply.communicate(timeout=400)
            finally:
                apply.kill()
        assert apply.returncode == 0, output
        checks.load_image(made)
        yield made
    finally:
        made.down()


def load(lab: Lab, work: Path) -> None:
    """Import the image of the CNI on each machine as soon as its containerd answers."""
    archive = work / "cni.tar"
    write_docker_archive(archive, ImageSpec(CNI_IMAGE, ("/busybox",)), busybox(work), own_architecture())

    def imported(machine: str) -> bool:
        with archive.open("rb") as stdin:
            words = ("/opt/clusterctl/bin/ctr", "-n", "k8s.io", "images", "import", "-")
            done = subprocess.run([*CLI, "lab", "shell", "--name", lab.name, machine, "--", *words],
                                  stdin=stdin, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return True

    for machine in lab.machines:
        until(lambda machine=machine: imported(machine), f"the image on {machine}", 200)  # type: ignore[misc]


def busybox(work: Path) -> Path:
    """A static busybox under the name that the image gives it."""
    copy = work / "busybox"
    copy.write_bytes(Path("/bin/busybox").read_bytes())
    copy.chmod(0o755)
    return copy


def test_nodes_are_ready_by_a_cni_from_manifests(cluster: Cluster) -> None:
    checks.nodes_ready(cluster)
    assert not cluster.on("w-1", "ls /etc/cni/net.d | grep flannel; systemctl is-enabled flanneld 2>/dev/null", check=False).strip()
    pods = checks.pods_everywhere(cluster)
    checks.pod_network(cluster, pods)
    assert cluster.json("get", "gauges", "first")["size"] == 1
    checks.nothing_to_do(cluster)


def test_jwt_issuers_leave_the_health_endpoints_anonymous(cluster: Cluster) -> None:
    """An issuer with its CA inline; the flags that it replaces are refused with what to write."""
    authority = cluster.on("cp-1", "cat /etc/kubernetes/pki/ca.crt")
    issuer = {"issuer": {"url": "https://issuer.example", "audiences": ["lab"], "certificateAuthority": authority},
              "claimMappings": {"username": {"claim": "sub", "prefix": "lab:"}}}

    def settings(content: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = content["all"]["vars"]["cluster"].setdefault("api_server", {})
        return found

    cluster.edit(lambda content: settings(content).update(extra_args={"oidc-issuer-url": "https://issuer.example"}))
    assert "cluster.api_server.authentication.jwt" in cluster.cli("plan", code=2)
    cluster.edit(lambda content: settings(content).update(extra_args={}, authentication={"jwt": [issuer]}))
    cluster.apply()
    assert "issuer.example" in cluster.on("cp-1", "cat /etc/kubernetes/authentication.yaml")
    anonymous = credentials.Credential("anonymous", ())
    codes = [credentials.send(cluster, anonymous, credentials.Request("anonymous", "GET", path))[0] for path in ("/readyz", "/api")]
    assert codes == [200, 401]
    checks.nothing_to_do(cluster)


def test_a_kind_and_its_object_come_to_a_live_cluster(cluster: Cluster) -> None:
    write(cluster.inventory.parent / "kinds.yaml", [*defined("Gauge"), *defined("Valve")])
    changes = {change["object"]: change["later"] for change in cluster.plan()["objects"]}
    assert changes == {"CustomResourceDefinition valves.example.com": False, "Valve default/first": True,
                       "ConfigMap kube-system/clusterctl-objects": False}
    cluster.apply()
    assert cluster.json("get", "valves", "first")["size"] == 1
    checks.nothing_to_do(cluster)


def test_what_leaves_the_manifests_leaves_the_cluster(cluster: Cluster) -> None:
    """With the deletions in the plan; what others took over, and what others made, stays."""
    kinds = cluster.inventory.parent / "kinds.yaml"
    configuration = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"of": "ours"}}
                     for name in ("gone", "taken")]
    room = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "room"}},
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}}]
    write(kinds, [*defined("Gauge"), *defined("Valve"), *configuration, *room])
    cluster.apply()
    cluster.kubectl("label", "configmap", "taken", "clusterctl.dev/inventory-")
    cluster.kubectl("create", "configmap", "theirs")
    write(kinds, defined("Gauge"))
    removed = {change["object"] for change in cluster.plan()["objects"] if change["action"] == "remove"}
    assert removed == {"Valve default/first", "CustomResourceDefinition valves.example.com", "ConfigMap gone", "Namespace room"}
    assert "clusterctl apply" in cluster.cli("status", code=3)
    cluster.apply()
    assert "not found" in cluster.kubectl("get", "crd", "valves.example.com", code=1)
    assert "not found" in cluster.kubectl("get", "configmap", "gone", code=1)
    assert "not found" in cluster.kubectl("get", "namespace", "room", code=1)
    cluster.kubectl("get", "configmap", "taken", "theirs")
    assert cluster.json("get", "gauges", "first")["size"] == 1
    checks.nothing_to_do(cluster)


def test_an_addon_that_is_switched_off_leaves(cluster: Cluster) -> None:
    cluster.edit(lambda content: content["all"]["vars"]["cluster"]["addons"].update(coredns=False))
    removed = {change["object"] for change in cluster.plan()["objects"] if change["action"] == "remove"}
    assert "Deployment kube-system/coredns" in removed and "ConfigMap kube-system/clusterctl-objects" not in removed
    cluster.apply()
    assert "not found" in cluster.kubectl("-n", "kube-system", "get", "deployment", "coredns", code=1)
    checks.nothing_to_do(cluster)
