"""A lab: real machines on this one host, raised and taken down as a whole, and what one does to a single machine of it."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from clusterctl.errors import InputError
from clusterctl.lab import machine as machines
from clusterctl.lab import network, repository
from clusterctl.lab.base import Base, ensure_base
from clusterctl.lab.cgroup import Cgroup
from clusterctl.lab.drivers import check_driver, driver_of
from clusterctl.lab.host import LabError, check_host, make_room
from clusterctl.lab.inventory import write_inventory, write_known_hosts
from clusterctl.lab.recipes import recipe_of
from clusterctl.lab.removal import exists, remove_lab, remove_parts
from clusterctl.lab.state import LabSpec, Machine, State, lock_of, write_atomically

Progress = Callable[[str], None]
DIRECTIONS = ("both", "in", "out")
REBOOT_SECONDS = 60
"""For shutting down, beside the driver's seconds for a boot."""


def silent(message: str) -> None:
    """Discard progress."""


class Lab:
    """A lab on this host; made by :meth:`up` or :meth:`open`. Everything needs root (:class:`Refused` without)."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.driver = driver_of(state.spec.driver)

    @property
    def name(self) -> str:
        """Its name, unique on this host."""
        return self.state.spec.name

    @property
    def machines(self) -> dict[str, Machine]:
        """Its machines by name."""
        return self.state.machines

    @property
    def directory(self) -> Path:
        """Holds all of its files."""
        return self.state.directory

    @property
    def namespace(self) -> str:
        """The network namespace from which its machines are reached."""
        return network.namespace_of(self.name)

    @property
    def gateway(self) -> str:
        """The controller's address in the lab; the package repository is served there."""
        return self.state.address(1)

    @property
    def inventory(self) -> Path:
        """Its inventory; readable by root alone."""
        return self.directory / "inventory.yaml"

    @property
    def key(self) -> Path:
        """The private key that ``root`` and ``admin`` of every machine accept."""
        return self.directory / "id_ed25519"

    @property
    def sudo_password_file(self) -> Path:
        """Holds the password of ``admin`` if the lab was raised with ``sudo_password``."""
        return self.directory / "sudo_password"

    @classmethod
    def up(cls, spec: LabSpec, *, inventory: Path | None = None, progress: Progress = silent,
           deadline: float | None = None) -> Self:
        """Raise a lab and return once every machine lets ``admin`` in with its pinned host key.

        ``inventory`` is where a second copy of the inventory goes. What was begun is removed again on failure. Raises
        :class:`InputError` (also where the lab is there already), :class:`Refused`, :class:`LabError`.
        """
        spec.check()
        base = ensure_base(progress, recipe_of(check_driver(spec.driver).recipe, spec.base))
        with lock_of(spec.name) as lock:
            if exists(spec.name):
                raise InputError(f"something of a lab called {spec.name} is there already", where="--name",
                                 hint=f"clusterctl lab down --name {spec.name}", code="lab.exists")
            try:
                lab = cls(State.create(spec))
                lab._raise(base, progress, deadline)
                write_inventory(lab.state, *([inventory] if inventory else []))
            except BaseException:
                remove_parts(spec.name)
                lock.remove()
                raise
        return lab

    @classmethod
    def open(cls, name: str = "lab") -> Self:
        """A lab that is there; raises :class:`InputError` if it is not."""
        check_host()
        return cls(State.load(name))

    def _raise(self, base: Base, progress: Progress, deadline: float | None) -> None:
        progress(f"raising {len(self.machines)} machines in {self.namespace}")
        make_room()
        write_atomically(self.directory / "base", f"{base.directory}\n", 0o600)
        machines.new_key(self.key, f"clusterctl-lab-{self.name}")
        if self.state.spec.sudo_password:
            write_atomically(self.sudo_password_file, secrets.token_urlsafe(12) + "\n", 0o600)
        Cgroup(self.namespace).create()
        network.create_lab_network(self.name, self.gateway)
        machines.launch_server(self.name, self.directory, self.gateway, base)
        self._bring_up(list(self.machines.values()), base, progress, deadline)
        network.wait_for_port(self.namespace, self.gateway, repository.PORT)

    def _bring_up(self, new: Sequence[Machine], base: Base, progress: Progress, deadline: float | None) -> None:
        public = self.key.with_name(f"{self.key.name}.pub").read_text().strip()

        def begin(one: Machine) -> None:
            self.driver.connect(one, self.gateway)
            machines.prepare(one, base, gateway=self.gateway, authorized_key=public, sudo_password=self.state.spec.sudo_password)
            self.driver.install(one, base)
            self.driver.launch(one, base, self.state.spec)

        def finish(one: Machine) -> None:
            self._wait(one, deadline)
            if self.state.spec.sudo_password:
                self.driver.execute(one, ["chpasswd"], stdin=f"admin:{self.sudo_password_file.read_text().strip()}\n", check=True)
            progress(f"{one.name} is up at {one.address}")

        _each(begin, new)
        write_known_hosts(self.state)
        _each(finish, new)

    def _wait(self, one: Machine, deadline: float | None, *, not_boot: str = "") -> None:
        machines.wait_until_ready(one, deadline=deadline or self.driver.deadline, not_boot=not_boot)

    def _base(self) -> Base:
        return Base(Path((self.directory / "base").read_text().strip()))

    def machine(self, name: str) -> Machine:
        """One of its machines; raises :class:`InputError` if there is none of that name."""
        if name not in self.machines:
            raise InputError(f"lab {self.name} has no machine {name}", where="lab", code="lab.unknown-machine",
                             hint=f"it has {', '.join(self.machines)}")
        return self.machines[name]

    def add(self, count: int = 1, role: str = "worker", *, progress: Progress = silent,
            deadline: float | None = None) -> list[Machine]:
        """Raise ``count`` more machines of a role, rewrite the inventory and return them. Raises as :meth:`up`."""
        if count < 1:
            raise InputError("nothing to add", where="--count", code="lab.count")
        with lock_of(self.name):
            self.state = State.load(self.name)
            new = [self.state.new_machine(role) for _ in range(count)]
            self.state.save()
            self._bring_up(new, self._base(), progress, deadline)
            write_inventory(self.state)
        return new

    def ssh_command(self, name: str, *, user: str = "", options: Iterable[str] = ()) -> list[str]:
        """A command line of this host that logs in to a machine over the lab's network with its pinned host key."""
        return machines.ssh_command(self.machine(name), user or self.state.spec.user, options)

    def exec(self, name: str, argv: Sequence[str], *, stdin: str = "", timeout: float = 60,
             check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` as root in a machine; raises :class:`LabError` if it is down or too slow."""
        return self.driver.execute(self.machine(name), argv, stdin=stdin, timeout=timeout, check=check)

    def kill(self, name: str) -> None:
        """End every process of a machine at once, as if its power was cut. It stays down until :meth:`start`."""
        Cgroup(self.machine(name).cgroup).kill()

    def start(self, name: str, *, deadline: float | None = None) -> None:
        """Start a machine that is down and wait until it is up; nothing happens where it runs already."""
        one = self.machine(name)
        with lock_of(self.name):
            if self.driver.leader(one) is not None:
                return
            Cgroup(one.cgroup).kill()
            self.driver.launch(one, self._base(), self.state.spec)
            self._wait(one, deadline)

    def reinstall(self, name: str, *, progress: Progress = silent, deadline: float | None = None) -> None:
        """Give a machine a new disk, and thus a new host key; its name and address stay. The inventory is rewritten."""
        one = self.machine(name)
        with lock_of(self.name):
            Cgroup(one.cgroup).kill()
            self.driver.wipe(one)
            network.remove_machine_network(self.name, one.name, one.address)
            self._bring_up([one], self._base(), progress, deadline)
            write_inventory(self.state)

    def reboot(self, name: str, *, deadline: float | None = None) -> None:
        """Reboot a machine through its systemd (or start a dead one) and wait until it is up again.

        A machine that is cut off reboots, too, but is not waited for. Raises :class:`LabError` after ``deadline`` seconds.
        """
        one = self.machine(name)
        if Cgroup(one.cgroup).frozen():
            raise InputError(f"{name} is frozen", where="lab", code="lab.frozen",
                             hint=f"clusterctl lab thaw {name} --name {self.name}")
        if self.driver.leader(one) is None:
            return self.start(name, deadline=deadline)
        before = self.driver.boot_id(one)
        self.driver.ask_for_reboot(one)
        if not network.is_cut(one.namespace, self.driver.rules):
            self._wait(one, deadline or self.driver.deadline + REBOOT_SECONDS, not_boot=before)
        return None

    def freeze(self, name: str) -> None:
        """Stop every process of a machine where it stands; its kernel goes on answering the network."""
        Cgroup(self.machine(name).cgroup).freeze()

    def thaw(self, name: str) -> None:
        """Let a frozen machine go on."""
        Cgroup(self.machine(name).cgroup).thaw()

    def cut(self, name: str, direction: str = "both", *, peer: str | None = None) -> None:
        """Drop a machine's traffic: what comes ``in``, what goes ``out`` or ``both``; of ``peer`` alone if one is named.

        ``peer`` is another machine, or ``controller``. Several cuts add up until :meth:`heal`.
        """
        if direction not in DIRECTIONS:
            raise InputError(f"there is no direction {direction!r}", where="--direction", code="lab.direction",
                             hint=", ".join(DIRECTIONS))
        other = None if peer is None else self.gateway if peer == "controller" else self.machine(peer).address
        network.cut(self.machine(name).namespace, self.driver.rules, direction, other)

    def heal(self, name: str) -> None:
        """Undo every cut of a machine."""
        network.heal(self.machine(name).namespace, self.driver.rules)

    def status(self, name: str) -> str:
        """Return the state of a machine: ``running``, ``frozen`` or ``dead``, and ``cut`` beside one of these."""
        one = self.machine(name)
        word = "dead" if self.driver.leader(one) is None else "frozen" if Cgroup(one.cgroup).frozen() else "running"
        return f"{word}, cut" if network.is_cut(one.namespace, self.driver.rules) else word

    def down(self) -> None:
        """Remove the lab with all its machines and their data."""
        remove_lab(self.name)


def _each(action: Callable[[Machine], None], these: Sequence[Machine]) -> None:
    with ThreadPoolExecutor(max_workers=max(1, min(16, len(these)))) as pool:
        errors = [error for error in (future.exception() for future in [pool.submit(action, one) for one in these]) if error]
    if errors:
        raise errors[0] if len(errors) == 1 else LabError("\n".join(map(str, errors)), where="lab", code="lab.several-failed")
