"""A cache that others wrote to: what they put there is not believed, and a cache that they may write to is refused."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from artifact_web import CONTENT, IMPATIENT, Web, artifact

from clusterctl.artifacts.cache import FOLDERS
from clusterctl.artifacts.catalog import Artifact
from clusterctl.artifacts.store import Location, Store, open_catalog
from clusterctl.cluster.model import ArtifactSettings
from clusterctl.errors import Refused

EVIL = b"not the program that is pinned"


def with_parcels(store: Store) -> Artifact:
    plain = artifact(store)
    return Artifact(plain.product, plain.version, plain.arch, plain.path, plain.sha256, plain.size, (), store.fetch, store.parcel)


def content_of(parcel: Path) -> bytes:
    return subprocess.run(["tar", "--zstd", "-xOf", parcel, "runc"], capture_output=True, check=True).stdout


def sums_of(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()} *runc\n".encode()


def plant(parcel: Path) -> None:
    """Put a parcel of another program in the place of one."""
    program = parcel.parent / "runc"
    program.write_bytes(EVIL)
    subprocess.run(["tar", "--zstd", "-cf", parcel, "-C", parcel.parent, "runc"], check=True)
    program.unlink()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("format_of_note", ["{parcel}\n{sums}", "{mac}\n{parcel}\n{sums}"], ids=["bare", "other-mac"])
def test_a_planted_parcel_with_sums_of_its_own_is_packed_again(store: Store, first: bool, format_of_note: str) -> None:
    """``first``: planted where clusterctl never wrote a parcel; else in the place of one that it wrote."""
    parcel = with_parcels(store).parcel()
    note = parcel.path.with_suffix(".sums")
    mac = note.read_bytes().partition(b"\n")[0].decode()
    if first:
        parcel.path.unlink()
        note.unlink()
    plant(parcel.path)
    planted = hashlib.sha256(parcel.path.read_bytes()).hexdigest()
    note.write_text(format_of_note.format(mac=mac, parcel=planted, sums=sums_of(EVIL).decode()))
    found = with_parcels(store).parcel()
    assert found.sums == sums_of(CONTENT)
    assert content_of(found.path) == CONTENT


def test_a_planted_parcel_beside_its_true_sums_is_packed_again(store: Store) -> None:
    parcel = with_parcels(store).parcel()
    plant(parcel.path)
    assert content_of(with_parcels(store).parcel().path) == CONTENT


def test_planted_sums_beside_a_true_parcel_are_made_again(store: Store) -> None:
    parcel = with_parcels(store).parcel()
    note = parcel.path.with_suffix(".sums")
    note.write_bytes(note.read_bytes().replace(sums_of(CONTENT), sums_of(EVIL)))
    assert with_parcels(store).parcel().sums == sums_of(CONTENT)


def test_a_note_of_one_parcel_is_not_one_of_another(store: Store, web: Web) -> None:
    """A true note and parcel, moved to the name of another artifact's."""
    mine = with_parcels(store).parcel()
    evil = Artifact("runc", "1.0.1", "amd64", "github.com/x/other", hashlib.sha256(EVIL).hexdigest(), len(EVIL), (),
                    lambda _: evil_file, store.parcel)
    evil_file = store.cache / "artifacts" / "sha256" / evil.sha256
    evil_file.write_bytes(EVIL)
    other = evil.parcel()
    for suffix in (".zst", ".sums"):
        os.replace(other.path.with_suffix(suffix), mine.path.with_suffix(suffix))
    found = with_parcels(store).parcel()
    assert found.sums == sums_of(CONTENT) and content_of(found.path) == CONTENT


def test_a_stamp_made_by_hand_is_not_believed(store: Store) -> None:
    import json

    wanted = artifact(store)
    path = wanted.fetch()
    [stamp] = (store.cache / "verified").iterdir()
    path.write_bytes(EVIL)
    found = path.stat()
    identity = json.dumps([str(path), found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, wanted.sha256]).encode()
    for content in (identity, hashlib.sha256(identity).hexdigest().encode(), b"", stamp.read_bytes()):
        stamp.write_bytes(content)
        assert not store.is_verified(path, wanted.sha256)
    assert wanted.fetch().read_bytes() == CONTENT


def test_records_under_another_key_are_not_believed(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parcel = with_parcels(store).parcel()
    before = parcel.path.stat().st_ino
    assert with_parcels(store).parcel().path.stat().st_ino == before
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert with_parcels(store).parcel().path.stat().st_ino != before


def test_the_key_is_this_user_s_alone(store: Store, state_home: Path) -> None:
    from clusterctl.artifacts import cache

    artifact(store).fetch()
    key = state_home / "clusterctl" / "cache.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and len(key.read_bytes()) == 32
    known = key.read_bytes()
    key.chmod(0o644)
    cache._key.cache_clear()  # As in the next process.
    artifact(store).fetch()
    assert key.read_bytes() != known and stat.S_IMODE(key.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", [".", *FOLDERS])
@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_cache_that_others_may_write_to_is_refused(store: Store, name: str, mode: int) -> None:
    (store.cache / name).mkdir(parents=True, exist_ok=True)
    (store.cache / name).chmod(mode)
    for attempt in (artifact(store).fetch, with_parcels(store).parcel,
                    lambda: open_catalog(ArtifactSettings(cache=store.cache), store.cache.parent)):
        with pytest.raises(Refused) as caught:
            attempt()
        assert caught.value.exit_code == 3 and caught.value.code == "artifact.cache-writable"
        assert f"chmod -R go-w {store.cache}" in caught.value.hint
    subprocess.run(caught.value.hint.split(), check=True)
    artifact(store).fetch()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_another_user_s_cache_is_refused(store: Store) -> None:
    store.cache.mkdir()
    os.chown(store.cache, 4711, 4711)
    with pytest.raises(Refused) as caught:
        artifact(store).fetch()
    assert caught.value.code == "artifact.cache-writable" and "chown" in caught.value.hint


def test_a_new_cache_is_not_writable_for_others_under_a_loose_umask(store: Store) -> None:
    before = os.umask(0)
    try:
        with_parcels(store).parcel()
        with_parcels(store).parcel()
    finally:
        os.umask(before)
    assert not store.cache.stat().st_mode & 0o077


def test_an_archive_s_parcel_is_checked_likewise(tmp_path: Path) -> None:
    folder = tmp_path / "mirror"
    (folder / "x").mkdir(parents=True)
    (tmp_path / "runc").write_bytes(CONTENT)
    with tarfile.open(folder / "x" / "runc.tgz", "w:gz") as tar:
        tar.add(tmp_path / "runc", "bin/runc")
    content = (folder / "x" / "runc.tgz").read_bytes()
    store = Store(tmp_path / "cache", Location(folder=folder), patience=IMPATIENT, upstream="http://127.0.0.1:9")
    wanted = Artifact("runc", "1", "amd64", "x/runc.tgz", hashlib.sha256(content).hexdigest(), len(content), ("bin/runc",),
                      store.fetch, store.parcel)
    plant(wanted.parcel().path)
    assert content_of(wanted.parcel().path) == CONTENT
