"""Taking a host out of an inventory file: its lines go, all others stay as they are, comments too."""

from __future__ import annotations

from pathlib import Path

import yaml

from clusterctl.errors import ClusterctlError, Refused
from clusterctl.inventory.dynamic import is_program
from clusterctl.inventory.loader import read
from clusterctl.model import Cluster
from clusterctl.storage import write_whole


def remove_host(path: Path, name: str) -> bool:
    """Take a host out of every group of a file; False where no group names it. Raises what ``without_host`` does."""
    text = without_host(path, name)
    if text is None:
        return False
    # A link stays one: the file that it names is written.
    write_whole(path.resolve(), text.encode(), mode=path.stat().st_mode & 0o777)
    return True


def without_host(path: Path, name: str) -> str | None:
    """The file's text without a host; None where no group names it. Nothing is changed.

    It was read back: it is the same inventory without that host. Raises Refused where lines do not say enough, InputError.
    """
    if is_program(path):
        raise Refused("is a program: it cannot be edited", where=str(path), hint=f"let it no longer print {name}")
    before = read(path).cluster
    # Not as text: its line ends must stay what they are.
    text = path.read_bytes().decode("utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    spans = sorted(_spans(root, name)) if isinstance(root, yaml.MappingNode) else []
    if not spans:
        if all(host.name != name for host in before.hosts):
            return None
        raise Refused(f"no line is that of {name} alone (a range?)", where=str(path), hint=f"take {name} out by hand")
    lines = text.splitlines(keepends=True)
    for start, end in reversed(spans):
        del lines[start:end]
    _check(path, before, "".join(lines), name)
    return "".join(lines)


def _spans(groups: yaml.MappingNode, name: str) -> list[tuple[int, int]]:
    """The lines (from, to) of a host in these groups and in those below them. What lies in variables is no group."""
    found = []
    for _, group in groups.value:
        for key, value in group.value if isinstance(group, yaml.MappingNode) else ():
            if isinstance(value, yaml.MappingNode):
                found += _hosts(value, name) if key.value == "hosts" else []
                found += _spans(value, name) if key.value == "children" else []
    return found


def _hosts(hosts: yaml.MappingNode, name: str) -> list[tuple[int, int]]:
    found = []
    for key, value in hosts.value:
        if key.value != name:
            continue
        if hosts.flow_style:
            raise Refused("the host stands in a line with others", where=f"line {key.start_mark.line + 1}",
                          hint=f"take {name} out by hand")
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


def _check(path: Path, before: Cluster, text: str, name: str) -> None:
    trial = path.with_name(f".trial.{path.name}")  # What its name ends in says whether it may be a program.
    write_whole(trial, text.encode(), mode=path.stat().st_mode & 0o777)
    try:
        after = read(trial).cluster
    except ClusterctlError as error:
        said = error.message.replace(str(trial), str(path))
        raise Refused(f"without {name} it is no inventory any more: {said}", where=str(path),
                      hint=f"take {name} out by hand") from None
    finally:
        trial.unlink(missing_ok=True)
    if after != before.without([name]):
        raise Refused(f"taking out the lines of {name} does not take out {name} alone (a range?)", where=str(path),
                      hint=f"take {name} out by hand")
