"""The probe of ports between two real network namespaces, with a real firewall in one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shell_box import SHELLS, Box, Result

from clusterctl.shell import Script, functions

A, B = "10.99.0.1", "10.99.0.2"
LISTEN = (f"listen tcp {B} 10250", f"listen udp {B} 8472")
DIAL = (f"dial tcp {B} 10250", f"dial udp {B} 8472")
SECONDS = 3
"""The window of the tests."""


def run(*words: str, text: str = "") -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, input=text).stdout


class Machine(Box):
    """A box whose programs run in a network namespace."""

    def __init__(self, path: Path, shell: str, namespace: str) -> None:
        path.mkdir()
        super().__init__(path, shell)
        self.namespace, self.inside, self.missing = namespace, ["ip", "netns", "exec", namespace], ""

    def text(self, program: Script) -> str:
        text = super().text(program).replace("window_seconds=9", f"window_seconds={SECONDS}").replace("dial_seconds=5", "dial_seconds=2")
        return text.replace(self.missing, "no-such-program") if self.missing else text

    def firewall(self, *rules: str) -> None:
        chain = f"table inet t {{ chain c {{ type filter hook input priority 0; policy accept; {'; '.join(rules)}; }}; }}"
        run("ip", "netns", "exec", self.namespace, "nft", "-f", "-", text=chain)

    @property
    def listens(self) -> bool:
        """Whether anything listens in the namespace."""
        found = "".join(run("ip", "netns", "exec", self.namespace, "cat", f"/proc/net/{name}") for name in ("tcp", "tcp6", "udp"))
        return " 0A " in found or ":2118 00000000:0000 07" in found


def probe(name: str, *lines: str) -> Script:
    return Script(probes=[("reach", word) for word in (name, "77aa", *lines)], functions=functions("reach"), shared=True)


@contextmanager
def linked(tmp_path: Path, shell: str) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with a cable between them."""
    names = [f"reach{os.getpid()}{end}" for end in "ab"]
    try:
        for name in names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "link", "add", "v0", "netns", names[0], "type", "veth", "peer", "name", "v0", "netns", names[1])
        for name, address in zip(names, (A, B), strict=True):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "v0")
            run("ip", "-n", name, "link", "set", "v0", "up")
        made = [Machine(tmp_path / name, shell, name) for name in names]
        yield made[0], made[1]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture(params=SHELLS)
def two(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    with linked(tmp_path, request.param) as made:
        yield made


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two machines with the shell of Debian, for what does not depend on the shell."""
    with linked(tmp_path, "dash") as made:
        yield made


def both(a: Machine, b: Machine, dial: tuple[str, ...] = DIAL, listen: tuple[str, ...] = LISTEN) -> tuple[Result, Result]:
    """Run the probe on both at once."""
    with_b = b.start(probe("b", *listen))
    try:
        result = a.run(probe("a", *dial))
    finally:
        out, errors = with_b.communicate(timeout=30)
    lines = [line.split("\t")[1:] for line in out.decode().splitlines()]
    return result, Result(lines, errors.decode())


def until(look: Callable[[], bool], seconds: float) -> bool:
    ends = time.monotonic() + seconds
    while not look():
        if time.monotonic() > ends:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(("rules", "tcp", "heard"), [
    ((), "open", True),
    (("tcp dport 10250 drop", "udp dport 8472 drop"), "dropped", False),
], ids=["open", "drop"])
def test_a_port_is_reached_or_dropped(two: tuple[Machine, Machine], rules: tuple[str, ...], tcp: str, heard: bool) -> None:
    a, b = two
    if rules:
        b.firewall(*rules)
    assert_reached(a, b, tcp, heard)


@pytest.mark.parametrize(("rule", "tcp", "heard"), [
    ("tcp dport 10250 reject with tcp reset", "refused", True),
    ("meta l4proto tcp reject with icmpx admin-prohibited; drop", "no-route", False)])
def test_a_firewall_that_rejects(pair: tuple[Machine, Machine], rule: str, tcp: str, heard: bool) -> None:
    """Datagrams are dropped without an answer: the kernel sends few ICMP messages in a second."""
    a, b = pair
    b.firewall(rule)
    assert_reached(a, b, tcp, heard)


def assert_reached(a: Machine, b: Machine, tcp: str, heard: bool) -> None:
    from_a, from_b = both(a, b)
    assert [words for words in from_a.records if words[0] == "reached"] == [["reached", B, "10250", tcp]], from_a.errors
    assert {words[1] for words in from_b.records if words[0] == "listens"} == {"tcp/10250", "udp/8472"}
    assert (["heard", "a"] in from_b.records) is heard
    assert from_a.records[-1] == ["end"] and from_b.records[-1] == ["end"]
    assert not b.listens


def test_a_listener_that_begins_later_is_waited_for(pair: tuple[Machine, Machine]) -> None:
    a, b = pair
    with_a = a.start(probe("a", DIAL[0]))
    time.sleep(0.5)
    b.run(probe("b", *LISTEN))
    assert f"reached\t{B}\t10250\topen" in with_a.communicate(timeout=30)[0].decode()


def test_a_service_that_listens_is_what_is_probed(pair: tuple[Machine, Machine]) -> None:
    a, b = pair
    server = subprocess.Popen([*b.inside, "systemd-socket-activate", "-l", "10250", "sleep", "20"], stderr=subprocess.DEVNULL)
    try:
        assert until(lambda: b.listens, 5)
        from_a, from_b = both(a, b, listen=("watch tcp 10.99.0.2 10250",))
        assert ["reached", B, "10250", "open"] in from_a.records and ["listens", "tcp/10250"] in from_b.records
        assert server.poll() is None and b.listens
    finally:
        server.kill()
        server.wait()
    _, from_b = both(a, b, listen=("watch tcp 10.99.0.2 10250",))
    assert not any(words[0] == "listens" for words in from_b.records), "a machine in service raises no listener"


@pytest.mark.parametrize("way", ["controller-gone", "terminated", "killed"])
def test_listeners_end_with_their_program(two: tuple[Machine, Machine], way: str) -> None:
    _, b = two
    process = b.start(probe("b", *LISTEN))
    assert process.stdout is not None and process.stderr is not None
    try:
        assert until(lambda: b.listens, 5)
        if way == "controller-gone":
            process.stdout.close()
        else:
            os.kill(process.pid, signal.SIGTERM if way == "terminated" else signal.SIGKILL)
        # A program that is killed cannot end its listeners: they have a limit of their own.
        assert until(lambda: not b.listens, SECONDS + 2 if way == "killed" else 1.5)
        process.wait(timeout=5)
    finally:
        process.stderr.close()
        process.stdout.close()


@pytest.mark.parametrize(("missing", "what"), [("systemd-socket-activate", "listen"), ("bash", "dial")])
def test_a_machine_without_programs_says_so(pair: tuple[Machine, Machine], missing: str, what: str) -> None:
    a, b = pair
    a.missing = b.missing = missing
    from_a, from_b = both(a, b)
    assert ["unable", what] in from_a.records and ["unable", what] in from_b.records
    assert what == "listen" or not any(words[0] == "reached" for words in from_a.records)
    assert what == "dial" or not any(words[0] == "listens" for words in from_b.records)


def test_datagrams_of_others_are_ignored(pair: tuple[Machine, Machine]) -> None:
    a, b = pair
    junk = "for i in 1 2 3 4 5 6 7 8 9; do printf '%s\\n' '77aa $(id)' '99bb a' 'x' >/dev/udp/10.99.0.2/8472; sleep 0.2; done"
    sender = subprocess.Popen([*a.inside, "bash", "-c", junk], stderr=subprocess.DEVNULL)
    result = b.run(probe("b", *LISTEN))
    sender.wait(timeout=10)
    assert not any(words[0] == "heard" for words in result.records)
