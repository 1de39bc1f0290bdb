"""Small on purpose: files, functions and the whole."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FILES = sorted(path for folder in ("clusterctl", "tests", "bench", "vagrant") for path in (ROOT / folder).rglob("*.py"))
MOST_OF_A_FILE, MOST_OF_A_FUNCTION, MOST_OF_ALL = 400, 50, 29_390


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < MOST_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < MOST_OF_A_FUNCTION, f"{node.name} has too many lines"


def test_the_whole_product(capsys: pytest.CaptureFixture[str]) -> None:
    lines = sum(path.read_text().count("\n") for path in (ROOT / "clusterctl").rglob("*.py"))
    with capsys.disabled():
        print(f"\n{lines} lines of Python in the product, of at most {MOST_OF_ALL}")
    assert lines < MOST_OF_ALL
