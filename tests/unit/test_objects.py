"""What nodes must have, and manifests of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clusterctl.cluster.model import Cluster
from clusterctl.components.objects import CERTIFICATE_NOTE, METRICS_SECRET, addons, node_changes, node_taints, with_certificate
from clusterctl.errors import InputError
from clusterctl.inventory import load
from clusterctl.pki import Pki

OWN = "node-role.kubernetes.io/control-plane"


def cluster(folder: Path, host: str = "", settings: str = "") -> Cluster:
    (folder / "i.yaml").write_text(f"all: {{vars: {{cluster: {{{settings}}}}}}}\ncontrol_plane: {{hosts: {{a: {{ip: 192.0.2.1{host}}}}}}}\n")
    return load(folder / "i.yaml")


@pytest.mark.parametrize("written, taints", [
    ("[]", [(OWN, "", "NoSchedule")]),
    (f"['{OWN}:NoSchedule']", [(OWN, "", "NoSchedule")]),
    (f"['{OWN}=x:NoSchedule']", [(OWN, "x", "NoSchedule")]),
    (f"['{OWN}:NoExecute', 'a:NoSchedule']", [(OWN, "", "NoSchedule"), (OWN, "", "NoExecute"), ("a", "", "NoSchedule")]),
])
def test_a_taint_is_there_once(tmp_path: Path, written: str, taints: list[tuple[str, str, str]]) -> None:
    """The API refuses two of one key and effect."""
    wanted = cluster(tmp_path, f", node_taints: {written}")
    assert [(one["key"], one.get("value", ""), one["effect"]) for one in node_taints(wanted, wanted.hosts[0])] == taints


def merged(node: dict[str, Any], patch: Any) -> dict[str, Any]:
    """A node after a merge patch (RFC 7386)."""
    for key, value in patch.items():
        if value is None:
            node.pop(key, None)
        elif isinstance(value, dict):
            merged(node.setdefault(key, {}), value)
        else:
            node[key] = value
    return node


def test_annotations_that_leave_the_inventory_leave_the_node(tmp_path: Path) -> None:
    node: dict[str, Any] = {"metadata": {"annotations": {"team": "red"}, "resourceVersion": "1"}, "spec": {}}
    given = cluster(tmp_path, settings="kubelet: {annotations: {a/b: '1', c: '2'}, labels: {zone: east}}")
    [(_, patch, _)] = node_changes(given, {"a": node})
    merged(node, patch)
    assert node["metadata"]["annotations"].items() >= {"a/b": "1", "c": "2", "team": "red"}.items()
    assert node["metadata"]["labels"]["zone"] == "east" and not list(node_changes(given, {"a": node}))
    [(_, patch, fields)] = node_changes(cluster(tmp_path, settings="kubelet: {annotations: {c: '3'}}"), {"a": node})
    assert fields == ("a/b removed", "c", "zone removed")
    merged(node, patch)
    assert node["metadata"]["annotations"].items() >= {"c": "3", "team": "red"}.items() and "a/b" not in node["metadata"]["annotations"]


def test_labels_and_taints_that_leave_the_inventory_leave_the_node(tmp_path: Path) -> None:
    others = {"key": "team", "value": "red", "effect": "NoSchedule"}
    node: dict[str, Any] = {"metadata": {"labels": {"team": "red"}, "resourceVersion": "1"}, "spec": {"taints": [others]}}
    given = cluster(tmp_path, ", node_labels: {zone: east, disk: fast}, node_taints: ['gpu=yes:NoSchedule', 'gpu:NoExecute']")
    [(_, patch, _)] = node_changes(given, {"a": node})
    merged(node, patch)
    assert node["metadata"]["labels"].items() >= {"zone": "east", "disk": "fast", "team": "red"}.items()
    assert {(one["key"], one["effect"]) for one in node["spec"]["taints"]} == {
        ("team", "NoSchedule"), ("gpu", "NoSchedule"), ("gpu", "NoExecute"), (OWN, "NoSchedule")}
    assert not list(node_changes(given, {"a": node}))
    less = cluster(tmp_path, ", node_labels: {zone: west}, node_taints: ['gpu:NoExecute']")
    [(_, patch, fields)] = node_changes(less, {"a": node})
    assert fields == ("disk removed", "zone", "taint removed")
    merged(node, patch)
    assert node["metadata"]["labels"] == {"zone": "west", "team": "red", OWN: ""}
    assert {(one["key"], one["effect"]) for one in node["spec"]["taints"]} == {
        ("team", "NoSchedule"), ("gpu", "NoExecute"), (OWN, "NoSchedule")}
    assert not list(node_changes(less, {"a": node}))
    [(_, patch, _)] = node_changes(cluster(tmp_path), {"a": node})
    merged(node, patch)
    assert node["metadata"]["labels"] == {"team": "red", OWN: ""} and node["metadata"]["annotations"] == {}
    assert not list(node_changes(cluster(tmp_path), {"a": node}))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"labels": 3}', '{"labels": null}'])
def test_a_record_that_others_broke_is_no_record(tmp_path: Path, text: str) -> None:
    node = {"metadata": {"labels": {OWN: "", "zone": "east"}, "annotations": {"clusterctl.dev/given": text}, "resourceVersion": "1"},
            "spec": {"taints": [{"key": OWN, "effect": "NoSchedule"}]}}
    assert not list(node_changes(cluster(tmp_path), {"a": node}))


def objects(folder: Path, text: str) -> list[dict[str, object]]:
    (folder / "m.yaml").write_text(text)
    settings = "addons: {coredns: false, metrics_server: false, manifests: [m.yaml]}"
    return addons(cluster(folder, settings=settings), Pki.create(), forward=False)


@pytest.mark.parametrize("date", ["2024-01-02", "2024-99-02", "2001-12-14t21:59:43.10-05:00"])
def test_a_date_in_a_manifest_is_text(tmp_path: Path, date: str) -> None:
    found = objects(tmp_path, f"{{apiVersion: v1, kind: ConfigMap, metadata: {{name: x}}, data: {{d: {date}}}}}")
    assert found[0]["data"] == {"d": date}


@pytest.mark.parametrize("text, words", [
    ("{apiVersion: v1, kind: A, metadata: }", "metadata.name"), ("{apiVersion: v1, kind: A, metadata: {name: 5}}", "metadata.name"),
    ("[a]", "metadata.name"), ("{apiVersion: v1, metadata: {name: x}}", "metadata.name"), ("{a: [", "not YAML"),
    ("{apiVersion: v1, kind: A, metadata: {name: x}, data: !!binary aGk=}", "not YAML that is JSON"),
    ("{apiVersion: v1, kind: A, metadata: {name: x}, data: .nan}", "not YAML that is JSON"), ("&a [*a]", "not YAML that is JSON"),
])
def test_a_manifest_that_is_none(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        objects(tmp_path, text)
    assert caught.value.where.endswith("m.yaml") and caught.value.hint


def test_a_certificate_in_a_secret_stays_while_it_holds(tmp_path: Path) -> None:
    whole, pki = cluster(tmp_path), Pki.create()
    first = with_certificate(whole, pki, METRICS_SECRET, None)
    bare = {**first, "metadata": {**first["metadata"], "annotations": None}}
    for found in (first, bare):
        assert with_certificate(whole, pki, METRICS_SECRET, found)["data"] == first["data"]
    other = with_certificate(whole, Pki.create(), METRICS_SECRET, None)
    forged = {**other, "metadata": {**other["metadata"], "annotations": first["metadata"]["annotations"]}}
    for found in (other, forged, {**first, "data": {}}):
        made = with_certificate(whole, pki, METRICS_SECRET, found)
        assert made["data"] not in (first["data"], other["data"]) and CERTIFICATE_NOTE in made["metadata"]["annotations"]
