"""``cluster.endpoint.port`` without an address: the API servers listen there, and everything that talks to them follows."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_golden import VM, Catalog, Pins, nothing

from clusterctl.cluster.model import Cluster
from clusterctl.components.base import Context
from clusterctl.health.ports import ports
from clusterctl.inventory import load
from clusterctl.pki import Pki
from clusterctl.plan import planner
from clusterctl.plan.stages import stages
from clusterctl.resources.file import File

INVENTORY = """
all:
  vars: {{ansible_user: root, cluster: {{endpoint: {endpoint}}}}}
control_plane: {{hosts: {{cp-1: {{ansible_host: 192.0.2.1}}}}}}
workers: {{hosts: {{w-1: {{ansible_host: 192.0.2.2}}}}}}
"""


def cluster(folder: Path, endpoint: str) -> Cluster:
    path = folder / "cluster.yaml"
    path.write_text(INVENTORY.format(endpoint=endpoint))
    return load(path)


def texts(made: Cluster, host: str) -> str:
    """All files of a host."""
    context = Context(cluster=made, host=made.host(host), facts=VM, pki=Pki.create(), catalog=Catalog(Pins(), nothing))
    files = [resource.content for stage in planner.resources_for(stages(made), context).values() for resource in stage
             if isinstance(resource, File)]
    return b"\n".join(files).decode()


def test_the_port_is_everywhere_the_same(tmp_path: Path) -> None:
    made = cluster(tmp_path, "{port: 8443}")
    assert made.api_port == 8443 and str(made.endpoint.address) == "192.0.2.1"
    plane, worker = texts(made, "cp-1"), texts(made, "w-1")
    assert "--secure-port=8443" in plane and "https://127.0.0.1:8443" in plane and "-connect 127.0.0.1:8443" in plane
    assert "bind 127.0.0.1:8443" in worker and "server cp-1 192.0.2.1:8443" in worker and "https://127.0.0.1:8443" in worker
    assert "6443" not in plane + worker
    assert {port.number for port in ports(made)} >= {8443} and 6443 not in {port.number for port in ports(made)}


@pytest.mark.parametrize("endpoint", ["{address: lb.example, port: 443}", "{names: [api.example]}", "{}"])
def test_a_load_balancer_has_a_port_of_its_own(tmp_path: Path, endpoint: str) -> None:
    assert cluster(tmp_path, endpoint).api_port == 6443
