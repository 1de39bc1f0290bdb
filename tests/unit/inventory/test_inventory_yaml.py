"""Anchors, aliases, merge keys and tags: taken, and bounded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import yaml

from clusterctl.errors import InputError, Problems
from clusterctl.inventory import load
from clusterctl.inventory.document import Node, bare, parse
from clusterctl.inventory.findings import Diagnostics


def tree(text: str) -> Node:
    findings = Diagnostics()
    node = parse(text.encode(), "x", findings)
    findings.raise_problems()
    assert node is not None
    return node


SAME = [
    "{a: &a [1, 2], b: *a, c: {d: *a}}", "{a: &a text, b: *a}", "{a: &a {x: 1}, b: {<<: *a, y: 2}}", "{a: &a {x: 1}, b: {y: 2, <<: *a}}",
    "{a: &a {x: 1}, b: {<<: *a, x: 2}}", "{a: &a {x: 1}, b: {x: 2, <<: *a}}", "{a: &a {x: 1}, b: &b {<<: *a, z: 3}, c: {<<: *b}}",
    "{a: &a {x: 1}, b: &b {y: 1}, c: {<<: [*a, *b]}}", "{b: {<<: {x: 1}}}", "{a: &a [&b x, *b], c: [*a, *b]}",
    "{b: {'<<': 1}}", "a: &a !!str 1\nb: *a", "{a: &a , b: *a}", "{a: {<<: []}}",
]


@pytest.mark.parametrize("text", SAME)
def test_the_same_values_as_by_the_library(text: str) -> None:
    assert bare(tree(text)) == yaml.safe_load(text)


def test_of_several_maps_that_are_merged_the_first_wins() -> None:
    assert bare(tree("{a: &a {key: one}, b: &b {key: two, other: two}, c: {<<: [*a, *b]}, d: {<<: [*b, *a]}}")) == {
        "a": {"key": "one"}, "b": {"key": "two", "other": "two"}, "c": {"key": "one", "other": "two"}, "d": {"key": "two", "other": "two"}}


@pytest.mark.parametrize(("text", "value"), [("!unsafe '{{ x }}'", "{{ x }}"), ("!unsafe 5", "5"), ("!unsafe [a]", ["a"]), ("!unsafe {a: b}", {"a": "b"})])
def test_unsafe_is_plain(text: str, value: object) -> None:
    assert bare(tree(f"{{a: {text}}}")) == {"a": value}


WRONG = [
    ("{a: *b}", "inventory.alias-unknown", "x:1:5"), ("{a: &a [*a]}", "inventory.alias-recursive", "x:1:9"),
    ("{a: &a {b: {c: *a}}}", "inventory.alias-recursive", "x:1:16"), ("{a: {<<: 1}}", "inventory.merge-key", "x:1:6"),
    ("{a: {<<: [1]}}", "inventory.merge-key", "x:1:6"), ("{a: !include b}", "inventory.tag", "x:1:5"), ("{a: !vault [x]}", "inventory.tag", "x:1:5"),
    ("a0: &a0 x\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 30)), "inventory.too-deep", "x:21:12"),
]


@pytest.mark.parametrize(("text", "code", "where"), WRONG)
def test_what_is_refused(text: str, code: str, where: str) -> None:
    with pytest.raises(InputError) as caught:
        tree(text)
    assert (caught.value.code, caught.value.where) == (code, where)


@pytest.mark.parametrize("one", ["[{}]", "{{{}}}"], ids=["lists", "maps"])
@pytest.mark.parametrize("merge", [False, True])
def test_laughs_are_refused_at_once(tmp_path: Path, one: str, merge: bool) -> None:
    key = "<<: " if merge else ""
    lines = ["a0: &a0 {" + ", ".join(f"k{number}: x" for number in range(10)) + "}"]
    for number in range(1, 18):
        items = [f"{key}*a{number - 1}" if one[0] == "[" or merge else f"{letter}: *a{number - 1}" for letter in "abcdefghi"]
        lines.append(f"a{number}: &a{number} {one.format(', '.join(f'{{{item}}}' if merge and one[0] == '[' else item for item in items))}")
    path = tmp_path / "i.yml"
    path.write_text("\n".join(lines) + "\n")
    begin = time.process_time()
    with pytest.raises((InputError, Problems)) as caught:
        load(path)
    assert time.process_time() - begin < 2
    codes = [error.code for error in caught.value.errors] if isinstance(caught.value, Problems) else [caught.value.code]
    assert merge or "inventory.aliases-too-many" in codes


def test_a_wrong_value_behind_an_alias_is_told_where_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "i.yml"
    path.write_text("all:\n  vars:\n    p: &p 70000\ncontrol_plane:\n  hosts:\n    a: {ip: 192.0.2.1, ansible_port: *p}\n")
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.where == f"{path}:3:8" and caught.value.message.startswith("control_plane.hosts.a.ansible_port: ")
