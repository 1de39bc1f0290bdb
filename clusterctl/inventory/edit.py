"""Taking a host out of an inventory file: its lines go, all others stay as they are, comments too."""

from __future__ import annotations

from pathlib import Path

import yaml

from clusterctl.errors import InputError, Refused
from clusterctl.inventory.loader import read
from clusterctl.storage import write_whole


def remove_host(path: Path, name: str) -> bool:
    """Take a host out of every group of a file; False where no group names it. Raises Refused where lines do not say enough.

    What is written is read back before: it must be the same inventory without that host.
    """
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    spans = sorted(_spans(root, name)) if isinstance(root, yaml.MappingNode) else []
    if not spans:
        return False
    lines = text.splitlines(keepends=True)
    for start, end in reversed(spans):
        del lines[start:end]
    _check(path, "".join(lines), name)
    write_whole(path, "".join(lines).encode(), mode=path.stat().st_mode & 0o777)
    return True


def _spans(group: yaml.MappingNode, name: str) -> list[tuple[int, int]]:
    """The lines (from, to) of a host below all groups of a mapping, whatever they are called."""
    found = []
    for key, value in group.value:
        if not isinstance(value, yaml.MappingNode):
            continue
        if key.value == "hosts":
            found += _hosts(value, name)
        else:
            found += _spans(value, name)
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


def _check(path: Path, text: str, name: str) -> None:
    before = read(path).cluster
    trial = path.with_name(f".{path.name}.trial")
    write_whole(trial, text.encode(), mode=path.stat().st_mode & 0o777)
    try:
        after = read(trial).cluster
    except InputError as error:
        raise Refused(f"without {name} it is no inventory any more: {error.message}", where=str(path),
                      hint=f"take {name} out by hand") from None
    finally:
        trial.unlink(missing_ok=True)
    if [host.name for host in after.hosts] != [host.name for host in before.hosts if host.name != name]:
        raise Refused(f"taking out the lines of {name} does not take out {name} alone (a range?)", where=str(path),
                      hint=f"take {name} out by hand")
