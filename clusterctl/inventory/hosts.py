"""One host's variables, turned into a ``Host``."""

from __future__ import annotations

import getpass
import ipaddress
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from clusterctl.cluster.model import DNS_LABEL, DNS_NAME, Host, Role, Ssh, Taint
from clusterctl.errors import InputError
from clusterctl.inventory import kubespray, names, values
from clusterctl.inventory.document import Node
from clusterctl.inventory.findings import Diagnostics, Place, did_you_mean, distance
from clusterctl.inventory.groups import Variables
from clusterctl.inventory.secrets import Secret
from clusterctl.ssh.ssh_options import parse

USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
HOST_KEY = re.compile(
    r"SHA256:[A-Za-z0-9+/]{43}=?|(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/=]{40,}( .*)?")
LOCAL = ("local", "ansible.builtin.local")
WAYS = {"connection": ("ssh", "smart", "ansible.builtin.ssh", *LOCAL), "become_method": ("sudo", "ansible.builtin.sudo"),
        "become_user": ("root",)}
_REFERENCE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_EFFECTS = get_args(Taint.model_fields["effect"].annotation)
SECRET_HINT = ("give the sudo password by CLUSTERCTL_SUDO_PASSWORD, --sudo-password-fd N, --sudo-password-command COMMAND or "
               "--ask-sudo-password, a key's passphrase by CLUSTERCTL_KEY_PASSPHRASE or an agent; and log in by key")


class HostReader:
    """Reads one host's variables; what is wrong with them goes to the findings."""

    def __init__(self, names: tuple[str, str], place: Place, variables: Variables, findings: Diagnostics) -> None:
        """``names``: in the inventory, and as a node."""
        self.written, self.name = names
        self.place = place
        self.variables = variables
        self.findings = findings

    def get(self, what: str) -> Node | None:
        """The variable for ``what`` under any of its names."""
        nodes = [self.variables[name] for name in names.ALIASES[what] if name in self.variables]
        given = [node for node in nodes if node.sealed or node.value not in (None, "")]  # Terraform writes empty values.
        if len(given) > 1 and given[0].value != given[1].value:
            first, second = (node.path.rpartition(".")[2] for node in given[:2])
            self.findings.refuse(given[1].key, f"{given[1].path}: {first} and {second} are the same thing, and differ")
        if given and given[0].sealed:
            values.refuse_sealed(given[0], self.findings)
            return None
        return given[0] if given else None

    def text(self, what: str) -> str | None:
        node = self.get(what)
        return None if node is None else values.text(node, self.findings)

    def refuse(self, what: str, message: str, hint: str = "") -> None:
        node = self.get(what)
        if node is None:
            self.findings.refuse(self.place, f"host {self.name}: {message}", hint)
        elif node.secret:
            self.findings.refuse(node.place, f"{node.path}: the decrypted value does not fit", code="inventory.vaulted-value")
        else:
            self.findings.refuse(node.place, f"{node.path}: {message}", hint)

    def host(self, roles: Iterable[Role], base: Path) -> Host | None:
        """The host, or None where something is wrong with it."""
        before = len(self.findings.problems)
        check_names(self.variables, self.findings)
        self._check_ways()
        ssh = self._ssh(base)
        address = self._address(ssh)
        labels, taints = self._labels(), self._taints()
        if ssh is None or address is None or len(self.findings.problems) > before:
            return None
        return Host(name=self.name, address=address, roles=frozenset(roles), ssh=ssh, labels=labels, taints=taints)

    def password(self, *known: str) -> Secret | None:
        """Return the password that ansible-vault has under the first of some names."""
        for name in known:
            node = _meant(name, self.variables)
            if node is not None and node.secret and isinstance(node.value, str) and node.value:
                return Secret(node.value)
        return None

    def _check_ways(self) -> None:
        """Only SSH, or this computer itself, and only sudo to root."""
        for what, wanted in WAYS.items():
            if node := self.get(what):
                values.one_of(node, self.findings, *wanted)

    def _ssh(self, base: Path) -> Ssh | None:
        address = self._ssh_address()
        port, timeout = self.get("port"), self.get("timeout")
        arguments = [word for what in ("ssh_args", "common_args", "extra_args") for word in self._arguments(what)]
        user = self._user()
        # What the inventory does not set may be set by ssh_config.
        given: dict[str, Any] = {
            "port": values.integer(port, self.findings, 1, 65535) if port else None,
            "user": user if self.get("user") and not self._is_local else None,
            "local": self._is_local or None,
            "private_key": self._private_key(base),
            "become": self._become(user),
            "host_key": self._host_key(),
            "connect_timeout": values.integer(timeout, self.findings, 1, 300) if timeout else None,
            "network_namespace": self._network_namespace(),
        }
        if address is None:
            return None
        given = {name: value for name, value in given.items() if value is not None}
        return Ssh(address=address, common_args=tuple(arguments), **given)

    @property
    def _is_local(self) -> bool:
        connection = self.get("connection")
        return connection is not None and connection.value in LOCAL

    def _ssh_address(self) -> str | None:
        if self.get("ssh_address") is None:
            nodes = (self.variables.get(name) for name in names.ALIASES["ssh_address"])
            return None if any(node and node.sealed for node in nodes) else self.written
        value = self.text("ssh_address")
        if value is None:
            return None
        name = value.rstrip(".").lower()
        fits = values.as_address(value) if values.looks_like_address(value) else DNS_NAME.fullmatch(name) and len(name) <= 253
        if fits:
            return value
        self.refuse("ssh_address", f"{value!r} is neither an IPv4 address nor a DNS name{values.ipv6_note(value)}")
        return None

    def _user(self) -> str:
        value = self.text("user")
        if value is None and not self._is_local:
            self.findings.note(f"ansible_user is not set: ssh_config's User logs in, else {getpass.getuser()}, as with ssh")
        elif value is not None and not USER.fullmatch(value):
            self.refuse("user", f"{value!r} is not a user's name")
        return value if value is not None and USER.fullmatch(value) else "root"

    def _become(self, user: str) -> bool:
        node = self.get("become")
        wanted = values.flag(node, self.findings) if node else None
        if user == "root":
            return False
        if wanted is False:
            self.refuse("become", f"is false, but the user is {user!r}, and everything that clusterctl does needs root",
                        "remove ansible_become, or log in as root")
        if wanted is None:
            self.findings.note(f"ansible_become is not set and the user is {user!r}: sudo is used")
        return True

    def _private_key(self, base: Path) -> Path | None:
        value = self.text("private_key")
        if not value:
            return None
        try:
            return (base / Path(value).expanduser()).absolute()
        except RuntimeError:
            self.refuse("private_key", f"the home of {value!r} is not known")
            return None

    def _arguments(self, what: str) -> list[str]:
        try:
            words = shlex.split(self.text(what) or "")
            self._note_ignored(what, parse(tuple(words)).ignored)
            return words
        except ValueError as error:
            self.refuse(what, f"cannot be split into arguments: {error}")
        except InputError as error:
            self.refuse(what, f"{error.where}: {error.message}" if error.where else error.message, error.hint)
        return []

    def _note_ignored(self, what: str, ignored: Sequence[str]) -> None:
        name = names.ALIASES[what][0]
        if "stricthostkeychecking" in ignored:
            self.findings.note(f"{name}: StrictHostKeyChecking is ignored: host keys are always checked; clusterctl trust --all "
                               "accepts unknown ones")
        if others := sorted(set(ignored) - {"stricthostkeychecking"}):
            self.findings.note(f"{name}: {', '.join(others)} change nothing here and are ignored")

    def _host_key(self) -> str | None:
        value = self.text("host_key")
        if value is not None and not HOST_KEY.fullmatch(value):
            self.refuse("host_key", "is neither a fingerprint (SHA256:...) nor a public key (ssh-ed25519 AAAA...)",
                        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the machine shows it")
            return None
        return value

    def _network_namespace(self) -> str | None:
        value = self.text("network_namespace")
        if value is not None and not DNS_LABEL.fullmatch(value):
            self.refuse("network_namespace", f"{value!r} is not a namespace's name")
            return None
        return value

    def _address(self, ssh: Ssh | None) -> ipaddress.IPv4Address | None:
        """The address in the cluster's network. Names are not resolved: who answers today may not answer tomorrow."""
        given = [values.address(node, self.findings) for what in ("address", "ip", "access_ip") if (node := self.get(what))]
        if given:
            return given[0]
        found = values.as_address(ssh.address) if ssh else None
        if found is None and ssh and ssh.local:
            found = values.as_address(values.own_address())
        if ssh and found is None:
            self.findings.unaddressed.append((self.place, self.name))
        return found

    def _labels(self) -> Mapping[str, str]:
        node = self.get("labels")
        if node is None:
            return {}
        if not isinstance(node.value, dict):
            self.refuse("labels", f"a map of labels is wanted, not {node.kind}")
            return {}
        found = {}
        for key, item in node.value.items():
            value = values.label(item, self.findings)
            if not is_label_key(key):
                self.findings.refuse(item.key, f"{item.path}: {key!r} is not a label's name")
            elif value is not None and not LABEL_VALUE.fullmatch(value):
                self.findings.refuse(item.place, f"{item.path}: {item.shown} is not a label's value"
                                     " (letters, digits, '-', '_' and '.', at most 63)")
            elif value is not None:
                found[key] = value
        return found

    def _taints(self) -> tuple[Taint, ...]:
        node = self.get("taints")
        if node is None:
            return ()
        if not isinstance(node.value, list):
            self.refuse("taints", f"a list of taints is wanted, not {node.kind}")
            return ()
        found: dict[tuple[str, str], Taint] = {}
        for item in node.value:
            taint = read_taint(item, self.findings)
            if taint is not None and found.setdefault((taint.key, taint.effect), taint) is not taint:
                what = "taint" if item.secret else f"taint {taint.key} with the effect {taint.effect}"
                self.findings.refuse(item.place, f"{item.path}: a second {what}",
                                     "a node has one of each key and effect: leave one out")
        return tuple(found.values())


def read_taint(node: Node, findings: Diagnostics) -> Taint | None:
    """A taint from ``key=value:Effect`` or from a map of key, value and effect."""
    if isinstance(node.value, dict):
        for key, item in node.value.items():
            if key not in Taint.model_fields:
                findings.refuse(item.key, f"{item.path}: unknown key{did_you_mean(key, Taint.model_fields)}")
        parts = {key: values.text(item, findings) for key, item in node.value.items()}
        if None in parts.values() or not set(parts) <= set(Taint.model_fields):
            return None
        key, value, effect = (parts.get(name) or "" for name in ("key", "value", "effect"))
    else:
        written = values.text(node, findings)
        if written is None:
            return None
        front, _, effect = written.rpartition(":")
        key, _, value = front.partition("=")
    if effect in _EFFECTS and is_label_key(key) and LABEL_VALUE.fullmatch(value):
        return Taint.model_validate({"key": key, "value": value, "effect": effect})
    findings.refuse(node.place, f"{node.path}: {node.shown} is not a taint (key=value:Effect, the effect one of "
                    f"{', '.join(_EFFECTS)}){did_you_mean(effect, _EFFECTS)}")
    return None


def is_label_key(key: str) -> bool:
    """Whether Kubernetes takes this for the name of a label or taint."""
    prefix, slash, name = key.rpartition("/")
    return bool(_LABEL_NAME.fullmatch(name)) and (not slash or (bool(DNS_NAME.fullmatch(prefix)) and len(prefix) <= 253))


def check_names(variables: Variables, findings: Diagnostics) -> None:
    """Refuse secrets and misspelt names; remember which names mean nothing here."""
    for name, node in variables.items():
        if name in names.USED or name in kubespray.NAMES or name == "cluster":
            continue
        if name in names.SECRETS:
            meant = _meant(name, variables)
            if meant is None or meant.secret or meant.sealed or meant.value in (None, ""):
                continue  # Encrypted: a secret may stand there.
            if isinstance(meant.value, str) and values.is_template(meant.value):
                findings.note(f"{name}: templates are not evaluated; {SECRET_HINT}")
                continue
            findings.refuse(node.key, f"{node.path}: secrets do not belong in an inventory", SECRET_HINT,
                            code="inventory.secret")
        elif name.startswith("clusterctl_"):
            findings.refuse(node.key, f"{node.path}: unknown variable{did_you_mean(name, names.OURS)}; known are "
                            f"{', '.join(sorted(names.OURS))}")
        elif name.startswith("ansible_") and _is_misspelt(name):
            findings.refuse(node.key, f"{node.path}: unknown variable{did_you_mean(name, names.ANSIBLE_KNOWN)}")
        else:
            findings.ignored.add(name)


def _meant(name: str, variables: Variables) -> Node | None:
    """The value of a variable; of ``{{ other }}`` that of the other one."""
    node = variables.get(name)
    reference = _REFERENCE.fullmatch(node.value) if node is not None and isinstance(node.value, str) else None
    return variables.get(reference[1], node) if reference else node


def _is_misspelt(name: str) -> bool:
    if name in names.ANSIBLE_KNOWN or names.INTERPRETER.fullmatch(name):
        return False
    return any(distance(name, known) <= (2 if len(known) > 16 else 1) for known in names.ANSIBLE_KNOWN | names.SECRETS)
