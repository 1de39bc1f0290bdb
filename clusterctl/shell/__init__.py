"""Compiles probes and steps into one POSIX sh program, and reads the records that it prints."""

from __future__ import annotations

import base64
import io
import re
import secrets
import shlex
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from clusterctl.shell.footprint import NOTHING, Footprint

MARK = "/etc/clusterctl/cluster"
"""The file in which a machine of a cluster has the cluster's identity."""

Probe = tuple[str, str]
"""An observing function of the prelude (without ``observe_``) and one argument for it."""

Call = tuple[str, ...]
"""A function of the prelude and its arguments, unquoted."""

Blob = bytes | Path
"""Data sent with a program: bytes, or a local file that is streamed."""

BOOTSTRAP = (
    "umask 077; r=/var/lib/clusterctl; d=$r/run/$$; [ ! -e $d ] || rm -rf $d; "
    "mkdir -p $d 2>/dev/null || mkdir -p $d || exit 74; "
    f"trap 'rm -rf $d; [ -e {MARK} ] || rmdir $r/run $r 2>/dev/null' EXIT; trap 'exit 1' HUP INT TERM; "
    "for o in $r/run/*; do kill -0 ${o##*/} 2>/dev/null || rm -rf $o; done; "
    "tar -xf - -C $d || exit 73; "
    "sh $d/run.sh $d 3>&1 >/dev/null </dev/null"
)
"""The one command that is ever sent: the same for all programs, so that no secret can be in it.

The program takes the lock of the machine after the last byte: a connection that dies while it sends blocks no other program.
Folders of processes that are gone are removed. On a machine of no cluster the folders above are removed too, once empty; if
another program's ``mkdir -p`` runs at that moment, it is repeated. Exit 73: the archive did not arrive; 74: its folder cannot be
made; 75: another program holds the lock.
"""

PRELUDE = ("prelude", "http", "put", "service", "etcd", "added")
"""The files of functions, in the order that programs have them."""

LOOKS = frozenset((
    "facts", "running", "stat", "sha", "text", "program", "unit", "package", "user", "module", "image", "firewall", "etcd_role",
    "etcd_data"))
"""The probes of programs that only observe: each is done within seconds, and none runs a command that it is given."""

UNDOING = ("footprint", "firewall", "undo", "undo_system", "undo_added")
"""Those of the few programs that note what was there before us, or take away what is ours."""


def quote(word: str) -> str:
    """Return a word quoted for sh. Raises ValueError for a NUL, which no shell can carry."""
    if "\0" in word:
        raise ValueError("a NUL cannot be passed to a shell")
    return shlex.quote(word)


@cache
def functions(*names: str) -> str:
    """The text of files of functions, without what is said to people alone: it need neither be sent nor read."""
    text = "\n".join(Path(__file__).with_name(f"{name}.sh").read_text(encoding="utf-8") for name in names)
    return re.sub(r"(?m)^(\t*#(?! shellcheck).*)?\n", "", text)


@dataclass(frozen=True, slots=True)
class Script:
    """One program for one host: steps in order, then a look at the probes.

    ``blobs`` are files beside it, by name. ``nonce`` marks its records. ``unlocked``: it takes no lock of the machine, as a
    command of the operator: it neither waits nor holds up others, however long it runs. ``shared``: it takes the lock of programs
    that only look, and its records are sent as they come. ``holder``: what others that wait for it report. ``verify``: hash all
    installed programs; their stat cache is not used. ``footprint``: of all products, for programs that undo.
    """

    probes: Sequence[Probe] = ()
    steps: Sequence[Call] = ()
    blobs: Mapping[str, Blob] = field(default_factory=dict)
    functions: str = ""
    verify: bool = False
    unlocked: bool = False
    shared: bool = False
    holder: str = ""
    footprint: Footprint = NOTHING
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def text(self) -> str:
        """The program itself, as sh reads it."""
        lines = [f"set -- {self.nonce} \"$1\"", functions(*self._needs), self.functions]
        if self._undoes:
            lines.append(self.footprint.assignments + functions(*UNDOING))
        elif self._opens_ports:
            lines.append(functions("firewall"))
        if not self.unlocked:
            # Programs that only look wait for one that changes something, and not for each other.
            lock = f"lock_machine {'-s' if self._looks or self.shared else '-x'} {quote(self.holder)}"
            # Without this file no program has changed the machine, and one that only observes must not leave it there.
            lines.append(lock if self.steps else f'[ ! -e "$state/lock" ] || {lock}')
        if self.verify:
            lines.append("verify=yes")
        lines += [" ".join(("step", str(index), *map(quote, call))) for index, call in enumerate(self.steps)]
        asked = [" ".join((f"observe_{kind}", *map(quote, words))) for kind, words in _grouped(self.probes).items()]
        # One write at the end: a packet for each record would cost both sides more than the look itself.
        at_once = ["records=$(look 3>&1 >/dev/null) || exit 1", "printf '%s\\n' \"$records\" >&3"]
        lines += ["look() {", *asked, "emit end", "}", *at_once] if self._looks else [*asked, "emit end"]
        return "\n".join(lines) + "\n"

    @property
    def _looks(self) -> bool:
        """Whether it changes nothing and is soon done."""
        return not self.steps and LOOKS.issuperset(kind for kind, _ in self.probes)

    @property
    def _needs(self) -> Sequence[str]:
        """The files of functions that it calls: for a look, to read the others would take longer than to look."""
        if not self._looks:
            return PRELUDE
        return PRELUDE[:1 + any(kind == "etcd_role" for kind, _ in self.probes)]

    @property
    def _undoes(self) -> bool:
        steps = any(call[0].startswith(("undo_", "record_", "return_")) for call in self.steps)
        return steps or any(kind == "remains" for kind, _ in self.probes)

    @property
    def _opens_ports(self) -> bool:
        steps = any(call[0] in ("put_firewall", "drop_firewall") for call in self.steps)
        return steps or any(kind == "firewall" for kind, _ in self.probes)

    def chunks(self, size: int = 32768) -> Iterator[bytes]:
        """The tar of program and blobs, in slices of at most ``size`` bytes; files are streamed, never held."""
        yield from _member("run.sh", self.text.encode(), size)
        for name, blob in self.blobs.items():
            yield from _member(f"blobs/{name}", blob, size)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _grouped(probes: Iterable[Probe]) -> dict[str, list[str]]:
    """The arguments of each kind, in order."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for kind, argument in dict.fromkeys(probes):
        grouped[kind].append(argument)
    return grouped


def _member(name: str, blob: Blob, size: int) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.mode = 0o600
    info.size = len(blob) if isinstance(blob, bytes) else blob.stat().st_size
    yield info.tobuf(tarfile.USTAR_FORMAT)
    stream = io.BytesIO(blob) if isinstance(blob, bytes) else blob.open("rb")
    with stream:
        left = info.size
        while left and (piece := stream.read(min(size, left))):
            left -= len(piece)
            yield piece
    if left:
        raise OSError(f"{name} became shorter while it was sent")
    yield bytes(-info.size % tarfile.BLOCKSIZE)


class Observation:
    """The records of one program's probes, by kind and key.

    A key without a record was not there. Keys are paths, unit names and the like.
    """

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, list[str]]] = defaultdict(dict)
        self._unit: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Observation({dict(self._tables)!r})"

    def get(self, kind: str, key: str) -> list[str] | None:
        """The words of a record, or None where nothing was seen."""
        return self._tables[kind].get(key)

    def add(self, kind: str, words: Sequence[str]) -> None:
        """Take in one record."""
        if kind in ("stat", "sha", "text", "unit", "dpkg"):
            self._add_lines(kind, words)
        elif kind == "remains":
            self._tables[kind].setdefault(words[0], []).append("\t".join(words[1:]))
        elif kind == "user":
            self._tables[kind][words[0].split(":")[0]] = words[0].split(":")
        else:
            self._tables[kind][words[0]] = list(words[1:])

    def _add_lines(self, kind: str, words: Sequence[str]) -> None:
        """A line as a program of the system prints it."""
        if kind == "stat":
            name, target = _named(words[0])
            looks = ["symbolic link", "", ""] if ODD in target else words[1:4]
            self._tables[kind][name] = [*looks, words[4] if len(words) > 4 else "", *target]
        elif kind == "sha":
            digest, _, path = words[0].partition("  ")
            self._tables[kind][path] = [digest]
        elif kind == "text":
            path, _, line = "\t".join(words).partition(":")
            self._tables[kind].setdefault(path, []).append(line)
        elif kind == "unit":
            self._add_unit(words[0] if words else "")
        else:
            name, _, status = words[0].partition(" ")
            if status.startswith("ii"):
                self._tables["package"][name.partition(":")[0]] = []

    def _add_unit(self, line: str) -> None:
        name, _, value = line.partition("=")
        if not name:
            self._unit = {}
            return
        self._unit[name] = value
        if "Id" in self._unit:
            self._tables["unit"][self._unit["Id"]] = [f"{key}={value}" for key, value in self._unit.items()]


ODD = "not one word"
"""The target of a link that is not ours, where it contains tabs or line ends."""


def _named(word: str) -> tuple[str, Sequence[str]]:
    """The path that stat(1) names, and where it points if it is a link: "PATH" -> "TARGET", escaped as in C; busybox has '."""
    quote = word[:1] if word[:1] in ('"', "'") else ""
    name, arrow, target = word.removeprefix(quote).partition(f"{quote} -> {quote}")
    if not arrow or not quote:
        return _plain(word.removeprefix(quote).removesuffix(quote)), ()
    plain = _plain(target.removesuffix(quote))
    return _plain(name), (ODD if not target.endswith(quote) or "\n" in plain or "\t" in plain else plain,)


def _plain(text: str) -> str:
    """Without C's escapes."""
    if "\\" not in text:
        return text
    return text.encode().decode("unicode_escape", errors="replace").encode("latin-1", errors="replace").decode(errors="replace")


@dataclass(frozen=True, slots=True)
class StepResult:
    """How one step ended. ``output`` is the end of what it printed, at most 2 kB, empty where all went well."""

    index: int
    code: int = 0
    output: str = ""


class Malformed(ValueError):
    """A record of ours that is not as a program writes it."""


_NUMBERS = {"ok": 1, "failed": 2, "back": 1, "exit": 1}
"""How many numbers records of a kind begin with; after those of ``failed`` and ``back`` comes base64."""


class Records:
    """Reads the lines of one program's channel. What has no nonce is noise, but after a record ``lines KIND``.

    ``begun``: whether any record has come; ``is_record``: whether the last line was one, or belonged to one.
    """

    def __init__(self, nonce: str) -> None:
        self._nonce, self._kind = nonce, ""
        self.begun = self.is_record = False

    def read(self, line: str) -> list[str] | None:
        """Return the words of the record that a line is, its kind first; None for a line that is none. Raises Malformed."""
        words = line.split("\t")
        ours = words[0] == self._nonce and len(words) > 1
        self.is_record = ours or bool(self._kind)
        self.begun = self.begun or self.is_record
        if not ours:
            return [self._kind, *words] if self._kind else None
        _check(words[1:])
        self._kind = words[2] if words[1] == "lines" else ""
        return None if self._kind else words[1:]


def _check(words: Sequence[str]) -> None:
    """Raises Malformed unless a record has the words that its kind needs."""
    kind, *rest = words
    count = _NUMBERS.get(kind, 0)
    wrong = len(rest) < count or not all(word.isascii() and word.isdigit() for word in rest[:count])
    if wrong or not (rest or kind == "end"):
        raise Malformed(f"a malformed record {kind!r}")
    if kind in ("failed", "back"):
        try:
            base64.b64decode("".join(rest[count:count + 1]))
        except ValueError:
            raise Malformed(f"a malformed record {kind!r}") from None


def step_result(words: Sequence[str]) -> StepResult:
    """A record ``ok`` or ``failed`` as a result."""
    if words[0] == "ok":
        return StepResult(int(words[1]))
    output = base64.b64decode(words[3]).decode(errors="replace") if len(words) > 3 else ""
    return StepResult(int(words[1]), int(words[2]), output.strip())
