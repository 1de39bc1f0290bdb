"""The base of every machine: a directory tree with a minimal Debian, made once and kept in a cache.

It is what a cloud image would be: systemd, sshd, sudo, a user ``admin``; no containerd, no haproxy, no conntrack, no curl.
What differs from an image is written here and in the recipes of the drivers, each with its reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from clusterctl.lab import repository
from clusterctl.lab.host import environment, remove_tree, run
from clusterctl.lab.lock import FileLock
from clusterctl.lab.sources import RELEASES, write_sources

USERS = 'chroot "$1" useradd --create-home --shell /bin/bash --uid 1000 admin\n'

Files = Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class Recipe:
    """The recipe of a base.

    ``early`` is a shell script that runs before ``packages`` are installed, with the tree as its argument, and ``late`` one that
    runs afterwards and fills the repository, in the environment of :data:`clusterctl.lab.repository.FETCH`; ``disk`` is the size
    in bytes of a disk image that is made of the tree (0: none). ``shares_kernel``: machines run on this host's kernel; the
    settings that a distribution gives its kernel at boot are left out, as they would change this host's.
    """

    packages: tuple[str, ...]
    files: Files
    links: Mapping[str, str]
    masked: tuple[str, ...]
    early: str = ""
    disk: int = 0
    shares_kernel: bool = False
    release: str = RELEASES[0]
    late: str = repository.FETCH

    @property
    def digest(self) -> str:
        """A short digest of all that goes into a base: another recipe makes another base."""
        parts = (self.release, self.packages, USERS, sorted(self.files.items()), sorted(self.links.items()), self.masked,
                 self.early, self.disk, self.shares_kernel, self.late)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


COMMON_PACKAGES = ("dbus", "iproute2", "kmod", "openssh-server", "procps", "sudo", "systemd", "systemd-sysv")

# Units that wait for a console, or that change a machine at times of their own.
COMMON_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "systemd-tmpfiles-clean.timer", "console-getty.service", "getty@.service", "getty.target",
    "serial-getty@.service", "container-getty@.service",
)

COMMON_FILES: Files = {
    "etc/apt/apt.conf.d/90lab": (0o644, 'Acquire::Languages "none";\n'),
    # Nothing answers names in a lab; an empty file is better than a server that is waited for.
    "etc/resolv.conf": (0o644, "# no name service in the lab\noptions timeout:1 attempts:1\n"),
    "etc/sudoers.d/admin": (0o440, "admin ALL=(ALL:ALL) NOPASSWD: ALL\n"),
    "etc/ssh/sshd_config.d/lab.conf": (0o644, "HostKey /etc/ssh/ssh_host_ed25519_key\nPermitRootLogin prohibit-password\n"
                                              "UseDNS no\nMaxSessions 200\nMaxStartups 200\n"),
    "etc/default/locale": (0o644, "LANG=C.UTF-8\n"),
}


@dataclass(frozen=True)
class Base:
    """A finished base in the cache."""

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk image of the tree, where the recipe has one."""
        return self.directory / "disk.raw"

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


def ensure_base(progress: Callable[[str], None], recipe: Recipe) -> Base:
    """The base of a recipe, made first if the cache lacks it (a minute or two, with packages from this host's apt).

    Safe against being killed: it appears under its name only when finished, and what dead builds left is removed.
    Raises :class:`clusterctl.lab.host.LabError` and :class:`clusterctl.errors.ClusterctlError`.
    """
    cache = cache_directory()
    base = Base(cache / f"base-{recipe.digest}")
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
                _build(Base(build), recipe)
                os.sync()
                build.rename(base.directory)
            finally:
                remove_tree(build)
    return base


def _build(base: Base, recipe: Recipe) -> None:
    early, late = base.directory / "early", base.directory / "late"
    early.write_text(recipe.early)
    late.write_text(recipe.late + USERS)
    sources = write_sources(base.directory, recipe.release)
    # In namespaces of its own and with the parent's death as its own: nothing of it is left behind, no mount either.
    run(["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(recipe.packages)}",
         f"--essential-hook=sh {early} \"$1\"", f"--customize-hook=sh {late} \"$1\"", recipe.release, str(base.tree),
         *map(str, sources)],
        timeout=900, env=environment(LAB_REPOSITORY=str(base.repository)))
    repository.write_index(base.repository)
    configure(base.tree, recipe)
    for file in (early, late, *sources):
        if file.parent == base.directory:
            file.unlink()
    if recipe.disk:
        with base.disk.open("xb") as image:
            image.truncate(recipe.disk)
        run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-E", "lazy_itable_init=1,nodiscard", "-d", str(base.tree),
             str(base.disk)], timeout=600)


def configure(tree: Path, recipe: Recipe) -> None:
    """Turn what mmdebstrap made into the lab's base."""
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    shutil.rmtree(tree / "etc/apt/sources.list.d", ignore_errors=True)
    (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    (tree / "etc/hostname").unlink(missing_ok=True)
    for name, (mode, content) in recipe.files.items():
        file = tree / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(content)
        file.chmod(mode)
    masks = {f"etc/systemd/system/{unit}": "/dev/null" for unit in recipe.masked}
    links = {"etc/systemd/system/default.target": "/lib/systemd/system/multi-user.target", **masks, **recipe.links}
    if recipe.shares_kernel:
        links |= {f"etc/sysctl.d/{file.name}": "/dev/null" for file in (tree / "usr/lib/sysctl.d").glob("*.conf")}
    for name, target in links.items():
        link = tree / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
