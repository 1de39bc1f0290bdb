"""Which connections are probed, and what is made of the answers."""

from __future__ import annotations

import pytest
from test_golden import VM, context_of
from test_os_update import cluster

from clusterctl.components.host import firewall
from clusterctl.health import foreign, ports
from clusterctl.health.ports import Answers, Pair
from clusterctl.resources.firewall import RULES, SCRIPT, UNIT, Firewall
from clusterctl.shell import Observation
from clusterctl.shell.facts import parse_facts

STAMPS = "/var/lib/clusterctl/stamps"
NEW = parse_facts({"served": f"{STAMPS}/*.service"})
SERVES = parse_facts({"served": " ".join(f"{STAMPS}/{name}.service" for name in ("etcd", "kube-apiserver", "kubelet"))})


def probed(planes: int, workers: int, *new: str, left_out: tuple[str, ...] = (), **settings: object) -> set[str]:
    """The pairs as CLIENT>TARGET:PORT."""
    wanted = cluster(planes, workers, **settings)
    fleet = {host.name: NEW if host.name in new else SERVES for host in wanted.hosts if host.name not in left_out}
    return {f"{pair.client}>{pair.target}:{pair.port}" for pair in ports.pairs(wanted, fleet)}


def test_a_cluster_in_service_is_not_probed() -> None:
    assert probed(3, 3) == set()


def test_a_new_cluster_is_probed_on_all_ports_of_its_roles() -> None:
    assert probed(2, 1, "cp-1", "cp-2", "w-1") == {
        "cp-1>cp-2:2379", "cp-2>cp-1:2379", "cp-1>cp-2:2380", "cp-2>cp-1:2380",
        "cp-1>cp-2:6443", "cp-2>cp-1:6443", "w-1>cp-1:6443", "w-1>cp-2:6443",
        *(f"{client}>{target}:{port}" for port in (10250, 8472) for client in ("cp-1", "cp-2", "w-1")
          for target in ("cp-1", "cp-2", "w-1") if client != target)}


def test_a_new_worker_is_probed_with_machines_that_serve() -> None:
    """Datagrams to an overlay that runs are not reported by the kernel: they are sent to the new machine alone."""
    assert probed(1, 2, "w-2") == {"w-2>cp-1:6443", "w-2>cp-1:10250", "w-2>w-1:10250", "cp-1>w-2:10250", "w-1>w-2:10250",
                                   "cp-1>w-2:8472", "w-1>w-2:8472"}
    assert probed(1, 2, "w-2", left_out=("w-1",)) == {"w-2>cp-1:6443", "w-2>cp-1:10250", "cp-1>w-2:10250", "cp-1>w-2:8472"}


def test_ports_follow_the_settings() -> None:
    alone = {"addons": {"metrics_server": False}, "network": {"backend": "host-gw"}}
    assert probed(1, 2, "w-2", **alone) == {"w-2>cp-1:6443", "cp-1>w-2:10250"}
    assert not any(":8472" in pair for pair in probed(1, 2, "w-2", network={"cni": "none"}))


def test_the_connections_of_a_machine_are_bounded_and_every_listener_is_tried() -> None:
    wanted = cluster(3, 97)
    fleet = {host.name: NEW for host in wanted.hosts}
    found = ports.pairs(wanted, fleet)
    for client in ("cp-1", "w-97"):
        per_port = [sum(pair.client == client and pair.port == port for pair in found) for port in (6443, 10250, 8472)]
        assert max(per_port) <= ports.MOST_TARGETS
    assert {pair.target for pair in found if pair.port == 10250} == {host.name for host in wanted.nodes}
    assert {pair.client for pair in found if pair.port == 6443} == {host.name for host in wanted.nodes}


CP, W = cluster(1, 1).hosts
TCP = Pair("cp-1", "w-1", str(W.address), "tcp", 10250)
UDP = Pair("cp-1", "w-1", str(W.address), "udp", 8472)
REACHED = ["reached", str(W.address), "10250"]


def answer(pair: Pair, *records: tuple[float, str, list[str]]) -> str:
    answers = Answers([pair])
    for now, name, words in records:
        answers.take(CP if name == "cp-1" else W, words, now)
    return answers.answer(pair)


@pytest.mark.parametrize(("pair", "records", "expected"), [
    (TCP, [(1, "w-1", ["listens", "tcp/10250"]), (1.1, "cp-1", [*REACHED, "open"])], "open"),
    (TCP, [(1, "cp-1", [*REACHED, "open"])], "open"),
    (TCP, [(1, "w-1", ["listens", "tcp/10250"]), (6, "cp-1", [*REACHED, "dropped"])], "dropped"),
    (TCP, [(1, "w-1", ["listens", "tcp/10250"]), (6, "cp-1", [*REACHED, "refused"])], "refused"),
    (TCP, [(1, "w-1", ["listens", "tcp/10250"]), (6, "cp-1", [*REACHED, "no-route"])], "no-route"),
    # A machine that listens late, or has nothing to listen with, must not look like a firewall.
    (TCP, [(5.5, "w-1", ["listens", "tcp/10250"]), (6, "cp-1", [*REACHED, "refused"])], "unknown"),
    (TCP, [(1, "w-1", ["unable", "listen"]), (6, "cp-1", [*REACHED, "refused"])], "unknown"),
    (TCP, [(1, "cp-1", ["unable", "dial"]), (1, "w-1", ["listens", "tcp/10250"])], "unknown"),
    (TCP, [(1, "w-1", ["listens", "tcp/10250"]), (6, "cp-1", ["reached", "10.0.0.77", "10250", "dropped"])], "unknown"),
    (UDP, [(1, "w-1", ["listens", "udp/8472"]), (2, "w-1", ["heard", "cp-1"])], "open"),
    (UDP, [(1, "w-1", ["listens", "udp/8472"]), (6, "cp-1", ["waits", "cp-1"])], "dropped"),
    (UDP, [(1, "w-1", ["listens", "udp/8472"]), (1.5, "cp-1", ["waits", "cp-1"])], "unknown"),
    (UDP, [(1, "w-1", ["listens", "udp/8472"]), (6, "w-1", ["waits", "w-1"])], "unknown"),
    (UDP, [(1, "w-1", ["listens", "udp/8472"]), (6, "cp-1", ["waits", "cp-1"]), (6, "w-1", ["heard", "w-9"])], "dropped"),
    (UDP, [(6, "cp-1", ["waits", "cp-1"])], "unknown"),
])
def test_answers(pair: Pair, records: list[tuple[float, str, list[str]]], expected: str) -> None:
    assert answer(pair, *records) == expected


def test_a_probe_ends_once_all_answers_are_there() -> None:
    answers = Answers([TCP, UDP])
    for words, complete in ((["listens", "udp/8472"], False), (["heard", "cp-1"], False)):
        answers.take(W, words, 1)
        assert answers.complete is complete
    answers.take(CP, [*REACHED, "open"], 2)
    assert answers.complete and not answers.closed and not list(answers.notes)


def test_what_cannot_be_probed_is_a_note() -> None:
    answers = Answers([TCP])
    answers.take(W, ["unable", "listen"], 1)
    answers.take(CP, [*REACHED, "refused"], 6)
    assert not answers.closed
    assert [note.partition(":")[0] for note in answers.notes] == ["w-1", "w-1"]


def test_findings_are_grouped_by_cause() -> None:
    """Four machines that cannot reach one that drops everything are one finding, whatever the number of its ports."""
    pairs = [Pair(client, "w-1", "10.0.0.9", protocol, port) for protocol, port in (("tcp", 10250), ("udp", 8472))  # type: ignore[arg-type]
             for client in ("cp-1", "cp-2", "w-2", "w-3")]
    odd = Pair("w-1", "cp-1", "10.0.0.1", "tcp", 6443)
    found = list(ports.group({**dict.fromkeys(pairs, "dropped"), odd: "refused"}))
    assert [target for target, _, _ in found] == ["w-1", "cp-1"]
    assert all(word in found[0][1] for word in ("cp-1, cp-2, w-2, w-3", "10250/tcp, 8472/udp", "dropped"))


def test_only_new_machines_raise_listeners() -> None:
    assert ports.lines("w-1", [TCP, UDP], {"w-1"}) == [f"listen tcp {W.address} 10250", f"listen udp {W.address} 8472"]
    assert ports.lines("w-1", [TCP], set()) == [f"watch tcp {W.address} 10250"]
    assert ports.lines("cp-1", [TCP, UDP], {"cp-1"}) == [f"dial tcp {W.address} 10250", f"dial udp {W.address} 8472"]


@pytest.mark.parametrize(("inventory", "which", "expected"), [
    ("external-etcd", "first etcd", {"tcp 2379", "tcp 2380"}),
    ("external-etcd", "first control plane", {"tcp 6443", "tcp 10250", "udp 8472", "forward pods"}),
    ("ha", "first control plane", {"tcp 2379", "tcp 2380", "tcp 6443", "tcp 10250", "udp 8472", "forward pods"}),
    ("ha", "last worker", {"tcp 10250", "udp 8472", "forward pods"}),
])
def test_managed_rules_are_those_of_the_roles(inventory: str, which: str, expected: set[str]) -> None:
    context = context_of(inventory, which, VM)
    assert firewall(context) == Firewall()
    settings = context.cluster.settings.model_copy(update={"firewall": "manage"})
    managed = context.cluster.model_copy(update={"settings": settings})
    object.__setattr__(context, "cluster", managed)
    rules = dict(firewall(context).rules)
    assert rules.keys() == expected
    sources = {words: set(value.split(",")) for words, value in rules.items()}
    assert str(context.host.address) not in set().union(*sources.values())
    if "tcp 2380" in rules:
        assert sources["tcp 2380"] == {str(host.address) for host in managed.etcd_members if host != context.host}
    if "tcp 6443" in rules:
        assert sources["tcp 6443"] == {*(str(host.address) for host in managed.nodes if host != context.host), str(managed.network.pods)}
    # A machine that leaves is in no rule of the others any more.
    gone = next(host for host in managed.hosts[::-1] if host != context.host)
    object.__setattr__(context, "cluster", managed.without([gone.name]))
    assert str(gone.address) not in str(firewall(context).rules)


RULED = Firewall(rules=(("tcp 10250", "10.0.0.1,10.244.0.0/16"), ("forward pods", "10.244.0.0/16")), unit_file=b"")


@pytest.mark.parametrize(("resource", "active", "force", "lines", "action", "fields"), [
    (RULED, "", "no", [], "", ()),
    (RULED, "nftables", "no", [], "create", ("in force", "tcp 10250", "forward pods", SCRIPT, UNIT)),
    (RULED, "ufw", "yes", ["tcp 10250 10.0.0.1,10.244.0.0/16", "forward pods 10.244.0.0/16"], "", ()),
    (RULED, "ufw", "no", ["tcp 10250 10.0.0.1,10.244.0.0/16", "forward pods 10.244.0.0/16"], "update", ("in force",)),
    (RULED, "ufw", "yes", ["tcp 10250 10.244.0.0/16", "forward pods 10.244.0.0/16"], "update", ("tcp 10250",)),
    (RULED, "ufw", "yes", ["tcp 10250 10.0.0.1,10.244.0.0/16", "udp 8472 10.0.0.1", "forward pods 10.244.0.0/16"], "update", ("in force",)),
    (Firewall(), "nftables", "yes", ["forward pods 10.244.0.0/16"], "remove", ()),
    (Firewall(), "nftables", "no", [], "", ()),
], ids=["no-firewall", "absent", "as-wanted", "drift", "another-source", "stale-port", "not-managed-any-more", "never-managed"])
def test_changes_of_rules(resource: Firewall, active: str, force: str, lines: list[str], action: str, fields: tuple[str, ...]) -> None:
    seen = Observation()
    if resource.rules:
        seen.add("firewall", ["rules", active, force])
    for line in lines:
        seen.add("text", [f"{RULES}:{line}"])
    for path in (SCRIPT, UNIT):
        seen.add("sha", [f"{(RULED.desired() or {})[path]}  {path}"])
    change = resource.diff(resource.observed(seen))
    assert (change.action if change else "", change.fields if change else ()) == (action, fields)
    assert change is None or not change.disruptive


@pytest.mark.parametrize(("mode", "found", "expected"), [
    ("check", "firewalld", [("host.firewall", False)]),
    ("ignore", "firewalld", []),
    ("manage", "firewalld\nufw\nnftables (table inet mine)", []),
    ("manage", "ufw\nnftables (table ip filter)", []),
    ("manage", "nftables (table ip filter)", [("host.firewall", True)]),
    ("manage", "iptables", [("host.firewall", True)]),
])
def test_the_mode_decides_what_an_active_firewall_is(mode: str, found: str, expected: list[tuple[str, bool]]) -> None:
    one = cluster(1, 1, firewall=mode)
    facts = parse_facts({"foreign_firewall": found})
    assert [(finding.code, finding.fatal) for finding in foreign.find(one, one.hosts[1], facts)] == expected
