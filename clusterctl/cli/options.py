"""Options that several verbs share, and what they mean together."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from functools import cached_property, wraps
from inspect import Parameter, Signature, get_annotations, signature
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer

from clusterctl.cli import words
from clusterctl.cli.prompts import asking
from clusterctl.errors import ClusterctlError, InputError
from clusterctl.inventory.sources import Sources
from clusterctl.inventory.vault import Passwords

if TYPE_CHECKING:
    from clusterctl.cli.waiting import Announcement
    from clusterctl.engine.events import Events
    from clusterctl.inventory.secrets import Secret
    from clusterctl.kube.disruption import DrainPolicy
    from clusterctl.session.opening import Opening, Options
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report


CHANGES = 10
"""The exit code of a plan with changes, with ``--exit-code``."""


class Output(StrEnum):
    """How an answer is printed."""

    text = "text"
    json = "json"


INVENTORY = typer.Option(
    "-i", "--inventory", envvar="CLUSTERCTL_INVENTORY", metavar="FILE",
    help="Ansible inventory: INI, YAML, JSON, a program, a directory, or - for stdin; repeatable, a later one wins.")
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="Print text, or JSON for programs.")]


def _folder(text: str) -> Path:
    """Return the folder of ``--state``; an empty name is not the current folder. Raises InputError."""
    if not text:
        raise InputError("names no folder", where="--state", code="cli.no-state-folder",
                         hint="leave it out for .clusterctl/NAME beside the inventory")
    return Path(text)


StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", parser=_folder,
                              help="State folder with the cluster's keys; default: .clusterctl/NAME beside the inventory.")
]
LimitOption = Annotated[str | None, typer.Option("--limit", metavar="PATTERN", autocompletion=words.host_patterns,
                                                    help="Only these hosts: names, groups, globs, !, & as in Ansible.")]
LockedOption = Annotated[bool, typer.Option("--locked", help="Take no checksums from upstream; clusterctl.lock must have all.")]
YesOption = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
UnavailableOption = Annotated[str | None, typer.Option(
    "--max-unavailable", metavar="N|P%", help="Nodes at once, a number or a percentage; default: the inventory's.")]
ComponentOption = Annotated[
    list[str] | None,
    typer.Option("--component", metavar="NAME=X.Y.Z", autocompletion=words.components,
                 help="Version of another product, such as containerd or etcd; repeatable."),
]


def refuse_versions(option: str, given: Iterable[str]) -> None:
    """Raises InputError for what is no version."""
    from clusterctl.cluster.model import VERSION

    for version in given:
        if not VERSION.fullmatch(version):
            raise InputError(f"{version!r} is no version", where=option, code="version.malformed",
                             hint="a version is such as 1.37.2, with neither v nor x")


def refuse_releases(option: str, given: Iterable[str], *, minors: bool = False) -> None:
    """Raise InputError for text that is not a version of Kubernetes and for one that is not supported.

    ``minors``: a minor such as 1.36 is a version, too.
    """
    from clusterctl.cluster.model import MINOR
    from clusterctl.cluster.versions import SUPPORTED_MINORS, minor

    for version in given:
        if not minors or not MINOR.fullmatch(version):
            refuse_versions(option, [version])
        if minor(version) not in SUPPORTED_MINORS:
            raise InputError(f"Kubernetes {version} is not supported", where=option, code="version.unsupported",
                             hint=f"supported are {', '.join(SUPPORTED_MINORS)}")


def components_of(given: Iterable[str]) -> list[tuple[str, str]]:
    """Parse the values of ``--component``: products and versions. Raises InputError."""
    from clusterctl.cluster.model import Versions

    products = sorted(set(Versions.model_fields) - {"kubernetes"})
    components = []
    for entry in given:
        name, equals, version = entry.partition("=")
        field = name.replace("-", "_")
        if not equals:
            raise InputError(f"{entry!r} is not NAME=VERSION", where="--component", code="cli.component-form",
                             hint="for instance containerd=2.3.4")
        if field not in products:
            raise InputError(f"no product is called {name!r}", where="--component", code="version.unknown-product",
                             hint=f"products: {', '.join(products)}")
        if field != "pause" or not re.fullmatch(r"\d+(\.\d+)*", version):  # It counts in two numbers as well.
            refuse_versions("--component", [version])
        components.append((field, version))
    return components


@dataclass(frozen=True, kw_only=True)
class InventoryOptions:
    """The options of a verb that reads an inventory."""

    inventory: Annotated[list[Path], INVENTORY]
    vault_password_file: Annotated[list[Path] | None, typer.Option(
        envvar="ANSIBLE_VAULT_PASSWORD_FILE", metavar="FILE",
        help="File with an ansible-vault password, or a program that prints it.")] = None
    vault_id: Annotated[list[str] | None, typer.Option(
        metavar="LABEL@FILE", help="The same for one vault label; LABEL@prompt asks for the password.")] = None
    ask_vault_pass: Annotated[bool, typer.Option("--ask-vault-pass", help="Ask for the ansible-vault password.")] = False

    @cached_property
    def sources(self) -> Sources:
        """The files of the inventory, and the passwords of ansible-vault. Raises InputError, Refused."""
        passwords = Passwords(self.vault_password_file or (), self.vault_id or (), ask=self.ask_vault_pass)
        with asking():
            passwords.ask()
        return Sources(tuple(self.inventory), passwords)

    def local(self, state: Path | None) -> Options:
        """Return the options of a verb that logs in nowhere. Raises InputError, Refused."""
        return PasswordOptions().gather(self.sources, state=state)


@dataclass(frozen=True, kw_only=True)
class PasswordOptions:
    """The options that give passwords of machines."""

    ask_sudo_password: Annotated[bool, typer.Option(
        "--ask-sudo-password", help="Ask for the sudo password. Scripts: CLUSTERCTL_SUDO_PASSWORD.")] = False
    sudo_password_fd: Annotated[int | None, typer.Option(
        metavar="N", help="Read the sudo password from this file descriptor.")] = None
    sudo_password_command: Annotated[str | None, typer.Option(
        metavar="CMD", help="Run this command and read the sudo password from its output.")] = None
    ask_ssh_password: Annotated[bool, typer.Option(
        "--ask-ssh-password", help="Ask for the password of SSH logins. Scripts: CLUSTERCTL_SSH_PASSWORD.")] = False
    ssh_password_fd: Annotated[int | None, typer.Option(
        metavar="N", help="Read the SSH password from this file descriptor.")] = None
    ssh_password_command: Annotated[str | None, typer.Option(
        metavar="CMD", help="Run this command and read the SSH password from its output.")] = None

    def gather(self, inventory: Path | Sources, *, state: Path | None = None, limit: str | None = None, locked: bool = False,
               forks: int = 20) -> Options:
        """Return the options as operations know them. Raises InputError, Refused."""
        from clusterctl.inventory import secrets
        from clusterctl.session.opening import Options

        names = tuple(name for name in (limit or "").split(",") if name)
        if limit is not None and not names:
            raise InputError("names no host", where="--limit", hint="leave it out for all hosts", code="hosts.none-selected")
        with asking():
            ssh_password = secrets.ssh_password(secrets.Source(
                fd=self.ssh_password_fd, command=self.ssh_password_command, ask=self.ask_ssh_password))
            password = secrets.sudo_password(secrets.Source(
                fd=self.sudo_password_fd, command=self.sudo_password_command, ask=self.ask_sudo_password))
        passphrase = secrets.key_passphrase(secrets.Source())
        return Options(inventory=inventory, state=state, forks=forks, limit=names, locked=locked, sudo_password=_reveal(password),
                       passphrase=_reveal(passphrase), ssh_password=_reveal(ssh_password), operation=_verb())


@dataclass(frozen=True, kw_only=True)
class Invocation(PasswordOptions, InventoryOptions):
    """The options of a verb that talks to machines. ``limit`` and ``locked``: of those verbs that have these options."""

    output: OutputOption = Output.text
    state: StateOption = None
    forks: Annotated[int, typer.Option(min=1, max=500, help="Number of machines at a time.")] = 20
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Print details, such as the keys and jump hosts.")] = False
    limit: str | None = None
    locked: bool = False

    def __post_init__(self) -> None:
        log = logging.getLogger("clusterctl")
        log.setLevel(logging.DEBUG if self.verbose else logging.WARNING)
        if not log.handlers:
            log.addHandler(logging.StreamHandler())
        _ = self.options  # Passwords are asked for before anything else.

    @cached_property
    def options(self) -> Options:
        """The options as operations know them. Raises InputError, Refused."""
        return self.gather(self.sources, state=self.state, limit=self.limit, locked=self.locked, forks=self.forks)

    def report(self) -> Report:
        """Return a report for the output format."""
        from clusterctl.views.report import JsonReport
        from clusterctl.views.text import TextReport

        if self.output is Output.json:
            return JsonReport(verbose=self.verbose)
        if sys.stdout.isatty() and not {"NO_COLOR", "CI"} & os.environ.keys() and os.environ.get("TERM") != "dumb":
            from clusterctl.views.live import LiveReport

            return LiveReport(verbose=self.verbose)
        return TextReport(verbose=self.verbose)

    @contextmanager
    def session(self, report: Events) -> Iterator[Session]:
        """Everything that the verb needs. Raises InputError."""
        from clusterctl.session.session import session

        with session(self.options, report, self.opening) as opened:
            announcement = self._announcement
            try:
                yield opened
            finally:
                announcement.end()

    @cached_property
    def _announcement(self) -> Announcement:
        from clusterctl.cli.waiting import Announcement

        return Announcement(self.opening.options.chosen(self.opening.cluster), self.opening.transports)

    @cached_property
    def opening(self) -> Opening:
        """The cluster and the ways to its machines. Raises InputError."""
        from clusterctl.session.opening import Opening

        return Opening(self.options)

    def connect(self, operation: str = "") -> None:
        """Begin to connect, and to take an operation's lock where one is named, while the rest of the program is loaded.

        Errors of the inventory are reported by the session.
        """
        with suppress(ClusterctlError):
            self.opening.connect(operation)
            _ = self._announcement


@dataclass(frozen=True, kw_only=True)
class DrainInvocation(Invocation):
    """The options of a verb that may drain nodes."""

    drain_timeout: Annotated[float, typer.Option(min=1, help="Timeout of each node's drain.")] = 300.0
    grace_period: Annotated[int | None, typer.Option(
        min=0, help="Grace period of pods in seconds; default: each pod's own.")] = None
    delete_emptydir_data: Annotated[bool, typer.Option(
        "--delete-emptydir-data", help="Also evict pods with emptyDir volumes; their data is lost.")] = False
    force: Annotated[bool, typer.Option(
        "--force", help="Also evict pods without a controller; nothing restarts them.")] = False

    @property
    def policy(self) -> DrainPolicy:
        """How far a drain may go."""
        from clusterctl.kube.disruption import DrainPolicy

        return DrainPolicy(timeout=self.drain_timeout, grace_period=self.grace_period,
                           delete_emptydir_data=self.delete_emptydir_data, force=self.force)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command for a function whose first parameter is a dataclass: its annotated fields become options, too.

    A parameter of the function with the name of a field takes the field's place, and gives the field its value.
    """
    hints = get_type_hints(function, include_extras=True)
    call, *own = signature(function).parameters.values()
    names, kind = [one.name for one in own], hints[call.name]
    options = get_type_hints(kind, include_extras=True)
    shared = [Parameter(one.name, Parameter.KEYWORD_ONLY, annotation=options[one.name],
                        default=Parameter.empty if one.default is MISSING else one.default)
              for part in kind.__mro__ for one in fields(kind) if one.name in get_annotations(part)
              if get_origin(options[one.name]) is Annotated and one.name not in names]
    parameters = [*(one.replace(annotation=hints[one.name], kind=Parameter.KEYWORD_ONLY) for one in own), *shared]

    @wraps(function)
    def run(**given: Any) -> None:
        values = {one.name: given[one.name] for one in fields(kind) if one.name in given}
        function(kind(**values), **{name: given[name] for name in names})

    run.__signature__ = Signature(sorted(parameters, key=lambda one: one.default is not Parameter.empty))  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _verb() -> str:
    """Return the first words of the command line, such as ``node drain``."""
    return " ".join(takewhile(re.compile("[a-z][a-z-]*").fullmatch, sys.argv[1:4]))


def _reveal(secret: Secret | None) -> Callable[[], str | None]:
    return lambda: secret.reveal() if secret else None
