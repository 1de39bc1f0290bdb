"""Programs from archives, and pairs of key and certificate: verified, put in place, watched."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from shell_box import Box

from clusterctl.artifacts.parcel import Parcel, write_parcel
from clusterctl.errors import IntegrityError
from clusterctl.pki import Authority, CertificateSpec
from clusterctl.resources.binary import Binary
from clusterctl.resources.certificate import Certificate

AUTHORITY = Authority.create("test")
SPEC = CertificateSpec(authority="kubernetes", common_name="server", dns=("a.example",), addresses=("192.0.2.1",), server=True)


@dataclass(frozen=True)
class Source:
    """An artifact that is already here; ``sums``: digests that the parcel pretends to have."""

    path: Path
    sha256: str
    programs: Mapping[str, str]
    archive: bool
    sums: bytes = b""
    at: str = ""

    def fetch(self) -> Path:
        return self.path

    def parcel(self) -> Parcel:
        target = self.path.with_name(f"{self.path.name}.tar.zst")
        sums = write_parcel(self.path, target, self.programs, archive=self.archive)
        return Parcel(target, self.sums or sums)


def source(path: Path, content: bytes, *members: str, name: str = "tool", sums: bytes = b"") -> Source:
    path.write_bytes(content)
    programs = {member: member.rsplit("/", 1)[-1] for member in members or (name,)}
    return Source(path, hashlib.sha256(content).hexdigest(), programs, bool(members), sums)


def archive(*members: tuple[str, bytes | None], mode: str = "w:gz") -> bytes:
    """A tar; a member without content is a link to /etc/passwd."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as made:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.uid, info.mode = 1234, 0o777
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def brought(box: Box, source: Source, content: bytes | None = None) -> Source:
    """The same, as a file that is on the machine already; ``content``: what it holds in its place."""
    place = box.path / "incoming"
    place.write_bytes(source.path.read_bytes() if content is None else content)
    return dataclasses.replace(source, at=str(place))


@pytest.mark.parametrize("here", [False, True])
def test_a_file(box: Box, here: bool) -> None:
    given = source(box.path / "blob", b"#!/bin/sh\necho tool\n")
    program = Binary(name="tool", version="1.0.0", source=brought(box, given) if here else given)
    box.settle(program)
    assert not (box.path / "incoming").exists()
    folder = box.root / "tool/1.0.0"
    assert (folder / "tool").read_bytes() == b"#!/bin/sh\necho tool\n"
    assert os.listdir(folder.parent) == ["1.0.0"] and sorted(os.listdir(folder)) == [".stamp", "tool"]
    assert os.access(folder / "tool", os.X_OK) and folder.stat().st_mode & 0o777 == 0o755
    assert (folder / ".stamp").read_text().splitlines()[1].split(" ")[0] == given.sha256
    assert box.diff(program, verify=True) is None


@pytest.mark.parametrize("here", [False, True])
def test_an_archive(box: Box, here: bool) -> None:
    content = archive(("pack/two words", b"2"), ("pack/bin/one", b"1"), ("unasked", b"3"), ("../../etc/evil", b"4"), ("link", None))
    members = ("pack/bin/one", "pack/two words")
    given = source(box.path / "blob", content, *members)
    program = Binary(name="pack", version="2.0.0", source=brought(box, given) if here else given, members=members)
    box.settle(program)
    folder = box.root / "pack/2.0.0"
    assert sorted(os.listdir(folder)) == [".stamp", "one", "two words"]
    assert [(folder / name).read_bytes() for name in ("one", "two words")] == [b"1", b"2"]
    assert (folder / "one").stat().st_uid == 0 and (folder / "one").stat().st_mode & 0o777 == 0o755
    assert os.listdir(box.etc) == []
    assert box.diff(program, verify=True) is None


@pytest.mark.parametrize("sums", [f"{'0' * 64} *tool\n", f"{hashlib.sha256(b'evil').hexdigest()} *other\n", "\n"])
def test_programs_that_are_not_what_was_sent_leave_nothing(box: Box, sums: str) -> None:
    program = Binary(name="tool", version="1.0.0", source=source(box.path / "blob", b"evil", sums=sums.encode()))
    result = box.apply(program)
    assert result.failure is not None and "integrity" in result.failure.output
    assert os.listdir(box.root) == []


def test_a_file_that_was_changed_after_it_was_brought_leaves_nothing(box: Box) -> None:
    given = brought(box, source(box.path / "blob", b"good"), b"evil")
    result = box.apply(Binary(name="tool", version="1.0.0", source=given))
    assert result.failure is not None and "integrity" in result.failure.output
    assert os.listdir(box.root) == []


WAYS_OUT = [
    ((("link", None),), "link"),
    ((("other", b"x"),), "missing"),
    ((("../../../evil", b"x"),), "../../../evil"),
    ((("/tmp/clusterctl-evil", b"x"),), "/tmp/clusterctl-evil"),
    ((("folder/file", b"x"),), "folder"),
]


@pytest.mark.parametrize(("members", "asked"), WAYS_OUT)
def test_links_and_ways_out_are_refused(dash: Box, members: tuple[tuple[str, bytes | None], ...], asked: str) -> None:
    given = brought(dash, source(dash.path / "blob", archive(*members), asked))
    program = Binary(name="tool", version="1.0.0", source=given, members=(asked,))
    before = sorted(os.listdir(dash.path))
    failed = dash.apply(program).failure is not None
    # GNU tar takes an absolute name for a relative one, which stays inside.
    assert failed or (asked.startswith("/") and (dash.root / "tool/1.0.0/clusterctl-evil").exists())
    assert (dash.root / "tool/1.0.0").exists() is not failed and not (dash.root / "tool/1.0.0.new").exists()
    assert [name for name in sorted(os.listdir(dash.path)) if not name.startswith("work-")] == [
        name for name in before if failed or name != "incoming"]
    assert not Path("/tmp/clusterctl-evil").exists() and os.listdir(dash.etc) == []


@pytest.mark.parametrize(("members", "asked"), WAYS_OUT)
def test_a_parcel_has_plain_names_and_files_alone(tmp_path: Path, members: tuple[tuple[str, bytes | None], ...], asked: str) -> None:
    given = source(tmp_path / "blob", archive(*members), asked)
    if members[0][1] is None or members[0][0] != asked:
        with pytest.raises(IntegrityError, match=f"holds no file {asked}"):
            given.parcel()
        assert os.listdir(tmp_path) == ["blob"]
        return
    unpacked = subprocess.run(["tar", "--zstd", "-tf", given.parcel().path], capture_output=True, text=True, check=True)
    assert unpacked.stdout == f"{asked.rsplit('/', 1)[-1]}\n"


@pytest.mark.parametrize("size", [10, 20_000, 40_000])
def test_a_damaged_archive_is_refused(dash: Box, size: int) -> None:
    given = source(dash.path / "blob", archive(("one", os.urandom(50_000)))[:size], "one")
    with pytest.raises(IntegrityError, match="no whole archive"):
        given.parcel()
    program = Binary(name="tool", version="1.0.0", source=brought(dash, given), members=("one",))
    assert dash.apply(program).failure is not None
    assert not (dash.root / "tool/1.0.0").exists()


@pytest.mark.parametrize(("damage", "verdict"), [
    ("printf x >>two", "modified two"), ("rm two", "missing two"), ("chmod 700 two", "mode two"), ("chown daemon two", "mode two"),
    ("cp two x; mv x two", "intact"), ("touch two", "intact"), ("touch extra", "intact"), ("rm .stamp", None)])
def test_drift(dash: Box, damage: str, verdict: str | None) -> None:
    content = archive(("one", b"1"), ("two", b"2"))
    program = Binary(name="pack", version="2.0.0", source=source(dash.path / "blob", content, "one", "two"), members=("one", "two"))
    dash.settle(program)
    assert os.system(f"cd {dash.root}/pack/2.0.0 && {damage}") == 0
    change = dash.diff(program)
    if verdict == "intact":
        assert change is None
        return
    assert change is not None and change.before.get("files") == verdict
    dash.settle(program)


def entry_as_it_is(stamp: Path, tool: Path) -> None:
    """Give a stamp the size, the times and the inode that a program has now, beside the old digest."""
    lines = stamp.read_text().splitlines()
    words = lines[1].split(" ")
    words[1] = subprocess.run(["stat", "-c", "%s:%.Y:%.Z:%i", str(tool)], capture_output=True, text=True, check=True).stdout.strip()
    stamp.write_text("\n".join([lines[0], " ".join(words)]) + "\n")


def test_a_racy_entry_of_the_stat_cache_is_hashed_again(dash: Box) -> None:
    """Written to in the tick of the clock in which the stamp was written, a program may look as it did before."""
    program = Binary(name="tool", version="1.0.0", source=source(dash.path / "blob", b"good"))
    dash.settle(program)
    tool, stamp = dash.root / "tool/1.0.0/tool", dash.root / "tool/1.0.0/.stamp"
    tool.write_bytes(b"evil")
    entry_as_it_is(stamp, tool)
    written = tool.stat().st_ctime_ns
    for racy, later in ((True, 0), (False, 10**7)):
        os.utime(stamp, ns=(written + later, written + later))
        change = dash.diff(program)
        assert (change is not None and change.before["files"] == "modified tool") is racy


def test_installing_leaves_no_racy_entry(dash: Box) -> None:
    dash.settle(Binary(name="tool", version="1.0.0", source=source(dash.path / "blob", b"good")))
    folder = dash.root / "tool/1.0.0"
    assert (folder / "tool").stat().st_ctime_ns < (folder / ".stamp").stat().st_mtime_ns


def test_verify_hashes_what_looks_untouched(dash: Box) -> None:
    program = Binary(name="tool", version="1.0.0", source=source(dash.path / "blob", b"good"))
    dash.settle(program)
    tool, stamp = dash.root / "tool/1.0.0/tool", dash.root / "tool/1.0.0/.stamp"
    tool.write_bytes(b"evil")
    time.sleep(0.05)  # An entry of this tick of the clock would be racy.
    # Somebody who can write the stamp's own numbers, but has no file of that sum.
    entry_as_it_is(stamp, tool)
    assert dash.diff(program) is None
    change = dash.diff(program, verify=True)
    assert change is not None and change.before["files"] == "modified tool"


def test_another_source_is_another_program(dash: Box) -> None:
    dash.settle(Binary(name="tool", version="1.0.0", source=source(dash.path / "one", b"one")))
    other = Binary(name="tool", version="1.0.0", source=source(dash.path / "two", b"two"))
    change = dash.diff(other)
    assert change is not None and change.fields == ("source",)
    dash.settle(other)
    assert (dash.root / "tool/1.0.0/tool").read_bytes() == b"two"


def certificate(box: Box, **more: object) -> Certificate:
    return Certificate(path=f"{box.etc}/pki/server", spec=SPEC, authority=AUTHORITY, **more)  # type: ignore[arg-type]


def test_pair(box: Box) -> None:
    pair = certificate(box, owner="daemon:daemon")
    box.settle(pair)
    key, crt = box.etc / "pki/server.key", box.etc / "pki/server.crt"
    assert key.stat().st_mode & 0o777 == 0o600 and crt.stat().st_mode & 0o777 == 0o644
    assert key.owner() == "daemon"
    assert (crt.read_bytes(), key.read_bytes()) == pair.issue()
    assert sorted(os.listdir(box.etc / "pki")) == ["server.crt", "server.key"]
    assert box.diff(certificate(box, owner="daemon:daemon")) is None, "any other run sees the same"


@pytest.mark.parametrize(("damage", "fields", "reissued"), [
    ("echo >>server.key", ("pair",), True),
    ("echo >>server.crt", ("pair",), True),
    ("echo junk >server.crt", None, True),
    ("printf '\\0\\377' >server.crt", None, True),
    (": >server.crt", None, True),
    ("rm server.key", None, True),
    ("rm ../../state/stamps/*", ("pair",), True),
    ("cp server.crt x; mv server.crt y; ln -s x server.crt", None, True),
    ("chmod 644 server.key", ("key_mode",), False),
    ("chmod 600 server.crt; chown daemon server.key", ("certificate_mode", "key_mode"), False),
])
def test_drift_of_a_pair(dash: Box, damage: str, fields: tuple[str, ...] | None, reissued: bool) -> None:
    pair = certificate(dash)
    dash.settle(pair)
    before = (dash.etc / "pki/server.key").read_bytes()
    assert os.system(f"cd {dash.etc}/pki && {damage}") == 0
    pair = certificate(dash)
    change = dash.diff(pair)
    assert change is not None and (fields is None or change.fields == fields)
    dash.settle(pair)
    assert ((dash.etc / "pki/server.key").read_bytes() != before) is reissued
    assert (dash.etc / "pki/server.crt").is_file() and not (dash.etc / "pki/server.crt").is_symlink()


def test_a_pair_that_was_half_written_is_written_again(dash: Box) -> None:
    """Between the key and the stamp: the stamp is gone first, so the pair is not taken for whole."""
    pair = certificate(dash)
    dash.settle(pair)
    other = certificate(dash)
    crt, key = other.issue()
    result = dash.steps(("put_pair", other.path, "root:root", "blob", "/var/lib/clusterctl/stamps/pair-x", ""), blobs={"blob.key": key})
    assert result.failure is not None
    change = dash.diff(pair)
    assert change is not None and change.fields == ("pair",)


def test_another_authority(dash: Box) -> None:
    dash.settle(certificate(dash))
    other = Certificate(path=f"{dash.etc}/pki/server", spec=SPEC, authority=Authority.create("test"))
    change = dash.diff(other)
    assert change is not None and change.fields == ("issuer",)
    dash.settle(other)
