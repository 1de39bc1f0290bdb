"""The command line: verbs and their options, errors to exit codes. No logic."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def _app() -> object:
    import typer

    from clusterctl.cli import cluster, day, inventory, lab, mirror

    app = typer.Typer(name="clusterctl", no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                      help="Turns bare Linux machines into a hardened, highly available, upstream Kubernetes cluster over SSH.",
                      context_settings={"help_option_names": ["-h", "--help"]})
    cluster.register(app)
    day.register(app)
    inventory.register(app)
    mirror.register(app)
    app.add_typer(lab.app, name="lab")
    return app


def main() -> NoReturn:
    """The console script. Exit codes are those of ``errors``; 130 after an interrupt."""
    from clusterctl.errors import ClusterctlError

    json_wanted = any(word in ("-ojson", "--output=json") for word in sys.argv) or any(
        pair in (("-o", "json"), ("--output", "json")) for pair in zip(sys.argv, sys.argv[1:], strict=False))
    try:
        _app()()  # type: ignore[operator]
        code = 0
    except ClusterctlError as error:
        code = error.exit_code
        if json_wanted:
            import json

            print(json.dumps({"event": "error", **error.as_dict()}))
        print(f"clusterctl: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("clusterctl: interrupted; run the same command again to continue", file=sys.stderr)
        code = 4
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if os.environ.get("CLUSTERCTL_DEBUG"):
            raise
        print(f"clusterctl: this is a bug: {type(error).__name__}: {error}\n  next: run it again with CLUSTERCTL_DEBUG=1 and report what "
              "it prints; the same command may be run again", file=sys.stderr)
        code = 1
    sys.exit(code)
