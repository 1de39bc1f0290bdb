"""A cluster whose programs come from upstream, without a mirror: a double of its servers, with files that were built here."""

from __future__ import annotations

import ctypes
import os
import pty
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import checks
import pytest
import yaml
from cluster import Cluster, until

from clusterctl.artifacts.catalog import image_path
from clusterctl.artifacts.places import default_mirror, own_architecture
from clusterctl.cluster.versions import minor
from clusterctl.components.products import releases
from clusterctl.engine.delivery import RELAY_PORT
from clusterctl.inventory import load
from clusterctl.lab import LabSpec

sys.path.insert(0, str(Path(__file__).parent.parent / "unit/artifacts"))

from upstream_double import Upstream, reply

ROOT = Path(__file__).parent.parent.parent

CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane and a worker."""
    made = Cluster.up(LabSpec(name="e2esrc", machines=2, cluster={"addons": {"metrics_server": False}}),
                      Path(tmp_path_factory.mktemp("upstream")))
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
    paths = [release.at(version, arch) for release, version in releases(cluster)]
    double = Upstream(bare.work, {path: default_mirror() / path for path in paths})
    for image, version in (("pause", cluster.versions.pause), ("coredns", cluster.versions.coredns)):
        double.add_archive(default_mirror() / image_path(image, version, arch))
    proxy = listen(bare.lab.namespace, bare.lab.gateway)
    double.listen(proxy)
    # containerd gets to the registry through the proxy, and needs the double's CA.
    bare.edit(lambda content: content["all"]["vars"]["cluster"].update(
        proxy={"https": f"http://{bare.lab.gateway}:{proxy.getsockname()[1]}"},
        registries={"registry.k8s.io": {"ca": str(double.authority)}}))
    # Machines have apt's own program to fetch with.
    settings = f"""Acquire::https::Proxy "http://{bare.lab.gateway}:{proxy.getsockname()[1]}"; Acquire::https::CAInfo "/etc/double.pem";"""
    for name in bare.lab.machines:
        bare.lab.exec(name, ["sh", "-c", f"cat >/etc/double.pem; echo '{settings}' >/etc/apt/apt.conf.d/99double"],
                      stdin=double.authority.read_text())
    yield double
    double.close()


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


def commands_of_the_readme() -> list[list[str]]:
    """The commands with which the README creates a cluster, from the first look at the inventory to the kubeconfig."""
    [block] = [block for block in (ROOT / "README.md").read_text().split("```")[1::2] if "clusterctl apply -i cluster.yaml" in block]
    return [shlex.split(line, comments=True) for line in block.strip().splitlines()]


def as_the_readme_says(cluster: Cluster, upstream: Upstream, program: Path) -> str:
    """Run the README's commands one after the other, with a yes where apply asks; return what they print."""
    (cluster.inventory.parent / "cluster.yaml").symlink_to(cluster.inventory.name)
    said = ""
    commands = commands_of_the_readme()
    assert [words[1] for words in commands] == ["inventory", "plan", "apply", "status", "kubeconfig"]
    for _, *words in commands:
        terminal, inner = pty.openpty()
        os.write(terminal, b"yes\n" if words[0] == "apply" else b"")
        done = subprocess.run([program, *words], stdin=inner, capture_output=True, text=True, timeout=600, check=False,
                              cwd=cluster.inventory.parent, env=environment_of(cluster, upstream))
        os.close(terminal)
        os.close(inner)
        assert done.returncode == 0, done.stdout + done.stderr
        said += done.stdout + done.stderr
    return said


def environment_of(cluster: Cluster, upstream: Upstream) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(cluster.work), **upstream.environment}


def run(cluster: Cluster, upstream: Upstream, program: Path, *words: str, code: int = 0) -> str:
    environment = environment_of(cluster, upstream)
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
    """The README's commands. What no lock file has is locked by them; the next run asks upstream for nothing.

    The machines get each file once, through one of them.
    """
    (bare.inventory.parent / "clusterctl.lock").unlink()
    deliver(bare, delivery="pull", relay="cp-1")
    upstream.asked.clear()
    started = time.monotonic()
    said = as_the_readme_says(bare, upstream, program)
    assert (bare.work / ".kube/config").stat().st_mode & 0o777 == 0o600
    print(f"\nfrom a wheel to two machines that are Ready: {time.monotonic() - started:.0f} s")
    assert {path: upstream.asked.count(f"GET {path}") for path in upstream.files} == dict.fromkeys(upstream.files, 1)
    assert sent(said) < 5, said
    locked = yaml.safe_load((bare.inventory.parent / "clusterctl.lock").read_text())["files"]
    assert set(locked) == set(upstream.files), said
    checks.nodes_ready(bare)
    # CoreDNS answers: containerd got it and the pause image from the registry.
    until(lambda: run(bare, upstream, program, "status"), "status well", 60)
    assert {"registry.k8s.io/v2/pause", "registry.k8s.io/v2/coredns/coredns"} <= {
        asked.split(" ")[1].partition("/manifests/")[0] for asked in upstream.asked}
    assert upstream.newest in run(bare, upstream, program, "upgrade", "plan"), "what upstream has released since"
    upstream.asked.clear()
    assert "no changes" in run(bare, upstream, program, "plan", "--locked") and not upstream.asked
    named = run(bare, upstream, program, "upgrade", "plan", "--to", minor(upstream.newest), code=2)
    assert upstream.newest in named, "a minor is its newest patch release, which the double does not have"


def sent(said: str) -> float:
    """The MiB that a run says it has sent."""
    return float(said.rsplit(" MiB sent", 1)[0].rsplit(" ", 1)[1])


def test_a_relay_is_fed_over_ssh(bare: Cluster, upstream: Upstream, program: Path) -> None:
    """The other machine fetches from it; where it cannot, its files are sent to it as well."""
    deliver(bare, delivery="push", relay="cp-1")
    taken = []
    for rule in ("true", f"iptables -I OUTPUT -p tcp --dport {RELAY_PORT} -j REJECT"):
        for name in bare.lab.machines:
            bare.on(name, "rm $(readlink -f /opt/clusterctl/bin/crictl)")
        bare.on("w-1", rule)
        taken.append(sent(run(bare, upstream, program, "apply", "--yes")))
        for name in bare.lab.machines:
            bare.on(name, "/opt/clusterctl/bin/crictl --version; ! systemctl is-active clusterctl-relay.service")
    bare.on("w-1", rule.replace(" -I ", " -D "))
    once, twice = taken
    assert once > 5 and twice > 1.8 * once, taken


def test_a_mirror_of_its_own(bare: Cluster, upstream: Upstream, program: Path) -> None:
    """A host fetches from the mirror in its variables, and not from upstream."""
    asked: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path.removeprefix("/"))

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(default_mirror())))
    server.socket.close()
    server.socket = listen(bare.lab.namespace, bare.lab.gateway)
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    deliver(bare, delivery="pull")
    url = f"http://{bare.lab.gateway}:{server.socket.getsockname()[1]}"
    bare.edit(lambda content: content["all"]["children"]["workers"]["hosts"]["w-1"].update(cluster={"mirror": url}))
    upstream.asked.clear()
    try:
        bare.on("w-1", "rm $(readlink -f /opt/clusterctl/bin/crictl)")
        run(bare, upstream, program, "apply", "--yes")
        bare.on("w-1", "/opt/clusterctl/bin/crictl --version")
    finally:
        server.shutdown()
        server.server_close()
    [path] = set(asked)
    assert "crictl" in path and not any("crictl" in line for line in upstream.asked)
