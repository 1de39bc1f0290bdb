"""Running a helper program of the user's on this machine: with a deadline, bounded output, and none of our secrets."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from clusterctl.errors import InputError
from clusterctl.ssh.sockets import environment


def run(arguments: Sequence[str], *, what: str, deadline: float, most_bytes: int, cwd: Path | None = None) -> bytes:
    """Return the output of a program; its stderr goes to ours. Raises InputError where it fails, is slow or prints too much."""
    try:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=cwd, env=environment(),
                                   start_new_session=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be run: {reason}", where=what, code="inventory.program-not-run",
                         hint="does it begin with a line such as #!/bin/sh?") from None
    try:
        output = _collect(process, what, deadline, most_bytes)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        raise InputError(f"failed with exit code {process.returncode}", where=what, code="inventory.program-failed")
    return output


def _collect(process: subprocess.Popen[bytes], what: str, deadline: float, most_bytes: int) -> bytes:
    end = time.monotonic() + deadline
    output = bytearray()
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    ended = os.pidfd_open(process.pid)
    with process.stdout as pipe, os.fdopen(ended, "rb", buffering=0), selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(ended, selectors.EVENT_READ)
        # The program's end is the end of its output: a child that it leaves behind may keep the pipe open.
        while ready := {key.fd for key, _ in selector.select(max(0.0, end - time.monotonic()))}:
            with contextlib.suppress(BlockingIOError):
                while block := os.read(pipe.fileno(), 65536):
                    output += block
                    if len(output) > most_bytes:
                        raise InputError(f"printed more than {most_bytes} bytes", where=what, code="inventory.too-large")
                if ended not in ready:
                    selector.unregister(pipe)
            if ended in ready:
                return bytes(output)
    raise InputError(f"did not end within {deadline:g} s", where=what, code="inventory.program-timeout")
