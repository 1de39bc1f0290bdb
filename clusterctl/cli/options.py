"""Options that several verbs share, and what they mean together."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, wraps
from inspect import Parameter, Signature, signature
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from clusterctl.cli import words
from clusterctl.cli.inventory import InventoryOption as InventoryOption
from clusterctl.cli.inventory import Output as Output
from clusterctl.cli.inventory import OutputOption as OutputOption
from clusterctl.cli.inventory import reads_inventory as reads_inventory
from clusterctl.cli.steps import asking
from clusterctl.errors import ClusterctlError, InputError
from clusterctl.inventory.sources import Sources

if TYPE_CHECKING:
    from clusterctl.cli.waiting import Announcement
    from clusterctl.engine.engine import Events
    from clusterctl.kube.disruption import DrainPolicy
    from clusterctl.session.opening import Opening, Options
    from clusterctl.session.session import Session
    from clusterctl.views.report import Report


def _folder(text: str) -> Path:
    """What was said to ``--state``; no name is not the folder that somebody stands in. Raises InputError."""
    if not text:
        raise InputError("names no folder", where="--state", code="cli.no-state-folder",
                         hint="leave it out for .clusterctl/NAME beside the inventory")
    return Path(text)


StateOption = Annotated[
    Path | None, typer.Option("--state", metavar="DIR", parser=_folder,
                              help="Where the cluster's keys are; default: .clusterctl/NAME beside the inventory.")
]
LimitOption = Annotated[str | None, typer.Option("--limit", metavar="PATTERN", autocompletion=words.host_patterns,
                                                    help="Only these hosts: names, groups, globs, !, & as in Ansible.")]
LockedOption = Annotated[bool, typer.Option("--locked", help="Take no checksum from upstream: clusterctl.lock has all.")]
ForksOption = Annotated[int, typer.Option("--forks", min=1, max=500, help="How many machines at a time.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show details, such as the keys and jump hosts tried.")]
YesOption = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
AskOption = Annotated[
    bool, typer.Option("--ask-sudo-password", help="Ask for the sudo password. Scripts: CLUSTERCTL_SUDO_PASSWORD.")
]
FdOption = Annotated[
    int | None, typer.Option("--sudo-password-fd", metavar="N", help="Read the sudo password from this file descriptor.")
]
CommandOption = Annotated[
    str | None, typer.Option("--sudo-password-command", metavar="CMD", help="A command that prints the sudo password.")
]
AskSshOption = Annotated[
    bool, typer.Option("--ask-ssh-password", help="Ask for the password of SSH logins. Scripts: CLUSTERCTL_SSH_PASSWORD.")
]
SshFdOption = Annotated[
    int | None, typer.Option("--ssh-password-fd", metavar="N", help="Read the SSH password from this file descriptor.")
]
SshCommandOption = Annotated[
    str | None, typer.Option("--ssh-password-command", metavar="CMD", help="A command that prints the SSH password.")
]
PASSWORDS: tuple[tuple[str, Any, Any], ...] = (
    ("ask_sudo_password", AskOption, False),
    ("sudo_password_fd", FdOption, None),
    ("sudo_password_command", CommandOption, None),
    ("ask_ssh_password", AskSshOption, False),
    ("ssh_password_fd", SshFdOption, None),
    ("ssh_password_command", SshCommandOption, None),
)
"""Name, type and default of the options that give passwords of machines."""


TimeoutOption = Annotated[float, typer.Option("--drain-timeout", min=1, help="Seconds that each node's drain may take.")]
GraceOption = Annotated[
    int | None, typer.Option("--grace-period", min=0, help="Seconds that pods get to end; by default what each asks for.")
]
EmptyDirOption = Annotated[
    bool, typer.Option("--delete-emptydir-data", help="Evict pods with emptyDir volumes, too: their data is lost.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Evict pods without a controller, too: nothing starts them again.")]

ComponentOption = Annotated[
    list[str] | None,
    typer.Option("--component", metavar="NAME=X.Y.Z", help="Of another product, as containerd or etcd; may be given again."),
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
    """What was said to ``--component``: products and versions. Raises InputError for what is neither."""
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


@dataclass(frozen=True)
class Invocation:
    """One call of a verb: what people gave, as operations know it, and how they want to be told."""

    options: Options
    output: Output
    verbose: bool
    given: Mapping[str, Any]
    """What was said to the options that verbs of this kind share."""

    @property
    def policy(self) -> DrainPolicy:
        """How far a drain may go, of a verb that drains."""
        from clusterctl.kube.disruption import DrainPolicy

        return DrainPolicy(
            timeout=self.given["drain_timeout"],
            grace_period=self.given["grace_period"],
            delete_emptydir_data=self.given["delete_emptydir_data"],
            force=self.given["force"],
        )

    def report(self) -> Report:
        """The report for the output format."""
        from clusterctl.views.report import JsonReport, TextReport

        return (JsonReport if self.output is Output.json else TextReport)(verbose=self.verbose)

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

    def look(self, operation: str = "", *, verify: bool = False, api: bool = True) -> None:
        """Begin to look at machines, with an operation's lock held where one is named, while the rest of the program is loaded.

        What is wrong with the inventory the session will say.
        """
        with suppress(ClusterctlError):
            self.opening.look(operation, verify=verify, api=api)
            _ = self._announcement


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """A verb that talks to machines: the options that all of them share become the ``Invocation`` that it gets first."""
    return _with(function, COMMON)


def draining_verb(function: Callable[..., None]) -> Callable[..., None]:
    """A verb that may drain nodes: it has the options of a drain, too."""
    return _with(function, (*COMMON, *DRAIN))


def _with(function: Callable[..., None], shared: Sequence[tuple[str, Any, Any]]) -> Callable[..., None]:
    hints = get_type_hints(function, localns={"Invocation": Invocation}, include_extras=True)
    own = [
        parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
        for name, parameter in list(signature(function).parameters.items())[1:]
    ]
    named = {parameter.name for parameter in own}
    common = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, kind, default in shared
        if name not in named
    ]

    @wraps(function)
    def run(**given: Any) -> None:
        mine = {name: given[name] for name in named}
        values = {parameter.name: parameter.default for parameter in common} | {
            name: value for name, value in given.items() if name in {parameter.name for parameter in common}
        }
        function(_invocation(values, given), **mine)

    run.__signature__ = Signature(sorted([*own, *common], key=lambda one: one.default is not Parameter.empty))  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *common)}
    return reads_inventory(run)


def _verb() -> str:
    """Return the first words of the command line, such as ``node drain``."""
    return " ".join(takewhile(re.compile("[a-z][a-z-]*").fullmatch, sys.argv[1:4]))


def _invocation(values: Mapping[str, Any], given: Mapping[str, Any]) -> Invocation:
    log = logging.getLogger("clusterctl")
    log.setLevel(logging.DEBUG if values.get("verbose") else logging.WARNING)
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
    options = gather(
        values["inventory"],
        state=values["state"],
        limit=given.get("limit"),
        locked=bool(given.get("locked")),
        forks=values["forks"],
        given=values,
    )
    output = values.get("output", Output.text)
    return Invocation(options, output if isinstance(output, Output) else Output.text, bool(values.get("verbose")), values)


COMMON: tuple[tuple[str, Any, Any], ...] = (
    ("inventory", InventoryOption, Parameter.empty),
    ("output", OutputOption, Output.text),
    ("state", StateOption, None),
    ("forks", ForksOption, 20),
    ("verbose", VerboseOption, False),
    *PASSWORDS,
)
"""Name, type and default of the options of every verb that talks to machines."""

DRAIN: tuple[tuple[str, Any, Any], ...] = (
    ("drain_timeout", TimeoutOption, 300.0),
    ("grace_period", GraceOption, None),
    ("delete_emptydir_data", EmptyDirOption, False),
    ("force", ForceOption, False),
)
"""Those of every verb that drains."""


def gather(
    inventory: Sources,
    *,
    state: Path | None = None,
    limit: str | None = None,
    locked: bool = False,
    forks: int = 20,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Options:
    """Return the options as operations know them. ``given``: the values of ``PASSWORDS``. Raises InputError, Refused."""
    from clusterctl.inventory import secrets
    from clusterctl.session.opening import Options

    def source(what: str) -> secrets.Source:
        return secrets.Source(fd=given.get(f"{what}_password_fd"), command=given.get(f"{what}_password_command"),
                              ask=bool(given.get(f"ask_{what}_password")))

    names = tuple(name for name in (limit or "").split(",") if name)
    if limit is not None and not names:
        raise InputError("names no host", where="--limit", hint="leave it out for all hosts", code="hosts.none-selected")
    with asking():
        ssh_password = secrets.ssh_password(source("ssh"))
        password = secrets.sudo_password(source("sudo"))
    passphrase = secrets.key_passphrase(secrets.Source())
    return Options(
        inventory=inventory,
        state=state,
        forks=forks,
        limit=names,
        locked=locked,
        sudo_password=_reveal(password),
        passphrase=_reveal(passphrase),
        ssh_password=_reveal(ssh_password),
        operation=_verb(),
    )


def _reveal(secret: object) -> Callable[[], str | None]:
    from clusterctl.inventory.secrets import Secret

    return lambda: secret.reveal() if isinstance(secret, Secret) else None
