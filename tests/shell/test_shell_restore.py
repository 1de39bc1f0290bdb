"""Stopping a control plane whose etcd has no quorum: with an end, on a pretended machine."""

from __future__ import annotations

import pytest
from shell_box import Box

from clusterctl.shell import Script, functions

UNITS = "kube-apiserver.service kube-controller-manager.service kube-scheduler.service"


@pytest.mark.parametrize("hangs", [False, True])
def test_a_control_plane_that_does_not_stop_is_killed(box: Box, hangs: bool) -> None:
    for unit in UNITS.split():
        (box.etc / unit).touch()
    box.command("systemctl", f'echo "$@" >>{box.path}/calls; '
                             f'if [ {int(hangs)} = 1 ] && [ "$1" = stop ] && ! grep -q kill {box.path}/calls; then exec sleep 30; fi')
    result = box.run(Script(steps=[("stop_control_plane",)],
                            functions=f"{functions('snapshot', 'restore')}\nstop_seconds=1 units={box.etc}"))
    assert result.failure is None, result
    killed = [f"kill --signal=KILL {UNITS}", f"stop {UNITS}"]
    assert (box.path / "calls").read_text().splitlines() == [f"stop {UNITS}", *(killed if hangs else [])]


def test_a_machine_without_a_control_plane_stops_nothing(box: Box) -> None:
    box.command("systemctl", "exit 1")
    program = Script(steps=[("stop_control_plane",)], functions=f"{functions('snapshot', 'restore')}\nunits={box.etc}")
    assert box.run(program).failure is None
