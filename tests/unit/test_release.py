"""What is released: the files that an image of clusterctl is built from make a whole wheel, and hold nothing of a user's."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_context_of_the_image_makes_a_whole_wheel(tmp_path: Path) -> None:
    first, *rest = (ROOT / ".containerignore").read_text().split()
    assert first == "*", "what is not named may be a checkout's state folder, with keys"
    for name in rest:
        source = ROOT / name.removeprefix("!")
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / source.name)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "dist", tmp_path],
                   check=True, capture_output=True, timeout=120)
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", "clusterctl", "templates"], cwd=ROOT, check=True, capture_output=True, text=True)
    for path in tracked.stdout.split():
        assert path in names or f"clusterctl/{path}" in names, path
