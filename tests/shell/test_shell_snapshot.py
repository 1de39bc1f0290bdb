"""How a snapshot is proven, with a pretended etcd: where somebody has its ports it tries others."""

from __future__ import annotations

import base64
import re

import pytest
from shell_box import Box

from clusterctl.shell import Program, functions

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
def test_a_snapshot_is_proven(dash: Box, fails: int, why: str, starts: int, ok: bool) -> None:
    (dash.root / "bin").mkdir()
    for name, text in (("etcd", ETCD), ("etcdctl", ETCDCTL), ("etcdutl", "exit 0")):
        path = dash.root / "bin" / name
        path.write_text("#!/bin/dash\n" + text.format(path=dash.path, fails=fails, why=why) + "\n")
        path.chmod(0o755)
    result = dash.run(Program(probes=[("snapshot", "snapshot")], blobs={"snapshot": b"x"}, functions=functions("snapshot")))
    [words] = [words for words in result.records if words[0] == "snapshot"]
    assert words[1:] == ["ok", "7", "3"] if ok else (words[1] == "failed" and why in base64.b64decode(words[2]).decode())
    tried = [re.findall(r"127\.0\.0\.1:(\d+)", line) for line in (dash.path / "starts").read_text().splitlines()]
    assert len(tried) == starts and len({min(ports) for ports in tried}) == starts
    assert all(20000 <= int(port) < 32768 for ports in tried for port in ports), "no port that the kernel may give to others"
