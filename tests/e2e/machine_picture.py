"""A picture of a machine, to be compared before and after: what reset promises to leave as it was."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from cluster import Cluster

NOT_OURS = (
    # Logs stay: they are what people want to read after a reset.
    "/var/log/*",
    # What the package manager notes for itself: a copy of its database, and who was installed unasked (that is compared below).
    "/var/lib/dpkg/status-old", "/var/lib/apt/extended_states", "/var/lib/dnf/*", "/var/lib/rpm/*",
    # The state of the system's own daemons, which change it by themselves.
    "/run/systemd/*", "/run/log/*", "/run/utmp", "/run/motd.dynamic", "/run/udev/*", "/run/sshd.pid", "/tmp/systemd-private-*",
    "/var/lib/systemd/random-seed",
    # What sudo notes for a user that may use it without a password.
    "/home/*/.sudo_as_admin_successful",
    # The copies that useradd and userdel make of what they are about to change.
    "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-",
)

BUT = " ".join(f"! -path '{path}'" for path in NOT_OURS)
TREES = "/etc /opt /usr /var/lib /var/spool /root /home /srv /boot /tmp /run"

SECTIONS: Mapping[str, str] = {
    "tree": f"find {TREES} -xdev {BUT} -printf '%p %y %m %u:%g %l\\n' | sort",
    # Programs that no package of ours could have changed would only cost time: what their packages list is compared below.
    "contents": f"find {TREES} -xdev -type f -size -1024k {BUT} -print0 "
                "| sort -z | xargs -0 sha256sum",
    "large files": f"find {TREES} -xdev -type f -size +1023k {BUT} -printf '%p %s\\n' | sort",
    "data folders": "for d in containerd kubelet etcd; do find /var/lib/$d -printf '%p %y %m %u:%g\\n'; done",
    "mounts": "findmnt --list --noheadings --output TARGET,FSTYPE | sort",
    "links": "ip -o link show | sed 's/qlen.*//; s/state [A-Z]*//'; ls /run/netns 2>/dev/null",
    "addresses": "ip -o addr show | sed 's/valid_lft.*//'",
    "routes": "ip route show table all; ip -6 route show; ip rule show",
    "nftables": "if command -v nft >/dev/null; then nft list ruleset; fi",
    "iptables": "for p in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do "
                "if command -v $p-save >/dev/null; then $p-save; fi; done",
    "unit files": "systemctl list-unit-files --no-pager --no-legend | sort",
    "units": "systemctl list-units --all --no-pager --no-legend --plain --type=service,socket,mount,slice,scope,timer "
             "| awk '{print $1, $2, $3}' | grep -v '^session-\\|^user' | sort",
    "users": "cat /etc/passwd /etc/group",
    "packages": "dpkg-query -W -f '${Package} ${Version} ${db:Status-Abbrev}\\n'; apt-mark showmanual | sort; ls /var/cache/apt/archives; rpm -qa | sort",
    # The shared kernel's own settings are none of the machine's: those of its network are. The kernel computes tcp_mem and udp_mem
    # at boot, from the memory that is free then (net/ipv4/tcp.c: tcp_init_mem).
    "settings": "grep -r . /proc/sys/net 2>/dev/null | grep -v 'stat\\|nf_conntrack_count\\|nf_conntrack_max\\|/random\\|nf_conntrack_buckets\\|flush"
                "\\|/tcp_mem:\\|/udp_mem:' | sort",
    "processes": "ps -eo comm=,args= | awk '$2 !~ /^\\[/ {print $1}' | grep -v '^ps$\\|^awk$\\|^sh$\\|^sort$\\|^bash$\\|sshd\\|^grep$\\|systemd\\|sd-pam\\|^xargs$\\|^sudo$' | sort -u",
    "cgroups": "find /sys/fs/cgroup -type d -name '*kube*'",
}


def picture(cluster: Cluster, machine: str) -> dict[str, list[str]]:
    """All sections of one machine, as lines."""
    marked = "; ".join(f"echo '=== {name}'; {{ {script}; }} 2>&1" for name, script in SECTIONS.items())
    found: dict[str, list[str]] = {}
    name = ""
    for line in cluster.on(machine, marked, check=False, timeout=120).splitlines():
        if line.startswith("=== "):
            name = line[4:]
            found[name] = []
        else:
            found[name].append(line)
    return found


def differences(before: Mapping[str, list[str]], after: Mapping[str, list[str]]) -> str:
    """What differs, section by section; empty where nothing does."""
    return "\n".join(
        line
        for name in SECTIONS
        for line in difflib.unified_diff(before[name], after[name], f"{name} before", "after", lineterm="", n=0)
    )
