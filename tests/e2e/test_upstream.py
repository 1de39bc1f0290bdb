"""A cluster whose programs come from upstream, without a mirror: a double of its servers, with files that were built here."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checks
import pytest
import yaml
from cluster import Cluster

from clusterctl.artifacts.catalog import IMAGES, PATHS
from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.components.programs import products
from clusterctl.inventory import load
from clusterctl.lab import LabSpec
from clusterctl.versions import known_versions, minor

sys.path.insert(0, str(Path(__file__).parent.parent / "unit/artifacts"))

from upstream_double import Upstream, reply

ROOT = Path(__file__).parent.parent.parent

CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane and a worker."""
    made = Cluster.up(LabSpec(name="e2esrc", machines=2), Path(tmp_path_factory.mktemp("upstream")))
    try:
        content = yaml.safe_load(made.inventory.read_text())
        del content["all"]["vars"]["cluster"]["artifacts"]
        made.inventory.write_text(yaml.safe_dump(content))
        yield made
    finally:
        made.down()


def listen(namespace: str, address: str) -> socket.socket:
    """A socket that listens in a network namespace: a thread that has entered it makes it."""

    def make() -> socket.socket:
        with open(f"/run/netns/{namespace}") as handle:
            assert ctypes.CDLL(None).setns(handle.fileno(), CLONE_NEWNET) == 0
        return socket.create_server((address, 0))

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


@pytest.fixture(scope="module")
def upstream(bare: Cluster) -> Iterator[Upstream]:
    cluster, arch = load(bare.inventory), own_architecture()
    paths = [PATHS[product].format(version=version, arch=arch) for product, version in products(cluster)]
    double = Upstream(bare.work, {path: default_mirror() / path for path in paths})
    for name in ("pause", "coredns", "metrics-server"):
        publish(double, name, known_versions().model_dump()[name.replace("-", "_")])
    proxy = listen(bare.lab.namespace, bare.lab.gateway)
    double.listen(proxy)
    # containerd gets the images of pods by the same way, and trusts the double for that registry alone.
    url = f"http://{bare.lab.gateway}:{proxy.getsockname()[1]}"
    bare.edit(lambda content: content["all"]["vars"]["cluster"].update(
        proxy={"https": url}, registries={"registry.k8s.io": {"ca": str(double.authority)}}))
    # Machines have apt's own program to fetch with.
    settings = f"""Acquire::https::Proxy "http://{bare.lab.gateway}:{proxy.getsockname()[1]}"; Acquire::https::CAInfo "/etc/double.pem";"""
    for name in bare.lab.machines:
        bare.lab.exec(name, ["sh", "-c", f"cat >/etc/double.pem; echo '{settings}' >/etc/apt/apt.conf.d/99double"],
                      stdin=double.authority.read_text())
    yield double
    double.close()


def publish(double: Upstream, name: str, version: str) -> None:
    """Publish an image of the mirror in the double's registry."""
    path, _, tag = IMAGES[name].format(version=version).removeprefix("registry.k8s.io/").partition(":")
    with tarfile.open(default_mirror() / f"images/{name}-{version}-{own_architecture()}.tar") as members:
        def blob(digest: str) -> bytes:
            found = members.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert found is not None
            return found.read()

        index = members.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        [layer] = manifest["layers"]
        double.add_image(path, tag, blob(manifest["config"]["digest"]), blob(layer["digest"]), own_architecture())


@pytest.fixture(scope="module")
def program(bare: Cluster) -> Path:
    """clusterctl's wheel, made from the sdist, in a fresh environment; without built-in pins, as the files are built here."""
    made, environment = bare.work / "dist", bare.work / "environment"
    for words in ([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(made), str(ROOT)],
                  [sys.executable, "-m", "venv", str(environment)]):
        subprocess.run(words, check=True, capture_output=True, timeout=300)
    [wheel], [_sdist] = made.glob("*.whl"), made.glob("*.tar.gz")
    subprocess.run([environment / "bin/pip", "install", "-q", wheel], check=True, capture_output=True, timeout=300)
    [catalog] = environment.glob("lib/python*/site-packages/clusterctl/artifacts/catalog.json")
    catalog.write_text("{}")
    return environment / "bin/clusterctl"


def run(cluster: Cluster, upstream: Upstream, program: Path, *words: str, code: int = 0) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cluster.work), **upstream.environment}
    done = subprocess.run([program, *words, "-i", str(cluster.inventory)], capture_output=True, text=True, timeout=600, check=False,
                          cwd=cluster.work, env=environment)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def deliver(cluster: Cluster, **settings: str) -> None:
    cluster.edit(lambda content: content["all"]["vars"]["cluster"].update(artifacts=settings))


@pytest.mark.parametrize("delivery", ["push", "auto"])
def test_a_lie_is_refused_before_a_machine_is_changed(bare: Cluster, upstream: Upstream, program: Path, delivery: str) -> None:
    """A file that is not what its published checksum says, sent from here and fetched by the machines."""
    deliver(bare, delivery=delivery)
    kubelet = next(path for path in upstream.files if path.endswith("/kubelet"))
    run(bare, upstream, program, "lock", "--arch", own_architecture())
    upstream.lies[kubelet] = lambda handler: reply(handler, 200, b"not a kubelet")
    assert kubelet in run(bare, upstream, program, "apply", "--yes", code=7)
    del upstream.lies[kubelet]
    for name in bare.lab.machines:
        assert not bare.on(name, "ls -d /opt/clusterctl /etc/clusterctl 2>/dev/null || :").strip()


def test_a_first_apply(bare: Cluster, upstream: Upstream, program: Path) -> None:
    """What no lock file has is locked by it; the next run asks upstream for nothing. The machines get each file once, through one of them."""
    (bare.inventory.parent / "clusterctl.lock").unlink()
    deliver(bare, delivery="pull", relay="cp-1")
    upstream.asked.clear()
    said = run(bare, upstream, program, "apply", "--yes")
    assert {path: upstream.asked.count(f"GET {path}") for path in upstream.files} == dict.fromkeys(upstream.files, 1)
    assert float(said.rsplit(" MiB sent", 1)[0].rsplit(" ", 1)[1]) < 5, said
    locked = yaml.safe_load((bare.inventory.parent / "clusterctl.lock").read_text())["files"]
    assert set(locked) == set(upstream.files), said
    checks.nodes_ready(bare)
    pods = bare.json("get", "pods", "-A")["items"]
    assert len(pods) >= 2 and all(pod["status"]["phase"] == "Running" for pod in pods), "their images come from the double, too"
    assert upstream.newest in run(bare, upstream, program, "upgrade", "plan"), "what upstream has released since"
    upstream.asked.clear()
    assert "no changes" in run(bare, upstream, program, "plan", "--locked") and not upstream.asked
    named = run(bare, upstream, program, "upgrade", "plan", "--to", minor(upstream.newest), code=2)
    assert upstream.newest in named, "a minor is its newest patch release, which the double does not have"
