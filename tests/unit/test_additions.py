"""What an inventory adds to machines: as resources, in the stages, and away again when it leaves the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_host_settings import cluster_with, refusal
from test_host_settings import wanted as all_wanted

from clusterctl.cluster.machine_settings import Hook
from clusterctl.components.kernel import replaced_settings
from clusterctl.components.products import MANAGED, SERVICES
from clusterctl.engine.hooks import gates
from clusterctl.errors import InputError, Problems, Stopped
from clusterctl.inventory import load
from clusterctl.plan import planner
from clusterctl.plan.stages import stages
from clusterctl.resources.additions import (
    NOTES,
    AddedFile,
    AddedModule,
    AddedPackages,
    AddedSysctl,
    Command,
    FormerAdditions,
    Hostname,
    Restart,
)
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.resources.service import Service
from clusterctl.resources.system import Sysctl
from clusterctl.shell import Observation

GIVEN = """\
cluster:
  packages: [htop, openssl]
  modules: [vhost-net, overlay]
  sysctls: {net.core.somaxconn: 4096, vm.overcommit_memory: "0"}
  files:
    - {path: /etc/app/a.conf, content: "a\\n", restarts: app.service, mode: "0600", group: adm}
    - {path: /etc/app/b.conf, source: b.conf, restarts: app.service}
    - {path: /etc/containerd/conf.d/mine.toml, template: c.j2, restarts: containerd.service}
  hooks:
    - {name: first, before: nodes, run: "true"}
    - {name: last, after: nodes, run: "true"}
    - {name: away, after: nodes, where: controller, run: "true"}
    - {name: members, before: etcd, run: "true"}
"""


def resources(tmp_path: Path, host: str = "w-1", content: str = GIVEN) -> dict[str, list[Resource]]:
    (tmp_path / "b.conf").write_text("{{ host }}")
    (tmp_path / "c.j2").write_text("# {{ host.name }} of {{ cluster.name }}\n")
    found = all_wanted(cluster_with(tmp_path, **{host.replace("-", "_"): content}))
    return {stage: list(of_stage) for stage, of_stage in found[host].items()}


def of_kind(found: dict[str, list[Resource]], kind: type[Resource]) -> list[Resource]:
    return [one for of_stage in found.values() for one in of_stage if type(one) is kind]


def test_additions_are_resources_of_the_host(tmp_path: Path) -> None:
    found = resources(tmp_path)
    assert [one.names for one in of_kind(found, AddedPackages)] == [("htop",)]  # type: ignore[attr-defined]
    assert [one.id for one in of_kind(found, AddedModule)] == ["module:vhost_net"]
    assert {(one.key, one.value) for one in of_kind(found, AddedSysctl)} == {  # type: ignore[attr-defined]
        ("net.core.somaxconn", "4096"), ("vm.overcommit_memory", "0")}
    assert "sysctl:vm.overcommit_memory" not in [one.id for one in of_kind(found, Sysctl)]
    files = {one.path: one for one in of_kind(found, AddedFile) if isinstance(one, AddedFile)}
    assert (files["/etc/app/a.conf"].content, files["/etc/app/a.conf"].mode, files["/etc/app/a.conf"].owner) == (b"a\n", "600", "root:adm")
    assert files["/etc/app/b.conf"].content == b"{{ host }}"
    assert files["/etc/containerd/conf.d/mine.toml"].content == b"# w-1 of production\n"
    written = {one.path: one.content for one in found["prepare"] if isinstance(one, File)}
    assert b"vm.overcommit_memory = 0\n" in written["/etc/sysctl.d/99-zz-clusterctl.conf"]
    assert b"\nvhost_net\n" in written["/etc/modules-load.d/clusterctl.conf"]


@pytest.mark.parametrize(("mode", "wanted", "left"), [
    ("set", True, []), ("check", False, ["forget_added"]), ("ignore", False, ["undo_added"])])
def test_hostnames_are_set_and_given_back(tmp_path: Path, mode: str, wanted: bool, left: list[str]) -> None:
    cluster = cluster_with(tmp_path)
    cluster = cluster.model_copy(update={"settings": cluster.settings.model_copy(update={"hostnames": mode})})
    found = all_wanted(cluster)["w-1"]["prepare"]
    assert [one.id for one in found if isinstance(one, Hostname)] == ["hostname:w-1"] * wanted
    leaving = next(one for one in found if one.id == "added:hostname")
    seen = Observation()
    seen.add("text", [f"{NOTES}:hostname", "w-1", "golden "])
    change = leaving.diff(leaving.observed(seen))
    assert [call[0] for call in (leaving.apply(change) if change else ())] == left


def test_a_hostname_is_the_kernels_and_the_one_after_a_boot() -> None:
    seen, one = Observation(), Hostname(name="w-1")
    seen.add("text", ["/proc/sys/kernel/hostname:w-1"])
    change = one.diff(one.observed(seen))
    assert change is not None and change.fields == ("boot",) and change.before == {"kernel": "w-1", "boot": ""}
    seen.add("text", ["/etc/hostname:w-1"])
    assert one.diff(one.observed(seen)) is None


def test_files_restart_units_of_the_system_and_of_clusterctl(tmp_path: Path) -> None:
    found = resources(tmp_path)
    [restart] = of_kind(found, Restart)
    assert restart.inputs == ("file:/etc/app/a.conf", "file:/etc/app/b.conf")  # type: ignore[attr-defined]
    services = {one.unit: one for one in of_kind(found, Service) if isinstance(one, Service)}
    assert "file:/etc/containerd/conf.d/mine.toml" in services["containerd.service"].inputs
    assert services.keys() <= SERVICES


def test_hooks_are_at_the_ends_of_their_stage(tmp_path: Path) -> None:
    worker, member = resources(tmp_path), resources(tmp_path, "cp-1")
    assert [worker["nodes"][at].id for at in (0, -1)] == ["hook:first", "hook:last"]
    assert [one.id for one in worker["after nodes"]] == ["hook:away"]
    assert not of_kind({"etcd": worker["etcd"]}, Command) and member["etcd"][0].id == "hook:members"
    assert list(worker).index("after nodes") == list(worker).index("nodes") + 1


def notes(*lines: str) -> Observation:
    seen = Observation()
    for line in lines:
        seen.add("text", [f"{NOTES}:{line}"])
    return seen


def test_what_leaves_the_inventory_is_removed(tmp_path: Path) -> None:
    there = notes("package\thtop\t", "package\topenssl\tinstalled", "module\tvhost_net\t", "sysctl\tnet.core.somaxconn\t128",
                  "sysctl\tvm.overcommit_memory\t0", "file\t/etc/app/a.conf\tkept", "hook\tfirst\t", "restart\tapp.service\t")
    leaving = of_kind(resources(tmp_path, content="x: 1"), FormerAdditions)
    changes = {one.id: one.diff(one.observed(there)) for one in leaving}
    calls = {name: list(change.resource.apply(change)) for name, change in changes.items() if change}
    assert calls == {
        "added:package": [("undo_added", "package", "htop"), ("forget_added", "package", "openssl")],
        "added:module": [("undo_added", "module", "vhost_net")],
        "added:sysctl": [("undo_added", "sysctl", "net.core.somaxconn"), ("forget_added", "sysctl", "vm.overcommit_memory")],
        "added:file": [("undo_added", "file", "/etc/app/a.conf")], "added:hook": [("undo_added", "hook", "first")],
        "added:restart": [("undo_added", "restart", "app.service")],
    }
    assert all(one.diff(one.observed(notes())) is None for one in leaving)
    still = of_kind(resources(tmp_path), FormerAdditions)
    assert {one.id for one in still if one.diff(one.observed(there))} == {"added:package"}


def test_a_unit_is_restarted_for_its_files_alone(tmp_path: Path) -> None:
    found = resources(tmp_path)
    [restart] = of_kind(found, Restart)
    seen = Observation()
    for line in ("Id=app.service", "LoadState=loaded", "ActiveState=inactive", "UnitFileState=static"):
        seen.add("unit", [line])
    inputs = [one for one in of_kind(found, AddedFile) if one.id in restart.inputs]  # type: ignore[attr-defined]
    for one in inputs:
        assert isinstance(one, AddedFile)
        seen.add("stat", [one.path, "regular file", one.mode, one.owner])
        seen.add("sha", [f"{one.sha256}  {one.path}"])
    assert [change.action for change in planner.compare([*inputs, restart], seen, {})] == ["restart"]
    known: planner.Known = {one.id: (None, None, one) for one in inputs}
    assert isinstance(restart, Restart)
    seen.add("text", [f"/var/lib/clusterctl/stamps/app.service:{planner.stamp(restart, known)} x"])
    assert planner.compare([*inputs, restart], seen, {}) == ()


def test_a_replaced_setting_is_told(tmp_path: Path) -> None:
    cluster = cluster_with(tmp_path, w_1="cluster: {sysctls: {vm.overcommit_memory: 0, kernel.panic: 10}}")
    [told] = replaced_settings(cluster.hosts)
    assert "vm.overcommit_memory = 0" in told and "w-1" in told


WRONG = [
    # case           content                                                            code
    ("relative",     "files: [{path: etc/x, content: a}]",                              "inventory.file-path"),
    ("dots",         "files: [{path: /etc/../etc/shadow, content: a}]",                 "inventory.file-path"),
    ("ours",         "files: [{path: /etc/kubernetes/admin.conf, content: a}]",         "inventory.file-path"),
    ("our unit",     "files: [{path: /etc/systemd/system/kubelet.service, content: a}]", "inventory.file-path"),
    ("proc",         "files: [{path: /proc/sys/x, content: a}]",                        "inventory.file-path"),
    ("two contents", "files: [{path: /etc/x, content: a, source: b}]",                  "inventory.file-content"),
    ("no content",   "files: [{path: /etc/x}]",                                         "inventory.file-content"),
    ("path twice",   "files: [{path: /etc/x, content: a}, {path: /etc/x, content: b}]", "inventory.file-twice"),
    ("two stages",   "hooks: [{name: a, before: etcd, after: etcd, run: a}]",           "inventory.hook-stage"),
    ("name twice",   "hooks: [{name: a, before: etcd, run: a}, {name: a, before: etcd, run: b}]", "inventory.hook-twice"),
]


@pytest.mark.parametrize(("content", "code"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_refusals(tmp_path: Path, content: str, code: str) -> None:
    assert refusal(tmp_path, content).code == code


@pytest.mark.parametrize("content", [
    "packages: ['a b']", "modules: ['a/b']", "sysctls: {panic: 1}", "sysctls: {kernel.panic: true}", "sysctls: {kernel.panic: ''}",
    "files: [{path: /etc/x, content: a, mode: 0644}]", "files: [{path: /etc/x, content: a, mode: '999'}]", "hooks: [{name: a, before: all, run: a}]",
    "hooks: [{name: a, before: etcd}]", "hooks: [{name: a, before: etcd, run: a, timeout: 0}]", "files: [{path: /etc/x, content: a, restarts: x}]",
    "files: [{path: /etc/x, contents: a}]",
])
def test_wrong_values_are_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises((InputError, Problems)):
        cluster_with(tmp_path, w_1=f"cluster:\n  {content}\n")


@pytest.mark.parametrize(("name", "content", "code"), [
    ("none", "", "inventory.file-unreadable"), ("t.j2", "{{ nothing }}", "inventory.file-template"), ("t.j2", "{% if", "inventory.file-template"),
    ("t.j2", "{{ cluster.__class__.__mro__[1].__subclasses__() }}", "inventory.file-template"),
])
def test_files_that_cannot_be_made_are_refused(tmp_path: Path, name: str, content: str, code: str) -> None:
    (tmp_path / "t.j2").write_text(content)
    with pytest.raises(InputError) as caught:
        all_wanted(cluster_with(tmp_path, w_1=f"cluster: {{files: [{{path: /etc/x, template: {name}}}]}}"))
    assert caught.value.code == code


def test_templates_that_cannot_be_rendered_are_reported_together(tmp_path: Path) -> None:
    for name in ("a.j2", "b.j2"):
        (tmp_path / name).write_text("{{ nothing }}")
    with pytest.raises(Problems) as caught:
        all_wanted(cluster_with(tmp_path, w_1="cluster: {files: [{path: /etc/a, template: a.j2}, {path: /etc/b, template: b.j2}]}"))
    assert [error.code for error in caught.value.errors] == ["inventory.file-template"] * 2


def test_all_that_clusterctl_writes_is_managed(tmp_path: Path) -> None:
    for of_stage in (one for found in all_wanted(cluster_with(tmp_path)).values() for one in found.values()):
        for resource in of_stage:
            path = getattr(resource, "path", "")
            assert not path or any(path == place or path.startswith(f"{place}/") for place in MANAGED), path


class Controller:
    """As much of a session as hooks need."""

    def __init__(self, base: Path) -> None:
        self.cluster = load(base / "ha.yaml")


def run_hook(tmp_path: Path, **values: object) -> None:
    for name in ("b.conf", "c.j2"):
        (tmp_path / name).touch()
    cluster_with(tmp_path)
    host = load(tmp_path / "ha.yaml").host("w-1")
    command = Command(hook=Hook.model_validate({"name": "a", "after": "nodes", "where": "controller", **values}))
    change = command.diff(None)
    assert change is not None
    [stage] = [one for one in stages(cluster_with(tmp_path, w_1=GIVEN)) if one.name == "after nodes"]
    part = planner.HostChanges(host, (change,), (command,))
    gates(Controller(tmp_path))["after nodes"](planner.StagePlan(stage, (part,)), [host])  # type: ignore[arg-type]


def test_hooks_of_the_controller_run_in_the_folder_of_the_inventory(tmp_path: Path) -> None:
    run_hook(tmp_path, run='echo "$CLUSTERCTL_HOST $CLUSTERCTL_ADDRESS" >ran')
    assert (tmp_path / "ran").read_text() == "w-1 192.0.2.21\n"
    run_hook(tmp_path, run="touch more", when="exit 1")
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize("values", [{"run": "exit 3"}, {"run": "sleep 5", "timeout": 1}])
def test_a_hook_of_the_controller_that_fails_stops_the_run(tmp_path: Path, values: dict[str, object]) -> None:
    with pytest.raises(Stopped) as caught:
        run_hook(tmp_path, **values)
    assert caught.value.code == "hook.failed"


