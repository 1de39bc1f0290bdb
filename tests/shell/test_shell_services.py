"""Services, against a pretended systemctl; HTTP and TCP probes against real listeners."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from shell_box import Box

from clusterctl.components.products import FOOTPRINT
from clusterctl.plan import planner
from clusterctl.resources.base import Change
from clusterctl.resources.file import File
from clusterctl.resources.service import Service
from clusterctl.shell.facts import probe_program

SYSTEMCTL = """
printf '%s\\n' "$*" >>{box}/calls
state() {{ cat {box}/active 2>/dev/null || echo inactive; }}
case $1 in
show)
	case $* in
	*--value*) state; echo running; echo success ;;
	*) shift 3; for unit; do printf 'Id=%s\\nLoadState=loaded\\nActiveState=%s\\nUnitFileState=%s\\nNeedDaemonReload=%s\\n\\n' "$unit" \
		"$(state)" "$(cat {box}/enabled 2>/dev/null || echo disabled)" "$(cat {box}/outdated 2>/dev/null || echo no)"; done ;;
	esac ;;
daemon-reload) rm -f {box}/outdated ;;
enable) echo enabled >{box}/enabled ;;
start | restart) {start} ;;
is-active) [ "$(state)" = active ] ;;
is-failed) [ "$(state)" = failed ] ;;
esac
"""


def systemctl(box: Box, start: str = "echo active >{box}/active") -> None:
    box.command("systemctl", SYSTEMCTL.format(box=box.path, start=start.format(box=box.path)))
    box.command("journalctl", "echo the last words of the unit")


def calls(box: Box) -> list[str]:
    return [line.split(" ")[0] for line in (box.path / "calls").read_text().splitlines() if not line.startswith("show")]


def service(**more: object) -> Service:
    return Service(unit="tool.service", inputs=(), **({"deadline": 5, "stamp": "digest-1"} | more))  # type: ignore[arg-type]


def stamp(box: Box) -> str | None:
    path = box.state / "stamps" / "tool.service"
    return path.read_text() if path.exists() else None


def stamped(box: Box) -> str | None:
    """The digest of the inputs, without the invocation."""
    return (stamp(box) or "").partition(" ")[0] or None


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("state", ["active", "failed", "inactive"])
def test_unit_states(box: Box, state: str, enabled: bool) -> None:
    systemctl(box)
    (box.path / "active").write_text(state)
    (box.path / "enabled").write_text("enabled" if enabled else "disabled")
    found = service().observed(box.look(*service().probes()))
    assert found == {"active": state, "enabled": "enabled" if enabled else "disabled", "stamp": ""}


def test_a_daemon_that_died_is_reported_within_its_restart_pause(box: Box) -> None:
    """Every observation asks systemd. During RestartSec no file shows that a unit is down: its invocation link and its stamp stay."""
    systemctl(box)
    box.join("ours")
    box.settle(service())
    (box.etc / "invocation:tool.service").symlink_to("0123")
    for active in ("active", "active", "activating", "deactivating", "active"):
        (box.path / "active").write_text(active)
        found = service().observed(box.run(probe_program(service().probes(), footprint=FOOTPRINT)).seen)
        assert found is not None and (found["active"], found["stamp"]) == (active, "digest-1")
        change = service().diff(found)
        assert (change and change.action) == {"active": None, "activating": "restart", "deactivating": "start"}[active]


def test_an_outdated_unit_file_is_reloaded_without_a_restart(dash: Box) -> None:
    """systemd reloads the unit without a restart: the process runs with the desired inputs."""
    systemctl(dash)
    dash.settle(service())
    (dash.path / "outdated").write_text("yes")
    (dash.path / "calls").unlink()
    change = dash.diff(service())
    assert change is not None and (change.action, change.disruptive) == ("update", False)
    dash.apply(service(), change)
    assert "daemon-reload" in calls(dash) and "restart" not in calls(dash)
    assert dash.diff(service()) is None


@pytest.mark.parametrize(("again", "written", "expected"), [
    pytest.param(False, 60, None, id="a file was written anew while it ran"),
    pytest.param(True, -60, None, id="it was started again with what is there"),
    pytest.param(True, 60, "restart", id="it was started again, and then the file was written anew"),
])
def test_a_restart_with_other_files_is_drift(dash: Box, again: bool, written: int, expected: str | None) -> None:
    """The content is as wanted again: only the times tell that the process may have read another one."""
    systemctl(dash, "echo active >{box}/active; ln -sfn invocation-1 {box}/etc/invocation:tool.service")
    config = File(path=str(dash.etc / "config"), content=b"wanted\n")
    wanted = Service(unit="tool.service", inputs=(config.id,), deadline=5)
    dash.settle(config)
    [start] = planned(dash, config, wanted)
    dash.apply(start.resource, start)
    assert not planned(dash, config, wanted)
    if again:
        (dash.etc / "invocation:tool.service").unlink()
        (dash.etc / "invocation:tool.service").symlink_to("invocation-2")
    os.utime(config.path, (time.time() + written,) * 2)
    assert [change.action for change in planned(dash, config, wanted)] == ([expected] if expected else [])


def planned(box: Box, config: File, wanted: Service) -> list[Change]:
    return list(planner.compare((config, wanted), box.look(*planner.probes((config, wanted))), {}))


def test_start_stamp_and_restart(box: Box) -> None:
    systemctl(box)
    change = box.diff(service())
    assert change is not None and change.action == "start"
    box.settle(service())
    assert stamped(box) == "digest-1"
    assert calls(box)[:4] == ["daemon-reload", "enable", "reset-failed", "restart"]
    other = Service(unit="tool.service", inputs=(), stamp="digest-2", deadline=5)
    change = box.diff(other)
    assert change is not None and change.action == "restart"
    box.settle(other)
    assert stamped(box) == "digest-2"


def test_several_start_at_once_and_are_waited_for(box: Box) -> None:
    systemctl(box)
    (box.state / "stamps").mkdir()
    (box.state / "stamps/tool.service").write_text("digest-0\n")
    result = box.steps(("begin_services", "tool.service", "other.service"), ("put_service", "tool.service", "digest-1", "await", "5", "5"),
                       ("put_service", "other.service", "digest-2", "await", "1", "1", "false"))
    assert [step.code for step in result.steps] == [0, 0, 1]
    assert stamped(box) == "digest-1" and not (box.state / "stamps/other.service").exists()
    assert calls(box).count("restart") == 1 and "restart --no-block -- tool.service other.service" in (box.path / "calls").read_text()


def test_enabling_alone_restarts_nothing(dash: Box) -> None:
    systemctl(dash)
    dash.settle(service())
    (dash.path / "enabled").write_text("disabled\n")
    (dash.path / "calls").unlink()
    change = dash.diff(service())
    assert change is not None and change.action == "update"
    dash.apply(service(), change)
    assert "restart" not in calls(dash) and "start" in calls(dash)


def test_ready_is_asked_until_it_says_yes(box: Box) -> None:
    systemctl(box)
    # Ready at the third question.
    ready = ("sh", "-c", f"echo x >>{box.path}/asked; [ $(wc -l <{box.path}/asked) -ge 3 ]")
    box.settle(service(ready=ready))
    assert (box.path / "asked").read_text() == "x\n" * 3


@pytest.mark.parametrize(("start", "ready", "deadline", "said"), [
    ("exit 5", (), 5, "did not start"),
    ("echo failed >{box}/active", (), 5, "is not ready"),
    ("echo active >{box}/active", ("sh", "-c", "echo connection refused; exit 1"), 1, "last seen: connection refused"),
    ("exec sleep 20", (), 1, "did not start"),
])
def test_a_unit_that_fails_leaves_no_stamp(box: Box, start: str, ready: tuple[str, ...], deadline: int, said: str) -> None:
    systemctl(box, start)
    (box.state / "stamps").mkdir()
    (box.state / "stamps/tool.service").write_text("digest-0\n")
    result = box.apply(service(ready=ready, deadline=deadline))
    assert result.failure is not None
    assert said in result.failure.output and "the last words of the unit" in result.failure.output
    assert "tool.service " in result.failure.output
    assert stamp(box) is None, "the next run starts it again"


SLOW = """
printf '%s\\n' "$*" >>{box}/calls
state() {{ cat {box}/active 2>/dev/null || echo inactive; }}
case "$*" in
*MainPID*) cat {box}/pid ;;
*NRestarts*) count=$(cat {box}/restarts 2>/dev/null || echo 0); echo "$count"; [ ! -e {box}/loops ] || echo "$((count + 7))" >{box}/restarts ;;
*SubState*--value*) cat {box}/substate 2>/dev/null ;;
*ActiveState*--value*) state ;;
show*) shift 3; for unit; do printf 'Id=%s\\nLoadState=loaded\\nActiveState=%s\\nUnitFileState=enabled\\n\\n' "$unit" "$(state)"; done ;;
restart*) echo active >{box}/active; ln -sfn invocation-1 {box}/etc/invocation:tool.service ;;
is-active*) [ "$(state)" = active ] ;;
is-failed*) exit 1 ;;
esac
"""
READY_AFTER = "[ $(date +%s) -ge $(cat {box}/ready) ]"


def slow(box: Box, pid: int, seconds: int) -> tuple[str, ...]:
    """A unit whose process has this pid, and that serves after some seconds; its probe."""
    box.command("systemctl", SLOW.format(box=box.path))
    box.command("journalctl", "echo its last words")
    (box.path / "pid").write_text(str(pid))
    (box.path / "ready").write_text(str(int(time.time()) + seconds))
    return ("sh", "-c", READY_AFTER.format(box=box.path))


def process(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


@pytest.mark.parametrize(("code", "limit", "ready"), [
    ("while True: pass", 30, True),
    ("import time; time.sleep(60)", 30, False),  # It waits for something else than for a processor.
    ("while True: pass", 2, False),  # It works on, and the limit is over.
])
def test_a_slow_start_that_makes_progress_is_waited_for(dash: Box, code: str, limit: int, ready: bool) -> None:
    with process(code) as busy:
        try:
            result = dash.apply(service(ready=slow(dash, busy.pid, 7), deadline=2, limit=limit))
        finally:
            busy.kill()
    assert (result.failure is None) is ready, result
    assert (stamped(dash) == "digest-1") is ready


@pytest.mark.parametrize(("limit", "ready"), [(30, True), (2, False)])
def test_a_unit_that_waits_for_other_machines_may_take_its_limit(dash: Box, limit: int, ready: bool) -> None:
    (dash.path / "substate").write_text("start-pre\n")
    result = dash.apply(service(ready=slow(dash, 0, 7), deadline=2, limit=limit))
    assert (result.failure is None) is ready, result


def test_a_crash_loop_is_not_waited_for(dash: Box) -> None:
    (dash.path / "loops").touch()
    began = time.monotonic()
    result = dash.apply(service(ready=slow(dash, 0, 90), deadline=60, limit=60))
    assert result.failure is not None and "does not stay up" in result.failure.output
    assert time.monotonic() - began < 30


def test_what_became_ready_after_its_deadline_is_adopted(dash: Box) -> None:
    """The next run waits for it and stamps it; it restarts nothing, unless the unit was started again or is wanted otherwise."""
    with process("import time; time.sleep(60)") as idle:
        try:
            assert dash.apply(service(ready=slow(dash, idle.pid, 3), deadline=1)).failure
        finally:
            idle.kill()
    late = service(ready=slow(dash, 1, 0))
    change = dash.diff(late)
    assert change is not None and (change.action, change.fields, change.disruptive) == ("update", ("stamp",), False)
    other = service(ready=late.ready, stamp="digest-2")
    assert (again := dash.diff(other)) is not None and again.action == "restart", "other inputs are wanted by now"
    (dash.path / "calls").unlink()
    assert dash.apply(late, change).failure is None
    assert stamped(dash) == "digest-1" and not {"restart", "start"} & set(calls(dash))
    assert dash.diff(late) is None
    (dash.state / "stamps/tool.service").rename(dash.state / "stamps/tool.service.old")
    (dash.state / "stamps/tool.service.started").write_text("digest-1 invocation-0\n")
    assert (again := dash.diff(late)) is not None and again.action == "restart", "it was started by another run"


def test_forgotten_stamps(dash: Box) -> None:
    systemctl(dash)
    dash.settle(service())
    assert dash.steps(("forget_stamps", "tool.service", "never-there.service")).failure is None
    change = dash.diff(service())
    assert change is not None and change.action == "restart"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        code = int(self.path.strip("/"))
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    made = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    yield made.server_port
    made.shutdown()
    thread.join()
    made.server_close()


def closed_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("curl", [True, False])
@pytest.mark.parametrize(("path", "ok"), [("/200", True), ("/302", False), ("/404", False), ("/503", False)])
def test_http_ok(box: Box, server: int, path: str, ok: bool, curl: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    call = ("http_ok", str(server), path)
    result = box.steps(call) if curl else box.steps(("eval", f"command() {{ [ \"$2\" != curl ]; }}; {' '.join(call)}"))
    assert (result.failure is None) is ok


def test_http_ok_where_nobody_listens(dash: Box) -> None:
    assert dash.steps(("http_ok", str(closed_port()), "/200")).failure is not None


def test_tcp_open(box: Box, server: int) -> None:
    assert box.steps(("tcp_open", "127.0.0.1", str(server))).failure is None
    assert box.steps(("tcp_open", "127.0.0.1", str(closed_port()))).failure is not None
