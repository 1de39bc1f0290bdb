"""Host certificates that ssh-keygen made, shown by a real sshd, and the marked lines of known_hosts that accept or refuse them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest
from ssh_server import Server, keygen

from clusterctl.cluster.model import Ssh
from clusterctl.commands import init as operations_init
from clusterctl.commands import trust
from clusterctl.errors import AccessRefused
from clusterctl.local.storage import StateFolder
from clusterctl.shell import Script
from clusterctl.ssh.host_certificates import marked
from clusterctl.ssh.ssh_config import Way
from clusterctl.ssh.transport import Transport

pytestmark = pytest.mark.lab

Connect = Callable[..., Transport]
TRUE = Script(steps=[("true",)])
UNKNOWN, CHANGED, REVOKED = "ssh.host-key-unknown", "ssh.host-key-changed", "ssh.host-key-revoked"
WRONG, EXPIRED = "ssh.host-certificate-wrong", "ssh.host-certificate-expired"


def public(path: Path) -> str:
    return " ".join(Path(f"{path}.pub").read_text().split()[:2])


class Certified:
    """An sshd whose first host key, ``key``, has a certificate of ``authority``."""

    def __init__(self, base: Path, *words: str, kind: str = "ed25519", ca: str = "ed25519") -> None:
        self.authority, self.key, folder = keygen(base / "ca", ca), keygen(base / "certified", kind), base / "sshd"
        folder.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-s", str(self.authority), "-I", "machine", *words, f"{self.key}.pub"], check=True)
        self.server = Server(folder, more=f"HostKey {self.key}\nHostCertificate {self.key}-cert.pub")
        self.known_hosts = base / "home-here/.ssh/known_hosts"

    def known(self, *lines: str) -> None:
        self.known_hosts.parent.mkdir(mode=0o700, exist_ok=True)
        self.known_hosts.write_text("".join(f"{line}\n" for line in lines))

    def outcome(self, connect: Connect, **options: object) -> str:
        """Return how a connection ends: the code of its refusal, or nothing where a program ran."""
        transport = connect(self.server.host(**({"host_key": None} | options)))
        try:
            list(transport.stream(TRUE))
        except AccessRefused as error:
            assert error.hint
            assert "Accepted publickey" not in self.server.log
            return error.code
        return ""


@pytest.fixture
def certified(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Certified]:
    words, more = getattr(request, "param", (("-h", "-n", "127.0.0.1"), {}))
    made = Certified(tmp_path, *words, **more)
    yield made
    made.server.stop()


@pytest.mark.parametrize(("certified", "code"), [
    ((("-h", "-n", "127.0.0.1"), {}), ""),
    ((("-h", "-n", "a.example,127.0.0.*"), {"kind": "ecdsa", "ca": "ecdsa"}), ""),
    ((("-h", "-n", "machine"), {"kind": "rsa", "ca": "rsa"}), ""),
    ((("-h",), {}), ""),
    ((("-h", "-n", "127.0.0.1", "-V", "-2d:+1d"), {}), ""),
    ((("-h", "-n", "127.0.0.1", "-V", "-2d:-1d"), {}), EXPIRED),
    ((("-h", "-n", "127.0.0.1", "-V", "+1d:+2d"), {}), EXPIRED),
    ((("-h", "-n", "127.0.0.2,another"), {}), WRONG),
    ((("-n", "127.0.0.1"), {}), WRONG),
    ((("-h", "-n", "127.0.0.1", "-O", "critical:x@example=1"), {}), WRONG),
], indirect=["certified"], ids=["ed25519", "ecdsa", "rsa", "any-name", "valid", "expired", "not-yet-valid", "another-name", "a-users",
                                "critical-option"])
def test_a_certificate_of_an_authority_that_is_known(certified: Certified, code: str, connect: Connect) -> None:
    certified.known(f"@cert-authority * {public(certified.authority)}")
    assert certified.outcome(connect) == code


@pytest.mark.parametrize(("pattern", "code"), [
    ("127.0.0.1", ""), ("[127.0.0.1]:{port}", ""), ("*.example,127.0.?.1", ""), ("MACHINE", ""), ("*,!127.0.0.1", UNKNOWN),
    ("another.example", UNKNOWN), ("[127.0.0.1]:1", UNKNOWN),
])
def test_an_authority_is_for_machines_of_its_patterns(certified: Certified, pattern: str, code: str, connect: Connect) -> None:
    line = f"@cert-authority {pattern.format(port=certified.server.port)} {public(certified.authority)} # comment"
    certified.known("@cert-authority", "@cert-authority * ssh-ed25519 %%%", line)
    assert certified.outcome(connect) == code


def test_what_else_is_known_decides(certified: Certified, tmp_path: Path, connect: Connect) -> None:
    port, authority = certified.server.port, f"@cert-authority * {public(certified.authority)}"
    another = public(keygen(tmp_path / "another"))
    certified.known(f"@cert-authority * {another}")
    assert certified.outcome(connect) == WRONG
    certified.known()
    assert certified.outcome(connect) == UNKNOWN
    certified.known(authority, f"[127.0.0.1]:{port} {another}")
    assert certified.outcome(connect) == CHANGED, "a key that is known is required"
    assert certified.outcome(connect, host_key=another) == CHANGED
    for line in (public(certified.authority), public(certified.key)):
        certified.known(authority, f"@revoked * {line}")
        assert certified.outcome(connect) == REVOKED
    certified.known(f"@revoked * {public(certified.key)}", f"[127.0.0.1]:{port} {public(certified.key)}")
    assert certified.outcome(connect) == REVOKED
    assert certified.outcome(connect, host_key=public(certified.key)) == REVOKED
    certified.known(f"@revoked 192.0.2.1 {public(certified.key)}", authority)
    assert certified.outcome(connect) == ""


def test_an_authority_of_the_cluster_itself(certified: Certified, tmp_path: Path, connect: Connect) -> None:
    """Its certificates need no acceptance of the machine's key, and a revoked key cannot be accepted."""
    state = StateFolder(tmp_path / "state")
    state.prepare()
    (state.path / "known_hosts").write_text(f"@cert-authority * {public(certified.authority)}\n")
    host = certified.server.host(host_key=None)
    assert trust.unknown(state, [host], lambda: None, forks=1) == ([], [])
    list(connect(host, known_hosts=state.path / "known_hosts").stream(TRUE))
    (state.path / "known_hosts").write_text(f"@revoked * {public(certified.key)}\n")
    offers, errors = trust.unknown(state, [host], lambda: None, forks=1)
    assert offers == [] and [error.code for error in errors] == [REVOKED]


def test_a_machine_without_certificate_has_its_plain_key(server: Server, tmp_path: Path, connect: Connect) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority * {public(keygen(tmp_path / 'ca'))}\n")
    with pytest.raises(AccessRefused) as raised:
        list(connect(server.host(host_key=None), known_hosts=known).stream(TRUE))
    assert raised.value.code == UNKNOWN
    list(connect(server.host(host_key=server.fingerprint), known_hosts=known).stream(TRUE))


@pytest.mark.parametrize("cut", [1, 40, 200])
@pytest.mark.parametrize("flip", [False, True])
def test_a_certificate_that_was_altered(tmp_path: Path, cut: int, flip: bool) -> None:
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "key")
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "x", "-h", f"{key}.pub"], check=True)
    known = tmp_path / "known_hosts"
    known.write_text(f"@cert-authority * {public(authority)}\n")
    found = marked("m", Way(Ssh(address="192.0.2.1")), known)
    whole = paramiko.Ed25519Key.from_private_key_file(str(key))
    whole.load_certificate(f"{key}-cert.pub")
    assert whole.public_blob and found.vouch_for(whole)
    blob = bytearray(whole.public_blob.key_blob)
    if flip:
        blob[-cut] ^= 1
    else:
        del blob[-cut:]
    whole.public_blob.key_blob = bytes(blob)
    with pytest.raises(AccessRefused) as raised:
        found.vouch_for(whole)
    assert raised.value.code == WRONG


def test_init_asks_for_no_machine_that_an_authority_vouches_for(certified: Certified) -> None:
    host = certified.server.host(host_key=None)
    (key,) = operations_init.offers([host]).values()
    assert not operations_init.is_known(host, key)
    certified.known(f"@cert-authority 127.0.0.1 {public(certified.authority)}")
    (key,) = operations_init.offers([host]).values()
    assert operations_init.is_known(host, key) and f"{key.get_name()} {key.get_base64()}" == public(certified.key)
