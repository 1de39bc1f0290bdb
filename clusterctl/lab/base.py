"""The base of every machine: a directory tree with a minimal Debian 12, made once and kept in a cache.

It is what a cloud image would be: systemd, sshd, sudo, a user ``admin``; no containerd, no haproxy, no conntrack, no curl.
What differs from an image is written below, each with its reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clusterctl.lab import repository
from clusterctl.lab.host import environment, remove_tree, run
from clusterctl.lab.lock import FileLock
from clusterctl.lab.sources import RELEASE, write_sources

PACKAGES = ("dbus", "iproute2", "kmod", "openssh-server", "procps", "sudo", "systemd", "systemd-sysv")

USERS = 'chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 admin\n'

# Units that wait for hardware, log people in on a console, or would touch what all machines of a host share.
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "systemd-tmpfiles-clean.timer", "console-getty.service", "getty@.service", "getty.target",
    "serial-getty@.service", "container-getty@.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
    "proc-sys-fs-binfmt_misc.mount", "dev-hugepages.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "modprobe@.service",
    "systemd-networkd.service", "systemd-pstore.service", "systemd-random-seed.service", "systemd-remount-fs.service",
    "tmp.mount",
)

FILES: dict[str, tuple[int, str]] = {
    "etc/fstab": (0o644, ""),
    "etc/apt/apt.conf.d/90lab": (0o644, 'Acquire::Languages "none";\n'),
    # Nothing answers names in a lab; an empty file is better than a server that is waited for.
    "etc/resolv.conf": (0o644, "# no name service in the lab\noptions timeout:1 attempts:1\n"),
    "etc/sudoers.d/admin": (0o440, "admin ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    "etc/ssh/sshd_config.d/lab.conf": (0o644, "HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\n"
                                              "UseDNS no\nMaxSessions 200\nMaxStartups 200\n"),
    # The console is a file on the host: it tells what went wrong where nobody can log in. /dev/kmsg is the host's.
    "etc/systemd/journald.conf.d/lab.conf": (0o644, "[Journal]\nReadKMsg=no\nForwardToConsole=yes\nMaxLevelConsole=notice\n"),
    # Pods whose first process does not heed SIGTERM would hold every reboot up for the usual 90 s.
    "etc/systemd/system.conf.d/lab.conf": (0o644, "[Manager]\nDefaultTimeoutStopSec=15s\n"),
    "etc/default/locale": (0o644, "LANG=C.UTF-8\n"),
    # A container finds its cgroups read-only; a machine does not, and a kubelet needs to write them.
    "etc/systemd/system/lab-cgroups.service": (0o644, "[Unit]\nDescription=Make the control groups writable\n"
                                               "DefaultDependencies=no\nBefore=sysinit.target\n\n"
                                               "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
                                               "ExecStart=/usr/lib/lab/cgroups\n\n[Install]\nWantedBy=sysinit.target\n"),
    "usr/lib/lab/cgroups": (0o755, "#!/bin/sh\nset -e\nwhile read -r _ point kind _; do\n  case \"$kind\" in\n"
                            "    cgroup | cgroup2) mount -o remount,bind,rw \"$point\" ;;\n  esac\ndone < /proc/mounts\n"),
}

LINKS = {
    "etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target",
    "etc/systemd/system/sysinit.target.wants/lab-cgroups.service": "/etc/systemd/system/lab-cgroups.service",
    **{f"etc/systemd/system/{unit}": "/dev/null" for unit in MASKED},
}


@dataclass(frozen=True)
class Base:
    """A finished base in the cache."""

    directory: Path

    @property
    def tree(self) -> Path:
        """The root directory that machines are laid over; never written to."""
        return self.directory / "tree"

    @property
    def repository(self) -> Path:
        """The directory of packages that a lab serves."""
        return self.directory / "repository"


def cache_directory() -> Path:
    """Where bases are kept: ``lab`` in ``$CLUSTERCTL_CACHE`` or in ``/var/cache/clusterctl``."""
    return Path(os.environ.get("CLUSTERCTL_CACHE") or "/var/cache/clusterctl") / "lab"


def recipe_digest() -> str:
    """A short digest of all that goes into a base: another recipe makes another base."""
    recipe = repr((RELEASE, PACKAGES, USERS, sorted(FILES.items()), sorted(LINKS.items()), repository.FETCH))
    return hashlib.sha256(recipe.encode()).hexdigest()[:16]


def ensure_base(progress: Callable[[str], None]) -> Base:
    """The base of this recipe, made first if the cache lacks it (a minute or two, with packages from this host's apt).

    Safe against being killed: it appears under its name only when finished, and what dead builds left is removed.
    Raises :class:`clusterctl.lab.host.LabError` and :class:`clusterctl.errors.ClusterctlError`.
    """
    cache = cache_directory()
    base = Base(cache / f"base-{recipe_digest()}")
    if base.directory.is_dir():
        return base
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / "lock", wait=900):
        for leftover in cache.glob("build-*"):
            remove_tree(leftover)
        if not base.directory.is_dir():
            progress(f"making the base image {base.directory} (once)")
            build = Path(tempfile.mkdtemp(prefix="build-", dir=cache))
            try:
                build.chmod(0o755)
                _build(Base(build))
                os.sync()
                build.rename(base.directory)
            finally:
                remove_tree(build)
    return base


def _build(base: Base) -> None:
    hook = base.directory / "hook"
    hook.write_text(repository.FETCH + USERS)
    sources = write_sources(base.directory)
    # In namespaces of its own and with the parent's death as its own: nothing of it is left behind, no mount either.
    run(["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}",
         f"--customize-hook=sh {hook} \"$1\"", RELEASE, str(base.tree), *map(str, sources)],
        timeout=900, env=environment(LAB_REPOSITORY=str(base.repository)))
    repository.write_index(base.repository)
    configure(base.tree)
    for file in (hook, *sources):
        if file.parent == base.directory:
            file.unlink()


def configure(tree: Path) -> None:
    """Turn what mmdebstrap made into the lab's base."""
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    shutil.rmtree(tree / "etc/apt/sources.list.d", ignore_errors=True)
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    (tree / "etc/hostname").unlink(missing_ok=True)
    for name, (mode, content) in FILES.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(content)
        file.chmod(mode)
    # What a distribution sets of the kernel at boot would change the host's kernel: only the product's values are set.
    sysctls = {f"etc/sysctl.d/{file.name}": "/dev/null" for file in (tree / "usr/lib/sysctl.d").glob("*.conf")}
    for name, target in {**LINKS, **sysctls}.items():
        link = tree / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
