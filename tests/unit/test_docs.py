"""The generated pages of the manual are what they would be, and the site has every page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "docs/pages.py", "--check"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_every_page_is_in_the_navigation() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, list):
            return [page for item in entry for page in pages(item)]
        return [page for item in entry.values() for page in pages(item)] if isinstance(entry, dict) else [str(entry)]

    assert sorted(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))
