"""A host is taken out of a file: its lines go, all others stay; where lines do not say enough, nothing is changed."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from clusterctl.errors import ClusterctlError, InputError, Problems, Refused
from clusterctl.inventory import load
from clusterctl.inventory.edit import remove_host
from clusterctl.inventory.sources import Sources

CONTROL_PLANE = """\
    control_plane:
      hosts:
        cp-1:
          ansible_host: 192.0.2.11
"""


def inventory(workers: str, *, more: str = "", before: str = "") -> str:
    """An inventory whose workers' part is this, indented by nothing."""
    body = "".join(f"    {line}" if line.strip() else line for line in dedent(workers).splitlines(keepends=True))
    return f"{before}all:\n  children:\n{CONTROL_PLANE}{body}{more}"


GOES = [
    ("the last of a group that keeps others",
     """\
     workers:
       hosts:
         w-1: {ansible_host: 192.0.2.21}
         w-2: {ansible_host: 192.0.2.22}
     """, [3]),
    ("the first, with comments around it",
     """\
     workers:
       hosts:  # in rack 3
         # the big one
         w-2:  # goes soon
           ansible_host: 192.0.2.22
           # its zone
           clusterctl_labels:
             zone: b

         # the small one
         w-1: {ansible_host: 192.0.2.21}
     """, [3, 4, 5, 6, 7]),
    ("a text over several lines",
     """\
     workers:
       hosts:
         w-2:
           ansible_host: 192.0.2.22
           ansible_ssh_common_args: >-
             -o ProxyJump=a
             -o ProxyJump=b
           # of the next one
         w-1: {ansible_host: 192.0.2.21}
     """, [2, 3, 4, 5, 6]),
    ("a plain text over several lines at the end of the file",
     """\
     workers:
       hosts:
         w-1: {ansible_host: 192.0.2.21}
         w-2:
           ansible_host: 192.0.2.22
           ansible_ssh_common_args: -o ProxyJump=a
             -o ProxyJump=b
     """, [3, 4, 5, 6]),
    ("a quoted text over several lines",
     """\
     workers:
       hosts:
         w-2:
           ansible_host: 192.0.2.22
           ansible_ssh_common_args: "-o ProxyJump=a
             -o ProxyJump=b"
         w-1: {ansible_host: 192.0.2.21}
     """, [2, 3, 4, 5]),
    ("values in flow style over several lines",
     """\
     workers:
       hosts:
         w-2: {
           ansible_host: 192.0.2.22,
           clusterctl_labels: {zone: b}
         }
         w-1: {ansible_host: 192.0.2.21}
     """, [2, 3, 4, 5]),
    ("lists",
     """\
     workers:
       hosts:
         w-2:
           ansible_host: 192.0.2.22
           clusterctl_taints:
             - dedicated=batch:NoSchedule
             - other=x:NoExecute
         w-1: {ansible_host: 192.0.2.21}
     """, [2, 3, 4, 5, 6]),
    ("a quoted name",
     """\
     workers:
       hosts:
         "w-2": {ansible_host: 192.0.2.22}
         w-1: {ansible_host: 192.0.2.21}
     """, [2]),
    ("several groups",
     """\
     workers:
       hosts:
         w-1: {ansible_host: 192.0.2.21}
         w-2: {ansible_host: 192.0.2.22}
     rack_b:
       children:
         inner:
           hosts:
             w-2:
             w-1:
     """, [3, 8]),
    ("what is called so and is no host",
     """\
     workers:
       hosts:
         w-1: {ansible_host: 192.0.2.21}
         w-2: {ansible_host: 192.0.2.22}
       vars:
         w-2: no host
         ours:
           hosts: {w-2: no host either}
     """, [3]),
]


def test_a_linked_inventory_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real/cluster.yaml", tmp_path / "cluster.yaml"
    real.parent.mkdir()
    real.write_text(inventory(GOES[0][1]))
    link.symlink_to(real)
    assert remove_host(link, "w-2")
    assert link.is_symlink() and "w-2" not in {host.name for host in load(real).hosts}


@pytest.mark.parametrize(("workers", "lines"), [row[1:] for row in GOES], ids=[row[0] for row in GOES])
def test_its_lines_go_and_all_others_stay(tmp_path: Path, workers: str, lines: list[int]) -> None:
    """``lines``: those of the workers' part that go: its name is 0, its hosts begin with 2."""
    path = tmp_path / "cluster.yaml"
    path.write_text(text := inventory(workers))
    path.chmod(0o640)
    before = load(path)
    assert remove_host(path, "w-2")
    first = 2 + CONTROL_PLANE.count("\n")
    kept = [line for number, line in enumerate(text.splitlines(keepends=True)) if number - first not in lines]
    assert path.read_text() == "".join(kept)
    assert load(path) == before.without(["w-2"])
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]
    assert not remove_host(path, "w-2"), "it is gone already"


def test_the_last_host_of_a_group(tmp_path: Path) -> None:
    """An empty group is none: Ansible and we read it as such."""
    path = tmp_path / "cluster.yaml"
    path.write_text(inventory("workers:\n  hosts:\n    w-2: {ansible_host: 192.0.2.22}\n", more="    # the end\n"))
    assert remove_host(path, "w-2")
    assert path.read_text() == inventory("workers:\n  hosts:\n", more="    # the end\n")
    assert [host.name for host in load(path).hosts] == ["cp-1"]


@pytest.mark.parametrize("text", [
    inventory("workers:\n  hosts:\n    w-2: {ansible_host: 192.0.2.22}\n").replace("\n", "\r\n"),
    inventory("workers:\n  hosts:\n    w-2: {ansible_host: 192.0.2.22}").rstrip("\n"),
    "\ufeff" + inventory("workers:\n  hosts:\n    w-2: {ansible_host: 192.0.2.22}\n", before="# Zürich\n---\n"),
], ids=["CRLF", "no newline at the end", "a byte order mark"])
def test_all_other_bytes_stay(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_bytes(text.encode())
    assert remove_host(path, "w-2")
    gone = next(line for line in text.split("\n") if "w-2:" in line)
    left = path.read_bytes().decode()
    assert left in (text.replace(f"{gone}\n", ""), text.replace(gone, ""))


FLOW = inventory("workers:\n  hosts: {w-1: {ansible_host: 192.0.2.21}, w-2: {ansible_host: 192.0.2.22}}\n")
ONLY = "all:\n  children:\n    control_plane:\n      hosts:\n        w-2:\n          ansible_host: 192.0.2.22\n"
NAMED_TWICE = inventory("workers:\n  hosts:\n    w-1: {ansible_host: 192.0.2.21}\n    w-2: {ansible_host: 192.0.2.22}\nrack:\n  hosts: {w-2: {}}\n")
ETCD_IS_EMPTY = inventory("etcd:\n  hosts:\n    w-2: {ansible_host: 192.0.2.22}\n")


@pytest.mark.parametrize(("text", "words", "kind"), [
    (FLOW, "stands in a line with others", Refused),
    (NAMED_TWICE, "stands in a line with others", Refused),
    (ETCD_IS_EMPTY, "does not take out w-2 alone", Refused),
    (ONLY, "no inventory any more", Refused),
    ("a: [\n", "is not YAML", InputError),
], ids=["flow style", "flow style in a second group", "others would become members of etcd", "the last host of all", "no YAML"])
def test_refusals_change_nothing(tmp_path: Path, text: str, words: str, kind: type[ClusterctlError]) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises((kind, Problems)) as error:
        remove_host(path, "w-2")
    assert words in str(error.value) and ".trial" not in str(error.value)
    assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_range_is_told_to_be_taken_apart_by_hand(tmp_path: Path) -> None:
    """No line is the host's own: nothing is changed, and that is no success."""
    path = tmp_path / "cluster.yaml"
    path.write_text(text := inventory("workers:\n  hosts:\n    w-[1:3]:\n"))
    for number in (1, 2, 3):
        (tmp_path / "host_vars").mkdir(exist_ok=True)
        (tmp_path / f"host_vars/w-{number}.yml").write_text(f"ansible_host: 192.0.2.2{number}\n")
    with pytest.raises(Refused, match="range"):
        remove_host(path, "w-2")
    assert path.read_text() == text


def test_a_host_that_no_group_names(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text := inventory("workers:\n  hosts:\n    w-1: {ansible_host: 192.0.2.21}\n"))
    assert not remove_host(path, "w-2")
    assert path.read_text() == text


def test_a_file_that_may_be_executed(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(inventory("workers:\n  hosts:\n    w-1: {ansible_host: 192.0.2.21}\n    w-2: {ansible_host: 192.0.2.22}\n"))
    path.chmod(0o755)
    assert remove_host(path, "w-2")
    assert path.stat().st_mode & 0o777 == 0o755 and list(tmp_path.iterdir()) == [path]


def test_a_program_is_no_file_to_edit(tmp_path: Path) -> None:
    path = tmp_path / "inventory.sh"
    path.write_text(text := "#!/bin/sh\ncat <<'END'\n{}\nEND\n")
    path.chmod(0o755)
    with pytest.raises(Refused, match="program"):
        remove_host(path, "w-2")
    assert path.read_text() == text


INI = """\
# before
w-2 ansible_host=192.0.2.22 # no section yet

[control_plane]
cp-1 ansible_host=192.0.2.11

[workers]
w-1 ansible_host=192.0.2.21  # the small one
# goes soon
w-2

[rack:vars]
w-2=no host
[rack]
w-1
  w-2:2222 zone=b
[site:children]
rack
"""


def test_the_lines_of_a_host_in_ini_go(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(INI)
    before = load(path)
    assert remove_host(path, "w-2") == [path]
    gone = ("w-2 ansible_host", "w-2\n", "  w-2:2222")
    assert path.read_text() == "".join(line for line in INI.splitlines(keepends=True) if not line.startswith(gone))
    assert load(path) == before.without(["w-2"]) and not remove_host(path, "w-2")


def test_a_range_in_ini_is_not_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text(text := "[control_plane]\n192.0.2.1\n[workers]\n192.0.2.[2:4]\n")
    with pytest.raises(Refused) as error:
        remove_host(path, "node-192-0-2-3")
    assert error.value.code == "inventory.edit-range" and path.read_text() == text


@pytest.mark.parametrize(("written", "name"), [("W_2", "w-2"), ("192.0.2.22", "node-192-0-2-22"), ("W2.example.com", "w2.example.com")])
@pytest.mark.parametrize("form", ["[control_plane]\na ansible_host=192.0.2.1\n[workers]\n{} ansible_host=192.0.2.22\n",
                                  "control_plane: {{hosts: {{a: {{ip: 192.0.2.1}}}}}}\nworkers:\n  hosts:\n    {}: {{ansible_host: 192.0.2.22}}\n"])
def test_a_host_that_is_written_otherwise_than_its_node(tmp_path: Path, form: str, written: str, name: str) -> None:
    path = tmp_path / "hosts"
    path.write_text(form.format(written))
    assert remove_host(path, name) == [path]
    assert [host.name for host in load(path).hosts] == ["a"] and written not in path.read_text()


def test_all_files_that_name_a_host_are_edited(tmp_path: Path) -> None:
    folder = tmp_path / "inventory"
    folder.mkdir()
    (folder / "1.ini").write_text("[control_plane]\ncp-1 ansible_host=192.0.2.1\n[workers]\nw-1 ansible_host=192.0.2.2\n")
    (folder / "2.yml").write_text("rack:\n  hosts:\n    w-1:\n    cp-1:\n")
    (folder / "3.ini").write_text("[zone]\ncp-1\n")
    other = tmp_path / "other.ini"
    other.write_text("[gpu]\nw-1\n")
    sources = Sources((folder, other))
    assert remove_host(sources, "w-1") == [folder / "1.ini", folder / "2.yml", other]
    assert [host.name for host in load(sources).hosts] == ["cp-1"]
    assert not any("w-1" in path.read_text() for path in (*folder.iterdir(), other))


def test_a_host_of_a_program_beside_files(tmp_path: Path) -> None:
    (tmp_path / "a.ini").write_text("[control_plane]\ncp-1 ansible_host=192.0.2.1\n")
    program = tmp_path / "b"
    program.write_text('#!/bin/sh\necho \'{"_meta": {"hostvars": {"w-1": {"ip": "192.0.2.2"}}}, "workers": ["w-1"]}\'\n')
    program.chmod(0o755)
    with pytest.raises(Refused) as error:
        remove_host(tmp_path, "w-1")
    assert error.value.code == "inventory.edit-not-a-file" and error.value.where == str(program)


def test_stdin_is_no_file_to_edit(tmp_path: Path) -> None:
    with pytest.raises(Refused) as error:
        remove_host(Path("-"), "w-1")
    assert error.value.code == "inventory.edit-not-a-file" and error.value.where == "stdin"


def test_what_an_anchor_is_used_for_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "hosts.yml"
    path.write_text("control_plane:\n  hosts:\n    a: &a {ansible_host: 192.0.2.1}\nworkers:\n  hosts:\n    b:\n      <<: *a\n"
                    "      ansible_host: 192.0.2.2\n    c:\n      <<: *a\n      ansible_host: 192.0.2.3\nsame: {children: {workers: }}\n")
    assert remove_host(path, "b") and [host.name for host in load(path).hosts] == ["a", "c"]
    text = path.read_text()
    with pytest.raises(Refused):
        remove_host(path, "a")
    assert path.read_text() == text
