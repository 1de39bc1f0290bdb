"""Requirements of the lab on this host: root and a few programs, which run with deadlines."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from clusterctl.errors import ClusterctlError, Refused

T = TypeVar("T")

PACKAGES = {
    "bash": "bash",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "unshare": "util-linux",
}
"""The programs that every lab runs on this host, each with the Debian package it comes from."""

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLONE_NEWNET = 0x40000000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(ClusterctlError):
    """A step of the lab failed on this host; the message holds the command and what it said."""


def check_host(more: Mapping[str, str] | None = None) -> None:
    """Raise :class:`Refused` unless this is root on a host that has every program of :data:`PACKAGES`, and of ``more``."""
    if os.geteuid() != 0:
        raise Refused("the lab makes namespaces, mounts and cgroups: it needs root", where="lab",
                      hint="run the same command with sudo", code="lab.not-root")
    programs = {**PACKAGES, **(more or {})}
    missing = sorted({package for program, package in programs.items() if not shutil.which(program, path=SEARCH_PATH)})
    if missing:
        raise Refused(f"this host lacks {', '.join(missing)}", where="lab", hint=f"apt-get install {' '.join(missing)}",
                      code="lab.program-missing")


WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
WATCHERS_NEEDED = 8192


def make_room() -> None:
    """Let this host's root watch enough files: all machines of all labs share its allowance, and the default serves some six.

    Raised where it is lower, and left so: labs of others may be counting on it.
    """
    if int(WATCHERS.read_text()) < WATCHERS_NEEDED:
        try:
            WATCHERS.write_text(f"{WATCHERS_NEEDED}\n")
        except OSError as error:
            raise LabError(f"{WATCHERS} cannot be set to {WATCHERS_NEEDED}: {error.strerror}", where="lab",
                           code="lab.inotify-limit") from error


def environment(**more: str) -> dict[str, str]:
    """This process's environment with a search path that has the system's programs, plus ``more``."""
    return {**os.environ, "PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **more}


def run(argv: Sequence[str], *, stdin: str = "", timeout: float = 60, check: bool = True,
        env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program on this host and return what it said.

    A lock that this process holds is inherited (``close_fds=False``): if this process is killed, the lock stays held
    until the program that it left behind has ended, too. Raises :class:`LabError` on failure (with ``check``) and
    after ``timeout`` seconds.
    """
    try:
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, timeout=timeout, check=False,
                              close_fds=False, env=dict(env) if env is not None else environment(), errors="replace")
    except subprocess.TimeoutExpired as error:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout:g} s", where="lab", code="lab.command-timeout") from error
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}: {said}", where="lab", code="lab.command-failed")
    return done


def enter_network(namespace: str) -> None:
    """Move the calling thread into the named network namespace. Raises :class:`LabError`."""
    path = Path("/run/netns") / namespace
    try:
        with path.open("rb") as handle:
            if _libc.setns(handle.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        raise LabError(f"cannot enter the network namespace {namespace}: {error.strerror}", where="lab",
                       code="lab.namespace") from error


def in_network(namespace: str, action: Callable[[], T]) -> T:
    """The result of ``action``, run in a thread of its own inside the named network namespace.

    A socket that it makes belongs to that namespace for good; the rest of this process stays where it is.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            enter_network(namespace)
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def unmount(path: Path) -> None:
    """Detach whatever is mounted at ``path`` from the tree at once; nothing happens where nothing is mounted."""
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass


def mounts_below(directory: Path) -> list[Path]:
    """Mount points at and below ``directory`` that this process sees, deepest first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = Path(line.split()[4].encode().decode("unicode_escape"))
        if point == directory or directory in point.parents:
            found.append(point)
    return sorted(found, key=lambda point: len(point.parts), reverse=True)


def remove_tree(directory: Path) -> None:
    """Remove a directory with everything in it, but never reach through a mount into something else."""
    for point in mounts_below(directory):
        unmount(point)
    still = mounts_below(directory)
    if still:
        raise LabError(f"{still[0]} is still mounted; {directory} is left as it is", where="lab", code="lab.still-mounted")
    if directory.is_dir():
        shutil.rmtree(directory)
