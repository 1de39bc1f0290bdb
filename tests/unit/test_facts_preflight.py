"""Facts from records, and whether machines are fit."""

from __future__ import annotations

import pytest

from clusterctl.cluster.model import Cluster, Host, Settings, Ssh, Versions
from clusterctl.errors import Problems
from clusterctl.health import preflight
from clusterctl.shell.facts import Facts, Listener, Space, parse_facts, read_facts

SPACE = {path: Space(100_000, 1_000_000, True) for path in ("/opt", "/var/lib", "/etc")}
IDENTITY = "ours"


def host(name: str, number: int, *roles: str) -> Host:
    return Host(name=name, address=f"192.0.2.{number}", roles=frozenset(roles), ssh=Ssh(address=name))  # type: ignore[arg-type]


HOSTS = (host("cp-1", 1, "control_plane", "etcd"), host("w-1", 2, "worker"), host("e-1", 3, "etcd"))
CLUSTER = Cluster.model_construct(hosts=HOSTS, versions=Versions.model_construct(), settings=Settings())


def facts(one: Host, skew: float = 0.0, space: dict[str, Space] | None = None, ports: dict[int, Listener] | None = None, **values: str) -> Facts:
    """A machine that is fit, but for what is given."""
    good = {"arch": "x86_64", "systemd": "252", "hostname": one.name, "addresses": f"127.0.0.1 {one.address}", "MemTotal": "8000000 kB",
            "Cpus_allowed_list": "0-1", "SwapTotal": "0 kB", "cgroup": "cgroup2fs", "oom_score_adj": "lowers", "resolv_conf": "0", "kmsg": "there", "cluster": "",
            "machine_id": f"id-{one.name}", "boot_id": f"boot-{one.name}", "ssh_host_key": f"key-{one.name}", "nameservers": "192.0.2.53", "kernel": "6.1.0-18-amd64"}
    return parse_facts(good | values, space=SPACE | (space or {}), ports=ports or {}, skew=skew)


def check(**odd: Facts) -> tuple[list[str], list[str]]:
    """(errors, warnings)"""
    fleet = {one.name: odd.get(one.name.replace("-", "_"), facts(one)) for one in HOSTS}
    try:
        return [], preflight.check(CLUSTER, fleet, IDENTITY)
    except Problems as problems:
        assert problems.exit_code == 3 and all(error.hint and error.where for error in problems.errors)
        return [f"{error.where}: {error.message}" for error in problems.errors], []


def test_all_fit() -> None:
    assert check() == ([], [])


STAMPS = "/var/lib/clusterctl/stamps"
OURS = {"cluster": IDENTITY, "running": "../kubelet/1.36.4/kubelet ../etcd/3.6.14/etcdctl", "served": f"{STAMPS}/kubelet.service"}
PLANE = {"cluster": IDENTITY, "running": "../kube-apiserver/1.36.4/kube-apiserver ../kubelet/1.36.4/kubelet", "etcd": "formed",
         "served": " ".join(f"{STAMPS}/{name}.service" for name in ("etcd", "kube-apiserver", "kubelet"))}


@pytest.mark.parametrize(("number", "has", "said"), [
    (0, OURS, ["not a control plane", "not an etcd member"]),
    (0, PLANE, []),
    (0, PLANE | {"served": f"{STAMPS}/kubelet.service"}, []),
    (0, {"cluster": IDENTITY, "running": OURS["running"], "served": f"{STAMPS}/*.service"}, []),
    (1, OURS, []),
    (1, PLANE, ["a control plane", "an etcd member"]),
    (1, PLANE | {"etcd": "", "served": OURS["served"]}, ["a control plane"]),
    (2, OURS, ["not an etcd member", "a node"]),
    (2, {"cluster": IDENTITY, "etcd": "formed", "served": f"{STAMPS}/etcd.service"}, []),
    (2, {}, []),
], ids=["worker-to-control-plane", "control-plane", "lost-stamps", "begun-and-killed", "worker", "control-plane-to-worker", "api-server-alone",
        "node-to-etcd", "etcd", "bare"])
def test_roles_are_not_changed_in_place(number: int, has: dict[str, str], said: list[str]) -> None:
    one = HOSTS[number]
    errors, _ = check(**{one.name.replace("-", "_"): facts(one, **has)})
    assert errors == [f"{one.name}: it is {words}, and roles are not changed in place" for words in said]


W = HOSTS[1]
NOBODY = Listener("77", "python3", "")


@pytest.mark.parametrize(("odd", "said"), [
    (facts(W, arch="riscv64"), "its processor is riscv64"),
    (facts(W, systemd="244"), "systemd 244"),
    (facts(W, systemd=""), "systemd is missing"),
    (facts(W, kmsg="missing"), "/dev/kmsg is missing"),
    (facts(W, addresses="10.0.0.1"), "it does not have the address 192.0.2.2 (it has 10.0.0.1)"),
    (facts(W, cluster=IDENTITY, node_ip="192.0.2.9"), "its node has the address 192.0.2.9, and the inventory gives it 192.0.2.2"),
    (facts(W, cluster="theirs"), "it belongs to another cluster"),
    (facts(W, MemTotal="500000 kB"), "it has 488 MiB of memory"),
    (facts(W, MemTotal=""), "it has 0 MiB of memory"),
    (facts(W, space={"/etc": Space(100_000, 1_000_000, False)}), "the file system of /etc is read-only"),
    (facts(W, space={"/opt": Space(1499, 1_000_000, True)}), "1499 MiB are free on the file system of /opt"),
    (facts(W, cluster=IDENTITY, space={"/opt": Space(49, None, True)}), "49 MiB are free on the file system of /opt"),
    (facts(W, space={"/opt": Space(100_000, 4999, True)}), "4999 inodes are free on the file system of /opt"),
    (facts(W, ports={10250: NOBODY}), "port 10250 is taken by python3 (pid 77)"),
    (facts(W, ports={6443: NOBODY}), "port 6443 is taken by python3 (pid 77)"),
    (facts(W, ports={10256: Listener("", "", "")}), "port 10256 is taken by a process of another namespace"),
    (facts(W, ports={10250: Listener("1", "kubelet", "kubelet.service")}), "port 10250 is taken by kubelet (pid 1)"),
    (facts(W, kubelet_client="there"), "/var/lib/kubelet has the certificate of a kubelet that is not ours"),
    (facts(W, os="debian", os_version="11"), "the nft of debian 11 is older than 1.0.1"),
    (facts(W, os="ubuntu", os_version="20.04"), "the nft of ubuntu 20.04 is older than 1.0.1"),
    (facts(W, kernel="5.12.19"), "its kernel is 5.12.19, and kube-proxy with nftables needs 5.13"),
    (facts(W, kernel="4.18.0-553.el8_10.x86_64"), "its kernel is 4.18.0-553.el8_10.x86_64"),
    (facts(W, resolv_conf="1", nameservers="127.0.0.1 "), "its name servers (127.0.0.1) answer on the machine alone"),
    (facts(W, skew=31.0), "its clock is 31 s ahead of this machine's"),
    (facts(W, skew=-40.0), "its clock is 40 s behind this machine's"),
])
def test_unfit(odd: Facts, said: str) -> None:
    errors, _ = check(w_1=odd)
    assert len(errors) == 1 and errors[0].startswith(f"w-1: {said}")


@pytest.mark.parametrize("odd", [
    facts(W, arch="aarch64"), facts(W, hostname="W-1"), facts(W, systemd="245"), facts(W, cluster=IDENTITY), facts(W, skew=4.9),
    facts(W, cluster=IDENTITY, space={"/opt": Space(51, 1_000_000, True)}), facts(W, space={"/opt": Space(1500, None, True)}),
    facts(W, ports={2379: NOBODY, 22: NOBODY}), facts(W, resolv_conf="1", resolved="there"),
    facts(W, cluster=IDENTITY, kubelet_client="there"), facts(W, etcd="begun"), facts(W, kernel="5.13"), facts(W, kernel="6.0.0"),
])
def test_fit(odd: Facts) -> None:
    assert check(w_1=odd) == ([], [])


@pytest.mark.parametrize(("odd", "said"), [
    (facts(W, skew=6.0), "its clock is +6 s off"), (facts(W, skew=-29.0), "its clock is -29 s off"), (facts(W, cgroup="tmpfs"), "cgroup v1"),
    (facts(W, oom_score_adj="fixed"), "oom_score_adj"), (facts(W, SwapTotal="1048576 kB"), "swap is on (1024 MiB)"),
    (facts(W, resolv_conf="missing"), "/etc/resolv.conf is missing"), (facts(W, selinux="1"), "SELinux is enforcing"),
])
def test_warnings(odd: Facts, said: str) -> None:
    errors, warnings = check(w_1=odd)
    assert errors == [] and len(warnings) == 1 and said in warnings[0] and warnings[0].startswith("w-1: ")


@pytest.mark.parametrize(("mode", "name", "codes"), [
    ("check", "localhost", ["host.hostname"]), ("check", "W_1", ["host.hostname"]), ("check", "W-1", []),
    ("ignore", "localhost", []), ("set", "localhost", []),
])
def test_hostnames(mode: str, name: str, codes: list[str]) -> None:
    cluster = CLUSTER.model_copy(update={"settings": Settings.model_validate({"hostnames": mode})})
    fleet = {"w-1": facts(W, hostname=name)}
    if mode != "check":
        fleet["cp-1"] = facts(HOSTS[0], hostname=name)
    try:
        preflight.check(cluster, fleet, IDENTITY)
        found = []
    except Problems as problems:
        found = [error.code for error in problems.errors]
    assert found == codes


@pytest.mark.parametrize(("number", "has", "refused"), [
    (1, {"hostname": "x", "node_ip": "192.0.2.2", "node_name": "w-1"}, False),
    (1, {"hostname": "w-1", "node_ip": "192.0.2.2", "node_name": "w-9"}, True),
    (1, {"hostname": "w-9", "node_ip": "192.0.2.2"}, True),
    (1, {"hostname": "W-1", "node_ip": "192.0.2.2"}, False),
    (1, {"hostname": "w-9"}, False),
    (0, {"hostname": "x", "node_ip": "192.0.2.1", "member_name": "cp-1"}, False),
    (2, {"hostname": "e-1", "member_name": "e-9"}, True),
    (2, {"hostname": "x", "member_name": "e-1"}, False),
], ids=["hostname-changed", "renamed", "renamed-without-override", "capitals-without-override", "not-yet-a-node", "member-without-override",
        "member-renamed", "member"])
def test_a_machine_that_serves_keeps_its_name(number: int, has: dict[str, str], refused: bool) -> None:
    """A kubelet without --hostname-override, as earlier versions ran it, has the machine's own name."""
    one = HOSTS[number]
    found = [error.code for error in preflight.unchanged_identity(one, facts(one, cluster=IDENTITY, **has), IDENTITY)]
    assert found == ["host.name-changed"] * refused
    assert list(preflight.unchanged_identity(one, facts(one, **has), IDENTITY)) == []


def test_data_of_another_etcd() -> None:
    assert check(e_1=facts(HOSTS[2], etcd="begun"))[0] == ["e-1: /var/lib/etcd has the data of an etcd that is not ours"]
    assert check(e_1=facts(HOSTS[2], etcd="begun", cluster=IDENTITY)) == ([], [])


def test_what_the_inventory_chose_is_what_must_fit() -> None:
    settings = Settings.model_validate({"network": {"proxy_mode": "iptables"}, "kubelet": {"config": {"resolvConf": "/etc/x"}}})
    hosts = tuple(host.model_copy(update={"settings": settings}) for host in HOSTS)
    chosen = Cluster.model_construct(hosts=hosts, versions=Versions.model_construct(), settings=settings)
    assert preflight.check(chosen, {"w-1": facts(W, kernel="5.4.0", resolv_conf="2")}, IDENTITY) == []


def test_roles_have_their_ports() -> None:
    taken = {port: NOBODY for port in (2379, 6443, 10250, 10257)}
    errors, _ = check(cp_1=facts(HOSTS[0], ports=taken), e_1=facts(HOSTS[2], ports=taken))
    assert [error.split(" is taken")[0] for error in errors] == [
        "cp-1: port 2379", "cp-1: port 6443", "cp-1: port 10257", "cp-1: port 10250", "e-1: port 2379"]
    errors, _ = check(w_1=facts(W, ports={6443: NOBODY}))
    assert len(errors) == 1, "a worker has a proxy of the API there"


def test_a_cluster_keeps_the_port_of_its_api() -> None:
    errors, _ = check(cp_1=facts(HOSTS[0], cluster=IDENTITY, api_port="8443"))
    assert len(errors) == 1 and "8443" in errors[0] and "6443" in errors[0]


def test_everything_is_told_at_once() -> None:
    errors, _ = check(w_1=facts(W, arch="s390x", kmsg="missing", MemTotal="1 kB"), cp_1=facts(HOSTS[0], addresses="10.0.0.1", skew=100))
    assert len(errors) == 5


@pytest.mark.parametrize("name", ["machine_id", "boot_id", "ssh_host_key"])
def test_duplicates(name: str) -> None:
    errors, _ = check(w_1=facts(W, **{name: "same"}), e_1=facts(HOSTS[2], **{name: "same"}))
    assert len(errors) == 1 and errors[0].startswith("w-1 and e-1: they have the same ")


def test_a_machine_that_was_not_asked_is_not_judged() -> None:
    assert preflight.check(CLUSTER, {"w-1": facts(W)}, IDENTITY) == [] and list(preflight.clocks({})) == []


def read(*records: list[str], asked: float = 100.0, answered: float = 101.0) -> Facts:
    return read_facts(records, asked=asked, answered=answered)[0]


@pytest.mark.parametrize(("time", "skew"), [("100.5", 0), ("100", 0), ("101", 0), ("111", 10), ("90", -10), ("", 0), ("junk", 0), ("1.N", 0)])
def test_skew_within_the_round_trip_is_none(time: str, skew: float) -> None:
    assert read(["time", time]).skew == (skew if time != "1.N" else 0)


@pytest.mark.parametrize(("text", "writable", "expected"), [
    ("ext2/ext3 524288 4096 1000", True, Space(2048, 1000, True)), ("xfs 524288 4096 0", False, Space(2048, None, False)),
    ("btrfs 524288 4096 -", True, Space(2048, None, True)), ("", True, Space(0, None, True)), ("ext2/ext3 1024 1024", True, Space(1, None, True))])
def test_space(text: str, writable: bool, expected: Space) -> None:
    records = [["space", "/opt", *text.split()], *([["writable", "/opt"]] if writable else []), ["space", "/sys/fs/cgroup", "cgroup2fs", "0", "4096", "0"]]
    found = read(*records)
    assert found.space == {"/opt": expected} and not found.cgroup_v1


SAID = (["fact", "arch", "aarch64"], ["fact", "MemTotal", "       2048000 kB"], ["fact", "empty", ""], ["fact", "none"], ["text", "/proc/self/status:Cpus_allowed_list:", "0-3,8,12"],
        ["address", "1: lo    inet 127.0.0.1/8 scope host lo\\ x"], ["address", "2: host0    inet 192.0.2.1/24 brd 192.0.2.255"], ["address", "?"], ["port", "22", "1", "sshd", "ssh.service"], ["port", "80"])


def test_reading() -> None:
    found = read(*SAID)
    assert (found.arch, found.memory_mib, found.cluster, found.kmsg, found.os, found.cpus) == ("arm64", 2000, "", "", "", 6)
    assert found.addresses == ("127.0.0.1", "192.0.2.1")
    assert found.ports == {22: Listener("1", "sshd", "ssh.service"), 80: Listener("", "", "")}
