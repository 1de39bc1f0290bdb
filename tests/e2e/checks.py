"""What every cluster must do, whatever its shape; each check asserts on the running cluster."""

from __future__ import annotations

import json
import shlex
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard
from cluster import APP, CLI, Cluster, deployment, service, until

from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.lab import LabSpec
from clusterctl.mirror.image import ImageSpec, write_docker_archive


@contextmanager
def raised(spec: LabSpec, work: Path) -> Iterator[Cluster]:
    """A cluster of its own with the image of the app, and what it took."""
    made = Cluster.up(spec, work)
    try:
        summary = made.apply()
        print("apply:", summary["seconds"], "s,", summary["stages"])
        load_image(made)
        yield made
    finally:
        made.down()


def nodes_ready(cluster: Cluster, expected: set[str] | None = None) -> None:
    """All nodes are Ready: those of the lab where no others are named."""
    nodes = cluster.json("get", "nodes")["items"]
    names = {node["metadata"]["name"] for node in nodes}
    assert names == (expected or {machine.name for machine in cluster.lab.machines.values() if machine.role != "etcd"})
    for node in nodes:
        conditions = {entry["type"]: entry["status"] for entry in node["status"]["conditions"]}
        assert conditions["Ready"] == "True", node["metadata"]["name"]


def nothing_to_do(cluster: Cluster) -> None:
    """All is as wanted, at the latest once units are back that end by themselves, as a scheduler whose lease was not renewed in time.

    Plans do not change anything: what is wrong stays so, however often one asks.
    """
    until(lambda: "no changes" in cluster.cli("plan"), "a plan with no changes", 60)
    assert not cluster.apply()["changed"]


def load_image(cluster: Cluster) -> None:
    """An image from a docker-archive, onto all nodes, and a pod that runs it."""
    archive = docker_archive(cluster.work)
    output = cluster.cli("image", "load", str(archive))
    assert output.count(f"docker.io/{APP}") == len(cluster.workers) + len(cluster.control_planes), output


def docker_archive(work: Path) -> Path:
    """An app as ``docker save example/app:1`` writes it."""
    archive = work / "app.tar"
    if not archive.exists():
        [source] = (default_mirror() / "images").glob(f"agnhost-*-{own_architecture()}.tar")
        with tarfile.open(source) as outer:
            layer = max((member for member in outer if member.isfile()), key=lambda member: member.size)
            packed = outer.extractfile(layer)
            assert packed is not None
            # A mirror that was filled before has gzip's.
            zstd = packed.peek(4)[:4] == zstandard.FRAME_HEADER
            plain = zstandard.ZstdDecompressor().stream_reader(packed) if zstd else packed
            with tarfile.open(fileobj=plain, mode="r|" if zstd else "r|gz") as inner:
                member = next(one for one in inner if one.name == "agnhost")
                inner.extract(member, work, filter="data")
        write_docker_archive(archive, ImageSpec(APP, ("/agnhost",)), work / "agnhost", own_architecture())
    return archive


def apply_objects(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(item) for item in objects))


def running(cluster: Cluster, app: str, count: int, seconds: float = 120) -> list[dict[str, Any]]:
    """Wait for exactly so many pods of an app that are ready; they."""

    def look() -> list[dict[str, Any]]:
        pods = [
            pod for pod in cluster.json("get", "pods", "-l", f"app={app}")["items"] if "deletionTimestamp" not in pod["metadata"]
        ]
        ready = [
            pod
            for pod in pods
            if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
        ]
        assert len(pods) == len(ready) == count, [(pod["metadata"]["name"], pod["status"].get("phase")) for pod in pods]
        return ready

    found: list[dict[str, Any]] = until(look, f"{count} pods of {app}", seconds)
    return found


def pods_everywhere(cluster: Cluster, seconds: float = 120) -> list[dict[str, Any]]:
    """One pod on each node, the control planes too; they."""
    app = deployment("everywhere", spread=False, tolerations=[{"operator": "Exists"}])
    app["kind"] = "DaemonSet"
    del app["spec"]["replicas"]
    apply_objects(cluster, app, service("everywhere"))
    pods = running(cluster, "everywhere", len(cluster.json("get", "nodes")["items"]), seconds)
    assert len({pod["spec"]["nodeName"] for pod in pods}) == len(pods)
    return pods


def ask(cluster: Cluster, pod: str, url: str) -> str:
    """An HTTP request out of a pod, by agnhost."""
    return cluster.kubectl("exec", pod, "--", "/agnhost", "connect", "--timeout=5s", url)


def pod_network(cluster: Cluster, pods: list[dict[str, Any]]) -> None:
    """Each pod reaches each other pod, across nodes; names and Services work from pods."""
    for source in pods:
        for target in pods:
            ask(cluster, source["metadata"]["name"], f"{target['status']['podIP']}:8080")
    name = pods[-1]["metadata"]["name"]
    address = cluster.json("get", "service", "everywhere")["spec"]["clusterIP"]
    ask(cluster, name, f"{address}:80")
    until(lambda: ask(cluster, name, "everywhere.default.svc.cluster.local:80") == "", "the Service by its name", 60)
    ask(cluster, name, "kubernetes.default.svc.cluster.local:443")


def service_from_nodes(cluster: Cluster) -> None:
    """A Service by its address, and its name through CoreDNS, from every node."""
    address = cluster.json("get", "service", "everywhere")["spec"]["clusterIP"]
    dns = cluster.json("get", "service", "-n", "kube-system", "kube-dns")["spec"]["clusterIP"]
    for node in cluster.json("get", "nodes")["items"]:
        answers = {http(cluster, node["metadata"]["name"], address, 80, "/hostname") for _ in range(8)}
        assert all(answer.startswith("everywhere-") for answer in answers), answers
        name = r"\x0aeverywhere\x07default\x03svc\x07cluster\x05local\x00"
        query = rf"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00{name}\x00\x01\x00\x01"
        # cat sends the question in one datagram; bash would end one at the newline that is in it.
        script = f"printf '{query}' >/run/question; exec 5<>/dev/udp/{dns}/53; cat /run/question >&5"
        script += "; timeout 2 dd bs=512 count=1 <&5 | od -An -v -tx1"
        answer = cluster.on(node["metadata"]["name"], f"bash -c {shlex.quote(script)} | tr -d ' \\n'")
        assert "".join(f"{int(part):02x}" for part in address.split(".")) in answer, answer


def http(cluster: Cluster, machine: str, address: str, port: int, path: str) -> str:
    """The body of an HTTP answer, asked from a machine that has neither curl nor wget."""
    script = f"exec 5<>/dev/tcp/{address}/{port}; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&5; timeout 5 cat <&5"
    return cluster.on(machine, f"timeout 10 bash -c {shlex.quote(script)}").rpartition("\n\n")[2]


def kubectl_streams(cluster: Cluster, pods: list[dict[str, Any]]) -> None:
    """logs, exec and port-forward, to pods on every node."""
    for pod in pods:
        name = pod["metadata"]["name"]
        assert "Started HTTP server" in cluster.kubectl("logs", name)
        assert cluster.kubectl("exec", name, "--", "/agnhost", "--help")
    forward = subprocess.Popen(
        [
            *CLI,
            "lab",
            "exec",
            "--name",
            cluster.lab.name,
            "--",
            str(cluster.work / "kubectl"),
            "--kubeconfig",
            str(cluster.work / "kubeconfig"),
            "port-forward",
            "service/everywhere",
            "18080:80",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert forward.stdout is not None
        assert "Forwarding from" in forward.stdout.readline()
        script = "exec 5<>/dev/tcp/127.0.0.1/18080; printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' >&5; timeout 5 cat <&5"
        done = subprocess.run(
            [*CLI, "lab", "exec", "--name", cluster.lab.name, "--", "bash", "-c", script],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert "everywhere-" in done.stdout
    finally:
        forward.kill()
        forward.wait()


def scale_by_hand(cluster: Cluster) -> None:
    apply_objects(cluster, deployment("scaled", replicas=3), service("scaled"))
    running(cluster, "scaled", 3)
    cluster.kubectl("scale", "deployment/scaled", "--replicas=5")
    running(cluster, "scaled", 5)
    cluster.kubectl("scale", "deployment/scaled", "--replicas=3")
    running(cluster, "scaled", 3)


def deleted_pod_returns(cluster: Cluster) -> None:
    before = {pod["metadata"]["name"] for pod in running(cluster, "scaled", 3)}
    cluster.kubectl("delete", "pod", sorted(before)[0], "--wait=false")
    after = {
        pod["metadata"]["name"] for pod in until(lambda: _without(running(cluster, "scaled", 3), sorted(before)[0]), "a new pod")
    }
    assert len(after - before) == 1


def _without(pods: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [] if any(pod["metadata"]["name"] == name for pod in pods) else pods


def placed_by_resources(cluster: Cluster) -> None:
    """A pod that asks for more than any node has stays Pending, and says why."""
    apply_objects(cluster, deployment("greedy", requests={"cpu": "500", "memory": "16Mi"}))

    def look() -> bool:
        pod = cluster.json("get", "pods", "-l", "app=greedy")["items"][0]
        condition = next(entry for entry in pod["status"]["conditions"] if entry["type"] == "PodScheduled")
        return bool(
            pod["status"]["phase"] == "Pending"
            and condition["reason"] == "Unschedulable"
            and "Insufficient cpu" in condition["message"]
        )

    until(look, "the greedy pod Pending")
    cluster.kubectl("delete", "deployment", "greedy", "--wait=false")


def metrics(cluster: Cluster) -> None:
    """``kubectl top`` for every node and for pods."""
    count = len(cluster.json("get", "nodes")["items"])
    until(lambda: len(cluster.kubectl("top", "nodes", "--no-headers").splitlines()) == count, "kubectl top nodes", 150)
    assert cluster.kubectl("top", "pods", "--no-headers", "-A")


def autoscaled(cluster: Cluster) -> None:
    """A HorizontalPodAutoscaler goes up under load and down without."""
    burner = deployment("burner", args=("netexec", "--http-port=8080"), requests={"cpu": "20m", "memory": "16Mi"})
    quick = {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "burner"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "burner"},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
            ],
            "behavior": {"scaleUp": quick, "scaleDown": quick},
        },
    }
    apply_objects(cluster, burner, service("burner"), scaler)
    running(cluster, "burner", 1)
    address = cluster.json("get", "service", "burner")["spec"]["clusterIP"]
    worker = cluster.workers[0]
    request = f"exec 5<>/dev/tcp/{address}/80; printf 'GET /echo?msg=x HTTP/1.0\\r\\n\\r\\n' >&5; cat <&5 >/dev/null; exec 5>&-"
    script = f"while :; do {request}; done"
    cluster.on(worker, f"systemd-run --quiet --unit=load bash -c {shlex.quote(script)}")
    try:
        until(lambda: cluster.json("get", "deployment", "burner")["spec"]["replicas"] >= 2, "scaled up under load", 180)
    finally:
        cluster.on(worker, "systemctl stop load")
    until(lambda: cluster.json("get", "deployment", "burner")["spec"]["replicas"] == 1, "scaled down without load", 180)
    cluster.kubectl("delete", "hpa,deployment,service", "burner", "--wait=false", code=None)


def killed_machine(cluster: Cluster) -> None:
    """The pods of a machine that dies come back elsewhere; the machine comes back Ready by itself."""
    quick = [
        {"key": f"node.kubernetes.io/{what}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
        for what in ("not-ready", "unreachable")
    ]
    apply_objects(cluster, deployment("survivor", replicas=2, tolerations=quick))
    running(cluster, "survivor", 2)
    victim = cluster.workers[-1]
    cluster.lab.kill(victim)
    started = time.monotonic()

    def look() -> bool:
        pods = [
            pod for pod in cluster.json("get", "pods", "-l", "app=survivor")["items"] if pod["spec"].get("nodeName") != victim
        ]
        return sum(pod["status"].get("phase") == "Running" for pod in pods) == 2

    until(look, "the dead machine's pods elsewhere", 180)
    print(f"pods of a killed machine run elsewhere after {time.monotonic() - started:.0f} s")
    cluster.lab.start(victim)
    # Its node counts as Ready for a while after its death: status asks the machine.
    until(lambda: cluster.cli("status"), f"{victim} well again by itself", 120)
    cluster.kubectl("delete", "deployment", "survivor", "--wait=false")
