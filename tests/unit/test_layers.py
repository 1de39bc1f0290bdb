"""Who may import whom, and who may speak."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "clusterctl"

LAYERS = (
    {"errors", "error_codes", "text"},
    {"model", "access_settings", "host_settings", "machine_settings", "versions", "skew", "forward", "render", "storage", "kube", "https", "sockets", "local", "ssh_options", "disruption", "kept", "bolt"},
    {"shell", "hostkeys", "host_certificates", "pki", "sshconfig", "keys"},
    {"facts", "transport", "login", "conversation", "sender", "fleet", "resources", "preflight", "foreign", "reach", "etcd", "look"},
    {"inventory", "secrets", "artifacts"},
    {"components"},
    {"planner"},
    {"engine"},
    {"operations", "report", "lab"},
    {"cli"},
    {"__main__"},
)
"""From the lowest up; within a layer everybody may use the others, as long as nobody uses itself in a circle."""

OWNERS = {
    "paramiko": {"conversation", "host_certificates", "hostkeys", "keys", "login", "sender", "sshconfig", "transport"}, "fabric": {"transport"}, "kubernetes": {"kube"}, "cryptography": {"pki", "lab"}, "nacl": {"pki"},
    "rich": {"report", "cli"}, "typer": {"cli"},
}
"""A library has one user. The lab makes SSH keys for its machines, which are no concern of a cluster's own keys."""

FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The package or module directly below clusterctl that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "clusterctl":
                yield from (f"clusterctl.{name.name}" for name in node.names)
            else:
                yield node.module


def layer(name: str) -> int:
    return next(index for index, names in enumerate(LAYERS) if name in names)


def test_every_part_has_a_layer() -> None:
    assert {part(path) for path in FILES} - set().union(*LAYERS) == {"__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = part(path)
    if own == "__init__":
        return
    for module in imported(path):
        if module.startswith("clusterctl."):
            other = module.split(".")[1]
            assert other.startswith("__") or layer(other) <= layer(own), f"{path.name} imports {module} from above"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_owner_for_each_library(path: Path) -> None:
    for module in imported(path):
        owners = OWNERS.get(module.split(".")[0])
        assert owners is None or part(path) in owners, f"only {owners} may import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_cli_and_report_speak(path: Path) -> None:
    if part(path) in ("cli", "report"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path.name}:{node.lineno} prints"
