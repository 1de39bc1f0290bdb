"""What the tests with virtual machines share with those of clusters in containers."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("e2e", "lab"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))
