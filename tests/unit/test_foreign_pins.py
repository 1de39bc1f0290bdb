"""A plan names the programs whose pin is not built in, and where each pin comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_os_update import cluster

from clusterctl.artifacts.catalog import Artifact, Catalog, Pin, built_in, image_path
from clusterctl.cluster.target import Target
from clusterctl.commands.apply import ApplyPlan
from clusterctl.components.products import RELEASES
from clusterctl.plan.stages import foreign_pins
from clusterctl.resources.base import Resource
from clusterctl.resources.binary import Binary, Image
from clusterctl.views.report import JsonReport
from clusterctl.views.text import TextReport

MIRROR = "https://mirror.test"


def fetch(artifact: Artifact) -> Path:
    raise AssertionError("a plan fetches nothing")


@pytest.fixture
def plan() -> ApplyPlan:
    """Two hosts: kubelet is built in, kube-proxy and an image are the mirror's, kube-scheduler is the inventory's."""
    proxy, scheduler = (RELEASES[name].at("1.36.4", "amd64") for name in ("kube-proxy", "kube-scheduler"))
    image = image_path("pause", "3.10.2", "amd64")
    pin = Pin("1" * 64)
    catalog = Catalog({**built_in(), proxy: pin, scheduler: pin, image: pin}, fetch,
                      sources={proxy: MIRROR, image: MIRROR, scheduler: "the inventory", "unused": MIRROR})

    def program(name: str) -> Resource:
        return Binary(name=name, version="1.36.4", source=catalog.artifact(RELEASES[name], "1.36.4", "amd64"))

    archive = catalog.image("pause", "3.10.2", "amd64")
    assert archive is not None
    node = (program("kubelet"), program("kube-proxy"), Image(reference="registry.k8s.io/pause:3.10.2", source=archive))
    resources = {"cp-1": {"staging": (*node, program("kube-scheduler"))}, "w-1": {"staging": node, "nodes": ()}}
    return ApplyPlan(Target(cluster=cluster(1)), pins=foreign_pins(resources, catalog.sources))


def test_pins_are_listed_by_source_as_json(plan: ApplyPlan, capsys: pytest.CaptureFixture[str]) -> None:
    JsonReport().plan(plan)
    assert json.loads(capsys.readouterr().out)["pins"] == [
        {"source": MIRROR, "files": ["kube-proxy 1.36.4 (amd64)", "pause 3.10.2 (amd64)"]},
        {"source": "the inventory", "files": ["kube-scheduler 1.36.4 (amd64)"]},
    ]


@pytest.mark.parametrize("verbose", [False, True])
def test_pins_are_a_line_for_each_source(plan: ApplyPlan, capsys: pytest.CaptureFixture[str], verbose: bool) -> None:
    TextReport(verbose=verbose).plan(plan)
    lines = [line for line in capsys.readouterr().out.splitlines() if MIRROR in line or "the inventory" in line]
    assert len(lines) == 2
    assert "kube-proxy" in lines[0] and "pause" in lines[0] and "kube-scheduler" in lines[1]
    assert ("1.36.4" in lines[0]) == verbose


def test_a_plan_of_built_in_pins_alone_lists_none(capsys: pytest.CaptureFixture[str]) -> None:
    TextReport().plan(ApplyPlan(Target(cluster=cluster(1))))
    assert "pins" not in capsys.readouterr().out
