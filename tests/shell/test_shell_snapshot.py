"""How a snapshot is verified on a machine, with a fake etcd: where its ports are taken it tries others."""

from __future__ import annotations

import base64
import os
import re

import pytest
from shell_box import Box

from clusterctl.shell import Script, functions

ETCD = """echo "$@" >>{path}/starts
if [ "$(wc -l <{path}/starts)" -le {fails} ]; then echo '{{"msg":"{why}"}}'; echo '{{"msg":"closed etcd server"}}'; exit 1; fi
touch {path}/up
exec sleep 30"""
ETCDCTL = """case "$*" in
*"endpoint health"*) [ -e {path}/up ] ;;
*) printf '"Revision" : 7\\n"Count" : 3\\n' ;;
esac"""
TAKEN = "listen tcp 127.0.0.1:20000: bind: address already in use"


@pytest.mark.parametrize(("fails", "why", "starts", "ok"), [
    (0, "", 1, True), (1, TAKEN, 2, True), (3, TAKEN, 4, True), (9, TAKEN, 4, False), (9, "its files are damaged", 1, False)])
def test_a_snapshot_is_verified(dash: Box, fails: int, why: str, starts: int, ok: bool) -> None:
    (dash.root / "bin").mkdir()
    for name, text in (("etcd", ETCD), ("etcdctl", ETCDCTL), ("etcdutl", "exit 0")):
        path = dash.root / "bin" / name
        path.write_text("#!/bin/dash\n" + text.format(path=dash.path, fails=fails, why=why) + "\n")
        path.chmod(0o755)
    result = dash.run(Script(probes=[("snapshot", "snapshot")], blobs={"snapshot": b"x"}, functions=functions("snapshot")))
    [words] = [words for words in result.records if words[0] == "snapshot"]
    assert words[1:] == ["ok", "7", "3"] if ok else (words[1] == "failed" and why in base64.b64decode(words[2]).decode())
    tried = [re.findall(r"127\.0\.0\.1:(\d+)", line) for line in (dash.path / "starts").read_text().splitlines()]
    assert len(tried) == starts and len({min(ports) for ports in tried}) == starts
    assert all(20000 <= int(port) < 32768 for ports in tried for port in ports), "no port that the kernel may give to others"


def programs(box: Box, **texts: str) -> None:
    (box.root / "bin").mkdir()
    for name, text in texts.items():
        (box.root / "bin" / name).write_text(f"#!/bin/dash\n{text}\n")
        (box.root / "bin" / name).chmod(0o755)


def snapshot(box: Box) -> list[str]:
    result = box.run(Script(probes=[("snapshot", "snapshot")], blobs={"snapshot": b"x"}, functions=functions("snapshot")))
    [words] = [words for words in result.records if words[0] == "snapshot"]
    return words[1:]


def test_memory_and_io_of_the_scratch_member_are_limited(box: Box) -> None:
    """By a scope of systemd, where it has one."""
    box.command("systemd-run", f'echo "$@" >>{box.path}/scopes; while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    programs(box, etcdutl=f"cat /proc/$$/oom_score_adj >{box.path}/score", etcd=ETCD.format(path=box.path, fails=0, why=""),
             etcdctl=ETCDCTL.format(path=box.path))
    assert snapshot(box) == ["ok", "7", "3"]
    scopes = (box.path / "scopes").read_text().splitlines()
    assert len(scopes) == 3 and all("IOWeight=10" in line and "MemoryMax=" in line for line in scopes), scopes
    assert (box.path / "score").read_text().strip() == "1000"


def test_without_systemd_a_low_priority_has_to_do(box: Box) -> None:
    box.command("systemd-run", "exit 1")
    programs(box, etcdutl=f"nice >{box.path}/nice", etcd=ETCD.format(path=box.path, fails=0, why=""),
             etcdctl=ETCDCTL.format(path=box.path))
    assert snapshot(box) == ["ok", "7", "3"]
    assert (box.path / "nice").read_text().strip() == "19"


def test_too_little_memory_is_no_damage(box: Box) -> None:
    box.command("systemd-run", "exit 1")
    programs(box, etcdutl="kill -9 $$", etcd="exit 0", etcdctl="exit 1")
    assert snapshot(box) == ["killed"]


def test_room_is_that_of_the_nearest_folder(box: Box) -> None:
    paths = (str(box.path), f"{box.path}/not/there yet")
    result = box.run(Script(probes=[("room", path) for path in paths], functions=functions("snapshot")))
    found = {words[1]: words[2:] for words in result.records if words[0] == "room"}
    seen = os.statvfs(box.path)
    for path in paths:
        free, total, device = found[path]
        assert int(total) == (seen.f_blocks - seen.f_bfree + seen.f_bavail) * seen.f_bsize and device == found[paths[0]][2]
        assert abs(int(free) - seen.f_bavail * seen.f_bsize) < 2**30
