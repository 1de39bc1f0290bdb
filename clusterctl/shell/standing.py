"""The end of a program that only looks: what stands is asked once for each state of the files that its answers are made of."""

from __future__ import annotations

import hashlib
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

Asked = Mapping[str, Sequence[str]]
"""The arguments of each kind of probe."""

FILES = ("stat", "sha", "text")
"""The probes of a path. What is in it is the answer to all but the first."""

KINDS = frozenset((*FILES, "program", "unit", "package", "user", "running"))
"""The probes whose answers stand until somebody writes to a file; the others are always asked."""

PASSING = ("/proc/", "/sys/")
"""Where files change without a trace in their times."""

UNIT_LINKS = ("/run/systemd/units/invocation:", "/etc/systemd/system/multi-user.target.wants/")
"""The links by which systemd keeps that a unit was started, and that it starts at boot."""

MARK = "/etc/clusterctl/cluster"
"""The file in which a machine of a cluster has the cluster's identity."""

OWNERS = ("/etc/passwd", "/etc/group")
RUNNING = (MARK, "/etc/clusterctl/images/*")
PACKAGES = ("/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite")
"""Where dpkg and rpm keep what is installed. Each query of rpm changes the ctime of the log beside its database."""


def quote(word: str) -> str:
    """A word for sh, quoted. Raises ValueError for a NUL, which no shell can carry."""
    if "\0" in word:
        raise ValueError("a NUL cannot be passed to a shell")
    return shlex.quote(word)


def observations(asked: Asked) -> list[str]:
    """A line of sh for each kind that something is asked of."""
    return [" ".join((f"observe_{kind}", *map(quote, arguments))) for kind, arguments in asked.items() if arguments]


def look(asked: Asked) -> list[str]:
    """The lines that ask."""
    passing, functions = asked, []
    # To know of a few things whether they are as they were takes as long as to ask for them.
    if "facts" in asked:
        passing = {kind: [word for word in words if not _stands(kind, word)] for kind, words in asked.items()}
        functions = _standing({kind: [word for word in words if _stands(kind, word)] for kind, words in asked.items()})
    # A packet for each record would cost both sides more than to look.
    ask = [*observations(passing), *(['noted "standing-$asked" standing'] if functions else []), "emit end"]
    return [*functions, "look() {", *ask, "}", "said=$(look 3>&1 >/dev/null) || exit 1", "printf '%s\\n' \"$said\" >&3"]


def _stands(kind: str, argument: str) -> bool:
    return kind in KINDS and not argument.startswith(PASSING)


def _standing(asked: Asked) -> list[str]:
    """Functions of sh: ``standing`` asks; ``made_of`` and ``places`` add the files that its answers are made of to a command.

    A path is there once, whatever is asked of it: in the function of all paths of which the same is asked.
    """
    kinds: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for kind in FILES:
        for path in dict.fromkeys(asked.get(kind, ())):
            kinds[path] += (kind,)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path, of in kinds.items():
        groups[of].append(path)
    names = {of: "_".join(("of", *of)) for of in groups}
    files = [" ".join((*(names[of] for of in groups if kind in of), f"observe_{kind}")) for kind in FILES if asked.get(kind)]
    functions = [_function(names[of], (), map(quote, paths)) for of, paths in groups.items()]
    questions = [*files, *observations({kind: words for kind, words in asked.items() if kind not in FILES})]
    if not questions:
        return []
    only_places = ("stat",)
    links = (quote(place + unit) for place in UNIT_LINKS for unit in asked.get("unit", ()))
    return [f"asked={hashlib.sha256(repr((functions, questions)).encode()).hexdigest()[:32]}", *functions,
            _function("made_of", (name for of, name in names.items() if of != only_places), _contents(asked)),
            _function("places", (name for of, name in names.items() if of == only_places), links),
            "standing() {", *questions, "}"]


def _function(name: str, before: Iterable[str], words: Iterable[str]) -> str:
    return " ".join((f"{name}() {{", *before, '"$@"', *words)) + "; }"


def _contents(asked: Asked) -> list[str]:
    """Files beside those that are asked for, as words for sh."""
    found = [f"{quote(folder)}/.stamp" for folder in asked.get("program", ())]
    for kinds, paths in ((("stat", "user"), OWNERS), (("package",), PACKAGES), (("running",), RUNNING)):
        if any(asked.get(kind) for kind in kinds):
            found += paths
    return found
