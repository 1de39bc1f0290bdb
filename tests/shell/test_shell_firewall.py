"""Rules in a real nftables, in a network namespace of their own; ufw and firewalld as they are called. tests/e2e runs the real ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from shell_box import SHELLS, Result
from test_shell_undo import Machine

from clusterctl.resources.firewall import Firewall
from clusterctl.shell import Observation, Script

WANTED = Firewall(rules=(("tcp 2379", "10.0.0.1"), ("tcp 10250", "10.0.0.1,10.244.0.0/16"), ("udp 8472", "10.0.0.1,10.0.0.2"),
                         ("forward pods", "10.244.0.0/16")), unit_file=b"[Unit]\n")
OPERATOR = """table inet mine {
	chain entry {
		type filter hook input priority filter; policy drop;
		tcp dport 22 accept
	}

	chain through {
		type filter hook forward priority filter; policy drop;
	}

	chain out {
		type filter hook output priority filter; policy drop;
	}
}
table ip other {
	chain input {
		type filter hook input priority filter; policy accept;
		tcp dport 23 drop
	}
}
"""


class Filtered(Machine):
    """A machine with a network namespace and the real nft."""

    def __init__(self, path: Path, shell: str) -> None:
        super().__init__(path, shell)
        self.namespace = f"fw{os.getpid()}{shell}"
        self.inside = ["ip", "netns", "exec", self.namespace]
        (self.commands / "nft").unlink()
        (self.commands / "ip").unlink()
        self.command("systemctl", "exit 0")

    def run(self, program: Script) -> Result:
        result = super().run(program)
        result.seen = Observation()
        for words in result.records:
            if words[0] not in ("ok", "failed", "end"):
                result.seen.add(words[0], [word.replace(f"{self.path}/etc", "/etc") for word in words[1:]])
        return result

    def nft(self, *words: str, text: str = "") -> str:
        return subprocess.run([*self.inside, "nft", *words], check=True, capture_output=True, text=True, input=text).stdout


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filtered]:
    made = Filtered(tmp_path, request.param)
    subprocess.run(["ip", "netns", "add", made.namespace], check=True)
    try:
        yield made
    finally:
        subprocess.run(["ip", "netns", "delete", made.namespace], check=True)


def test_a_machine_without_a_firewall_gets_no_rules(machine: Filtered) -> None:
    assert machine.diff(WANTED) is None
    machine.nft("-f", "-", text=OPERATOR.partition("table ip other")[1] + OPERATOR.partition("table ip other")[2])
    assert machine.diff(WANTED) is None, "a chain that accepts is left as it is"


def test_rules_go_into_the_chains_that_drop_and_away_again(machine: Filtered) -> None:
    machine.nft("-f", "-", text=OPERATOR)
    machine.settle(WANTED)
    ours = machine.nft("list", "chain", "inet", "mine", "clusterctl_input")
    assert "ip saddr { 10.0.0.1, 10.0.0.2 } udp dport 8472 accept" in ours and "tcp dport 2379 accept" in ours
    entry = machine.nft("list", "chain", "inet", "mine", "entry")
    assert entry.index("jump clusterctl_input") < entry.index("tcp dport 22")
    assert "jump clusterctl_forward" in machine.nft("list", "chain", "inet", "mine", "through")
    assert "clusterctl" not in machine.nft("list", "table", "ip", "other") + machine.nft("list", "chain", "inet", "mine", "out")
    assert machine.steps(("drop_firewall",)).failure is None
    assert machine.nft("list", "ruleset") == OPERATOR
    assert not list((machine.etc / "clusterctl").glob("firewall*")) and machine.diff(Firewall()) is None


@pytest.mark.parametrize("command", [
    ("flush", "chain", "inet", "mine", "clusterctl_input"), ("flush", "chain", "inet", "mine", "entry"), ("delete", "table", "inet", "mine")])
def test_a_rule_that_was_deleted_is_drift(machine: Filtered, command: tuple[str, ...]) -> None:
    machine.nft("-f", "-", text=OPERATOR)
    machine.settle(WANTED)
    machine.nft(*command)
    if command[0] == "delete":
        machine.nft("-f", "-", text=OPERATOR.partition("table ip other")[0])
    change = machine.diff(WANTED)
    assert change is not None and change.fields == ("in force",)
    assert machine.apply(WANTED).failure is None and machine.diff(WANTED) is None
    assert machine.nft("list", "chain", "inet", "mine", "entry").count("jump clusterctl_input") == 1


def test_rules_follow_the_inventory(machine: Filtered) -> None:
    machine.nft("-f", "-", text=OPERATOR)
    machine.settle(WANTED)
    grown = replace(WANTED, rules=(*WANTED.rules[:2], ("udp 8472", "10.0.0.1,10.0.0.2,10.0.0.3"), WANTED.rules[3]))
    change = machine.diff(grown)
    assert change is not None and change.fields == ("udp 8472",)
    machine.apply(grown)
    assert machine.diff(grown) is None and "10.0.0.3" in machine.nft("list", "chain", "inet", "mine", "clusterctl_input")


def test_the_unit_asserts_the_rules_again(machine: Filtered) -> None:
    machine.nft("-f", "-", text=OPERATOR)
    machine.settle(WANTED)
    machine.nft("flush", "ruleset")
    machine.nft("-f", "-", text=OPERATOR)
    script = machine.etc / "clusterctl/firewall.sh"
    assert oct(script.stat().st_mode & 0o777) == "0o700"
    here = machine.path / "firewall.sh"
    here.write_text(script.read_text().replace("/etc/clusterctl", f"{machine.path}/etc/clusterctl"))
    subprocess.run([*machine.inside, *SHELLS[machine.shell], str(here)], check=True)
    assert machine.diff(WANTED) is None


def test_a_rule_that_nft_refuses_fails_and_leaves_the_firewall_as_it_was(machine: Filtered) -> None:
    machine.nft("-f", "-", text=OPERATOR)
    wrong = replace(WANTED, rules=(("tcp 2379", "10.0.0.1"), ("tcp 10250", "not-an-address!")))
    assert machine.apply(wrong).failure is not None
    assert machine.nft("list", "ruleset") == OPERATOR


TUPLES = """*filter
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow tcp 2379,10250 0.0.0.0/0 any 10.0.0.1 in comment=636c757374657263746c
### tuple ### allow tcp 10250 0.0.0.0/0 any 10.0.0.9 in comment=636c757374657263746c
### tuple ### allow udp 53 0.0.0.0/0 any 10.0.0.1 in comment=646e73
### tuple ### route:allow any any 0.0.0.0/0 any 10.244.0.0/16 in comment=636c757374657263746c
COMMIT
"""


def test_ufw_is_told_what_it_lacks_and_what_is_stale(machine: Filtered) -> None:
    """The rules of the operator, which have another comment or none, stay."""
    for name, text in {"ufw.conf": "ENABLED=yes\n", "user.rules": TUPLES}.items():
        path = machine.etc / "ufw" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    machine.command("ufw", f"echo \"$@\" >>{machine.path}/told")
    change = machine.diff(WANTED)
    assert change is not None
    machine.apply(WANTED, change)
    assert (machine.path / "told").read_text().splitlines() == [
        "route allow from any to 10.244.0.0/16 comment clusterctl",
        "allow proto tcp from 10.244.0.0/16 to any port 10250 comment clusterctl",
        "allow proto udp from 10.0.0.1 to any port 8472 comment clusterctl",
        "allow proto udp from 10.0.0.2 to any port 8472 comment clusterctl",
        "delete allow proto tcp from 10.0.0.9 to any port 10250"]
    (machine.path / "told").unlink()
    machine.done("drop_firewall")
    assert (machine.path / "told").read_text().splitlines() == [
        "delete allow proto tcp from 10.0.0.1 to any port 2379,10250", "delete allow proto tcp from 10.0.0.9 to any port 10250",
        "route delete allow from 10.244.0.0/16 to any"]


def test_firewalld_gets_policies_and_is_reloaded_once(machine: Filtered) -> None:
    (machine.etc / "invocation:firewalld.service").symlink_to("0123")
    machine.command("firewall-cmd", f"echo \"$@\" >>{machine.path}/told; [ \"$1\" != --get-policies ] || echo clusterctl-in clusterctl-pods")
    machine.settle(WANTED)
    policies = machine.etc / "firewalld/policies"
    text = (policies / "clusterctl-in.xml").read_text()
    assert '<source address="10.0.0.2"/><port port="8472" protocol="udp"/><accept/>' in text and "10.244.0.0/16" in text
    assert '<destination address="10.244.0.0/16"/><accept/>' in (policies / "clusterctl-pods.xml").read_text()
    assert (machine.path / "told").read_text().splitlines() == ["--quiet --reload"]
    (policies / "clusterctl-in.xml").write_text(text.replace("10.0.0.2", "10.0.0.3"))
    change = machine.diff(WANTED)
    assert change is not None and change.fields == ("in force",)
    machine.apply(WANTED)
    assert (policies / "clusterctl-in.xml").read_text() == text
    machine.done("drop_firewall")
    assert not list(policies.iterdir())
