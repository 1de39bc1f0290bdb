"""Certificates: what components ask for is what they get, and what is not right any more is seen."""

from __future__ import annotations

import base64
import errno
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from clusterctl import pki as pki_module
from clusterctl.components.base import Context
from clusterctl.errors import InputError, Refused
from clusterctl.inventory import load
from clusterctl.local.storage import StateFolder
from clusterctl.pki import Authority, CertificateSpec, Pki, describe
from clusterctl.plan.planner import resources_for
from clusterctl.plan.stages import stages
from clusterctl.resources.certificate import Certificate
from clusterctl.shell import Observation
from clusterctl.shell.facts import parse_facts

INVENTORIES = Path(__file__).parent.parent.parent / "inventories"
PKI = Pki.create()
AUTHORITY = PKI.authorities["kubernetes"]
OTHER = PKI.authorities["etcd"]
SPEC = CertificateSpec(authority="kubernetes", common_name="x", organizations=("b", "a"), dns=("z.example", "a.example"),
                       addresses=("192.0.2.1",), server=True, client=True)


class Anything:
    """A catalog that has everything."""

    sha256, members = "0" * 64, ("x",)

    def artifact(self, product: str, version: str, arch: str) -> Anything:
        return self

    def image(self, name: str, version: str, arch: str) -> None:
        return None


def certificates() -> list[Certificate]:
    """All certificates of the machines of an example."""
    cluster = load(INVENTORIES / "external-etcd.yaml")
    found = []
    for host in cluster.hosts:
        context = Context(cluster=cluster, host=host, facts=parse_facts({"arch": "x86_64"}), pki=PKI,
                          catalog=Anything())  # type: ignore[arg-type]
        for resources in resources_for(stages(cluster), context).values():
            found += [resource for resource in resources if isinstance(resource, Certificate)]
    return found


def test_every_certificate_of_the_components() -> None:
    found = {one.path: one for one in certificates()}
    assert len(found) > 10
    for one in found.values():
        crt, key = one.issue()
        certificate = x509.load_pem_x509_certificate(crt)
        assert certificate.public_key() == load_pem_private_key(key, None).public_key()
        assert one.authority.signed(crt.decode()) and len(one.spec.usages) > 0
        assert describe(crt.decode()).items() >= {"subject": one.spec.subject, "names": one.spec.names,
                                                  "usages": one.spec.usages, "validity": "long enough"}.items()
        lifetime = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=364) < lifetime <= timedelta(days=365)
        assert datetime.now(UTC) - certificate.not_valid_before_utc >= timedelta(minutes=5), "clocks differ"
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        others = [other for other in PKI.authorities.values() if other is not one.authority]
        assert not any(other.signed(crt.decode()) for other in others)


@pytest.mark.parametrize(("path", "subject", "usages"), [
    ("/etc/kubernetes/pki/apiserver", "CN=kube-apiserver", "server"),
    ("/etc/kubernetes/pki/kubelet-client", "CN=system:node:{}/O=system:nodes", "client"),
    ("/etc/kubernetes/pki/controller-manager", "CN=system:kube-controller-manager", "client"),
    ("/etc/kubernetes/pki/scheduler", "CN=system:kube-scheduler", "client"),
    ("/etc/etcd/pki/peer", "CN={}", "server,client"),
])
def test_subjects(path: str, subject: str, usages: str) -> None:
    found = [one for one in certificates() if one.path == path]
    assert found and {one.spec.usages for one in found} == {usages}
    names = [host.name for host in load(INVENTORIES / "external-etcd.yaml").hosts]
    assert {one.spec.subject for one in found} <= {subject.format(name) for name in names}


def test_the_api_server_has_all_its_names() -> None:
    spec = next(one.spec for one in certificates() if one.path.endswith("/apiserver"))
    assert {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"} <= set(spec.dns)
    assert {"127.0.0.1", "10.96.0.1"} <= set(spec.addresses)


@pytest.mark.parametrize("text", ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_describe_what_is_no_certificate(text: str) -> None:
    assert describe(text) == {} and AUTHORITY.signed(text) is None


@pytest.mark.parametrize(("days", "later", "fits"), [
    (365, 0, True), (365, 334, True), (365, 336, False), (365, 366, False),
    (90, 59, True), (90, 61, False), (3, 1.9, True), (3, 2.1, False), (1, 0, True), (1, 0.6, True), (1, 0.7, False)])
def test_renewal(monkeypatch: pytest.MonkeyPatch, days: int, later: float, fits: bool) -> None:
    crt, _ = AUTHORITY.issue(CertificateSpec(authority="kubernetes", common_name="x", client=True, days=days))

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=later)

    monkeypatch.setattr(pki_module, "datetime", Later)
    validity = describe(crt.decode())["validity"]
    assert (validity == "long enough") is fits, validity


def test_no_certificate_outlives_its_authority() -> None:
    crt, _ = AUTHORITY.issue(CertificateSpec(authority="kubernetes", common_name="x", client=True, days=9999))
    assert x509.load_pem_x509_certificate(crt).not_valid_after_utc <= AUTHORITY.ends


def seen_with(crt: bytes, *, noted: bool) -> Observation:
    seen = Observation()
    for kind, mode in (("crt", "644"), ("key", "600")):
        seen.add("stat", [f"/pki/x.{kind}", "regular file", mode, "root:root"])
        seen.add("sha", [f"{kind}-digest  /pki/x.{kind}"])
    for line in crt.decode().splitlines():
        seen.add("text", [f"/pki/x.crt:{line}"])
    for line in ("crt-digest key-digest", *([json.dumps({**json.loads(AUTHORITY.note(crt)), "sha256": "crt-digest"})] if noted else [])):
        seen.add("text", [f"/var/lib/clusterctl/stamps/pair-pki-x:{line}"])
    return seen


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(("spec", "authority", "fields"), [
    (SPEC, AUTHORITY, None),
    (SPEC, Authority.create("kubernetes"), ("issuer",)),
    (CertificateSpec(authority="kubernetes", common_name="y", server=True, client=True), AUTHORITY, ("subject", "names")),
    (CertificateSpec(authority="kubernetes", common_name="x", organizations=("a", "b"), dns=SPEC.dns, addresses=SPEC.addresses, server=True),
     AUTHORITY, ("usages",)),
    (CertificateSpec(authority="kubernetes", common_name="x", organizations=("a", "b"), dns=(*SPEC.dns, "new.example"),
                     addresses=SPEC.addresses, server=True, client=True), AUTHORITY, ("names",)),
])
def test_reissue(spec: CertificateSpec, authority: Authority, fields: tuple[str, ...] | None, noted: bool) -> None:
    resource = Certificate(path="/pki/x", spec=spec, authority=authority)
    state = resource.observed(seen_with(AUTHORITY.issue(SPEC)[0], noted=noted))
    change = resource.diff(state)
    assert (change.fields if change else None) == fields
    if change:
        assert resource.digest(state, change) != resource.digest(state, None)
        issued = resource.observed(seen_with(resource.issue()[0], noted=False)) if authority is AUTHORITY else None
        assert issued is None or resource.digest(issued) == resource.digest(state, change), "what the plan expects is what is issued"


def test_a_plan_issues_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Authority, "issue", None)
    resource = Certificate(path="/pki/x", spec=SPEC, authority=AUTHORITY)
    change = resource.diff(None)
    assert change is not None and resource.digest(None, change)


def test_save_and_load(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    assert Pki.load(folder) is None
    PKI.save(folder)
    loaded = Pki.load(folder)
    assert loaded is not None and loaded.identity == PKI.identity and loaded.encryption_key == PKI.encryption_key
    assert {f"{path.stat().st_mode & 0o777:o}" for path in (folder.path / "pki").iterdir()} == {"600"}
    (folder.path / "pki" / "sa.key").write_bytes(b"junk")
    with pytest.raises(InputError, match="damaged"):
        Pki.load(folder)
    (folder.path / "pki" / "sa.key").unlink()
    with pytest.raises(InputError, match="incomplete"):
        Pki.load(folder)


@pytest.mark.parametrize(("name", "content"), [
    ("etcd.key", Pki.create().authorities["etcd"].key),
    ("kubernetes.crt", Pki.create().authorities["kubernetes"].pem),
    ("encryption.key", base64.b64encode(b"short")), ("encryption.key", b""), ("encryption.key", base64.b64encode(bytes(33))),
])
def test_keys_that_do_not_fit_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """What they would sign or encrypt, no machine could verify or read."""
    folder = StateFolder(tmp_path / "state")
    PKI.save(folder)
    (folder.path / "pki" / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        Pki.load(folder)
    assert error.value.code == "pki.damaged"


def test_a_second_run_needs_no_x509_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path / "state")
    PKI.save(folder)
    crt = AUTHORITY.issue(SPEC)[0]
    note = AUTHORITY.note(crt)

    def look() -> object:
        loaded = Pki.load(folder)
        assert loaded is not None
        return loaded.identity, AUTHORITY.describe(crt.decode(), note), OTHER.describe(crt.decode(), note)["issuer"], loaded.client_certificate("etcd")

    first = look()
    monkeypatch.setitem(sys.modules, "clusterctl.pki.certificates", None)
    assert look() == first


def test_a_note_says_what_the_certificate_says() -> None:
    crt = AUTHORITY.issue(SPEC)[0].decode()
    for authority in (AUTHORITY, OTHER):
        assert authority.describe(crt, AUTHORITY.note(crt.encode())) == authority.describe(crt)


@pytest.mark.parametrize("note", ["", "null", "[]", "{", "[" * 100_000, "{}", '{"begins": "x"}', '{"sha256": 3}'])
def test_a_note_of_another_certificate_or_none_is_not_used(note: str) -> None:
    crt, other = (AUTHORITY.issue(spec)[0] for spec in (SPEC, CertificateSpec(authority="kubernetes", common_name="y", client=True)))
    for text in (note, AUTHORITY.note(other)):
        assert AUTHORITY.describe(crt.decode(), text) == AUTHORITY.describe(crt.decode())


def test_keys_that_have_changed_are_refused(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state")
    PKI.save(folder)
    assert Pki.load(folder) is not None
    (folder.path / "pki" / "kubernetes.key").write_bytes(b"junk")
    with pytest.raises(InputError, match="damaged"):
        Pki.load(folder)


def test_client_certificates_are_kept_for_half_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path / "state")
    PKI.save(folder)

    def own() -> bytes:
        loaded = Pki.load(folder)
        assert loaded is not None
        pair = loaded.client_certificate("kubernetes")
        certificate = x509.load_pem_x509_certificate(pair[0])
        assert load_pem_private_key(pair[1], None).public_key() == certificate.public_key()
        assert loaded.authorities["kubernetes"].signed(pair[0].decode())
        assert describe(pair[0].decode())["subject"] == "CN=clusterctl/O=system:masters"
        return pair[0]

    path = folder.path / "pki/client-kubernetes.pem"
    first = own()
    assert own() == first and path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    path.write_bytes(AUTHORITY.issue(SPEC)[0] + AUTHORITY.issue(SPEC)[1])
    assert own() != first, "of somebody else"
    foreign = Authority.create("kubernetes").issue(Pki.CLIENTS["kubernetes"])
    path.write_bytes(foreign[0] + foreign[1])
    assert own() != foreign[0], "of another authority"
    path.write_bytes(path.read_bytes()[:-200].partition(b"-----BEGIN PRIVATE KEY-----")[0])
    assert own(), "half of it"
    now = own()
    path.chmod(0o644)
    with pytest.raises(Refused, match="others on this machine"):
        own()
    path.chmod(0o600)

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=13)

    monkeypatch.setattr(pki_module, "datetime", Later)
    assert own() != now


def raise_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_client_certificates_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = StateFolder(tmp_path / "state")
    PKI.save(folder)
    monkeypatch.setattr(StateFolder, "write", raise_full)
    loaded = Pki.load(folder)
    assert loaded is not None and loaded.client_certificate("etcd")[1].startswith(b"-----BEGIN PRIVATE KEY-----") and len(list((folder.path / "pki").iterdir())) == 8
    assert Pki.create().client_certificate("etcd")[1].startswith(b"-----BEGIN PRIVATE KEY-----"), "of no folder"


def test_no_key_is_shown() -> None:
    assert "PRIVATE" not in repr(AUTHORITY) + repr(PKI) and AUTHORITY.key.decode()[40:60] not in repr(AUTHORITY)


def test_killed_while_it_is_saved(tmp_path: Path) -> None:
    """All keys or none: what is half there could neither be used nor be made anew."""
    outcomes = set()
    for number in range(25):
        folder = StateFolder(tmp_path / str(number))
        pid = os.fork()
        if pid == 0:
            PKI.save(folder)
            os._exit(0)
        time.sleep(0.0012 * number)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        loaded = Pki.load(folder)
        outcomes.add(loaded is None)
        PKI.save(folder)
        assert Pki.load(folder) is not None
    assert True in outcomes
