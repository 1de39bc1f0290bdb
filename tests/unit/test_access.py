"""Proxies and registries of machines: what is written, what restarts containerd, and that no secret is shown."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from test_host_settings import cluster_with, refusal
from test_host_settings import wanted as all_wanted

from clusterctl.commands.diff import difference
from clusterctl.components.access import CREDENTIALS, PROXY_FILE, proxy_digest, proxy_environment
from clusterctl.components.objects import addons
from clusterctl.errors import InputError
from clusterctl.inventory import read
from clusterctl.inventory.secrets import reveal
from clusterctl.inventory.show import as_data, as_text, explain
from clusterctl.pki import Pki
from clusterctl.resources.additions import AddedFile, FormerAdditions
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File
from clusterctl.resources.service import Service

SECRET = "s3cr\"et'\\$x"


def wanted(tmp_path: Path, content: str, host: str = "w-1") -> list[Resource]:
    reveal.cache_clear()
    found = all_wanted(cluster_with(tmp_path, w_1=f"cluster: {content}"))[host]
    return [one for of_stage in found.values() for one in of_stage]


def files(resources: list[Resource]) -> dict[str, AddedFile]:
    return {one.path: one for one in resources if isinstance(one, AddedFile)}


def containerd(resources: list[Resource]) -> tuple[Service, bytes]:
    [service] = [one for one in resources if isinstance(one, Service) and one.unit == "containerd.service"]
    [unit] = [one for one in resources if isinstance(one, File) and one.path.endswith("/containerd.service")]
    return service, unit.content


def test_the_environment_of_a_proxy(tmp_path: Path) -> None:
    found = wanted(tmp_path, "{proxy: {http: 'http://proxy.example:3128', no_proxy: [.corp.example, 10.0.0.0/8]}}")
    lines = dict(line.split("=", 1) for line in files(found)[PROXY_FILE].content.decode().splitlines())
    assert lines["http_proxy"] == lines["HTTP_PROXY"] == "'http://proxy.example:3128'" and "https_proxy" not in lines
    direct = lines["no_proxy"].strip("'").split(",")
    assert lines["NO_PROXY"] == lines["no_proxy"] and {
        "localhost", "192.0.2.11", "192.0.2.22", "10.244.0.0/16", "10.96.0.0/16", "cluster.local", ".cluster.local", "api.example.com",
        ".corp.example", "10.0.0.0/8"} <= set(direct)
    _, unit = containerd(found)
    assert f"EnvironmentFile=-{PROXY_FILE}\n".encode() in unit
    assert not files(found)[PROXY_FILE].sensitive
    order = [one.id for one in found]
    assert order.index(f"file:{PROXY_FILE}") < next(at for at, name in enumerate(order) if name.startswith("packages:"))


def test_a_machine_without_a_proxy_has_none_of_it(tmp_path: Path) -> None:
    found = wanted(tmp_path, "{proxy: {http: 'http://proxy.example:3128'}}", "w-2")
    assert PROXY_FILE not in files(found) and b"EnvironmentFile" not in containerd(found)[1]


def test_a_machine_that_joins_restarts_no_containerd(tmp_path: Path) -> None:
    cluster = cluster_with(tmp_path, w_1="cluster: {proxy: {https: 'http://proxy.example:3128'}}")
    host, fewer = cluster.host("w-1"), cluster.without(["w-2"])
    assert proxy_environment(cluster, host) != proxy_environment(fewer, host)
    assert proxy_digest(cluster, host) == proxy_digest(fewer, host) != ""


REGISTRIES = """{registries: {
  docker.io: {mirrors: [{url: "https://mirror.example/v2/hub", override_path: true, ca: ca.pem}, {url: "http://10.0.0.9:5000"}],
              username: bot, password: {env: HUB_PASSWORD}},
  "registry.example:5000": {ca: ca.pem, mirrors: [{url: "https://a.example", client_cert: c.pem, client_key: c.key, skip_verify: true}],
                            username: "o'bot", password: {file: password}},
  insecure.example: {skip_verify: true}}}"""


def with_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ca.pem", "c.pem"):
        (tmp_path / name).write_text(f"-----BEGIN CERTIFICATE-----\n{name}\n")
    (tmp_path / "c.key").write_text("-----BEGIN PRIVATE KEY-----\nclient-key-secret\n")
    (tmp_path / "password").write_text(f"{SECRET}\nmore\n")
    monkeypatch.setenv("HUB_PASSWORD", "hub-secret")


def test_registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_certificates(tmp_path, monkeypatch)
    found = wanted(tmp_path, REGISTRIES)
    made = files(found)
    hosts = {path.split("/")[4]: tomllib.loads(one.content.decode()) for path, one in made.items() if path.endswith("hosts.toml")}
    pull = {"capabilities": ["pull", "resolve"]}
    assert hosts == {
        "docker.io": {"host": {
            "https://mirror.example/v2/hub": {**pull, "override_path": True, "ca": "/etc/containerd/certs.d/docker.io/mirror-0-ca.pem"},
            "http://10.0.0.9:5000": pull}},
        "registry.example:5000": {"ca": "/etc/containerd/certs.d/registry.example:5000/ca.pem", "host": {"https://a.example": {
            **pull, "skip_verify": True, "client": [[f"/etc/containerd/certs.d/registry.example:5000/mirror-0-client_{kind}.pem"
                                                      for kind in ("cert", "key")]]}}},
        "insecure.example": {"skip_verify": True},
    }
    key = made["/etc/containerd/certs.d/registry.example:5000/mirror-0-client_key.pem"]
    logins = made[CREDENTIALS]
    assert [(one.sensitive, one.mode) for one in (key, logins)] == [(True, "600"), (True, "600")]
    content = tomllib.loads(logins.content.decode())
    assert content["version"] == 3 and content["plugins"]["io.containerd.cri.v1.images"]["registry"]["configs"] == {
        "registry-1.docker.io": {"auth": {"username": "bot", "password": "hub-secret"}},
        "registry.example:5000": {"auth": {"username": "o'bot", "password": SECRET}}}
    inputs = containerd(found)[0].inputs
    assert logins.id in inputs and not [name for name in inputs if "certs.d" in name]
    [leaving] = [one for one in found if isinstance(one, FormerAdditions) and one.kind == "file"]
    assert set(leaving.names) == made.keys()


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_certificates(tmp_path, monkeypatch)
    monkeypatch.setenv("PROXY_URL", "http://user:proxy-secret@proxy.example:3128")
    found = wanted(tmp_path, REGISTRIES.replace("{registries", "{proxy: {http: {env: PROXY_URL}}, registries", 1))
    texts = [str(read(tmp_path / "ha.yaml"))]
    inventory = read(tmp_path / "ha.yaml")
    texts += [json.dumps(as_data(inventory), default=str), as_text(inventory, verbose=True), explain(inventory, inventory.cluster.host("w-1"))]
    for one in files(found).values():
        change: Any = one.diff(None)
        before: Any = one.diff({"content": "0" * 64, "mode": "644", "owner": "root:root"})
        texts += [json.dumps(change.as_dict()), difference(before, {one.path: b"old"})] if one.sensitive else []
        texts += [repr(call) for call in one.apply(change)]
    for text in texts:
        assert not any(word in text for word in ("hub-secret", "s3cr", "proxy-secret", "client-key-secret"))
    assert b"proxy-secret" in files(found)[PROXY_FILE].content and files(found)[PROXY_FILE].sensitive


WRONG = [
    # case               content                                                             code
    ("password",         "proxy: {http: 'http://u:hunter2@proxy.example:1'}",                "inventory.proxy-credentials"),
    ("literal password", "registries: {a.example: {username: a, password: hunter2}}",        "inventory.secret"),
    ("two sources",      "registries: {a.example: {username: a, password: {env: A, file: b}}}", "inventory.secret-reference"),
    ("no source",        "proxy: {http: {}}",                                                "inventory.secret-reference"),
    ("no user",          "registries: {a.example: {password: {env: A}}}",                    "inventory.registry-credentials"),
    ("half a pair",      "registries: {a.example: {mirrors: [{url: 'https://b', client_key: k}]}}", "inventory.client-certificate"),
    ("not a url",        "proxy: {http: proxy.example}",                                     "inventory.value"),
    ("mirror's user",    "registries: {a.example: {mirrors: [{url: 'https://u:hunter2@b'}]}}", "inventory.value"),
    ("name",             "registries: {'../x': {}}",                                         "inventory.value"),
    ("cluster-wide",     "image_registry: a.example",                                        "inventory.cluster-wide"),
]


@pytest.mark.parametrize(("content", "code"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_refusals(tmp_path: Path, content: str, code: str) -> None:
    error = refusal(tmp_path, content)
    assert error.code == code and "hunter2" not in str(error)


@pytest.mark.parametrize(("content", "code"), [
    ("{proxy: {http: {env: NOT_SET_ANYWHERE}}}", "inventory.secret-missing"), ("{proxy: {http: {file: missing}}}", "inventory.secret-missing"),
    ("{proxy: {http: {command: 'echo hunter2'}}}", "inventory.proxy-url"), ("{registries: {a: {ca: missing}}}", "inventory.file-unreadable"),
    ("{registries: {a: {ca: ha.yaml}}}", "inventory.not-pem"),
])
def test_what_cannot_be_had_is_refused(tmp_path: Path, content: str, code: str) -> None:
    with pytest.raises(InputError) as caught:
        wanted(tmp_path, content)
    assert caught.value.code == code and "hunter2" not in str(caught.value)


def test_a_secret_is_asked_for_once_and_leaves_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY_URL", "http://u:p@proxy.example:1")
    content = "{proxy: {http: {env: PROXY_URL}, https: {command: sh -c 'echo >>asked; echo http://u:q@proxy.example:1'}}}"
    wanted(tmp_path, content)
    cluster = cluster_with(tmp_path, w_1=f"cluster: {content}")
    assert b"u:p@" in proxy_environment(cluster, cluster.host("w-1")) and (tmp_path / "asked").read_text() == "\n"
    import os

    assert "PROXY_URL" not in os.environ


def test_the_registry_of_images(tmp_path: Path) -> None:
    cluster = cluster_with(tmp_path)
    settings = cluster.settings.model_copy(update={"image_registry": "registry.example:5000/k8s"})
    cluster = cluster.model_copy(update={"settings": settings})
    resources = [one for of_stage in all_wanted(cluster)["w-1"].values() for one in of_stage]
    [config] = [one for one in resources if isinstance(one, File) and one.path == "/etc/containerd/config.toml"]
    read_back = tomllib.loads(config.content.decode())
    sandbox = read_back["plugins"]["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"]
    assert sandbox.startswith("registry.example:5000/k8s/pause:") and read_back["imports"] == ["/etc/containerd/conf.d/*.toml"]
    text = json.dumps(addons(cluster, Pki.create(), forward=True))
    assert "registry.k8s.io" not in text
    assert "registry.example:5000/k8s/coredns/coredns:v" in text and "registry.example:5000/k8s/metrics-server/metrics-server:v" in text
