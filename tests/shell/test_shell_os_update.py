"""Package updates, against pretended apt-get, dpkg-query, dnf and systemctl."""

from __future__ import annotations

import pytest
from shell_box import Box, Result

from clusterctl.commands.os_packages import Machine, Marker, Package, read_machine
from clusterctl.shell import Call, Probe, Script, functions

APT_GET = """
printf '%s\\n' "$*" >>{box}/calls
for word; do case $word in Dir::Etc::Preferences=*) cp "${{word#*=}}" {box}/pins ;; esac; done
case " $* " in
*" update "*) cat {box}/complaints 2>/dev/null; exit "$(cat {box}/lists-fail 2>/dev/null || echo 0)" ;;
*" -s upgrade "*) [ ! -e {box}/broken ] || {{ echo 'E: Unmet dependencies.'; exit 100; }}
	printf 'Inst hello-lab [1.0] (2.0 lab [all])\\nInst linux-image-6.1.0-30 (6.1.124-1 Debian:12 [amd64])\\nConf hello-lab (2.0 lab [all])\\n' ;;
*" upgrade "*) [ ! -e {box}/broken ] || exit 100 ;;
*" install "*) rm -f {box}/broken ;;
esac
"""
DPKG_QUERY = """
case $* in
*Status-Status*) cat {box}/states 2>/dev/null || echo installed ;;
*) printf 'ii \\tzstd\\t1.5.4+dfsg2-5\\nhi \\thaproxy\\t2.6.12-1\\nrc \\trunc\\t1.0\\n' ;;
esac
"""
POLICY = """
for name; do [ "$name" = policy ] || printf '%s:\\n  Installed: 1.5\\n  Candidate: %s\\n  Version table:\\n' "$name" "$(if [ $name = zstd ]; then echo 99.0; else echo 1.5; fi)"; done
"""
DNF = """
printf '%s\\n' "$*" >>{box}/calls
if [ -e {box}/locked ]; then rm {box}/locked; exit 200; fi
case " $* " in
*" needs-restarting --help "*) ;;
*" needs-restarting "*) exit 1 ;;
*" --refresh check-update "*) printf '\\nbash.x86_64   5.1.8-9.el9   baseos\\nkernel.x86_64 5.14.0-503 baseos\\nObsoleting Packages\\nold.noarch 1 x\\n'; exit 100 ;;
*" check-update "*) printf 'zstd.x86_64 99-1 baseos\\n'; exit 100 ;;
esac
"""


def pretend(box: Box, **commands: str) -> None:
    for name, text in {"apt-get": APT_GET, "dpkg-query": DPKG_QUERY, "apt-cache": POLICY, **commands}.items():
        box.command(name, text.format(box=box.path) if "{box}" in text else text)
    (box.path / "boot_id").write_text("boot-1\n")
    (box.path / "osrelease").write_text("6.1.0\n")
    (box.path / "updates").mkdir()


def run(box: Box, *probes: Probe, steps: tuple[Call, ...] = (), before: str = "") -> Result:
    text = functions("os_update")
    for there, here in (("/proc/sys/kernel/random/boot_id", "boot_id"), ("/run/reboot-required", "required"), ("/boot/", "boot/"), ("/proc/sys/kernel/osrelease", "osrelease"),
                        ("/etc/clusterctl/cluster", "cluster"), ("/etc/apt/preferences", "preferences"), ("/var/lib/dpkg/updates", "updates")):
        assert there in text
        text = text.replace(there, f"{box.path}/{here}")
    return box.run(Script(probes=probes, steps=steps, functions=text + before))


def look(box: Box, before: str = "") -> Machine:
    result = run(box, ("lists", "now"), ("os_update", "zstd"), ("os_update", "haproxy"), ("os_update", "runc"), before=before)
    assert result.errors == ""
    return read_machine(words for words in result.records if words[0] != "end")


def calls(box: Box) -> str:
    return (box.path / "calls").read_text()


def test_a_look_at_apt(box: Box) -> None:
    pretend(box, **{"systemd-detect-virt": "exit 1"})
    (box.path / "osrelease").write_text("6.1.0-28-amd64\n")
    (box.path / "cluster").write_text("cluster-1\n")
    (box.path / "preferences").write_text("Package: own\n")
    (box.path / "boot").mkdir()
    for release in ("6.1.0-28-amd64", "6.1.0-30-amd64"):
        (box.path / "boot" / f"vmlinuz-{release}").touch()
    assert look(box) == Machine(
        boot_id="boot-1",
        cluster="cluster-1",
        updates=(Package("hello-lab", "1.0", "2.0"), Package("linux-image-6.1.0-30", "", "6.1.124-1")),
        held=(Package("zstd", "1.5", "99.0"),),
        reboot=("kernel 6.1.0-30-amd64 is installed",),
    )
    # Those that are installed stay as they are; what was preferred before is preferred still.
    pin = "Pin-Priority: 32000\n\n"
    assert (box.path / "pins").read_text() == f"Package: haproxy\nPin: version 2.6.12-1\n{pin}Package: zstd\nPin: version 1.5.4+dfsg2-5\n{pin}Package: own\n"
    assert "hold" not in calls(box)


def test_a_reboot_that_packages_ask_for(box: Box) -> None:
    pretend(box, **{"systemd-detect-virt": "exit 0"})
    (box.path / "required").touch()
    assert look(box).reboot == (f"asked for by {box.path}/required",)
    (box.path / "required.pkgs").write_text("libc6\ndbus\nlibc6\n")
    assert look(box).reboot == ("asked for by dbus libc6 ",)


def test_lists_that_cannot_be_fetched(dash: Box) -> None:
    pretend(dash)
    (dash.path / "complaints").write_text("Err:1 http://x\nW: Failed to fetch http://x\n")
    assert look(dash).warnings == ("W: Failed to fetch http://x ",)
    (dash.path / "lists-fail").write_text("100\n")
    (dash.path / "complaints").write_text("E: The list of sources could not be read.\n")
    assert look(dash).problems == ("the lists of packages cannot be fetched: E: The list of sources could not be read. ",)


def test_what_was_interrupted_is_finished(box: Box) -> None:
    pretend(box, dpkg="exit 1")
    (box.path / "states").write_text("installed\nhalf-configured\n")
    (box.path / "broken").touch()
    found = look(box)
    assert found.interrupted and found.problems == (), "that is for the update to mend"
    assert run(box, steps=(("os_update", "zstd"),)).failure is None
    assert "--fix-broken install" in calls(box)


def test_apt_that_cannot_tell_is_a_problem(dash: Box) -> None:
    pretend(dash)
    (dash.path / "broken").touch()
    assert look(dash).problems == ("apt cannot tell what it would update: E: Unmet dependencies. ",)


def test_an_update(box: Box) -> None:
    pretend(box)
    result = run(box, ("os_update", "zstd"), steps=(("os_update", "zstd"),))
    assert result.failure is None
    assert [words[0] for words in result.records][0] == "ok"
    first = calls(box).splitlines()[0]
    assert "--force-confold" in first and first.endswith("--with-new-pkgs upgrade")
    assert "Pin: version 1.5.4+dfsg2-5" in (box.path / "pins").read_text()
    assert run(box, steps=(("os_download", "zstd"),)).failure is None
    assert calls(box).splitlines()[-1].endswith("--with-new-pkgs --download-only upgrade")


def test_an_update_that_fails(box: Box) -> None:
    pretend(box)
    (box.path / "broken").touch()
    failure = run(box, steps=(("os_update", "zstd"),)).failure
    assert failure is not None and failure.code == 100


def test_dnf(box: Box) -> None:
    pretend(box, dnf=DNF, **{"systemd-detect-virt": "exit 0"})
    without = "\ncommand() { [ \"$2\" != apt-get ]; }\n"
    found = look(box, before=without)
    assert found.updates == (Package("bash", "", "5.1.8-9.el9"), Package("kernel", "", "5.14.0-503"))
    assert found.held == (Package("zstd", "", "99-1"),)
    assert found.reboot == ("asked for by needs-restarting",)
    (box.path / "locked").touch()
    assert run(box, steps=(("os_update", "zstd", "etcd*"),), before=without).failure is None
    assert calls(box).splitlines()[-2:] == ["--setopt=exit_on_lock=True -y -q upgrade --exclude=zstd --exclude=etcd*"] * 2
    assert "-y -q --refresh check-update --exclude=zstd --exclude=haproxy --exclude=runc" in calls(box)


def test_one_reboot_and_its_marker(box: Box) -> None:
    pretend(box, systemctl=f"printf '%s\\n' \"$*\" >>{box.path}/ordered")
    assert run(box, steps=(("reboot_once", "op-1", "boot-1"),)).failure is None
    assert (box.path / "ordered").read_text() == "--no-block reboot\n"
    assert look(box).marker == Marker("op-1", "boot-1") and not look(box).rebooted
    (box.path / "boot_id").write_text("boot-2\n")
    assert look(box).rebooted
    assert run(box, steps=(("reboot_once", "op-1", "boot-1"),)).failure is None
    assert (box.path / "ordered").read_text() == "--no-block reboot\n", "another boot: nothing is ordered"
    assert run(box, steps=(("end_reboots", "op-1"),)).failure is None
    assert look(box).marker == Marker("op-1", "-", ended=True) and look(box).rebooted
    assert run(box, steps=(("forget_reboot",), ("forget_reboot",))).failure is None
    assert look(box).marker is None and not list(box.state.glob("os-update*"))


@pytest.mark.parametrize(("late", "said"), [("nothing", None), ("b.service", "last seen: b.service is activating; ")])
def test_units_are_waited_for(box: Box, late: str, said: str | None) -> None:
    pretend(box, systemctl=f"for word; do :; done; [ \"$word\" != {late} ] || {{ [ $# -gt 3 ] || echo activating; exit 3; }}")
    (box.state / "stamps").mkdir()
    for name in ("a.service", "b.service", "pair-etc"):
        (box.state / "stamps" / name).touch()
    failure = run(box, steps=(("await_units", "1"),)).failure
    assert (failure is None) if said is None else (failure is not None and said.strip() in failure.output)
