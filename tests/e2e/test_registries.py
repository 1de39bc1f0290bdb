"""One machine whose images come from a registry with TLS and a login, and what its inventory adds to it beside that."""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bcrypt
import pytest
from cluster import Cluster, until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.cluster.versions import known_versions
from clusterctl.components.products import IMAGES
from clusterctl.lab import LabSpec
from clusterctl.mirror.recipes import AGNHOST, AGNHOST_IMAGE

pytestmark = pytest.mark.lab
REGISTRY = "github.com/distribution/distribution/v3/cmd/registry@v3.0.0"
PASSWORD = "t0p-s3cret \"quoted\""
PORT = 5443


@contextmanager
def serving(binary: Path, work: Path, listen: str, more: dict[str, Any], *prefix: str) -> Iterator[None]:
    """A registry with the images in ``work``, while the body runs. ``more``: its configuration of TLS and logins."""
    http = {"addr": listen, **more.pop("http", {})}
    config = {"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(work / "images")}}, "http": http, **more}
    path = work / "registry.yml"
    path.write_text(json.dumps(config))
    (work / "registry.log").touch()
    before = len((work / "registry.log").read_text())
    with (work / "registry.log").open("a") as log:
        process = subprocess.Popen([*prefix, str(binary), "serve", str(path)], stdout=log, stderr=log, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
        try:
            until(lambda: process.poll() is not None or "listening on" in (work / "registry.log").read_text()[before:], "the registry serves", 30)
            assert process.poll() is None, (work / "registry.log").read_text()
            yield
        finally:
            process.terminate()
            process.wait(timeout=20)


def push(base: str, archive: Path, name: str, tag: str) -> None:
    """Upload an OCI archive."""
    with tarfile.open(archive) as members:
        def read(path: str) -> bytes:
            found = members.extractfile(path)
            assert found is not None
            return found.read()

        def blob(digest: str) -> bytes:
            return read(f"blobs/{digest.replace(':', '/')}")

        manifest = blob(json.loads(read("index.json"))["manifests"][0]["digest"])
        content = json.loads(manifest)
        for entry in (content["config"], *content["layers"]):
            begun = send("POST", f"{base}/v2/{name}/blobs/uploads/", b"").headers["Location"]
            send("PUT", f"{begun}{'&' if '?' in begun else '?'}digest={entry['digest']}", blob(entry["digest"]), "application/octet-stream")
        send("PUT", f"{base}/v2/{name}/manifests/{tag}", manifest, content.get("mediaType", "application/vnd.oci.image.manifest.v1+json"))


def send(method: str, url: str, body: bytes, kind: str = "application/json") -> Any:
    return urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": kind}, method=method), timeout=60)


def certificate(work: Path, address: str) -> None:
    """An authority that signs itself, and serves: ca.pem, key.pem."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.now(UTC)
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
            .not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256()))
    (work / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (work / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def fill(binary: Path, work: Path) -> None:
    """The images of a cluster and the one of the tests, below k8s/."""
    versions = known_versions()
    images = {"pause": versions.pause, "coredns": versions.coredns, "metrics-server": versions.metrics_server, "agnhost": AGNHOST}
    with serving(binary, work, "127.0.0.1:5999", {}):
        for name, version in images.items():
            path, _, tag = ({**IMAGES, "agnhost": AGNHOST_IMAGE})[name].reference(version).removeprefix("registry.k8s.io/").partition(":")
            push("http://127.0.0.1:5999", default_mirror() / f"images/{name}-{version}-{own_architecture()}.tar", f"k8s/{path}", tag)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    work = Path(tmp_path_factory.mktemp("registries"))
    subprocess.run(["go", "install", REGISTRY], env={**os.environ, "GOBIN": str(work)}, check=True, timeout=1200)
    fill(work / "registry", work)
    made = Cluster.up(LabSpec(name="e2ereg", machines=1), work)
    try:
        address = made.lab.gateway
        certificate(work, address)
        (work / "users").write_bytes(b"bot:" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)) + b"\n")
        made.env["REGISTRY_PASSWORD"] = PASSWORD
        registry = f"{address}:{PORT}"
        made.edit(lambda content: content["all"]["vars"]["cluster"].update({
            "image_registry": f"{registry}/k8s", "schedule_on_control_plane": True, "registries": {
                registry: {"ca": str(work / "ca.pem"), "username": "bot", "password": {"env": "REGISTRY_PASSWORD"}}}}))
        more = {"auth": {"htpasswd": {"realm": "registry", "path": str(work / "users")}},
                "http": {"tls": {"certificate": str(work / "ca.pem"), "key": str(work / "key.pem")}}}
        with serving(work / "registry", work, f"{address}:{PORT}", more, "nsenter", f"--net=/run/netns/{made.lab.namespace}"):
            made.apply()
            yield made
    finally:
        made.down()


def pod(cluster: Cluster, name: str, image: str) -> None:
    """A pod that runs an image which is on no machine."""
    container = {"name": "main", "image": image, "args": ["pause"], "imagePullPolicy": "Always"}
    wanted = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(wanted))
    until(lambda: cluster.json("get", "pod", name)["status"]["phase"] == "Running", f"pod {name} runs", 120)


def containerd(cluster: Cluster) -> str:
    return cluster.on("cp-1", "systemctl show --property=MainPID --value containerd").strip()


def test_a_cluster_runs_on_images_of_a_registry_with_a_login(cluster: Cluster) -> None:
    images = cluster.on("cp-1", "/opt/clusterctl/bin/crictl images -o json")
    assert f"{cluster.lab.gateway}:{PORT}/k8s/pause" in images and "registry.k8s.io" not in images
    until(lambda: cluster.json("get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"][0]["status"]["phase"] == "Running", "CoreDNS", 120)
    pod(cluster, "direct", f"{cluster.lab.gateway}:{PORT}/k8s/e2e-test-images/agnhost:{AGNHOST}")
    assert "no changes" in cluster.cli("plan")


def test_a_mirror_is_used_without_a_restart(cluster: Cluster) -> None:
    before, mirror = containerd(cluster), f"https://{cluster.lab.gateway}:{PORT}/v2/k8s"
    settings = {"mirrors": [{"url": mirror, "override_path": True, "ca": str(cluster.work / "ca.pem")}]}
    cluster.edit(lambda content: content["all"]["vars"]["cluster"]["registries"].update({"example.com": settings}))
    cluster.apply()
    assert containerd(cluster) == before
    pod(cluster, "mirrored", f"example.com/e2e-test-images/agnhost:{AGNHOST}")


def test_the_password_is_shown_nowhere(cluster: Cluster) -> None:
    path = "/etc/containerd/conf.d/clusterctl-registries.toml"
    assert cluster.on("cp-1", f"stat -c %a {path}").strip() == "600" and "s3cret" in cluster.on("cp-1", f"cat {path}")
    cluster.on("cp-1", f"echo >>{path}")
    shown = cluster.cli("plan", "--diff", "-v") + cluster.cli("plan", "--diff", "-o", "json") + cluster.cli("inventory")
    assert "clusterctl-registries.toml" in shown and "s3cret" not in shown
    before = containerd(cluster)
    cluster.apply()
    assert containerd(cluster) != before, "containerd reads logins at its start"


def test_a_proxy_with_a_login_is_used_by_apt_and_by_containerd(cluster: Cluster) -> None:
    log, address = cluster.work / "proxy.log", cluster.lab.gateway
    login = base64.b64encode(b"user:hunter2").decode()
    program = ["nsenter", f"--net=/run/netns/{cluster.lab.namespace}", sys.executable, str(Path(__file__).with_name("proxy.py"))]
    with log.open("w") as output, subprocess.Popen([*program, address, "3128", login], stdout=output) as process:
        try:
            cluster.env["PROXY"] = f"http://user:hunter2@{address}:3128"
            before, url = containerd(cluster), {"env": "PROXY"}
            cluster.edit(lambda content: content["all"]["vars"]["cluster"].update({"proxy": {"http": url, "https": url}, "packages": ["ethtool"]}))
            cluster.apply()
            cluster.kubectl("delete", "pod", "direct", "--now")
            cluster.on("cp-1", f"/opt/clusterctl/bin/crictl rmi {address}:{PORT}/k8s/e2e-test-images/agnhost:{AGNHOST}")
            pod(cluster, "direct", f"{address}:{PORT}/k8s/e2e-test-images/agnhost:{AGNHOST}")
            asked = log.read_text()
            assert f"CONNECT {address}:{PORT} passed" in asked and "ethtool" in asked and containerd(cluster) != before, asked
            assert "hunter2" not in cluster.cli("plan", "--diff", "-v") and not cluster.apply()["changed"]
            cluster.edit(lambda content: [content["all"]["vars"]["cluster"].pop(key) for key in ("proxy", "packages")])
            cluster.apply()
            assert cluster.on("cp-1", "ls /etc/clusterctl/proxy.env 2>/dev/null; dpkg -l ethtool 2>/dev/null | grep ^ii", check=False) == ""
            pod(cluster, "without", f"{address}:{PORT}/k8s/e2e-test-images/agnhost:{AGNHOST}")
        finally:
            process.kill()


def test_what_the_inventory_adds_goes_when_it_leaves_the_inventory(cluster: Cluster) -> None:
    additions = {
        "sysctls": {"net.ipv4.ip_local_port_range": "20000 60000"},
        "files": [{"path": "/etc/app/app.conf", "content": "one\n", "mode": "0640", "restarts": "app.service"}, {"path": "/etc/issue.net", "content": "x\n"}],
        "hooks": [{"name": "here", "after": "nodes", "run": "echo ran >>/var/tmp/ran"},
                  {"name": "there", "after": "nodes", "where": "controller", "run": f'echo "$CLUSTERCTL_HOST" >>{cluster.work}/ran'}],
    }
    unit = "[Service]\\nExecStart=/bin/sleep infinity\\n"
    cluster.on("cp-1", f"printf '{unit}' >/etc/systemd/system/app.service && systemctl daemon-reload && systemctl start app.service")
    started = "systemctl show --property=MainPID --value app.service"
    before = cluster.on("cp-1", f"cat /proc/sys/net/ipv4/ip_local_port_range /etc/issue.net 2>/dev/null; {started}").splitlines()
    cluster.edit(lambda content: content["all"]["children"]["control_plane"]["hosts"]["cp-1"].update({"cluster": additions}))
    cluster.apply()
    assert not cluster.apply()["changed"]
    assert cluster.on("cp-1", "cat /etc/app/app.conf /var/tmp/ran; stat -c %a /etc/app/app.conf").split() == ["one", "ran", "640"]
    assert cluster.on("cp-1", started).strip() != before[-1] and (cluster.work / "ran").read_text() == "cp-1\n"
    assert cluster.on("cp-1", "cat /proc/sys/net/ipv4/ip_local_port_range").split() == ["20000", "60000"]
    cluster.on("cp-1", "echo drift >/etc/app/app.conf")
    assert "/etc/app/app.conf" in cluster.cli("plan")
    cluster.edit(lambda content: content["all"]["children"]["control_plane"]["hosts"]["cp-1"].pop("cluster"))
    cluster.apply()
    after = cluster.on("cp-1", f"ls /etc/app/app.conf 2>/dev/null; cat /proc/sys/net/ipv4/ip_local_port_range /etc/issue.net 2>/dev/null; {started}")
    assert after.splitlines()[:-1] == before[:-1] and "no changes" in cluster.cli("plan")


def test_the_time_service_comes_and_goes_with_its_setting(cluster: Cluster) -> None:
    """These machines have the clock of their host: systemd skips the unit, and nothing claims that it runs."""
    config, there = "/etc/chrony/conf.d/clusterctl.conf", "ls -d /etc/chrony /var/lib/chrony 2>/dev/null; dpkg -l chrony 2>/dev/null | grep ^ii"
    cluster.edit(lambda content: content["all"]["children"]["control_plane"]["hosts"]["cp-1"].update({"cluster": {"time": "chrony"}}))
    cluster.apply()
    summary = cluster.apply()
    assert not summary["changed"] and summary["trips"] == len(cluster.lab.machines)
    assert "lock_all" in cluster.on("cp-1", f"cat {config}") and cluster.on("cp-1", "systemctl is-enabled chrony").strip() == "enabled"
    assert cluster.on("cp-1", "systemctl is-active chrony", check=False).strip() == "inactive"
    assert "Disabled control of system clock" in cluster.on("cp-1", "timeout 2 chronyd -x -d 2>&1; true"), "the configuration is valid"
    cluster.on("cp-1", f"echo >>{config}")
    assert {entry["resource"] for entry in cluster.plan()["changes"]} == {f"file:{config}", "restart:chrony.service"}
    cluster.edit(lambda content: content["all"]["children"]["control_plane"]["hosts"]["cp-1"].pop("cluster"))
    assert {entry["action"] for entry in cluster.plan()["changes"]} == {"remove"}
    cluster.apply()
    assert cluster.on("cp-1", there, check=False) == "" and "no changes" in cluster.cli("plan")


def test_reset_takes_additions_away(cluster: Cluster) -> None:
    additions = {"time": "chrony", "packages": ["socat"], "files": [{"path": "/etc/app/app.conf", "content": "two\n"}]}
    cluster.edit(lambda content: content["all"]["children"]["control_plane"]["hosts"]["cp-1"].update({"cluster": additions}))
    cluster.apply()
    assert cluster.on("cp-1", "cat /etc/app/app.conf") == "two\n"
    assert cluster.on("cp-1", "systemctl is-enabled chrony").strip() == "enabled"
    cluster.cli("reset", "--yes", "--confirm", cluster.lab.name)
    assert cluster.on("cp-1", "ls -d /etc/app/app.conf /etc/chrony /etc/clusterctl /etc/containerd 2>/dev/null; dpkg -l chrony socat 2>/dev/null | grep ^ii", check=False) == ""
