"""The package repository that a lab serves to its machines: a flat directory of .deb files with an index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path

from clusterctl.lab.host import run

PORT = 80

PACKAGES = ("ca-certificates", "chrony", "conntrack", "ethtool", "firewalld", "haproxy", "ipset", "iptables", "nftables",
            "openssl", "socat", "ufw", "zstd")
"""Packages that machines can install; their dependencies follow."""


def fetch(packages: Iterable[str]) -> str:
    """Return a hook of mmdebstrap that fetches packages, resolved against the base tree that was just made."""
    return f"""
set -e
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir -p "$LAB_REPOSITORY/partial"
apt-get --yes --no-install-recommends --download-only -o Dir::Cache::archives="$LAB_REPOSITORY" \\
  -o APT::Sandbox::User=root install {' '.join(packages)}
rm -rf "$LAB_REPOSITORY/partial" "$LAB_REPOSITORY/lock"
"""


FETCH = fetch(PACKAGES)


def write_index(directory: Path) -> None:
    """Write the ``Packages`` and ``Release`` files that apt reads for the .deb files of ``directory``."""
    stanzas = []
    for file in sorted(directory.glob("*.deb")):
        control = run(["dpkg-deb", "--field", str(file)]).stdout.strip()
        # apt saves them under names with %3a, which a server would read as an escaped colon.
        plain = file.rename(file.with_name(file.name.replace("%3a", "_")))
        content = plain.read_bytes()
        stanzas.append(f"{control}\nFilename: ./{plain.name}\nSize: {len(content)}\n"
                       f"SHA256: {hashlib.sha256(content).hexdigest()}\n")
    index = "\n".join(stanzas).encode()
    (directory / "Packages").write_bytes(index)
    (directory / "Release").write_text(
        f"Origin: clusterctl-lab\nLabel: clusterctl-lab\nDate: {formatdate(usegmt=True)}\n"
        f"SHA256:\n {hashlib.sha256(index).hexdigest()} {len(index)} Packages\n")


def source_file(address: str, directory: Path) -> tuple[str, str]:
    """Return the name and the content of the file with which machines find the repository that ``address`` serves."""
    if (directory / "rpm").is_dir():
        parts = (f"[{name}]\nname={name}\nbaseurl=http://{address}:{PORT}/{name}\ngpgcheck=0\nenabled={enabled}\n"
                 for name, enabled in (("rpm", 1), ("rpm-updates", 0)))
        return "etc/yum.repos.d/lab.repo", "".join(parts)
    return "etc/apt/sources.list", f"deb [trusted=yes] http://{address}:{PORT}/ ./\n"
