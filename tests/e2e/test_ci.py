"""The jobs of docs/ci/gitlab-ci.yml, as a runner would run them, against a cluster that is upgraded by them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import checks
import ci_examples
import pytest
import yaml
from cluster import Cluster, until

from clusterctl.lab import LabSpec

pytestmark = [pytest.mark.lab, pytest.mark.versions]

BEFORE, AFTER = "1.36.4", "1.37.2"
ROOT = Path(__file__).parent.parent.parent
LOOK = ("find /etc /opt -xdev -printf '%p %m %u %g %l %T@\\n' | sort; "
        "systemctl show -p Id -p ActiveEnterTimestamp kubelet containerd etcd kube-apiserver kube-proxy")
"""All that an upgrade could have changed or interrupted."""


@dataclass
class Pipeline:
    """A checkout, a runner's environment and what it keeps from job to job."""

    cluster: Cluster
    checkout: Path
    env: dict[str, str]

    @classmethod
    def of(cls, cluster: Cluster) -> Pipeline:
        """A repository with the inventory; the secrets as a CI gives them: the state folder's keys, the SSH key."""
        work = cluster.work
        checkout, programs, backup = work / "checkout", work / "bin", work / "backup"
        for folder in (checkout, programs, backup):
            folder.mkdir()
        content = yaml.safe_load(cluster.inventory.read_text())
        content["all"]["vars"]["ansible_ssh_private_key_file"] = "deploy_key"
        (checkout / "cluster.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        (programs / "clusterctl").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m clusterctl "$@"\n')
        (programs / "clusterctl").chmod(0o755)
        state = subprocess.run(["tar", "-cz", f".clusterctl/{cluster.lab.name}/pki"], cwd=cluster.inventory.parent, capture_output=True, check=True)
        (work / "state").write_bytes(base64.b64encode(state.stdout))
        shutil.copy(cluster.lab.key, work / "key")
        variables = {name: str(value) for name, value in ci_examples.document(ci_examples.GITLAB)["variables"].items()}
        assert variables["KUBERNETES"] == AFTER
        return cls(cluster, checkout, {
            **os.environ, **variables, "PATH": f"{programs}:{os.environ['PATH']}", "CLUSTERCTL_STATE": str(work / "state"),
            "SSH_KEY": str(work / "key"), "BACKUP": str(backup), "CLUSTERCTL_SUDO_PASSWORD": ""})

    def run(self, job: str, code: int = 0, **changes: str) -> str:
        """Run a job as it is written, what comes after it too; what its script printed. ``changes``: words in place of others."""
        script = ci_examples.gitlab_script(job)
        for old, new in changes.items():
            assert old in script
            script = script.replace(old, new)
        done = self._shell(f"set -e\n{script}")
        after = self._shell("\n".join(ci_examples.gitlab_jobs()[job]["after_script"]))
        output = done.stdout + done.stderr
        assert "Traceback" not in output, output
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}: {job}\n{output[-6000:]}"
        assert after.returncode == 0, after.stderr
        assert not (self.checkout / ".clusterctl").exists() and not (self.checkout / "deploy_key").exists()
        return output

    def _shell(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["sh", "-c", script], cwd=self.checkout, env=self.env, capture_output=True, text=True, timeout=400, check=False,
                              stdin=subprocess.DEVNULL)

    def plan(self) -> dict[str, object]:
        return dict(json.loads((self.checkout / "plan.json").read_text()))

    def summary(self) -> ElementTree.Element:
        """What the run said of its end; taken away, so that the next one must write its own."""
        path = self.checkout / "upgrade.xml"
        found = ElementTree.fromstring(path.read_bytes())
        path.unlink()
        return found

    def failure(self) -> tuple[str | None, str]:
        """The exit code and the words of the failure."""
        found = self.summary().find(".//failure")
        assert found is not None
        return found.get("message"), found.text or ""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    made = Cluster.up(LabSpec(name="cidx", machines=2, cluster={"kubernetes": BEFORE}), Path(tmp_path_factory.mktemp("ci")))
    try:
        made.apply()
        # What the inventory names would be what apply wants after the upgrade.
        made.edit(lambda content: content["all"]["vars"]["cluster"].pop("kubernetes"))
        yield Pipeline.of(made)
    finally:
        made.down()


def kubelets(cluster: Cluster) -> set[str]:
    return {node["status"]["nodeInfo"]["kubeletVersion"] for node in cluster.json("get", "nodes")["items"]}


def unschedulable(cluster: Cluster) -> list[str]:
    return [node["metadata"]["name"] for node in cluster.json("get", "nodes")["items"] if node["spec"].get("unschedulable")]


def test_two_plans_are_one(pipeline: Pipeline) -> None:
    output = pipeline.run("plan")
    events = [json.loads(line)["event"] for line in output.splitlines()]
    assert "plan" in events, "what is reviewed is in the log, too"
    first = pipeline.plan()
    pipeline.run("plan")
    second = pipeline.plan()
    assert first["digest"] == second["digest"]
    assert {name: value for name, value in first.items() if name not in ("made", "sha256", "plan")} == {
        name: value for name, value in second.items() if name not in ("made", "sha256", "plan")}
    text = json.dumps(first)
    assert "PRIVATE KEY" not in text and "BEGIN" not in text


def test_kubelets_are_never_newer_than_an_api_server(pipeline: Pipeline) -> None:
    output = pipeline.cluster.cli("upgrade", "plan", "--to", AFTER, "--limit", "w-1", code=3)
    assert f"cp-1: its API server is v{BEFORE} and stays so, and no kubelet may be newer" in output


def test_the_time_is_over(pipeline: Pipeline) -> None:
    """It ends in time and says why; a new plan has what is left."""
    started = time.monotonic()
    output = pipeline.run("apply", code=4, **{"--timeout 3600": "--timeout 3"})
    seconds = time.monotonic() - started
    assert seconds < 10, f"it took {seconds:.1f} s"
    print(f"a run with 3 s ended after {seconds:.1f} s, with what came before and after it")
    assert "the time that --timeout gave is over; what a machine has begun it ends by itself" in output
    code, text = pipeline.failure()
    assert code == "exit code 4" and "the time that --timeout gave is over" in text
    assert kubelets(pipeline.cluster) == {f"v{BEFORE}"}
    pipeline.run("plan")


def test_a_cluster_that_has_moved_on(pipeline: Pipeline) -> None:
    """Somebody took a file of a node, or gave a label: refused with what differs, and nothing is changed."""
    cluster = pipeline.cluster
    cluster.on("w-1", "rm /etc/crictl.yaml")
    cluster.kubectl("label", "node", "w-1", "node-role.kubernetes.io/worker-")
    before = {machine: cluster.on(machine, LOOK) for machine in cluster.lab.machines}
    output = pipeline.run("apply", code=3)
    assert "the cluster has moved on since this plan was made: " in output and "w-1 file:/etc/crictl.yaml create" in output
    assert "new: w-1 node-role.kubernetes.io/worker " in output
    assert "clusterctl upgrade plan --out plan.json" in output
    code, text = pipeline.failure()
    assert code == "exit code 3" and "moved on" in text
    assert {machine: cluster.on(machine, LOOK) for machine in cluster.lab.machines} == before, "something was changed"
    assert kubelets(cluster) == {f"v{BEFORE}"} and not unschedulable(cluster)


def test_the_reviewed_plan_is_carried_out_once(pipeline: Pipeline) -> None:
    """Planned anew it is applied; the summary has no failure, the snapshot is kept; a second time it is refused."""
    cluster = pipeline.cluster
    pipeline.run("plan")
    started = time.monotonic()
    output = pipeline.run("apply")
    print(f"the job that applies took {time.monotonic() - started:.0f} s")
    assert "healthy" in output, "the job's status is well"
    suite = pipeline.summary()
    assert (suite.get("failures"), suite.find(".//failure")) == ("0", None)
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names[-1] == "the whole run" and {"control-plane", "nodes"} <= set(names), names
    assert kubelets(cluster) == {f"v{AFTER}"} and not unschedulable(cluster)
    kept = cluster.work / "backup" / ".clusterctl" / cluster.lab.name
    assert len(list(kept.glob("snapshots/*.db"))) == 1 and list(kept.glob("journal/*upgrade.jsonl"))
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept.glob("pki/*")), "keys stay closed in what is kept"
    output = pipeline.run("apply", code=3)
    code, text = pipeline.failure()
    assert code == "exit code 3" and "the cluster has moved on since this plan was made" in text and "no more: " in text
    assert f"['{BEFORE}', '{AFTER}']" in output, "it says which versions the plan was about"
    # Nobody but an upgrade changes versions: an inventory that names none keeps what runs.
    until(lambda: not cluster.apply()["changed"], "everything as wanted", 60)
    checks.nodes_ready(cluster)


def test_other_verbs_have_a_time_limit_and_a_summary_too(pipeline: Pipeline) -> None:
    cluster, path = pipeline.cluster, pipeline.cluster.work / "summary.json"
    # Limited to a worker it knows all the same which versions are wanted.
    assert "no changes" in cluster.cli("apply", "--limit", "w-1", "--yes", "--timeout", "300", "--summary", str(path))
    cluster.cli("status", "--limit", "w-1")
    found = json.loads(path.read_text())
    assert (found["operation"], found["ok"], found["exit_code"]) == ("apply", True, 0)
    cluster.lab.freeze("w-1")  # It takes connections, and answers nothing.
    try:
        cluster.cli("os-update", "--yes", "--timeout", "3", "--summary", str(path), code=4)
    finally:
        cluster.lab.thaw("w-1")
    found = json.loads(path.read_text())
    assert (found["operation"], found["exit_code"], found["error"]) == ("os-update", 4, "Interrupted")
    assert "the time that --timeout gave is over" in found["message"]
    assert not unschedulable(cluster)
