"""The templates that land on machines. Values are data: they are never rendered again, and quoted once for their sink."""

from __future__ import annotations

import contextlib
import json
import re
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from clusterctl.local.storage import cache_folder

if TYPE_CHECKING:
    from jinja2 import BytecodeCache, Environment
    from jinja2.bccache import Bucket


def folder() -> Path:
    """The templates: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    inside = package / "templates"
    return inside if inside.is_dir() else package.parent / "templates"


def unit_word(value: object) -> str:
    """One argument of ExecStart, quoted for systemd (systemd.syntax(7)): specifiers and variables are taken literally."""
    text = str(value)
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError("control characters cannot stand in a unit file")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return text if text and not set(text) & set(" \t'\";\\") else f'"{text}"'


def yaml_value(value: object) -> str:
    """A value as JSON, which is YAML: quoted whatever it holds."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)
    if text.isascii() and "\x7f" not in text:
        return text
    # JSON escapes what lies beyond \uffff as two halves, which YAML reads as two broken characters: that stays as it is.
    return re.sub("[\x7f-\uffff]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _compiled() -> BytecodeCache | None:
    """Compiled templates, kept in the user's cache."""
    from jinja2 import FileSystemBytecodeCache

    class Buckets(FileSystemBytecodeCache):
        def load_bytecode(self, bucket: Bucket) -> None:
            try:
                super().load_bytecode(bucket)
            except (OSError, EOFError, ValueError, TypeError, UnpicklingError):
                bucket.reset()

        def dump_bytecode(self, bucket: Bucket) -> None:
            with contextlib.suppress(OSError):
                super().dump_bytecode(bucket)

    place = cache_folder("templates")
    return Buckets(str(place)) if place else None


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(folder()),
        bytecode_cache=_compiled(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    made.filters["unit"] = unit_word
    made.filters["yaml"] = yaml_value
    return made


def render(name: str, **values: Any) -> bytes:
    """A template's text with these values. Raises jinja2.UndefinedError for a value that is missing."""
    text: str = _environment().get_template(name).render(**values)
    return text.encode()
