"""What the lab's tests share: a host that is fit for labs, and a lab."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab_leftovers import own_name

from clusterctl.lab import Lab, LabSpec, remove_lab
from clusterctl.lab.base import ensure_base
from clusterctl.lab.drivers import check_driver


@pytest.fixture(scope="session")
def host() -> None:
    """A host that can have labs, with the base in its cache."""
    # A host that is unfit fails these tests: a suite that is left out in silence proves nothing.
    ensure_base(print, check_driver("nspawn").recipe)


@pytest.fixture(scope="module")
def lab(host: None) -> Iterator[Lab]:
    """A lab of one control plane and two workers."""
    name = own_name("a")
    try:
        yield Lab.up(LabSpec(name=name, memory=2 << 30))
    finally:
        remove_lab(name)
