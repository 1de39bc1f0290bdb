"""What tests of the lock file share: an inventory, and runs of clusterctl against the double of upstream."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from upstream_double import Answer, Upstream, reply

from clusterctl.cluster.model import Cluster
from clusterctl.components.products import releases

INVENTORY = {"all": {"children": {
    "control_plane": {"hosts": {"cp-1": {"ansible_host": "192.0.2.1"}}}, "etcd": {"hosts": {"cp-1": None}},
    "workers": {"hosts": {"w-1": {"ansible_host": "192.0.2.2"}}}}, "vars": {"cluster": {"kubernetes": "1.36.7"}}}}
APISERVER = "dl.k8s.io/release/v1.36.7/bin/linux/amd64/kube-apiserver"
FLANNEL = "api.github.com/repos/flannel-io/flannel/releases/tags/v0.28.10"


def paths(cluster: Cluster) -> list[str]:
    return [release.at(version, arch) for release, version in releases(cluster) for arch in ("amd64", "arm64")]


def run(upstream: Upstream, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(upstream.authority.parent / "cache"), **upstream.environment, **more}
    environment.pop("CLUSTERCTL_MIRROR", None)
    return subprocess.run([sys.executable, "-m", "clusterctl", *words], capture_output=True, text=True, timeout=60, check=False, env=environment)


def locked(inventory: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((inventory.parent / "clusterctl.lock").read_text())["files"]
    return found


def text(status: int, body: bytes, **headers: str) -> Answer:
    return lambda handler: reply(handler, status, body, **headers)
