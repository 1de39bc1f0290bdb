"""How help and wrong usage are printed: names of things in place of types, the terminal's width, plain messages."""

from __future__ import annotations

from typing import Any

from clusterctl.errors import InputError

WIDEST = 160
"""Columns that help takes of a wide terminal; long lines are hard to read."""

CODE = "cli.usage"

TYPES = {"<int>": "N", "<int range>": "N", "<float>": "SECONDS", "<float range>": "SECONDS", "<path>": "FILE", "<str>": "TEXT"}
"""Placeholders for values whose option names none."""


def name_values(command: Any, path: tuple[str, ...] = ()) -> Any:
    """Give the arguments and options of a command, and of all below it, placeholders as people write them; return the command."""
    for param in command.params:
        if param.param_type_name == "argument":
            _name_argument(param, rest=" -- CMD" if path == ("exec",) else "")
        elif param.metavar is None and not getattr(param, "is_flag", False):
            shown = param.display_type_rich(None) if hasattr(param, "display_type_rich") else None
            if shown is not None:
                param.metavar = TYPES.get(shown, shown.removeprefix("<").removesuffix(">"))
    for name, inner in getattr(command, "commands", {}).items():
        name_values(inner, (*path, name))
    return command


def _name_argument(param: Any, *, rest: str) -> None:
    name = param.metavar or param.name.upper()
    optional = not param.required
    param.metavar = name
    usage = name if not optional or name.startswith("[") else f"[{name}]"
    usage += ("..." if param.nargs != 1 and not name.endswith("...") else "") + rest
    param._usage_display_name = lambda: usage
    param.display_type_rich = lambda ctx: None


def show_wrong_usage(error: Exception) -> dict[str, object] | None:
    """Print what the command line's library found wrong, and return it as an event for ``-o json``; None for any other error."""
    show, form = getattr(error, "show", None), getattr(error, "format_message", None)
    if show is None or form is None:
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        show()
        return _event(error, "a command is missing")
    error.message = str(getattr(error, "message", "")).removeprefix("Value error, ")  # type: ignore[attr-defined]
    message = form()
    error.format_message = lambda: f"{message} [{CODE}]"  # type: ignore[attr-defined]
    show()
    return _event(error, message)


def _event(error: Exception, message: str) -> dict[str, object]:
    return {"event": "error", "error": type(error).__name__, "exit_code": InputError.exit_code, "code": CODE, "message": message}
