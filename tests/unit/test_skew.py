"""Which way from one version to another, and what a version no longer knows: tables."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from clusterctl.cluster import version_skew
from clusterctl.cluster.versions import SUPPORTED_MINORS, order

PATHS = [
    # runs                  to        through                         words of the refusal; none: it may
    (["1.36.4"], "1.36.4", [], ""),
    (["1.36.4"], "1.36.10", [], ""),
    (["1.36.4"], "1.37.2", [], ""),
    (["1.36.4"], "1.37.2", ["1.36.10"], ""),
    (["1.35.8"], "1.37.2", ["1.36.4"], ""),
    (["1.35.8"], "1.37.2", ["1.36.4", "1.36.10"], ""),
    # An upgrade that was interrupted is finished, and nothing else.
    (["1.36.4", "1.37.2"], "1.37.2", [], ""),
    (["1.35.8", "1.36.4"], "1.37.2", ["1.36.4"], ""),
    (["1.36.4", "1.37.2"], "1.37.3", [], "an upgrade to 1.37.2 is in progress (1.36.4 still runs): finish it first (--to 1.37.2)"),
    (["1.35.8", "1.36.4"], "1.37.2", [], "an upgrade to 1.36.4 is in progress"),
    (["1.35.8", "1.36.4"], "1.37.2", ["1.36.10"], "an upgrade to 1.36.4 is in progress"),
    # A hop that is behind does not matter any more: the same command goes on after the first of two upgrades.
    (["1.36.4"], "1.37.2", ["1.36.4"], ""),
    (["1.36.10"], "1.37.2", ["1.36.4"], ""),
    ([], "1.37.2", [], "no machine runs Kubernetes yet: clusterctl apply"),
    (["1.37.2"], "1.36.4", [], "1.37.2 runs, and 1.36.4 is older"),
    (["1.36.4"], "1.36.3", [], "Kubernetes does not go back"),
    (["1.36.10"], "1.36.4", [], "does not go back"),
    (["1.37.2"], "1.38.0", [], "1.38.0 is not supported; supported are 1.35, 1.36, 1.37"),
    (["1.35.8"], "1.37.2", [], "skips a minor, and API servers must not: the way is 1.35.8 -> 1.36.x -> 1.37.2; say --through 1.36.x"),
    (["1.35.8"], "1.37.2", ["1.37.1"], "1.35.8 to 1.37.1 skips a minor"),
    (["1.35.8"], "1.37.2", ["1.36.10", "1.36.4"], "1.36.4 comes before 1.36.10: name the versions of --through in their order"),
    (["1.35.8"], "1.36.4", ["1.37.2"], "1.36.4 comes before 1.37.2"),
    (["1.36.4"], "1.37.2", ["1.38.0"], "1.37.2 comes before 1.38.0"),
    (["1.34.9"], "1.36.4", ["1.35.8"], ""),
]


@pytest.mark.parametrize(("running", "to", "through", "refused"), PATHS)
def test_paths(running: Sequence[str], to: str, through: Sequence[str], refused: str) -> None:
    found = version_skew.refuse_path(running, to, through)
    assert refused in found and bool(refused) == bool(found), found


@pytest.mark.parametrize(("running", "to", "through", "expected"), [
    (["1.36.4"], "1.37.2", [], ("1.37.2",)),
    (["1.36.4"], "1.36.4", [], ("1.36.4",)),
    (["1.35.8"], "1.37.2", ["1.36.4"], ("1.36.4", "1.37.2")),
    (["1.36.4"], "1.37.2", ["1.36.4"], ("1.37.2",)),
    (["1.35.8", "1.36.4"], "1.37.2", ["1.36.4"], ("1.36.4", "1.37.2")),
    (["1.36.4", "1.37.2"], "1.37.2", ["1.36.4"], ("1.37.2",)),
])
def test_hops(running: Sequence[str], to: str, through: Sequence[str], expected: tuple[str, ...]) -> None:
    assert version_skew.hops(running, to, through) == expected


def test_every_way_that_is_allowed_goes_up_and_skips_nothing() -> None:
    versions = [f"{minor}.{patch}" for minor in SUPPORTED_MINORS for patch in (1, 9)]
    for running in versions:
        for to in versions:
            for through in ([], *([one] for one in versions), *([one, other] for one in versions for other in versions)):
                if not version_skew.refuse_path([running], to, through):
                    way = [running, *version_skew.hops([running], to, through)]
                    assert way == sorted(way, key=order)
                    assert all(version_skew.minor_number(after) - version_skew.minor_number(before) <= 1 for before, after in zip(way, way[1:], strict=False))


FLAGS = {"kubelet": {"containerd": "x", "v": "2"}, "api_server": {"cloud-provider": "aws"}, "controller_manager": {"concurrent-service-syncs": "3"},
         "scheduler": {}}


@pytest.mark.parametrize(("before", "after", "flags", "gates", "expected"), [
    ("1.36.4", "1.36.10", FLAGS, ["AnyVolumeDataSource"], []),
    ("1.36.4", "1.37.2", {}, [], []),
    ("1.36.4", "1.37.2", FLAGS, ["AnyVolumeDataSource", "SidecarContainers"], [
        "kubelet has no flag --containerd any more in 1.37", "controller_manager has no flag --concurrent-service-syncs any more in 1.37",
        "there is no feature gate AnyVolumeDataSource any more in 1.37"]),
    ("1.32.0", "1.33.0", FLAGS, [], ["api_server has no flag --cloud-provider any more in 1.33"]),
    # What went in 1.36 is gone in 1.37, too.
    ("1.35.8", "1.37.2", {}, ["CSIMigrationPortworx"], ["there is no feature gate CSIMigrationPortworx any more in 1.36"]),
    # A flag of the kubelet on the API server is another one.
    ("1.36.4", "1.37.2", {"api_server": {"containerd": "x"}}, [], []),
])
def test_flags_and_gates_that_are_gone(before: str, after: str, flags: dict[str, dict[str, str]], gates: list[str], expected: list[str]) -> None:
    assert version_skew.removed_in_use(before, after, flags, gates) == expected
    assert version_skew.removed_in_use(before, after, flags, iter(gates)) == expected, "gates may come one by one"


@pytest.mark.parametrize(("before", "after", "expected"), [
    ("1.36.4", "1.36.10", ()),
    ("1.34.1", "1.35.8", ("storagemigration.k8s.io/v1alpha1",)),
    ("1.35.8", "1.36.4", ()),
    ("1.36.4", "1.37.2", ("scheduling.k8s.io/v1alpha2",)),
    ("1.34.1", "1.37.2", ("storagemigration.k8s.io/v1alpha1", "scheduling.k8s.io/v1alpha2")),
])
def test_apis_that_are_gone(before: str, after: str, expected: tuple[str, ...]) -> None:
    assert version_skew.removed_apis(before, after) == expected


@pytest.mark.parametrize(("product", "running", "wanted", "refused"), [
    ("etcd", "3.6.14", "3.6.14", ""),
    ("etcd", "3.6.9", "3.6.14", ""),
    ("etcd", "3.6.14", "3.7.0", ""),
    ("etcd", "3.6.14", "3.6.9", "etcd 3.6.14 runs, and 3.6.9 is older"),
    ("etcd", "3.6.14", "3.8.0", "etcd goes one minor at a time"),
    ("etcd", "3.6.14", "4.0.0", "etcd goes one minor at a time"),
    ("etcd", "3.5.26", "3.6.14", ""),
    ("etcd", "3.5.9", "3.6.14", "etcd 3.5.9 must be at 3.5.26 or later"),
    ("etcd", "3.5.9", "3.5.26", ""),
    ("containerd", "2.2.0", "2.3.4", ""),
    ("containerd", "2.1.0", "2.3.4", "containerd goes one minor at a time"),
    ("containerd", "1.7.30", "2.0.0", "containerd goes one minor at a time"),
    ("containerd", "2.3.4", "2.3.3", "is older"),
    ("runc", "1.2.0", "1.4.3", ""),
    ("runc", "1.4.3", "1.3.6", "is older"),
    ("flannel_cni", "1.7.1-flannel1", "1.7.1-flannel2", ""),
    ("cni_plugins", "1.9.1-rc.1", "1.9.1", ""),
])
def test_other_products(product: str, running: str, wanted: str, refused: str) -> None:
    found = version_skew.refuse_component(product, running, wanted)
    assert refused in found and bool(refused) == bool(found), found
