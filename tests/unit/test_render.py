"""Values are data: whatever they hold, they reach a unit file and YAML as they are."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import re
from pathlib import Path

import jinja2
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterctl.components import render as render_module
from clusterctl.components.render import render, unit_word, yaml_value

HOSTILE = ["", " ", "a b", "a'b", 'a"b', "a;b", "\\", "\\\\n", "%", "%i", "%%", "$", "$HOME", "${HOME}", "$$", "{{ 7*7 }}", "`id`", "$(id)",
           "#x", "-", "@", "!", "\u202egnp", "🐧", "é\u0085x", "\u2028", "a\u00a0b", '"', "'", "x\\", "\\x41", "\\ ", "\ufeff"]
LINE = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\u0085"))
WHITE = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t"}


def systemd_words(line: str) -> list[str]:
    """How systemd splits a command line: quotes, escapes, then specifiers and variables (systemd.syntax(7), extract-word.c)."""
    words, word, quoted, started, position = [], "", "", False, 0
    while position < len(line):
        character = line[position]
        position += 1
        if character == "\\":
            word, started, position = word + WHITE[line[position]], True, position + 1
        elif quoted:
            quoted, word = ("", word) if character == quoted else (quoted, word + character)
        elif character in "\"'":
            quoted, started = character, True
        elif character in " \t":
            if started:
                words.append(word)
            word, started = "", False
        else:
            word, started = word + character, True
    assert not quoted
    return [*words, word] if started else words


def expanded(word: str) -> str:
    """Specifiers and variables; an odd one would be something else than text."""
    for character in "%$":
        assert not re.search(rf"(?<!\{character})(\{character}\{character})*\{character}(?!\{character})", word)
        word = word.replace(character * 2, character)
    return word


@given(st.lists(LINE, max_size=4))
@settings(max_examples=150, deadline=None)
def test_unit_words(values: list[str]) -> None:
    line = " ".join(["/bin/x", *(f"--flag={unit_word(value)}" for value in values), *map(unit_word, values)])
    assert "\n" not in line
    assert [expanded(word) for word in systemd_words(line)] == ["/bin/x", *(f"--flag={value}" for value in values), *values]


def systemd() -> ctypes.CDLL | None:
    found = sorted(Path("/usr/lib").glob("*/systemd/libsystemd-shared-*.so")) + sorted(Path("/usr/lib/systemd").glob("libsystemd-shared-*.so"))
    try:
        return ctypes.CDLL(str(found[0])) if found else None
    except OSError:
        return None


@pytest.mark.parametrize("value", HOSTILE)
def test_systemd_itself_reads_it_so(value: str) -> None:
    library = systemd()
    if library is None or not hasattr(library, "extract_first_word"):
        pytest.skip("no systemd with its parser here")
    extract = library.extract_first_word
    extract.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_char_p), ctypes.c_char_p, ctypes.c_int]
    line = ctypes.create_string_buffer(f"--flag={unit_word(value)} next".encode())
    rest, word = ctypes.c_void_p(ctypes.addressof(line)), ctypes.c_char_p()
    # EXTRACT_CUNESCAPE and EXTRACT_UNQUOTE, as load-fragment.c gives them; their bits moved between versions.
    unquote = 1 << 5 if b"252" in library._name.encode() else None
    if unquote is None:
        pytest.skip("another systemd than the one whose flags are known here")
    assert extract(ctypes.byref(rest), ctypes.byref(word), None, 1 << 1 | unquote) == 1
    assert word.value is not None and expanded(word.value.decode()) == f"--flag={value}"


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x7f", "a\rb", "\x1b[0m", "a\tb"])
def test_control_characters_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="control characters"):
        unit_word(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=("Cs",)))


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8))
@settings(max_examples=200, deadline=None)
def test_yaml_values(value: object) -> None:
    text = yaml_value(value)
    assert yaml.safe_load(f"key: {text}\nnext: 1\n") == {"key": value, "next": 1}
    assert json.loads(text) == value


@pytest.mark.parametrize("value", [*HOSTILE, "\x7f\x80\x9f\ufffe\uffff", "no", "1.10", "0x10", "~", "2001-01-01", "a: b", "- x", "*a", "&a", "!!python/x"])
def test_hostile_yaml(value: str) -> None:
    assert yaml.safe_load(yaml_value([value])) == [value] == json.loads(yaml_value([value]))


def templates() -> list[str]:
    return sorted(str(path.relative_to(render_module.folder())) for path in render_module.folder().rglob("*.j2"))


@pytest.mark.parametrize("name", templates())
def test_a_missing_value_is_an_error(name: str) -> None:
    source = (render_module.folder() / name).read_text()
    if re.search(r"\{\{|\{%", source):
        with pytest.raises(jinja2.UndefinedError):
            render(name)
    else:
        assert render(name)


def test_values_are_not_rendered_again() -> None:
    text = render("kube-proxy/kube-proxy.service.j2") if "{{" not in (render_module.folder() / "kube-proxy/kube-proxy.service.j2").read_text() else b""
    assert b"{{" not in text
    canary = "{{ 7*7 }}{% raw %}"
    found = render("kubeconfig/kubeconfig.j2", cluster=canary, server="https://x", authority="/a", user="u", certificate="/c", key="/k")
    assert yaml.safe_load(found)["clusters"][0]["name"] == canary


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777])
def test_compiled_templates_are_kept_where_nobody_else_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    monkeypatch.setenv("CLUSTERCTL_CACHE", str(tmp_path))
    place = tmp_path / "templates"
    place.mkdir()
    place.chmod(mode)
    texts = []
    for _ in range(2):
        forget()
        texts.append(render("containerd/crictl.yaml.j2"))
        for path in place.iterdir():
            path.write_bytes(path.read_bytes()[:40])  # A torn one is compiled again.
    forget()
    assert texts[0] == texts[1] and bool(list(place.iterdir())) == (mode != 0o777)


def test_no_place_for_compiled_templates_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLUSTERCTL_CACHE", str(tmp_path / "file"))
    forget()
    assert render("containerd/crictl.yaml.j2")
    forget()


def forget() -> None:
    """As a new process."""
    render_module._environment.cache_clear()
