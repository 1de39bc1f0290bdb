"""The command line: verbs and their options, errors to exit codes. No logic."""

from __future__ import annotations

import contextlib
import errno
import gc
import getpass
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any, NamedTuple, NoReturn


class Interrupted(BaseException):
    """Ctrl-C, a SIGTERM, or the end of a run's time (SIGALRM). For a KeyboardInterrupt the library has its own exit code."""

    exit_code, code = 4, "run.interrupted"

    def __init__(self, number: int = signal.SIGINT) -> None:
        why = "the time that --timeout gave is over" if number == signal.SIGALRM else "interrupted"
        super().__init__(f"{why}; what a machine has begun it ends by itself")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        # A second interrupt does not wait for the cleanup.
        signal.signal(other, lambda *_: os._exit(Interrupted.exit_code))
    raise Interrupted(number)


PARTS = ("init", "apply", "node", "os_update", "upgrade", "etcd", "status", "kubeconfig", "execute", "trust", "version", "image",
         "reset", "inventory", "lock", "mirror", "timeline", "explain", "root")
"""The modules with verbs, in the order of the help."""

OWN = {"plan": "apply", "apply": "apply", "status": "status", "exec": "execute", "kubeconfig": "kubeconfig",
       "explain": "explain"}
"""Verbs that are called often, and the only module that they need: to know all the others takes a tenth of their time."""


def _app(words: Sequence[str] = ()) -> Any:
    """Return the command line as a command; only the module of the first word is loaded where that is enough."""
    import typer

    from clusterctl.cli.usage import WIDEST, name_values

    app = typer.Typer(
        name="clusterctl",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help="Turns bare Linux machines into a hardened, highly available, upstream Kubernetes cluster over SSH.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDEST},
    )
    app.callback()(import_module("clusterctl.cli.root").root)
    own = OWN.get(words[0] if words else "")
    for part in [own] if own else PARTS:
        import_module(f"clusterctl.cli.{part}").register(app)
    if not own:
        app.add_typer(import_module("clusterctl.cli.lab").app, name="lab")
    return name_values(typer.main.get_command(app))


def main() -> NoReturn:
    """The console script. Exit codes are those of ``errors``; an interrupt stops midway like anything else."""
    from clusterctl.errors import ClusterctlError

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _interrupt)
    # Libraries that are being loaded make no garbage, and looking for some takes an eighth of a run that changes nothing.
    gc.set_threshold(100_000, 20, 20)
    # A thread that received an answer continues at once, not after 5 ms of imports in another thread.
    sys.setswitchinterval(0.001)
    _furnish()
    code = 0
    try:
        code = _app(sys.argv[1:]).main(standalone_mode=False) or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.__context__, BrokenPipeError):  # For it the library has its own exit code, a bug's.
            code = _bug(error.__context__)
    except ClusterctlError as error:
        _say(str(error), {"event": "error", **error.as_dict()})
        code = error.exit_code
    except (Interrupted, KeyboardInterrupt) as error:
        text, code = str(error if isinstance(error, Interrupted) else Interrupted()), Interrupted.exit_code
        _say(f"{text} [{Interrupted.code}]\n  next: run the same command again to continue",
             {"event": "error", "error": "Interrupted", "exit_code": code, "code": Interrupted.code, "message": text})
    except Exception as error:
        code = _wrong_usage(error) or _bug(error)
    _leave(code)


def _wrong_usage(error: Exception) -> int | None:
    from clusterctl.cli.usage import show_wrong_usage
    from clusterctl.errors import InputError

    event = show_wrong_usage(error)
    if event is None:
        return None
    _say_json(event)
    return InputError.exit_code


def _furnish() -> None:
    """Make sure that file descriptors 0 to 2 are open and USER is set: libraries assume both."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())


def _leave(code: int) -> NoReturn:
    """Exit without joining worker threads; the next run observes the hosts again."""
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or _bug(error)
    os._exit(code)


def _say(text: str, event: dict[str, object]) -> None:
    """An error, for people and, where they asked for it, for programs."""
    from clusterctl.local.text import printable

    _say_json(event)
    with contextlib.suppress(OSError):
        print(f"clusterctl: {printable(text)}", file=sys.stderr, flush=True)


def _say_json(event: dict[str, object]) -> None:
    """Print an event where the command line asks for JSON."""
    words = list(zip(sys.argv, [*sys.argv[1:], ""], strict=True))
    if any(pair in (("-o", "json"), ("--output", "json")) or pair[0] in ("-ojson", "--output=json") for pair in words):
        import json

        with contextlib.suppress(OSError):  # Where it goes may be what is full.
            print(json.dumps(event), flush=True)


class Unforeseen(NamedTuple):
    """How an error is reported that no other code expects."""

    text: str
    hint: str
    exit_code: int
    code: str


def unforeseen(error: Exception) -> Unforeseen:
    """Return how an error is reported that no other code expects. A full disk or a closed pipe is no bug."""
    if isinstance(error, BrokenPipeError):
        return Unforeseen("its output was closed", "run it again", 128 + signal.SIGPIPE, "internal.output-closed")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return Unforeseen(f"cannot be written: {error.strerror}", "make room for its output and its files, then run it again", 1,
                          "internal.no-space")
    return Unforeseen(f"this is a bug: {type(error).__name__}: {error}",
                      "run it again with CLUSTERCTL_DEBUG=1 and report what it prints; the same command may be run again",
                      1, "internal.bug")


def _bug(error: Exception) -> int:
    text, hint, exit_code, code = unforeseen(error)
    if isinstance(error, BrokenPipeError):  # Nothing reads a message.
        return exit_code
    if os.environ.get("CLUSTERCTL_DEBUG"):
        raise error
    event = {"event": "error", "error": type(error).__name__, "exit_code": exit_code, "code": code,
             "message": text, "hint": hint}
    _say(f"{text} [{code}]\n  next: {hint}", event)
    return exit_code
