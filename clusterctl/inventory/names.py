"""The names that an inventory may use: groups, and the variables of Ansible, kubespray and clusterctl."""

from __future__ import annotations

import re
from functools import lru_cache

from clusterctl.cluster.model import Role
from clusterctl.inventory import kubespray
from clusterctl.inventory.findings import distance

ROLE_GROUPS: dict[str, Role] = {
    "control_plane": "control_plane",
    "kube_control_plane": "control_plane",
    "etcd": "etcd",
    "workers": "worker",
    "kube_node": "worker",
}

# kubespray's before 2.16 and kubeasz's; they mean nothing else.
FORMER_GROUPS: dict[str, Role] = {"kube-master": "control_plane", "kube_master": "control_plane", "kube-node": "worker"}

# Those of k3s-ansible and others, which may mean other things beside the groups above.
FOREIGN_GROUPS: dict[str, Role] = {
    "masters": "control_plane", "master": "control_plane", "server": "control_plane", "controllers": "control_plane",
    "nodes": "worker", "node": "worker", "agent": "worker",
}

GROUP_KEYS = ("hosts", "vars", "children")

# Those of ours; the first name wins in messages, and of two names for one thing only one may be given.
ALIASES: dict[str, tuple[str, ...]] = {
    "ssh_address": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "private_key": ("ansible_ssh_private_key_file", "ansible_private_key_file"),
    "become": ("ansible_become",),
    "become_method": ("ansible_become_method",),
    "become_user": ("ansible_become_user",),
    "connection": ("ansible_connection",),
    "ssh_args": ("ansible_ssh_args",),
    "common_args": ("ansible_ssh_common_args",),
    "extra_args": ("ansible_ssh_extra_args",),
    "timeout": ("ansible_ssh_timeout", "ansible_timeout"),
    "network_namespace": ("clusterctl_network_namespace",),
    "host_key": ("clusterctl_host_key",),
    "address": ("clusterctl_address",),
    "ip": ("ip",),
    "access_ip": ("access_ip",),
    "labels": ("clusterctl_labels", "node_labels"),
    "taints": ("clusterctl_taints", "node_taints"),
}
USED = frozenset(name for names in ALIASES.values() for name in names)
OURS = frozenset(name for name in USED if name.startswith("clusterctl_"))

SECRETS = frozenset({
    "ansible_become_pass", "ansible_become_password", "ansible_password", "ansible_private_key_passphrase", "ansible_ssh_pass",
    "ansible_ssh_password", "ansible_ssh_private_key_passphrase", "ansible_su_pass", "ansible_sudo_pass", "ansible_sudo_password",
})

# Those of them that may be decrypted for logins and for sudo, the first that is given.
SSH_PASSWORDS = ("ansible_password", "ansible_ssh_password", "ansible_ssh_pass")
SUDO_PASSWORDS = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_password", "ansible_sudo_pass", *SSH_PASSWORDS)

# Variables that Ansible knows and that mean nothing here: accepted, listed by `clusterctl inventory`.
ANSIBLE_IGNORED = frozenset({
    "ansible_async_dir", "ansible_become_exe", "ansible_become_flags", "ansible_become_plugin", "ansible_check_mode",
    "ansible_command_timeout", "ansible_connect_timeout", "ansible_control_path", "ansible_control_path_dir", "ansible_diff_mode",
    "ansible_executable", "ansible_facts", "ansible_group_priority", "ansible_host_key_checking", "ansible_inventory_sources",
    "ansible_paramiko_host_key_checking", "ansible_pipelining", "ansible_playbook_python", "ansible_private_key",
    "ansible_python_interpreter", "ansible_remote_tmp", "ansible_scp_executable", "ansible_scp_extra_args", "ansible_scp_if_ssh",
    "ansible_sftp_batch_mode", "ansible_sftp_executable", "ansible_sftp_extra_args", "ansible_shell_executable",
    "ansible_shell_type", "ansible_ssh_executable", "ansible_ssh_host_key_checking",
    "ansible_ssh_pipelining", "ansible_ssh_retries", "ansible_ssh_transfer_method", "ansible_ssh_use_tty",
    "ansible_system_tmpdirs",
})
ANSIBLE_KNOWN = ANSIBLE_IGNORED | {name for name in USED if name.startswith("ansible_")}
INTERPRETER = re.compile(r"ansible_[a-z0-9_]+_interpreter")


@lru_cache(10_000)
def is_read(name: str) -> bool:
    """Whether a variable of that name is looked at, if only to say that it means nothing."""
    return name.startswith(("ansible_", "clusterctl_")) or name in USED or name in kubespray.NAMES or near_cluster(name)


@lru_cache(10_000)
def near_cluster(name: str) -> bool:
    """Whether a variable is called ``cluster`` or nearly so."""
    return distance(name, "cluster") <= 2
