"""Errors of many hosts are grouped by cause, with one hint for each."""

from __future__ import annotations

import pytest

from clusterctl.errors import AccessRefused, ClusterctlError, InputError, Problems, Refused, Unreachable


def unreachable(number: int, why: str = "No route to host") -> ClusterctlError:
    address = f"192.0.2.{number}"
    return Unreachable(f"cannot be reached: {why}", where=f"w-{number} (root@{address}:22)", code="ssh.unreachable",
                       hint=f"try: ssh -p 22 root@{address}")


def unknown(number: int) -> ClusterctlError:
    return AccessRefused(f"its host key SHA256:{number:03}abc is not known", where=f"w-{number}", code="ssh.host-key-unknown",
                         hint=f"compare, then: clusterctl trust w-{number} --fingerprint SHA256:{number:03}abc")


@pytest.mark.parametrize(("make", "most"), [(unreachable, 2), (unknown, 7)])
def test_200_refused_hosts_are_grouped(make: object, most: int) -> None:
    found = Problems([make(number) for number in range(200)])  # type: ignore[operator]
    lines = str(found).split("\n")
    assert len(lines) <= most and sum("next:" in line for line in lines) == 1
    assert "w-0" in lines[0] and found.errors[0].code in lines[0]
    assert len(found.as_dict()["errors"]) == 200  # type: ignore[arg-type]


def test_each_cause_is_named_once_with_its_hosts() -> None:
    found = Problems([unreachable(1), unreachable(2, "timed out"), unreachable(3), Refused("its clock is 40 s ahead", where="w-4", hint="set it", code="host.clock")])
    assert str(found).split("\n") == [
        "w-1, w-3: cannot be reached: No route to host [ssh.unreachable]",
        "  next: try: ssh -p 22 root@192.0.2.1 (w-1; likewise the others)",
        "w-2 (root@192.0.2.2:22): cannot be reached: timed out [ssh.unreachable]",
        "  next: try: ssh -p 22 root@192.0.2.2",
        "w-4: its clock is 40 s ahead [host.clock]",
        "  next: set it"]


def test_numbers_that_differ_are_shown_with_one_hint() -> None:
    found = Problems([Refused(f"its clock is {seconds} s ahead", where=f"w-{seconds}", hint="set it", code="host.clock") for seconds in (40, 50)])
    assert str(found).split("\n") == ["w-40: its clock is 40 s ahead [host.clock]", "w-50: its clock is 50 s ahead [host.clock]", "  next: set it"]


def test_errors_in_a_file_keep_its_order() -> None:
    found = Problems([InputError("a", where="f:1:1", code="inventory.value"), InputError("b", where="f:2:1", hint="x", code="inventory.value"), InputError("a", where="f:3:1", hint="x", code="inventory.value")])
    assert str(found).split("\n") == [f"{line} [inventory.value]" for line in ("f:1:1: a", "f:2:1: b", "f:3:1: a")] + ["  next: x"]
