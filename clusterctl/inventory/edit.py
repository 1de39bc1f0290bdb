"""Taking a host out of inventory files: its lines go, all others stay as they are, comments too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from clusterctl.cluster.model import Cluster
from clusterctl.errors import ClusterctlError, Refused
from clusterctl.inventory.dynamic import is_program
from clusterctl.inventory.ini import looks_like_ini
from clusterctl.inventory.loader import read
from clusterctl.inventory.sources import Sources, is_pipe, shown
from clusterctl.local.storage import write_whole


def remove_host(given: Path | Sources, name: str) -> list[Path]:
    """Take a host out of every group of the files; return those that named it. Raises what ``without_host`` does."""
    texts = without_host(given, name)
    for path, text in texts.items():
        # A link stays one: the file that it names is written.
        write_whole(path.resolve(), text, mode=path.stat().st_mode & 0o777)
    return list(texts)


def without_host(given: Path | Sources, name: str) -> dict[Path, bytes]:
    """The contents without a host of the files that name it; none where no group names it. Nothing is changed.

    They were read back: they are the same inventory without that host. Raises Refused where lines do not say enough, InputError.
    """
    sources = Sources.of(given)
    files = sources.files()
    fixed = [path for path in files if is_pipe(path) or is_program(path)]
    if len(fixed) == len(files):
        raise _not_a_file(fixed[0], name)
    before = read(sources)
    written = before.written.get(name, name)
    texts = {path: text for path in files if path not in fixed and (text := _without(path, written, name)) is not None}
    if not texts:
        if all(host.name != name for host in before.cluster.hosts):
            return {}
        raise _not_a_file(fixed[0], name) if fixed else Refused(
            f"no line is that of {name} alone (a range?)", where=str(sources), hint=f"take {name} out by hand",
            code="inventory.edit-range")
    _check(sources, before.cluster, texts, name)
    return texts


def _not_a_file(path: Path, name: str) -> Refused:
    what = "no file" if is_pipe(path) else "a program"
    return Refused(f"is {what}: it cannot be edited", where=shown(path), hint=f"let it no longer print {name}",
                   code="inventory.edit-not-a-file")


def _without(path: Path, written: str, name: str) -> bytes | None:
    """A file's content without the lines of a host; None where no group in it names the host alone."""
    # Not as text: its line ends must stay what they are.
    text = path.read_bytes().decode("utf-8")
    lines = text.splitlines(keepends=True)
    if looks_like_ini(text):
        spans = set(_ini_spans(lines, written))
    else:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        spans = set(_spans(root, written, name)) if isinstance(root, yaml.MappingNode) else set()
    for start, end in sorted(spans, reverse=True):
        del lines[start:end]
    return "".join(lines).encode() if spans else None


def _ini_spans(lines: list[str], written: str) -> Iterator[tuple[int, int]]:
    """The lines of a host in INI's sections of hosts."""
    hosts = True
    for number, line in enumerate(map(str.strip, lines)):
        if line.startswith("["):
            hosts = ":" not in line.partition("]")[0]
        elif hosts and line and _alone(line.split()[0]) == written:
            yield number, number + 1


def _alone(pattern: str) -> str:
    """A host's name without a port."""
    name, _, port = pattern.partition(":")
    return name if port.isdigit() else pattern


def _spans(groups: yaml.MappingNode, written: str, name: str) -> list[tuple[int, int]]:
    """The lines (from, to) of a host in these groups and in those below them. What lies in variables is no group."""
    found = []
    for _, group in groups.value:
        for key, value in group.value if isinstance(group, yaml.MappingNode) else ():
            if isinstance(value, yaml.MappingNode):
                found += _hosts(value, written, name) if key.value == "hosts" else []
                found += _spans(value, written, name) if key.value == "children" else []
    return found


def _hosts(hosts: yaml.MappingNode, written: str, name: str) -> list[tuple[int, int]]:
    found = []
    for key, value in hosts.value:
        if _alone(key.value) != written:
            continue
        if hosts.flow_style:
            raise Refused("the host stands in a line with others", where=f"line {key.start_mark.line + 1}",
                          hint=f"take {name} out by hand", code="inventory.edit-shared-line")
        found.append((key.start_mark.line, _end(key, value)))
    return found


def _end(key: yaml.Node, value: yaml.Node) -> int:
    """The line after an entry's last one: the end mark of a block lies where the next thing begins, comments in between."""
    last = key.end_mark.line
    nodes = [value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.ScalarNode):
            # A text of several lines ends at the beginning of the line after it.
            end = node.end_mark.line - (1 if node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line else 0)
            last = max(last, end)
        elif isinstance(node, yaml.MappingNode | yaml.SequenceNode):
            last = max(last, node.start_mark.line if not node.flow_style else node.end_mark.line)
            nodes += [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
    return last + 1


def _check(sources: Sources, before: Cluster, texts: Mapping[Path, bytes], name: str) -> None:
    where = ", ".join(map(str, texts))
    try:
        after = read(replace(sources, instead=texts)).cluster
    except ClusterctlError as error:
        raise Refused(f"without {name} it is no inventory any more: {error.message}", where=where,
                      hint=f"take {name} out by hand", code="inventory.edit-breaks") from None
    if after != before.without([name]):
        raise Refused(f"taking out the lines of {name} does not take out {name} alone (a range?)", where=where,
                      hint=f"take {name} out by hand", code="inventory.edit-range")
