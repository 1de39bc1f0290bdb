"""os-update on a running cluster: packages from a repository of the test's own, drains, reboots, and what must not change."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import checks
import pytest
from cluster import CLI, Cluster, deployment, until
from interruption import Series, no_leftovers

from clusterctl.lab import LabSpec, network, repository, server
from clusterctl.lab.base import ensure_base
from clusterctl.lab.nspawn import Nspawn

pytestmark = pytest.mark.lab

PORT = 8080
AT_LEAST = 10
"""Random moments of the interrupted runs."""

ASKS_FOR_A_REBOOT = "#!/bin/sh\nset -e\ntouch /run/reboot-required\necho hello-lab >>/run/reboot-required.pkgs\nsystemctl restart ssh\n"
"""What a maintainer's script does after an update of the kernel; sshd is restarted under the connection that runs it."""

COUNT = ("printf '[Service]\\nType=oneshot\\nExecStart=/bin/sh -c \"cat /proc/sys/kernel/random/boot_id >>/var/log/boots\"\\n"
         "[Install]\\nWantedBy=multi-user.target\\n' >/etc/systemd/system/count-boots.service && systemctl enable --quiet count-boots")


def package(folder: Path, name: str, version: str, conffile: str = "", postinst: str = "") -> None:
    """Make a package that has nothing but a configuration file and a script."""
    tree = folder.parent / f"{name}-{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <n@example.org>\nDescription: test\n")
    if conffile:
        (tree / "etc").mkdir()
        (tree / f"etc/{name}.conf").write_text(conffile)
        (tree / "DEBIAN/conffiles").write_text(f"/etc/{name}.conf\n")
    if postinst:
        (tree / "DEBIAN/postinst").write_text(postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(folder)], check=True, capture_output=True, timeout=60)


def newer(folder: Path, name: str, version: str) -> None:
    """Make a package of what the lab serves, with its programs and scripts, under another version."""
    [served] = (ensure_base(print, Nspawn.recipe).repository).glob(f"{name}_*.deb")
    tree = folder.parent / f"{name}-newer"
    subprocess.run(["dpkg-deb", "--raw-extract", str(served), str(tree)], check=True, capture_output=True, timeout=60)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(folder)], check=True, capture_output=True, timeout=60)


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Serve a folder of packages to the lab's machines."""
    namespace = network.NAMESPACES / cluster.lab.namespace
    program = [sys.executable, "-I", str(server.__file__), str(folder), cluster.lab.gateway, str(PORT)]
    process = subprocess.Popen(["nsenter", f"--net={namespace}", *program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        network.wait_for_port(cluster.lab.namespace, cluster.lab.gateway, PORT)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster.up(LabSpec(name="osue2e", machines=3), Path(tmp_path_factory.mktemp("osupdate")))
    folder = made.work / "repository"
    folder.mkdir()
    try:
        made.apply()
        checks.load_image(made)
        package(folder, "hello-lab", "1.0", conffile="as of 1.0\n")
        package(folder, "cri-tools", "1.0")
        repository.write_index(folder)
        with serving(made, folder):
            for machine in made.lab.machines:
                made.on(machine, f"set -e; mkdir -p /etc/apt/sources.list.d; echo 'deb [trusted=yes] http://{made.lab.gateway}:{PORT}/ ./' >/etc/apt/sources.list.d/test.list; "
                                 f"apt-get -q update; apt-get -y -q install hello-lab cri-tools; echo mine >/etc/hello-lab.conf; {COUNT}")
            package(folder, "hello-lab", "2.0", conffile="as of 2.0\n", postinst=ASKS_FOR_A_REBOOT)
            package(folder, "cri-tools", "99.0")
            repository.write_index(folder)
            web = deployment("web", replicas=2)
            budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"},
                      "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}
            checks.apply_objects(made, web, budget)
            checks.running(made, "web", 2)
            yield made
    finally:
        made.down()


class Watch(threading.Thread):
    """Counts the pods of the Deployment that are ready, as long as the API answers."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.cluster, self.counts, self.ended = cluster, [], threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            try:
                pods = json.loads(self.cluster.kubectl("get", "pods", "-l", "app=web", "-o", "json", "--request-timeout=5s"))["items"]
            except (AssertionError, subprocess.SubprocessError):
                continue
            self.counts.append(sum("deletionTimestamp" not in pod["metadata"] and any(
                entry["type"] == "Ready" and entry["status"] == "True" for entry in pod["status"].get("conditions", ())) for pod in pods))


def boots(cluster: Cluster) -> dict[str, int]:
    """How often each machine has booted since the test began."""
    return {machine: int(cluster.on(machine, "cat /var/log/boots 2>/dev/null | wc -l")) for machine in cluster.lab.machines}


def version(cluster: Cluster, machine: str, name: str) -> str:
    return cluster.on(machine, f"dpkg-query -W -f '${{Version}}' {name}")


def cordoned(cluster: Cluster) -> set[str]:
    return {node["metadata"]["name"] for node in cluster.json("get", "nodes")["items"] if node["spec"].get("unschedulable")}


def events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def settled(cluster: Cluster) -> None:
    """All is as it was, and nothing of os-update is left."""
    checks.nodes_ready(cluster)
    for node in cluster.json("get", "nodes")["items"]:
        assert not node["spec"].get("unschedulable") and "clusterctl.dev/cordoned-for" not in node["metadata"].get("annotations", {})
    for machine in cluster.lab.machines:
        left = cluster.on(machine, "ls -d /var/lib/clusterctl/os-update* 2>/dev/null || :; apt-mark showhold")
        assert left == "", f"{machine}: {left}"


def test_a_budget_that_blocks_stops_it(cluster: Cluster) -> None:
    cluster.kubectl("patch", "pdb", "web", "-p", '{"spec": {"minAvailable": 2}}')
    try:
        until(lambda: cluster.json("get", "pdb", "web")["status"]["disruptionsAllowed"] == 0, "the budget's status")
        node = cluster.json("get", "pods", "-l", "app=web")["items"][0]["spec"]["nodeName"]
        said = cluster.cli("os-update", "--reboot", "always", "--limit", node, "--drain-timeout", "3", "--yes", code=4)
        assert "PodDisruptionBudget default/web" in said and "the run will stop there" in said
        assert cordoned(cluster) == set() and boots(cluster)[node] == 0
    finally:
        cluster.kubectl("patch", "pdb", "web", "-p", '{"spec": {"minAvailable": 1}}')
    until(lambda: cluster.json("get", "pdb", "web")["status"]["disruptionsAllowed"] == 1, "the budget's status")


def test_updates_and_one_reboot_each(cluster: Cluster) -> None:
    cluster.kubectl("cordon", "w-2")
    held = {machine: version(cluster, machine, "cri-tools") for machine in cluster.lab.machines}
    watch = Watch(cluster)
    watch.start()
    started = time.monotonic()
    try:
        said = events(cluster.cli("os-update", "--yes", "-o", "json"))
    finally:
        watch.ended.set()
        watch.join(30)
    print(f"3 machines updated and rebooted in {time.monotonic() - started:.0f} s; {len(watch.counts)} looks at the pods, fewest ready {min(watch.counts)}")
    [plan] = [event for event in said if event["event"] == "os-update-plan"]
    assert plan["batches"] == [["cp-1"], ["w-1"], ["w-2"]]
    for part in plan["machines"]:
        assert ({"package": "hello-lab", "from": "1.0", "to": "2.0"} in part["updates"]) and part["reboot"] == "if-required"
        assert [entry["to"] for entry in part["held_back"] if entry["package"] == "cri-tools"] == ["99.0"]
    for machine, before in held.items():
        assert version(cluster, machine, "hello-lab") == "2.0" and version(cluster, machine, "cri-tools") == before
        assert cluster.on(machine, "cat /etc/hello-lab.conf") == "mine\n"
    assert boots(cluster) == dict.fromkeys(held, 1)
    assert said[-1]["hosts"] == {part["host"]: {"update": len(part["updates"]), "reboot": 1} for part in plan["machines"]}
    assert len(watch.counts) > 10 and min(watch.counts) >= 1
    assert cordoned(cluster) == {"w-2"}, "whom a person cordoned"
    cluster.kubectl("uncordon", "w-2")
    settled(cluster)


def test_then_nothing_is_to_do(cluster: Cluster) -> None:
    said = events(cluster.cli("os-update", "-o", "json"))
    assert said[-1]["event"] == "summary" and not said[-1]["changed"]
    assert boots(cluster) == dict.fromkeys(cluster.lab.machines, 1)


def test_a_reboot_that_takes_longer_than_allowed(cluster: Cluster) -> None:
    """The machine stays cordoned; the same command waits for it, and does not reboot it again."""
    before = boots(cluster)["w-1"]
    words = ("os-update", "--reboot", "always", "--limit", "w-1", "--yes")
    process = cluster.start(*words, "--reboot-timeout", "5")
    try:
        until(lambda: cluster.on("w-1", "ls /var/lib/clusterctl/os-update"), "the reboot is ordered", 120)
        cluster.lab.cut("w-1", peer="controller")
        said = process.communicate(timeout=240)[0]
    finally:
        process.kill()
        process.wait()
        cluster.lab.heal("w-1")
    assert process.returncode == 4 and "[os-update.reboot-timeout]" in said, said
    assert cordoned(cluster) == {"w-1"}
    cluster.cli(*words)
    assert boots(cluster)["w-1"] == before + 1 and cordoned(cluster) == set()
    settled(cluster)


def test_the_proxy_runs_the_haproxy_that_was_installed(cluster: Cluster) -> None:
    """Without a reboot: its process would keep the old program."""
    folder = cluster.work / "repository"
    newer(folder, "haproxy", "99:1")
    repository.write_index(folder)
    process = "systemctl show --property=MainPID --value api-proxy"
    before = cluster.on("w-1", process)
    [part] = [event for event in events(cluster.cli("os-update", "--limit", "w-1", "--reboot", "never", "--yes", "-o", "json"))
              if event["event"] == "os-update-plan"][0]["machines"]
    assert [entry["to"] for entry in part["updates"] if entry["package"] == "haproxy"] == ["99:1"]
    assert version(cluster, "w-1", "haproxy") == "99:1" and cluster.on("w-1", process) != before
    assert not cluster.on("w-1", f"grep 'haproxy (deleted)' /proc/$({process})/maps || :")
    settled(cluster)


def test_what_a_killed_verb_left_cordoned_is_given_back(cluster: Cluster) -> None:
    """Whichever verb comes next: the pods of the one worker that it empties have no place but the other."""
    for killed, following in ((("os-update", "--reboot", "always", "--limit"), ("node", "drain")),
                              (("node", "remove"), ("os-update", "--reboot", "always", "--limit")), (("node", "remove"), ())):
        cluster.kubectl("patch", "pdb", "web", "-p", '{"spec": {"minAvailable": 2}}')
        until(lambda: cluster.json("get", "pdb", "web")["status"]["disruptionsAllowed"] == 0, "the budget's status")
        left = checks.running(cluster, "web", 2)[0]["spec"]["nodeName"]
        [other] = set(cluster.workers) - {left}
        process = cluster.start(*killed, left, "--yes")
        try:
            until(lambda left=left: cordoned(cluster) == {left}, "it is cordoned")
        finally:
            process.kill()
            process.wait()
        cluster.kubectl("patch", "pdb", "web", "-p", '{"spec": {"minAvailable": 1}}')
        said = cluster.cli(*following, other, "--yes") if following else cluster.cli("apply", "--yes")
        assert f"{left}: uncordoned: {' '.join(killed[:2]) if killed[0] == 'node' else killed[0]}, which did not end" in said, said
        assert cordoned(cluster) == ({other} if "drain" in following else set())
        cluster.cli("node", "uncordon", other)
    settled(cluster)


def test_who_operates_while_the_only_control_plane_reboots_is_noticed(cluster: Cluster, tmp_path: Path) -> None:
    """The lock dies with the machine. Another controller comes and goes before the update looks again."""
    elsewhere = tmp_path / "inventory.yaml"
    shutil.copy(cluster.inventory, elsewhere)
    shutil.copytree(cluster.inventory.parent / ".clusterctl", tmp_path / ".clusterctl")
    before = boots(cluster)["cp-1"]
    words = ("os-update", "--reboot", "always", "--limit", "cp-1", "--yes")
    process = cluster.start(*words)
    try:
        until(lambda: cluster.on("cp-1", "ls /var/lib/clusterctl/os-update"), "the reboot is ordered", 60)
        process.send_signal(signal.SIGSTOP)
        defrag = [*CLI, "etcd", "defrag", "-i", str(elsewhere)]
        until(lambda: not subprocess.run(defrag, capture_output=True, timeout=60, check=False).returncode, "another operates", 60)
        process.send_signal(signal.SIGCONT)
        said = process.communicate(timeout=60)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 4 and "[lock.held-meanwhile]" in said, said
    cluster.cli(*words)
    assert boots(cluster)["cp-1"] == before + 1
    settled(cluster)


def test_interrupted_and_run_again(cluster: Cluster) -> None:
    """An update that asks for a reboot comes to each machine once, wherever the runs before were killed or cut off."""
    before = boots(cluster)
    package(cluster.work / "repository", "hello-lab", "3.0", conffile="as of 3.0\n", postinst=ASKS_FOR_A_REBOOT)
    repository.write_index(cluster.work / "repository")
    # Killed as it reboots a machine, a run never says that this is back.
    moments = ("cp-1: is back", "w-1: rebooting", "w-2: is back")
    series = Series(cluster, ("os-update", "--yes"), stride=4, pause=1.0, batches=True, also=moments).run()
    assert series.at_random >= AT_LEAST and series.severed >= 3
    assert boots(cluster) == {machine: count + 1 for machine, count in before.items()}
    for machine in before:
        assert version(cluster, machine, "hello-lab") == "3.0" and cluster.on(machine, "cat /etc/hello-lab.conf") == "mine\n"
    checks.running(cluster, "web", 2)
    settled(cluster)
    until(lambda: no_leftovers(cluster) is None, "nothing is left over", 60)
    checks.nothing_to_do(cluster)
    cluster.cli("status")
