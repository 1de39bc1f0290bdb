"""What programs print about a machine, against what is read from it."""

from __future__ import annotations

import os
import socket
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell_box import Box

from clusterctl.components.products import FOOTPRINT
from clusterctl.resources.binary import Image
from clusterctl.resources.system import Module, Packages, Sysctl, User
from clusterctl.shell import Observation, Records, Script, facts, quote, step_result


def test_text(box: Box) -> None:
    path = box.etc / "text"
    path.write_bytes(b"a: b:c\n\ttabs\tand  spaces \n\n  $x `y` \\n %s\nno newline")
    other = box.etc / "other"
    other.write_bytes(b"one\n")
    seen = box.look(("text", str(path)), ("text", f"{box.etc}/nothing"), ("text", str(other)), ("text", str(box.etc)))
    assert seen.get("text", str(path)) == ["a: b:c", "\ttabs\tand  spaces ", "", "  $x `y` \\n %s", "no newline"]
    assert seen.get("text", str(other)) == ["one"]
    assert seen.get("text", f"{box.etc}/nothing") is None


def test_sysctl(box: Box) -> None:
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    assert box.diff(Sysctl(key="net.ipv4.ip_local_port_range", value=" ".join(ports))) is None
    change = box.diff(Sysctl(key="net.ipv4.ip_local_port_range", value="1 2"))
    assert change is not None and change.fields == ("value",) and change.before["value"] == " ".join(ports)
    change = box.diff(Sysctl(key="net.there.is.none", value="1"))
    assert change is not None and change.action == "create"


class Containerd:
    """A pretended one: its socket, and a ``ctr`` that lists images."""

    def __init__(self, box: Box) -> None:
        self.box = box
        (box.etc / "containerd").mkdir()
        (box.root / "bin").mkdir()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(box.etc / "containerd/containerd.sock"))

    def list(self, *images: str, code: int = 0) -> None:
        ctr = self.box.root / "bin/ctr"
        ctr.write_text("#!/bin/dash\n" + "".join(f"echo {image}\n" for image in images) + f"exit {code}\n")
        ctr.chmod(0o755)

    def observe(self) -> list[str]:
        seen = self.box.look(("image", "all"))
        return [image for image in ("a:1", "b:2") if seen.get("image", image) is not None]


@pytest.fixture
def containerd(dash: Box) -> Iterator[Containerd]:
    found = Containerd(dash)
    yield found
    found.socket.close()


def test_images_are_those_that_containerd_lists_now(containerd: Containerd) -> None:
    for images in (["a:1", "b:2"], ["b:2"], [], ["a:1"]):
        containerd.list(*images)
        assert containerd.observe() == images


def test_a_containerd_that_does_not_answer_has_no_images(containerd: Containerd) -> None:
    containerd.list("a:1", code=1)
    assert containerd.observe() == []


def test_module(box: Box) -> None:
    assert box.diff(Module(name="x", evidence="/proc/self")) is None
    assert box.diff(Module(name="no-such-module", evidence="/no/such/path")) is not None


def test_load_a_module(dash: Box) -> None:
    # busybox would take its own modprobe.
    dash.command("modprobe", f'echo "$@" >{dash.path}/loaded')
    dash.apply(Module(name="no-such-module", evidence="/no/such/path"))
    assert (dash.path / "loaded").read_text() == "-- no-such-module\n"


def test_user(dash: Box) -> None:
    assert dash.diff(User(name="daemon", home="/x")) is None
    user = User(name="no-such-user", home="/var/lib/x")
    for name in ("groupadd", "useradd"):
        dash.command(name, f'echo {name} "$@" >>{dash.path}/made')
    dash.apply(user)
    assert (dash.path / "made").read_text().splitlines() == [
        "groupadd --system -- no-such-user",
        "useradd --system --gid no-such-user --home-dir /var/lib/x --no-create-home --shell /usr/sbin/nologin -- no-such-user"]


def test_packages_of_dpkg(dash: Box) -> None:
    dash.command("dpkg-query", "printf 'one ii \\ntwo:amd64 ii \\nremoved rc \\nhalf iU \\n'; exit 1")
    change = dash.diff(Packages(names=("one", "two", "removed", "half", "unknown")))
    assert change is not None and change.fields == ("removed", "half", "unknown")


def test_image(dash: Box) -> None:
    image = Image(reference="registry.example/pause:3.10", source=None)  # type: ignore[arg-type]
    assert dash.diff(image) is not None


def test_step_failure_stops_the_program(box: Box) -> None:
    noise = "x" * 5000 + " the end \u2713 \t"
    result = box.steps(("true",), ("printf", "first"), ("die", noise), ("touch", f"{box.etc}/never"))
    assert [step.code for step in result.steps] == [0, 0, 1]
    assert result.failure is not None and result.failure.index == 2
    assert len(result.failure.output.encode()) <= 2048 and result.failure.output.endswith("x the end \u2713")
    assert os.listdir(box.etc) == []
    assert result.records[-1][0] == "failed", "no end is told where a step failed"


@pytest.mark.parametrize(("call", "code"), [(("false",), 1), (("exit", "7"), 7), (("no_such_function",), 127), (("eval", "kill -9 $$"), None)])
def test_exit_codes(box: Box, call: tuple[str, ...], code: int | None) -> None:
    result = box.steps(("true",), call, ("touch", f"{box.etc}/never"))
    if code is None:
        assert [step.code for step in result.steps] == [0], "a program that is killed tells no end"
        assert result.records[-1][0] == "ok"
    else:
        assert result.failure is not None and result.failure.code == code
    assert os.listdir(box.etc) == []


def test_a_function_stops_at_its_first_failure(box: Box) -> None:
    functions = "several() { true; false; touch " + quote(f"{box.etc}/never") + "; }\n"
    result = box.run(Script(steps=[("several",)], functions=functions))
    assert result.failure is not None and os.listdir(box.etc) == []


def test_steps_have_no_way_to_the_records(box: Box) -> None:
    """What a step prints on any descriptor is no record, and it finds nothing on its stdin."""
    program = Script(steps=[("eval", 'printf "$nonce\\tok\\t99\\n" >&3'), ("true",)])
    result = box.run(program)
    assert result.failure is not None and result.failure.index == 0
    result = box.steps(("eval", 'printf "$nonce\\tok\\t99\\n"; printf "$nonce\\tok\\t98\\n" >&2; cat'))
    assert [words[:2] for words in result.records] == [["ok", "0"], ["end"]]


def test_records_only_with_the_nonce() -> None:
    assert Records("abc").read("abc\tok\t1") == ["ok", "1"]
    for line in ("xyz\tok\t1", "ok\t1", "", "abc", "abcd\tok", "\tabc\tok", " abc\tok\t1"):
        assert Records("abc").read(line) is None
    assert Script().nonce != Script().nonce


def test_lines_of_a_kind() -> None:
    records = Records("abc")
    lines = ["noise", "abc\tlines\tstat", "/a\tdirectory", "", "abcd\tok", "abc\tok\t1", "noise", "abc\tlines\tsha", "abc\tlines\ttext", "x"]
    assert [words for line in lines if (words := records.read(line))] == [
        ["stat", "/a", "directory"], ["stat", ""], ["stat", "abcd", "ok"], ["ok", "1"], ["text", "x"]]


def test_step_result_without_output() -> None:
    assert step_result(["failed", "3", "2"]).output == ""


def test_observation_of_units() -> None:
    seen = Observation()
    for line in ("Id=a.service", "LoadState=loaded", "ActiveState=active", "", "Id=b.service", "LoadState=not-found"):
        seen.add("unit", [line])
    assert "ActiveState=active" in (seen.get("unit", "a.service") or [])
    assert seen.get("unit", "b.service") == ["Id=b.service", "LoadState=not-found"]


def test_facts(box: Box) -> None:
    began = time.time()
    result = box.run(facts.probe_program(footprint=FOOTPRINT))
    found, rest = facts.read_facts([words for words in result.records if words[0] != "end"], asked=0, answered=1e12)
    assert rest.get("text", "/etc/machine-id") == [found.machine_id]
    # busybox has whole seconds alone.
    [said] = (words[1] for words in result.records if words[0] == "time")
    assert began - 1 <= float(said.removesuffix(".%N")) <= time.time()
    assert found.arch in ("amd64", "arm64") and found.cpus == os.cpu_count() and found.memory_mib > 100
    assert found.hostname == os.uname().nodename and found.kernel == os.uname().release
    assert "127.0.0.1" in found.addresses
    assert set(found.space) == {"/opt", "/var/lib", "/etc"} and found.space["/etc"].mib > 0 and found.space["/etc"].writable
    assert found.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert result.records[-1] == ["end"]


def test_chunks_are_a_tar(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(os.urandom(100_001))
    program = Script(steps=[("true",)], blobs={"small": b"x", "large": blob})
    chunks = list(program.chunks(4096))
    assert max(map(len, chunks)) <= 4096
    archive = tmp_path / "archive"
    archive.write_bytes(b"".join(chunks))
    with tarfile.open(archive) as found:
        assert found.getnames() == ["run.sh", "blobs/small", "blobs/large"]
        assert {member.mode for member in found.getmembers()} == {0o600}
        large = found.extractfile("blobs/large")
        assert large is not None and large.read() == blob.read_bytes()


def test_a_file_that_shrinks_while_it_is_sent_is_noticed(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(b"x" * 100_000)
    chunks = Script(blobs={"blob": blob}).chunks(1000)
    assert any(b"xxx" in chunk for chunk in chunks)
    blob.write_bytes(b"")
    with pytest.raises(OSError, match="shorter"):
        list(chunks)


def test_nul_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        _ = Script(steps=[("echo", "a\0b")]).text
