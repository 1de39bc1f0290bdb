"""The time service: what the setting adds to machines, to containers and to systems with dnf."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from test_additions import cluster_with
from test_golden import CONTAINER, VM, Pins, nothing

from clusterctl.artifacts.catalog import Catalog
from clusterctl.components.base import Context
from clusterctl.pki import Pki
from clusterctl.plan import planner
from clusterctl.plan.stages import stages
from clusterctl.resources.additions import NOTES, AddedFile, AddedPackages, AddedService, FormerAdditions, Restart
from clusterctl.resources.base import Resource
from clusterctl.shell import Observation
from clusterctl.shell.facts import Facts

DEBIAN = "/etc/chrony/conf.d/clusterctl.conf"
DROP_IN = b"# Written by clusterctl.\n# The clock stays right while pods use all processors and all memory.\nlock_all\nsched_priority 1\n"


def prepared(folder: Path, content: str, facts: Facts = VM) -> list[Resource]:
    cluster = cluster_with(folder, w_1=content)
    context = Context(cluster=cluster, host=cluster.host("w-1"), facts=facts, pki=Pki.create(), catalog=Catalog(Pins(), nothing))
    return list(planner.resources_for(stages(cluster), context)["prepare"])


@pytest.mark.parametrize(("facts", "path", "unit", "kind"), [
    (VM, DEBIAN, "chrony.service", AddedService), (CONTAINER, DEBIAN, "chrony.service", Restart),
    (dataclasses.replace(VM, os="rocky"), "/etc/chrony.conf", "chronyd.service", AddedService),
], ids=["debian", "container", "rocky"])
def test_chrony_is_a_package_a_file_and_a_unit(tmp_path: Path, facts: Facts, path: str, unit: str, kind: type[Resource]) -> None:
    found = prepared(tmp_path, "cluster: {time: chrony}\n", facts)
    ids = [one.id for one in found]
    package, file, service = (next(one for one in found if type(one) is wanted) for wanted in (AddedPackages, AddedFile, kind))
    assert isinstance(package, AddedPackages) and package.names == ("chrony",)
    assert isinstance(file, AddedFile) and file.path == path and file.content.endswith(DROP_IN[len(b"# Written by clusterctl.\n"):])
    assert (file.content == DROP_IN) is (path == DEBIAN) and (b"\nmakestep 1.0 3\n" in file.content) is (path != DEBIAN)
    assert isinstance(service, Restart | AddedService) and (service.unit, service.inputs) == (unit, (file.id,))
    assert ids.index(package.id) < ids.index(file.id) < ids.index(service.id)


def test_without_the_setting_all_of_it_goes(tmp_path: Path) -> None:
    notes = {"package": ("chrony", "systemd-timesyncd"), "file": (DEBIAN, ""), "service": ("chrony.service", "enabled runs")}
    seen = Observation()
    for kind, (name, said) in notes.items():
        seen.add("text", [f"{NOTES}:{kind}", name, said])
    for content, gone in (("cluster: {time: none}\n", list(notes)), ("cluster: {time: chrony}\n", [])):
        former = [one for one in prepared(tmp_path, content) if isinstance(one, FormerAdditions)]
        assert sorted(one.kind for one in former if one.diff(one.observed(seen))) == sorted(gone)


def test_files_of_the_inventory(tmp_path: Path) -> None:
    """One with the product's path takes its place; one that restarts the unit is an input of the service."""
    files = f"[{{path: {DEBIAN}, content: mine, restarts: chrony.service}}, {{path: /etc/x, content: y, restarts: chrony.service}}]"
    found = prepared(tmp_path, f"cluster: {{time: chrony, files: {files}}}\n")
    assert [one.content for one in found if isinstance(one, AddedFile)] == [b"mine", b"y"]
    [service] = [one for one in found if isinstance(one, AddedService)]
    assert service.inputs == (f"file:{DEBIAN}", "file:/etc/x") and not [one for one in found if type(one) is Restart]
