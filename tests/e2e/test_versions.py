"""The latest minor comes up, on machines that get the programs from an HTTP mirror by themselves."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import checks
import pytest
from cluster import CLI, Cluster, until

from clusterctl.artifacts.places import default_mirror
from clusterctl.lab import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.versions]

LATEST = "1.37.2"


@contextmanager
def http_mirror(cluster: Cluster) -> Iterator[str]:
    """The mirror over HTTP, on the lab's own side: its machines reach it."""
    command = [*CLI, "lab", "exec", "--name", cluster.lab.name, "--", sys.executable, "-m", "http.server", "8089", "--bind", cluster.lab.gateway,
               "--directory", str(default_mirror())]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://{cluster.lab.gateway}:8089"
    finally:
        server.kill()
        server.wait()


def test_machines_pull_from_an_http_mirror(tmp_path: Path) -> None:
    """The controller runs in the lab's network here, as it must reach the same mirror."""
    cluster = Cluster.up(LabSpec(name="e2ehttp", machines=2, cluster={"kubernetes": LATEST}), tmp_path)
    try:
        with http_mirror(cluster) as url:
            catalog = hashlib.sha256((default_mirror() / "catalog.json").read_bytes()).hexdigest()
            settings = {"mirror": url, "cache": str(tmp_path / "cache"), "pins": {"catalog.json": catalog}}
            cluster.edit(lambda content: content["all"]["vars"]["cluster"].update(artifacts=settings))
            inside = [*CLI, "lab", "exec", "--name", cluster.lab.name, "--", *CLI]
            until(lambda: subprocess.run([*inside, "plan", "-i", str(cluster.inventory)], capture_output=True, check=True, timeout=60), "the mirror")
            done = subprocess.run([*inside, "apply", "--yes", "-i", str(cluster.inventory)], capture_output=True, text=True, timeout=600,
                                  check=False, env=dict(os.environ), stdin=subprocess.DEVNULL)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr
            sent = float(done.stdout.rsplit(" MiB sent", 1)[0].rsplit(" ", 1)[1])
            assert sent < 5, "programs and images went over SSH"
            assert "no changes" in subprocess.run([*inside, "plan", "-i", str(cluster.inventory)], capture_output=True, text=True,
                                                  check=True, timeout=60).stdout
        checks.nodes_ready(cluster)
        assert {node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.json("get", "nodes")["items"]} == {f"v{LATEST}"}
        checks.load_image(cluster)
        checks.pod_network(cluster, checks.pods_everywhere(cluster))
    finally:
        cluster.down()
