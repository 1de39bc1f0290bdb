"""Machines come and go: drain, remove, replace, strays of etcd, one operator at a time."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import checks
import credentials
import pytest
from cluster import APP, CLI, Cluster, deployment, until
from credentials import Credential

from clusterctl.lab.inventory import write_inventory

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parent.parent.parent
ETCDCTL = (
    "/opt/clusterctl/bin/etcdctl --endpoints https://127.0.0.1:2379 --cacert /etc/etcd/pki/ca.crt "
    "--cert /etc/etcd/pki/healthcheck-client.crt --key /etc/etcd/pki/healthcheck-client.key"
)


@pytest.fixture
def cluster(three_and_two: Cluster) -> Cluster:
    return three_and_two


@pytest.fixture(scope="module")
def taken(three_and_two: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[Credential]:
    """Every credential that lies on w-2, where pods with tokens of their own run too."""
    checks.load_image(three_and_two)
    checks.apply_objects(three_and_two, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "unmounted"}, "stringData": {"a": "b"}},
                         {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "with-token", "namespace": "default"},
                          "spec": {"nodeName": "w-2", "containers": [{"name": "app", "image": APP, "imagePullPolicy": "Never"}], "terminationGracePeriodSeconds": 0}})
    three_and_two.kubectl("wait", "--for=condition=Ready", "pod/with-token", "--timeout=90s")
    found = credentials.take(three_and_two, "w-2", tmp_path_factory.mktemp("credentials") / "w-2")
    assert any(one.name.endswith("token") for one in found), found
    return found


def members(cluster: Cluster) -> dict[str, dict[str, Any]]:
    found = cluster.cli("etcd", "members", "-o", "json")
    return {state["name"]: state for state in json.loads(found)["members"]}


def unschedulable(cluster: Cluster) -> set[str]:
    return {node["metadata"]["name"] for node in cluster.json("get", "nodes")["items"] if node["spec"].get("unschedulable")}


def budget(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": name}}, **spec}}


def test_drain_respects_budgets(cluster: Cluster) -> None:
    """Blocked, it says by what and for how long, and takes its cordon back; a person's cordon stays; unsafe pods are refused."""
    checks.apply_objects(cluster, deployment("guarded", replicas=2), budget("guarded", minAvailable=2))
    pods = checks.running(cluster, "guarded", 2)
    node = pods[0]["spec"]["nodeName"]
    until(lambda: cluster.json("get", "pdb", "guarded")["status"].get("expectedPods") == 2, "the budget knows its pods")
    output = cluster.cli("node", "drain", node, "--yes", "--drain-timeout", "4", code=4)
    for needle in (pods[0]["metadata"]["name"], "PodDisruptionBudget default/guarded", "has waited", "next: "):
        assert needle in output, output
    assert not unschedulable(cluster)
    cluster.kubectl("delete", "pdb", "guarded")
    cluster.kubectl("cordon", node)
    cluster.cli("node", "drain", node, "--yes")
    assert unschedulable(cluster) == {node}
    assert all(pod["spec"]["nodeName"] != node for pod in checks.running(cluster, "guarded", 2))
    cluster.cli("apply", "--yes")
    assert unschedulable(cluster) == {node}, "a person's cordon is not apply's to lift"
    cluster.cli("node", "uncordon", node)
    assert not unschedulable(cluster)


def test_drain_refuses_what_would_be_lost(cluster: Cluster) -> None:
    bare = {**deployment("bare")["spec"]["template"], "apiVersion": "v1", "kind": "Pod"}
    bare["metadata"] = {"name": "bare", "labels": {"app": "bare"}}
    kept = deployment("kept")
    kept["spec"]["template"]["spec"] |= {"volumes": [{"name": "data", "emptyDir": {}}]}
    for item in (bare, kept["spec"]["template"]):
        item["spec"]["nodeName"] = "w-1"
    checks.apply_objects(cluster, bare, kept)
    checks.running(cluster, "kept", 1)
    checks.running(cluster, "bare", 1)
    output = cluster.cli("node", "drain", "w-1", "--yes", code=3)
    assert "default/bare" in output and "--force" in output and "--delete-emptydir-data" in output
    assert not unschedulable(cluster)
    cluster.kubectl("delete", "deployment", "kept")
    cluster.kubectl("delete", "pod", "bare", "--now")


def second_controller(cluster: Cluster, folder: Path) -> Path:
    """The inventory of another controller, with a state folder of its own."""
    shutil.copy(cluster.inventory, folder / "inventory.yaml")
    shutil.copytree(cluster.inventory.parent / ".clusterctl", folder / ".clusterctl")
    return folder / "inventory.yaml"


def test_one_operator_at_a_time(cluster: Cluster, tmp_path: Path) -> None:
    """A second controller with its own state folder is refused, with the operator, verb and start time of the lock's holder.

    ``test_upgrade`` measures how long that takes, without other clusters on the same processors.
    """
    other = second_controller(cluster, tmp_path)
    checks.apply_objects(cluster, deployment("held", replicas=2), budget("held", minAvailable=2))
    node = checks.running(cluster, "held", 2)[0]["spec"]["nodeName"]
    holder = cluster.start("node", "drain", node, "--yes", "--drain-timeout", "60")
    try:
        until(lambda: unschedulable(cluster), "the drain has begun")
        done = subprocess.run([*CLI, "apply", "--yes", "-i", str(other)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 5, done.stdout + done.stderr
        for needle in ("node drain", f"pid {holder.pid}", "since 20", "@"):
            assert needle in done.stderr, done.stderr
        assert subprocess.run([*CLI, "status", "-i", str(other)], capture_output=True, timeout=60, check=False).returncode == 3
    finally:
        holder.kill()
        holder.wait()
        # Killed, it leaves a node that is cordoned for a person's drain: the next verb works at once, and nothing has to be unlocked.
        cluster.kubectl("delete", "pdb,deployment", "held")
        cluster.cli("node", "uncordon", node)
    done = subprocess.run([*CLI, "apply", "--yes", "-i", str(other)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_operators_a_hundred_times(cluster: Cluster, tmp_path: Path) -> None:
    """At the same moment, from two controllers: exactly one runs, and the other is told by whom."""
    program = str(Path(__file__).with_name("contender.py"))
    operators = [subprocess.Popen([sys.executable, program, str(inventory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  text=True, bufsize=1, cwd=ROOT)
                 for inventory in (cluster.inventory, second_controller(cluster, tmp_path))]

    def tell(who: subprocess.Popen[str]) -> None:
        assert who.stdin is not None
        who.stdin.write("\n")

    def answer(who: subprocess.Popen[str]) -> str:
        assert who.stdout is not None
        return who.stdout.readline().strip()

    wins, slowest = [0, 0], 0.0
    try:
        assert [answer(who) for who in operators] == ["ready", "ready"]
        for moment in range(100):
            started = time.monotonic()
            for who in operators:
                tell(who)
            answers = [answer(who) for who in operators]
            slowest = max(slowest, time.monotonic() - started)
            assert answers.count("held") == 1, f"moment {moment}: {answers}"
            winner = answers.index("held")
            assert answers[1 - winner].startswith("Locked: held by "), answers
            assert f"pid {operators[winner].pid}, contend, since " in answers[1 - winner], answers
            wins[winner] += 1
            tell(operators[winner])
            assert answer(operators[winner]) == "released"
    finally:
        for who in operators:
            who.kill()
            who.communicate()
    print(f"a hundred times: {wins[0]} and {wins[1]} won, the slower answer within {slowest:.2f} s")
    assert slowest < 5


def test_a_worker_leaves(cluster: Cluster) -> None:
    """Drained, undone, deleted; its line goes out of the inventory, comments stay. A machine that left takes apply again."""
    text = cluster.inventory.read_text()
    cluster.inventory.write_text(text.replace("        w-1:\n", "        # the first one\n        w-1:\n"))
    output = cluster.cli("node", "remove", "w-2", "--yes", "--edit-inventory")
    assert "w-2 is taken out" in output
    assert "w-2:" not in cluster.inventory.read_text() and "# the first one" in cluster.inventory.read_text()
    checks.nodes_ready(cluster, {"cp-1", "cp-2", "cp-3", "w-1"})
    assert not cluster.on("w-2", "pgrep -x kubelet; ls -d /opt/clusterctl /etc/kubernetes 2>/dev/null; :")
    assert "w-2" not in cluster.kubectl("get", "leases", "-n", "kube-node-lease")
    checks.nothing_to_do(cluster)
    cluster.inventory.write_text(text)
    summary = cluster.apply()
    assert set(summary["hosts"]) == {"w-2"}, summary["hosts"]


def test_quorum_and_the_last_control_plane_are_kept(cluster: Cluster) -> None:
    output = cluster.cli("node", "remove", "cp-1", "cp-2", "cp-3", "--yes", code=3)
    assert "last control plane" in output
    output = cluster.cli("node", "remove", "cp-1", "cp-2", "--yes", code=3)
    assert "one at a time" in output
    cluster.on("cp-2", "systemctl stop etcd")
    try:
        # Two healthy of three: taking one of these out would leave one of two.
        output = cluster.cli("node", "remove", "cp-3", "--yes", "--offline", code=3)
        assert "of the 2 etcd members that are left 1 would be healthy, and 2 must be" in output
        assert cluster.cli("etcd", "members", code=3)
    finally:
        cluster.on("cp-2", "systemctl start etcd")
    until(lambda: all(state["healthy"] for state in members(cluster).values()), "cp-2's etcd")


def test_the_leader_and_first_control_plane_leaves(cluster: Cluster) -> None:
    """Whoever leads: leadership is handed on. Its machine can come in again, as a learner first."""
    leader = next(name for name, state in members(cluster).items() if state["leader"])
    if leader != "cp-1":
        own = members(cluster)["cp-1"]["id"]
        cluster.on(leader, f"{ETCDCTL} move-leader {own}")
    cluster.cli("node", "remove", "cp-1", "--yes")
    config = cluster.work / "kubeconfig"
    config.unlink(missing_ok=True)
    cluster.edit(lambda content: [content["all"]["children"][group]["hosts"].pop("cp-1") for group in ("control_plane", "etcd")])
    until(lambda: checks.nodes_ready(cluster, {"cp-2", "cp-3", "w-1", "w-2"}) is None, "the others are Ready", 60)
    assert set(members(cluster)) == {"cp-2", "cp-3"}
    checks.nothing_to_do(cluster)


def test_strays_are_found_and_cleaned(cluster: Cluster) -> None:
    """A learner that somebody added and forgot: status says so, apply takes it out."""
    cluster.on("cp-2", f"{ETCDCTL} member add forgotten --learner --peer-urls=https://10.9.9.9:2380")
    assert "is of no machine of the inventory" in cluster.cli("status", code=3)
    plan = cluster.plan()
    assert len(plan["etcd_members"]) == 1 and not plan["changes"]
    cluster.apply()
    assert set(members(cluster)) == {"cp-2", "cp-3"}
    cluster.cli("status")


def test_a_dead_machine_is_replaced(cluster: Cluster) -> None:
    """Back to three; one dies; a fresh machine of its name takes its place in one verb. apply alone refuses and says how."""
    write_inventory(cluster.lab.state)
    cluster.apply()
    assert set(members(cluster)) == {"cp-1", "cp-2", "cp-3"}
    cluster.lab.kill("cp-3")
    cluster.lab.reinstall("cp-3")
    output = cluster.cli("apply", "--yes", code=3)
    assert "clusterctl node replace cp-3" in output, output
    cluster.cli("node", "replace", "cp-3", "--yes")
    found = members(cluster)
    assert set(found) == {"cp-1", "cp-2", "cp-3"} and all(state["healthy"] and not state["learner"] for state in found.values())
    checks.nodes_ready(cluster)
    checks.nothing_to_do(cluster)


def test_a_member_that_lost_its_data_is_replaced(cluster: Cluster) -> None:
    """Its machine is marked and well: etcd stays down, status reports it, apply refuses, node replace gives it a new member."""
    before = members(cluster)["cp-3"]["id"]
    cluster.on("cp-3", "systemctl stop etcd && rm -rf /var/lib/etcd/* && systemctl start etcd; ! systemctl is-active -q etcd")
    status = json.loads(cluster.cli("status", "-o", "json", code=3))
    assert next(host for host in status["hosts"] if host["name"] == "cp-3")["services"]["etcd"] == "lost"
    refused = cluster.cli("apply", "--yes", code=3)
    assert "[etcd.data-lost]" in refused and "clusterctl node replace cp-3" in refused, refused
    assert cluster.on("cp-3", "systemctl is-active etcd", check=False).strip() != "active"
    cluster.cli("node", "replace", "cp-3", "--yes")
    found = members(cluster)
    assert set(found) == {"cp-1", "cp-2", "cp-3"} and all(one["healthy"] and not one["learner"] for one in found.values())
    assert found["cp-3"]["id"] != before
    checks.nothing_to_do(cluster)


def test_credentials_of_a_worker_change_no_other_node(cluster: Cluster, taken: list[Credential]) -> None:
    """Neither before its removal nor, in any way at all, after it."""
    allowed = credentials.permitted("w-2")
    for request in allowed:
        for credential in credentials.sent_with(request, taken):
            status, answer = credentials.send(cluster, credential, request)
            assert 200 <= status < 300, (request.what, credential.name, status, answer)
    assert {request.only for request in allowed} <= {word for one in taken for word in ("flannel", "kube-proxy", "kubelet-client")
                                                     if word in one.name}
    assert not accepted(cluster, taken)


def accepted(cluster: Cluster, taken: list[Credential], *, removed: bool = False) -> list[tuple[str, str, int, str]]:
    """The forbidden requests that the API server does not answer with 401 or 403, and the certificates that etcd takes.

    ``removed``: of a worker that was removed, which may do nothing of what it did in service either.
    """
    pod = next(pod for pod in cluster.json("get", "pods", "-n", "kube-system")["items"] if pod["spec"].get("nodeName") != "w-2")
    requests = credentials.forbidden("w-2", "w-1", f"kube-system/{pod['metadata']['name']}")
    requests += credentials.permitted("w-2") if removed else []
    wrong = []
    for request in requests:
        for credential in credentials.sent_with(request, taken):
            status, answer = credentials.send(cluster, credential, request)
            # The Node of a worker that was removed is not there to be changed.
            if status not in ((401, 403, 404) if removed and request.path.startswith("/api/v1/nodes/w-2") else (401, 403)):
                wrong.append((request.what, credential.name, status, answer))
    health = credentials.Request("etcd", "GET", "/health")
    return wrong + [("etcd", one.name, status, answer) for one in taken
                    for status, answer in [credentials.send(cluster, one, health, port=2379)] if status]


def test_removed_unreachable_it_cannot_rejoin(cluster: Cluster, taken: list[Credential]) -> None:
    """Never contacted; when it comes back it stays out; reset, it may come in again."""
    cluster.lab.kill("w-2")
    output = cluster.cli("node", "remove", "w-2", "--yes", code=6)
    assert "w-2" in output
    cluster.cli("node", "remove", "w-2", "--offline", "--yes")
    checks.nodes_ready(cluster, {"cp-1", "cp-2", "cp-3", "w-1"})
    # Tokens of pods that are gone stand for a moment in the cache of the API server.
    def denied() -> bool:
        wrong = accepted(cluster, taken, removed=True)
        assert not wrong, wrong
        return True

    until(denied, "nothing of w-2 is accepted", 60)
    cluster.lab.start("w-2")
    until(lambda: "was removed from the cluster" in cluster.on("w-2", "journalctl -u kubelet -b --no-pager -o cat | tail -n 200"), "the kubelet is told", 90)
    assert "w-2" not in cluster.kubectl("get", "nodes")
    output = cluster.cli("apply", "--yes", code=3)
    assert "clusterctl reset --limit w-2" in output, output
    cluster.cli("reset", "--limit", "w-2", "--yes", "--confirm", "e2enode")
    cluster.apply()
    checks.nodes_ready(cluster)


def test_a_new_machine_takes_the_place_of_one_that_is_well(cluster: Cluster) -> None:
    [added] = cluster.lab.add(1, "control_plane")
    words = ("node", "replace", "cp-2", added.name, "--yes", "--edit-inventory")
    cluster.cli(*words)
    assert "nothing to do" in cluster.cli(*words), "run again after its end"
    assert "neither the inventory nor the cluster has it" in cluster.cli("node", "replace", "cp-22", added.name, "--yes", code=3)
    # It named cp-2.
    (cluster.work / "kubeconfig").unlink()
    assert set(members(cluster)) == {"cp-1", "cp-3", added.name}
    assert "cp-2:" not in cluster.inventory.read_text()
    checks.nodes_ready(cluster, {"cp-1", "cp-3", added.name, "w-1", "w-2"})
    checks.nothing_to_do(cluster)
