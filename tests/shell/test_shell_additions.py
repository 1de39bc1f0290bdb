"""What an inventory adds to a machine: noted with what was there before, and taken away again."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell_box import Box

from clusterctl.cluster.machine_settings import Hook
from clusterctl.resources.additions import AddedFile, AddedPackages, Command, Hostname
from clusterctl.resources.base import Change
from clusterctl.shell import Call, Script


class Given(Box):
    """A machine of a cluster, with pretended programs for packages, modules and units."""

    def __init__(self, path: Path, shell: str) -> None:
        super().__init__(path, shell)
        self.join("abc")
        self.notes = self.etc / "clusterctl/added"
        self.installed, self.log = path / "installed", path / "log"
        self.installed.write_text("libc6\ncurl\n")
        self.log.write_text("")
        self.command("dpkg-query", f"""case "$*" in
            -L*) exit 1 ;;
            *Abbrev*Package*) sed 's/^/ii  /' {self.installed} ;;
            *) for name; do grep -qx -e "$name" {self.installed} && echo "$name ii "; done ;;
        esac""")
        self.command("apt-get", f"""echo "apt-get $*" >>{self.log}
            for word; do last=$word; done
            case "$*" in
            *-s*purge*) echo "Purg $last [1]"; [ "$last" != dep ] || ! grep -qx htop {self.installed} || echo "Purg htop [1]"; [ ! -e {path}/needed ] || echo "Purg other [1]" ;;
            *purge*)
                [ ! -e "$(cat {path}/watched 2>/dev/null)" ] || echo "too early" >>{self.log}
                grep -vx -e "$last" {self.installed} >{path}/rest; mv {path}/rest {self.installed}
                ;;
            *-s*install*) [ ! -e {path}/replaced ] || cat {path}/replaced ;;
            *install*) echo "$last" >>{self.installed} ;;
            esac""")
        self.command("systemctl", f'echo "systemctl $*" >>{self.log}')
        self.command("modprobe", f'echo "modprobe $*" >>{self.log}')

    def done(self, *calls: Call) -> None:
        result = self.steps(*calls)
        assert result.failure is None, result.failure

    @property
    def lines(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    @property
    def logged(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


@pytest.fixture(params=["dash", "bash", "busybox"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Given:
    return Given(tmp_path, request.param)


def test_a_file_leaves_what_was_there_before(machine: Given) -> None:
    old = machine.etc / "app/old.conf"
    old.parent.mkdir()
    old.write_text("before")
    old.chmod(0o640)
    files = [AddedFile(path=str(path), content=b"given", owner="daemon:daemon", mode="600") for path in (old, machine.etc / "app/sub/new.conf")]
    machine.settle(*files)
    assert old.read_text() == "given" and old.owner() == "daemon" and len(machine.lines) == 2
    # What is noted is what was there before the first change.
    machine.settle(*(AddedFile(path=file.path, content=b"other", owner=file.owner, mode=file.mode) for file in files))
    machine.done(("undo_added", "file", *(file.path for file in files)))
    assert old.read_text() == "before" and old.stat().st_mode & 0o777 == 0o640 and old.owner() == "root"
    assert not (machine.etc / "app/sub/new.conf").exists() and machine.lines == []


def test_packages_go_unless_they_were_there_or_others_need_them(machine: Given) -> None:
    change = machine.diff(AddedPackages(names=("curl", "htop")))
    assert change is not None and change.fields == ("htop",)
    machine.settle(AddedPackages(names=("htop",)))
    assert machine.lines == ["package\thtop\t"]
    assert not any("disable" in line for line in machine.logged), "its services start"
    machine.done(("note_added", "package", "curl"))
    machine.done(("undo_added", "package", "curl", "htop"))
    assert machine.installed.read_text() == "libc6\ncurl\n" and machine.lines == []
    machine.settle(AddedPackages(names=("htop",)))
    (machine.path / "needed").touch()
    machine.done(("undo_added", "package", "htop"))
    assert "htop" in machine.installed.read_text() and machine.lines == []


def test_packages_that_another_replaced_return(machine: Given) -> None:
    """As chrony replaces systemd-timesyncd on Debian."""
    (machine.path / "replaced").write_text("Remv timesyncd [252]\nInst htop (1)\nConf htop (1)\n")
    machine.settle(AddedPackages(names=("htop",)))
    assert machine.lines == ["package\thtop\ttimesyncd"]
    (machine.state / "packages").write_text("htop\n")
    machine.done(("undo_added", "package", "htop"))
    assert machine.installed.read_text() == "libc6\ncurl\ntimesyncd\n" and machine.lines == []
    assert (machine.state / "packages").read_text() == "htop\n", "a reset must not take them for packages that came with us"


def test_packages_are_undone_after_files(machine: Given) -> None:
    file = AddedFile(path=str(machine.etc / "htop/ours.conf"), content=b"x")
    machine.settle(AddedPackages(names=("htop",)))
    machine.settle(file)
    (machine.path / "watched").write_text(file.path)
    machine.done(("undo_added",))
    assert not Path(file.path).exists() and machine.lines == [] and "too early" not in machine.log.read_text()


def test_reset_removes_what_came_with_a_package_of_the_inventory(machine: Given) -> None:
    (machine.state / "before").mkdir()
    (machine.state / "before/packages").write_text("libc6\ncurl\n")
    machine.settle(AddedPackages(names=("htop",)))
    (machine.state / "packages").write_text("htop\ndep\n")
    machine.installed.write_text("libc6\ncurl\ndep\nhtop\n")
    seen = machine.look(("remains", "10.244.0.0/16"))
    machine.done(("undo_added",), ("undo_packages", *(line.split("\t")[0] for line in seen.get("remains", "packages") or ())))
    assert machine.installed.read_text() == "libc6\ncurl\n"
    assert machine.look(("remains", "10.244.0.0/16")).get("remains", "packages") is None


def test_modules_and_units(tmp_path: Path) -> None:
    machine = Given(tmp_path, "dash")  # busybox has a modprobe of its own
    machine.done(("note_added", "module", "dummy_of_ours"), ("put_module", "dummy_of_ours"), ("note_added", "restart", "app.service"),
                 ("put_restart", "app.service", "a" * 64))
    assert machine.logged == ["modprobe -- dummy_of_ours", "systemctl daemon-reload", "systemctl restart -- app.service"]
    assert (machine.state / "stamps/app.service").read_text().startswith("a" * 64)
    machine.done(("undo_added", "module", "dummy_of_ours"))
    assert machine.lines == ["restart\tapp.service\t"] and machine.logged == ["modprobe -r -- dummy_of_ours"]
    machine.done(("undo_added",))
    assert machine.lines == [] and "systemctl try-restart -- app.service" in machine.logged
    assert not (machine.state / "stamps/app.service").exists()


@pytest.mark.parametrize(("enabled", "ends"), [(True, []), (False, ["systemctl disable --quiet -- time.service", "systemctl stop -- time.service"])])
def test_a_service_returns_to_its_state(tmp_path: Path, enabled: bool, ends: list[str]) -> None:
    machine = Given(tmp_path, "dash")
    machine.command("systemctl", f'echo "systemctl $*" >>{machine.log}; case "$*" in is-*) exit {int(not enabled)} ;; esac')
    machine.done(("note_added", "service", "time.service"))
    assert machine.lines == [f"service\ttime.service\t{'enabled runs' if enabled else ''}"]
    _ = machine.logged
    machine.done(("undo_added", "service", "time.service"))
    assert machine.logged == ["systemctl daemon-reload", "systemctl try-restart -- time.service", *ends] and machine.lines == []


def test_a_setting_returns_to_its_value(machine: Given) -> None:
    path = Path("/proc/sys/net/core/optmem_max")
    before = path.read_text()
    machine.done(("note_added", "sysctl", "net.core.optmem_max"))
    assert machine.lines == [f"sysctl\tnet.core.optmem_max\t{before.strip()}"]
    machine.done(("undo_added", "sysctl", "net.core.optmem_max"))
    assert path.read_text() == before and machine.lines == []


class Named(Given):
    """A machine whose hostname is in two files, and whose hostnamectl works or does not."""

    def __init__(self, path: Path, shell: str, hostnamectl: str) -> None:
        super().__init__(path, shell)
        self.kernel, self.boot = path / "kernel-hostname", self.etc / "hostname"
        self.kernel.write_text("localhost\n")
        self.command("hostname", f'echo "$1" >{self.kernel}')
        self.command("hostnamectl", hostnamectl.format(log=self.log, kernel=self.kernel, boot=self.boot))

    def text(self, program: Script) -> str:
        text = super().text(program).replace("/proc/sys/kernel/hostname", str(self.kernel))
        return text.replace("/etc/hostname", str(self.boot))


# busybox has a hostname of its own, which would rename the machine of the tests.
@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("boot", ["golden\n", None])
@pytest.mark.parametrize("hostnamectl", ["exit 1", 'echo "hostnamectl $*" >>{log}; for name; do :; done; echo "$name" | tee {boot} >{kernel}'])
def test_a_hostname_is_set_and_given_back(tmp_path: Path, shell: str, boot: str | None, hostnamectl: str) -> None:
    machine = Named(tmp_path, shell, hostnamectl)
    if boot:
        machine.boot.write_text(boot)
    calls = Hostname(name="w-1.example").apply(Change(resource=Hostname(name="w-1.example"), action="update"))
    machine.done(*calls)
    assert machine.kernel.read_text() == machine.boot.read_text() == "w-1.example\n"
    assert hostnamectl != "exit 1" or machine.boot.stat().st_mode & 0o777 == 0o644
    assert hostnamectl == "exit 1" or machine.logged == ["hostnamectl --static --transient set-hostname w-1.example"]
    # What a DHCP client or an operator has changed is set again; what is noted is what was there first.
    machine.kernel.write_text("other\n")
    machine.done(*calls)
    assert machine.kernel.read_text() == "w-1.example\n" and len(machine.lines) == 1
    machine.done(("undo_added",))
    assert machine.kernel.read_text() == "localhost\n" and machine.lines == []
    assert (machine.boot.read_text() if machine.boot.exists() else None) == boot


def test_what_is_forgotten_stays(machine: Given) -> None:
    machine.settle(AddedPackages(names=("htop",)))
    machine.done(("forget_added", "package", "htop"))
    assert machine.lines == [] and "htop" in machine.installed.read_text()


def hook(name: str = "tune", **values: object) -> Command:
    return Command(hook=Hook.model_validate({"name": name, "before": "nodes", **values}))


def records(machine: Given) -> dict[str, str]:
    return {path.name: path.read_text().strip() for path in (machine.etc / "clusterctl/hooks").glob("*")}


def test_a_hook_is_recorded_once_it_has_run(machine: Given) -> None:
    one = hook(run=f"echo 'one' >>{machine.path}/ran\numask >>{machine.path}/ran")
    machine.done(*one.apply(one.diff(None)))  # type: ignore[arg-type]
    assert (machine.path / "ran").read_text() == "one\n0022\n"
    assert records(machine) == {"tune": one.desired()["definition"]} and machine.lines == ["hook\ttune\t"]
    machine.done(("undo_added", "hook", "tune"))
    assert records(machine) == {} and machine.lines == []


@pytest.mark.parametrize(("values", "said"), [
    ({"run": "echo broken; exit 3"}, "exit code 3"), ({"run": "sleep 5", "timeout": 1}, "within 1 s"), ({"run": "("}, "exit code"),
])
def test_a_hook_that_fails_is_not_recorded(machine: Given, values: dict[str, object], said: str) -> None:
    one = hook(**values)
    result = machine.steps(*one.apply(one.diff(None)))  # type: ignore[arg-type]
    assert result.failure is not None and said in result.failure.output
    assert records(machine) == {}


def test_a_hook_whose_condition_fails_is_recorded_and_not_run(machine: Given) -> None:
    one = hook(run=f"touch {machine.path}/ran", when="false")
    machine.done(*one.apply(one.diff(None)))  # type: ignore[arg-type]
    assert not (machine.path / "ran").exists() and records(machine) == {"tune": one.desired()["definition"]}


def test_reset_takes_away_all_additions(machine: Given) -> None:
    file, package = AddedFile(path=str(machine.etc / "x/app.conf"), content=b"x"), AddedPackages(names=("htop",))
    machine.settle(file, package)
    seen = machine.look(("remains", "10.244.0.0/16")).get("remains", "added")
    assert seen is not None and len(seen) == 2
    machine.done(("undo_added",))
    assert machine.look(("remains", "10.244.0.0/16")).get("remains", "added") is None
    assert not Path(file.path).exists() and "htop" not in machine.installed.read_text()
