"""Who may import whom, and who may speak."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "clusterctl"

LAYERS = (
    {"errors", "local", "health.wait"},
    {"cluster", "kube.client", "kube.disruption", "etcd.bolt", "etcd.client", "ssh.https", "ssh.sockets"},
    {"shell", "ssh", "pki"},
    {"resources", "engine.events", "engine.fleet"},
    {"inventory.command", "inventory.secrets", "inventory.document", "inventory.findings", "artifacts"},
    {"components"},
    {"inventory", "plan.planner", "plan.running", "health.foreign", "health.ports", "health.preflight"},
    {"engine.engine", "engine.observe"},
    {"session", "plan", "engine", "health", "kube", "etcd"},
    {"commands", "health.upgrade_checks", "views"},
    {"lab", "mirror"},
    {"cli"},
    {"__main__"},
)
"""From the lowest up: folders, and modules that are lower or higher than the rest of their folder. What is pure is low; what needs a
session is high. Modules of one layer may import each other, without import cycles."""

APART = {"lab", "mirror"}
"""Folders that only their verbs and the tests import: no other module depends on them."""

OWNERS = {
    "paramiko": {"ssh"}, "fabric": {"ssh"}, "kubernetes": {"kube"}, "cryptography": {"pki", "lab"}, "nacl": {"pki"}, "rich": {"views", "cli"},
    "typer": {"cli"},
}
"""A library has one user. The lab makes SSH keys for its machines, which are no concern of a cluster's own keys."""

FILES = sorted(path for path in PACKAGE.rglob("*.py"))


def part(path: Path) -> str:
    """The folder directly below clusterctl that a file is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    """A file as a module, without clusterctl."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def layer(module: str) -> int:
    """The layer of a module, or of a name in one: its own, or its folder's."""
    for length in (2, 1):
        name = ".".join(module.split(".")[:length])
        for index, names in enumerate(LAYERS):
            if name in names:
                return index
    raise AssertionError(f"{module} has no layer")


def test_no_module_is_outside_a_folder() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downward(path: Path) -> None:
    own = name_of(path)
    if own == "__init__":
        return
    for module in imported(path):
        other = module.removeprefix("clusterctl.")
        if other == module or other.startswith("__"):
            continue
        assert layer(other) <= layer(own), f"{path.name} imports {module} from above"
        folder = other.split(".")[0]
        assert folder not in APART or part(path) in (folder, "cli"), f"{path.name} imports {module}, which is apart"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_one_owner_for_each_library(path: Path) -> None:
    for module in imported(path):
        owners = OWNERS.get(module.split(".")[0])
        assert owners is None or part(path) in owners, f"only {owners} may import {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_cli_and_views_speak(path: Path) -> None:
    if part(path) in ("cli", "views"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{path.name}:{node.lineno} prints"
