"""What was there before, what is ours and how it goes: pieces of it on a pretended machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shell_box import SHELLS, Box

from clusterctl.components.flannel import CONFLIST, FLANNEL
from clusterctl.components.products import FOOTPRINT
from clusterctl.resources.footprint import Baseline, FormerProduct
from clusterctl.shell import UNDOING, Observation, Script, functions

FOLDERS = re.compile(r"(?<![\w}/*-])/(etc|opt|run|usr|var/lib|sys/fs|sys/class|proc/self)(?=[/ \"'`|\n])")
IPTABLES = """table ip nat {
	chain KUBE-POSTROUTING { # handle 1
		counter packets 0 bytes 0 masquerade # handle 4
		jump CNI-HOSTPORT-DNAT # handle 5
	}
	chain POSTROUTING { # handle 2
		type nat hook postrouting priority srcnat; policy accept;
		counter packets 3 bytes 180 jump KUBE-POSTROUTING # handle 7
		ip saddr 10.0.0.0/8 masquerade # handle 8
		jump MINE # handle 9
	}
	chain CNI-HOSTPORT-DNAT { # handle 3
	}
	chain MINE { # handle 6
	}
}"""
LEGACY = """*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A KUBE-SERVICES -j KUBE-NODEPORTS
COMMIT
*filter
:INPUT ACCEPT [0:0]
COMMIT
"""


class Machine(Box):
    """A box whose whole file system is below its path, so that nothing here can be taken away."""

    def __init__(self, path: Path, shell: str) -> None:
        super().__init__(path, shell)
        for name in ("etc/clusterctl", "etc/systemd/system", "run", "usr/local/bin", "usr/sbin", "var/lib/etcd", "proc/self", "var/lib/apt/lists"):
            (path / name).mkdir(parents=True, exist_ok=True)
        (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (path / "etc/group").write_text("root:x:0:\n")
        (path / "proc/self/mountinfo").write_text("")
        self.command("systemctl", "[ \"$1\" != show ] || { shift 3; for unit; do printf 'Id=%s\\nActiveState=inactive\\nUnitFileState=\\n\\n' $unit; done; }")
        self.command("ip", "exit 0")
        self.command("nft", "exit 0")
        self.command("dpkg-query", f"printf 'ii  %s\\n' libc6 bash $(cat {path}/more 2>/dev/null)")
        self.command("apt-get", "exit 0")
        self.command("sync", "exit 0")

    def text(self, program: Script) -> str:
        text = FOLDERS.sub(rf"{self.path}/\1", super().text(program))
        # The shell's own way to find programs stays.
        return text.replace(f"{self.path}/usr/local/sbin:", "/usr/local/sbin:")

    def prints(self, *call: str, functions: str = "") -> list[str]:
        """What a function prints, line by line."""
        result = self.run(Script(steps=(("undo_print", *call),), footprint=FOOTPRINT, functions=f'undo_print() {{ "$@" >"$work/../printed"; }}\n{functions}\n'))
        assert result.failure is None, result.failure
        return (self.path / "printed").read_text().splitlines()

    def done(self, *call: str) -> None:
        result = self.steps(call)
        assert result.failure is None, result.failure

    def record(self, identity: str) -> None:
        self.done("record_before", identity, "net.ipv4.ip_forward")

    def remains(self) -> Observation:
        return self.look(("remains", "10.244.0.0/16"))


@pytest.fixture(params=SHELLS)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return Machine(tmp_path, request.param)


def test_nothing_of_the_real_machine_is_named(tmp_path: Path) -> None:
    """The tests of this file must not be able to touch what they run on."""
    text = Machine(tmp_path, "dash").text(Script(steps=(("undo_mark",),), footprint=FOOTPRINT))
    text = text[text.index("our_units="):]
    assert not re.findall(r"(?<![\w/.-])/(?:etc|opt|run|usr|var)/\S*", text)


def test_a_record_is_made_once(machine: Machine) -> None:
    before = machine.state / "before"
    (machine.state / "before.new").mkdir()
    machine.record("one")
    assert (before / "cluster").read_text() == "one\n"
    assert before.stat().st_mode & 0o777 == 0o700
    machine.record("two")
    assert (before / "cluster").read_text() == "two\n", "without a mark nothing was changed yet"
    (machine.etc / "clusterctl/cluster").write_text("two\n")
    machine.record("three")
    assert (before / "cluster").read_text() == "two\n"


@pytest.mark.parametrize("path", ["etc/containerd", "opt/cni/bin"])
def test_linked_configuration_folders_are_refused_before_anything_is_recorded(machine: Machine, path: str) -> None:
    """A reset would empty what the link points to."""
    target = machine.path / "data"
    target.mkdir()
    (machine.path / path).parent.mkdir(parents=True, exist_ok=True)
    (machine.path / path).symlink_to(target)
    failure = machine.steps(("record_before", "one", "net.ipv4.ip_forward")).failure
    assert failure is not None and "symbolic link" in failure.output and not (machine.state / "before").exists()


def test_a_mark_that_somebody_removed(machine: Machine) -> None:
    """The record is not made anew of what is ours by now, and a reset still finds it."""
    machine.record("one")
    (machine.state / "stamps").mkdir()
    (machine.etc / "kubernetes").mkdir()
    machine.record("two")
    seen = machine.remains()
    assert seen.get("remains", "mark") == ["one\trecorded"]
    assert [Path(line).name for line in seen.get("remains", "files") or ()] == ["kubernetes"]


def test_a_machine_without_a_mark_has_nothing(machine: Machine) -> None:
    (machine.etc / "kubernetes").mkdir()
    assert machine.look(("remains", "10.244.0.0/16")).get("remains", "files") is None
    assert not list(machine.state.iterdir())
    assert (machine.etc / "kubernetes").exists()


def test_files_go_and_what_was_there_comes_back(machine: Machine) -> None:
    etc, lib = machine.etc, machine.path / "var/lib"
    (etc / "cni/net.d").mkdir(parents=True)
    (etc / "cni/net.d/mine.conf").write_text("mine\n")
    (etc / "cni/net.d/mine.conf").chmod(0o640)
    (lib / "containerd").mkdir()
    (lib / "containerd/theirs").write_text("in use before\n")
    machine.record("me")
    (etc / "clusterctl/cluster").write_text("me\n")
    assert machine.remains().get("remains", "files") is None
    (etc / "cni/net.d/mine.conf").write_text("changed\n")
    (etc / "cni/net.d/10-flannel.conflist").write_text("ours\n")
    (etc / "kubernetes/pki").mkdir(parents=True)
    (etc / "modules-load.d").mkdir()
    (etc / "modules-load.d/clusterctl.conf").write_text("overlay\n")
    (machine.path / "usr/local/bin/kubectl").symlink_to("/nowhere")
    (lib / "etcd").chmod(0o700)
    (lib / "etcd/member").mkdir()
    (lib / "kubelet").mkdir()
    (lib / "containerd/ours").write_text("ours\n")
    seen = {Path(line).name for line in machine.remains().get("remains", "files") or ()}
    assert seen == {"cni", "kubernetes", "clusterctl.conf", "kubectl", "etcd", "kubelet", "containerd"}
    machine.done("undo_files")
    assert machine.remains().get("remains", "files") is None
    assert sorted(path.name for path in etc.iterdir()) == ["clusterctl", "cni", "group", "passwd", "systemd"]
    assert [path.name for path in (etc / "cni/net.d").iterdir()] == ["mine.conf"]
    assert (etc / "cni/net.d/mine.conf").read_text() == "mine\n" and (etc / "cni/net.d/mine.conf").stat().st_mode & 0o777 == 0o640
    assert list((lib / "etcd").iterdir()) == [] and (lib / "etcd").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in (lib / "containerd").iterdir()] == ["theirs"] and not (lib / "kubelet").exists()
    machine.done("undo_check", "10.244.0.0/16")
    machine.done("undo_mark")
    assert not (etc / "clusterctl").exists() and not machine.state.exists()


MOUNTS = """
mounts() {
	set -e
	cd "$1"
	for name in 'a space' 'a	tab' 'back\\slash' 'two
lines' outer; do mkdir "$name"; mount -t tmpfs none "$name"; done
	mkdir outer/inner
	mount -t tmpfs none outer/inner
	mount -t tmpfs none outer
	mount -t tmpfs none outer
	undo_mounts
	! grep " $1/" /proc/self/mountinfo
}
"""
"""Odd names, one that is hidden below another one, and two at one place."""


def test_odd_and_hidden_mounts_are_unmounted(tmp_path: Path) -> None:
    """Real ones, in a mount namespace of their own."""
    machine = Machine(tmp_path, "private")
    kubelet = tmp_path / "var/lib/kubelet"
    kubelet.mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").unlink()
    (tmp_path / "proc/self/mountinfo").symlink_to("/proc/self/mountinfo")
    result = machine.run(Script(steps=(("mounts", str(kubelet)),), functions=FOOTPRINT.assignments + functions(*UNDOING) + MOUNTS))
    assert result.failure is None, result.failure


def test_a_mounted_file_system_is_never_emptied(machine: Machine) -> None:
    volume = machine.path / "var/lib/kubelet/pods/x/volume"
    volume.mkdir(parents=True)
    (volume / "precious").write_text("data\n")
    (machine.etc / "clusterctl/cluster").write_text("me\n")
    (machine.path / "proc/self/mountinfo").write_text(f"1 0 0:1 / {volume} rw - ext4 x rw\n")
    result = machine.steps(("undo_files",))
    assert result.failure is not None and "is mounted in" in result.failure.output
    assert (volume / "precious").exists()


def test_what_is_left_is_named(machine: Machine) -> None:
    (machine.etc / "clusterctl/cluster").write_text("me\n")
    (machine.etc / "kubernetes").mkdir()
    result = machine.steps(("undo_check", "10.244.0.0/16"), ("undo_mark",))
    assert result.failure is not None and "did not converge; still there: files" in result.failure.output
    assert (machine.etc / "clusterctl/cluster").exists()


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_routes_of_pods(tmp_path: Path, shell: str) -> None:
    # busybox has an ip in itself.
    machine = Machine(tmp_path, shell)
    machine.command("ip", "printf '%s\\n' 'default via 10.0.0.1 dev eth0' '10.0.0.0/24 dev eth0' '10.244.1.0/24 via 10.0.0.2 dev eth0' '10.245.0.0/24 dev x'")
    assert machine.prints("our_routes", "10.244.0.0/16") == ["10.244.1.0/24"]
    assert machine.prints("our_routes", "10.244.0.0/15") == ["10.244.1.0/24", "10.245.0.0/24"]
    (machine.state / "before").mkdir()
    (machine.state / "before/routes").write_text("10.244.1.0/24 via 10.0.0.2 dev eth0\n")
    assert machine.prints("our_routes", "10.244.0.0/16") == []


def test_chains_in_shared_tables(machine: Machine) -> None:
    machine.command("nft", f"cat <<'END'\n{IPTABLES}\nEND")
    assert machine.prints("our_chains", "ip", "nat") == [
        "delete rule ip nat POSTROUTING handle 7",
        "flush chain ip nat KUBE-POSTROUTING", "flush chain ip nat CNI-HOSTPORT-DNAT",
        "delete chain ip nat KUBE-POSTROUTING", "delete chain ip nat CNI-HOSTPORT-DNAT"]


def test_one_product_goes_and_the_others_stay(machine: Machine) -> None:
    for path in ("kube-flannel/await-node", "cni/net.d/10-flannel.conflist", "systemd/system/flanneld.service", "systemd/system/kubelet.service"):
        (machine.etc / path).parent.mkdir(parents=True, exist_ok=True)
        (machine.etc / path).write_text("x")
    (machine.state / "stamps").mkdir()
    for unit in ("flanneld.service", "kubelet.service"):
        (machine.state / "stamps" / unit).write_text("x")
    machine.command("nft", f"case $* in 'list tables') printf 'table ip flannel-ipv4\\ntable ip kube-proxy\\n' ;; '-f -') cat >>{machine.path}/nft ;; esac")
    for program in ("ip", "systemctl"):
        machine.command(program, f'echo "$*" >>{machine.path}/{program}')
    former = FormerProduct(name="flannel", footprint=FLANNEL.footprint, files=(CONFLIST,))
    seen = machine.look(*former.probes())
    change = former.diff(former.observed(seen))
    assert change is not None and change.action == "remove"
    machine.done(*former.apply(change)[0])
    left = [path.name for folder in ("kube-flannel", "cni", "systemd") for path in (machine.etc / folder).rglob("*") if path.is_file()]
    assert left == ["kubelet.service"]
    assert [path.name for path in (machine.state / "stamps").iterdir()] == ["kubelet.service"]
    assert "delete table ip flannel-ipv4" in (machine.path / "nft").read_text() and "kube-proxy" not in (machine.path / "nft").read_text()
    # busybox has an ip of its own.
    assert machine.shell == "busybox" or "link delete dev flannel.1" in (machine.path / "ip").read_text()
    assert "stop -- flanneld.service" in (machine.path / "systemctl").read_text()
    assert former.diff(former.observed(machine.look(*former.probes()))) is None


@pytest.mark.parametrize(("table", "unused"), [
    ("table ip nat {\n\tchain INPUT {\n\t\ttype nat hook input priority 100; policy accept;\n\t}\n}", True),
    ("table ip nat {\n}", True),
    ("table ip nat {\n\tchain INPUT {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n}", False),
    ("table ip nat {\n\tchain INPUT {\n\t\ttcp dport 22 accept\n\t}\n}", False),
    ("table ip nat {\n\tset x {\n\t\ttype ipv4_addr\n\t}\n}", False),
    ("", False),
])
def test_unused_tables(machine: Machine, table: str, unused: bool) -> None:
    machine.command("nft", f"cat <<'END'\n{table}\nEND" if table else "exit 1")
    result = machine.run(Script(steps=(("undo_unused",),), functions="undo_unused() { unused_table ip nat; }"))
    assert (result.failure is None) is unused


def test_chains_of_the_older_iptables(machine: Machine) -> None:
    machine.command("iptables-legacy-save", f"cat <<'END'\n{LEGACY}END")
    assert machine.prints("legacy_chains", "iptables-legacy") == [
        "*nat", '-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES', "-F KUBE-SERVICES", "-X KUBE-SERVICES", "COMMIT"]


def test_packages_that_others_need_stay(machine: Machine) -> None:
    before = machine.state / "before"
    before.mkdir()
    (before / "packages").write_text("bash\nlibc6\nzstd\n")
    (machine.state / "packages").write_text("openssl\nlibx\nhaproxy\nzstd\nnever-installed\n")
    (machine.path / "more").write_text("openssl\nlibx\nhaproxy\nzstd\nca-certificates\n")
    # ca-certificates came later, by somebody else, and needs openssl, which needs libx.
    machine.command("apt-get", """
for word; do case $word in
openssl) echo "Purg ca-certificates [1]"; echo "Purg openssl [3]" ;;
libx) echo "Purg libx [1]"; echo "Purg ca-certificates [1]"; echo "Purg openssl [3]" ;;
haproxy) echo "Purg haproxy [2]" ;;
esac; done""")
    assert sorted(machine.prints("remaining_packages")) == [
        "kept\tlibx\tothers need it", "kept\topenssl\tothers need it", "packages\thaproxy"]


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_rpms_that_others_need_stay(tmp_path: Path, shell: str) -> None:
    """What only packages that go need goes as well."""
    machine = Machine(tmp_path, shell)
    without = "command() { case $2 in apt-get | dpkg-query) return 1 ;; esac; }"
    (machine.state / "before").mkdir()
    (machine.state / "before/packages").write_text("bash\n")
    (machine.state / "packages").write_text("liba\nlibb\nhaproxy\n")
    machine.command("rpm", f"""case "$*" in
-qa*) printf '%s\\n' bash liba libb haproxy other ;;
"-e --test -- liba") echo 'liba = 1 is needed by (installed) haproxy-2.4.22-3.el9.x86_64' >&2; exit 1 ;;
"-e --test -- libb"*) echo 'libb.so.1()(64bit) is needed by (installed) other-1:1-1.noarch' >&2; exit 1 ;;
"-e --test -- haproxy" | "-e --test -- haproxy liba") [ ! -e {tmp_path}/broken ] || exit 1 ;;
*-e*) exit 1 ;;
*-q*haproxy-2.4.22-3.el9.x86_64) echo haproxy ;;
*-q*other-1:1-1.noarch) echo other ;;
esac""")
    kept = "kept\tlibb\tothers need it"
    assert sorted(machine.prints("remaining_packages", functions=without)) == [kept, "packages\thaproxy", "packages\tliba"]
    (tmp_path / "broken").touch()
    assert "packages\thaproxy" not in machine.prints("remaining_packages", functions=without), "rpm does not say why"


def test_units_by_their_states(machine: Machine) -> None:
    machine.command("systemctl", "printf 'Id=b.service\\nActiveState=activating\\nUnitFileState=enabled\\n\\n"
                                 "Id=a.service\\nActiveState=failed\\nUnitFileState=disabled\\n'")
    assert machine.prints("unit_states", "a.service", "b.service") == ["a.service stopped manual", "b.service runs enabled"]


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_processes_of_pods_and_of_our_programs(tmp_path: Path, shell: str) -> None:
    # busybox has cat, grep and ls in itself, and would not find these.
    machine = Machine(tmp_path, shell)
    root = machine.root
    machine.command("grep", "echo /proc/50/cgroup")
    machine.command("ls", f"printf 'x 1 /proc/%s/exe -> %s\\n' 20 {root}/containerd/2/containerd-shim-runc-v2 40 {root}/etcd/3/etcd 60 /usr/bin/vi")
    machine.command("cat", "printf '%s\\n' '1 (init) S 0 1' '20 (a) b) S 1 1' '30 (in a container) S 20 1' '31 (its child) S 30 1' '40 (etcd) S 1 1' "
                           "'50 (pod) S 1 1' '51 (zombie) Z 20 1' '60 (vi) S 1 1'")
    assert sorted(machine.prints("our_processes", "all")) == ["20", "30", "31", "40", "50"]
    assert sorted(machine.prints("our_processes", "containers")) == ["30", "31", "40", "50"]


def test_only_programs_that_undo_carry_what_undoes() -> None:
    assert functions(*UNDOING) not in Script(probes=(("stat", "/etc"),)).text
    record = Baseline(identity="me", sysctls=())
    change = record.diff(None)
    assert change is not None
    assert functions(*UNDOING) in Script(steps=record.apply(change)).text
    assert functions(*UNDOING) in Script(probes=(("remains", "10.244.0.0/16"),)).text
