"""Which way from one version to another, and what a version no longer knows. Pure tables and arithmetic.

Sources: kubernetes.io/releases/version-skew-policy; the CHANGELOGs of 1.33 to 1.37; siderolabs/go-kubernetes' upgrade checks;
etcd's upgrade guides (etcd-io/etcd#20793 for 3.5.26).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from clusterctl.cluster.versions import SUPPORTED_MINORS, minor, order


def minor_number(version: str) -> int:
    """``36`` of ``1.36.4``."""
    return int(version.split(".")[1])


def refuse_path(running: Iterable[str], to: str, through: Sequence[str]) -> str:
    """Why a cluster cannot go from what runs to ``to`` by way of ``through``; empty where it can.

    More than one version runs where an upgrade was interrupted: then only what was begun can be finished.
    """
    found = sorted(set(running), key=order)
    if not found:
        return "no machine runs Kubernetes yet: clusterctl apply"
    lowest, highest = found[0], found[-1]
    if len(found) > 1 and highest != hops(found, to, through)[0]:
        return f"an upgrade to {highest} is in progress ({', '.join(found[:-1])} still runs): finish it first (--to {highest})"
    if order(to) < order(highest):
        return f"{highest} runs, and {to} is older: Kubernetes does not go back"
    if minor(to) not in SUPPORTED_MINORS:
        return f"Kubernetes {to} is not supported; supported are {', '.join(SUPPORTED_MINORS)}"
    return _refuse_steps([lowest, *(version for version in through if order(version) > order(lowest)), to])


def _refuse_steps(way: Sequence[str]) -> str:
    """Why versions are no way, each reached from the one before; empty where they are."""
    steps = list(zip(way, way[1:], strict=False))
    for before, after in steps:
        if order(after) < order(before):
            return f"{after} comes before {before}: name the versions of --through in their order"
    for before, after in steps:
        if minor_number(after) - minor_number(before) > 1:
            between = f"1.{minor_number(before) + 1}"
            return (f"{before} to {after} skips a minor, and API servers must not: the way is "
                    f"{before} -> {between}.x -> {after}; say --through {between}.x with the version you want in between")
    return ""


def hops(running: Iterable[str], to: str, through: Sequence[str]) -> tuple[str, ...]:
    """The versions to be reached one after the other; only ``to`` where it runs already."""
    lowest = min(running, key=order)
    return (*(version for version in through if order(lowest) < order(version) < order(to)), to)


@dataclass(frozen=True, slots=True)
class Removed:
    """Removals of one minor: flags by component, ``gates`` of all components, ``apis`` as group/version."""

    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    gates: tuple[str, ...] = ()
    apis: tuple[str, ...] = ()


CADVISOR = ("containerd", "containerd-namespace", "boot-id-file", "container-hints", "enable-load-reader",
            "event-storage-age-limit", "event-storage-event-limit", "global-housekeeping-interval", "log-cadvisor-usage",
            "machine-id-file", "storage-driver-user", "storage-driver-password", "storage-driver-host", "storage-driver-db",
            "storage-driver-table", "storage-driver-secure", "storage-driver-buffer-duration")

REMOVED: Mapping[str, Removed] = {
    "1.33": Removed({"api_server": ("cloud-provider", "cloud-config")}, (
        "AppArmor", "AppArmorFields", "CPUManager", "DisableCloudProviders", "DisableKubeletCloudCredentialProviders",
        "JobPodFailurePolicy", "KubeProxyDrainingTerminatingNodes", "PDBUnhealthyPodEvictionPolicy",
        "PersistentVolumeLastPhaseTransitionTime")),
    "1.34": Removed({"kubelet": ("cloud-config",)}, (
        "DevicePluginCDIDevices", "LegacySidecarContainers", "PodDisruptionConditions")),
    "1.35": Removed({"kubelet": ("pod-infra-container-image",)}, (
        "SizeMemoryBackedVolumes", "UserNamespacesHostNetworkSupport", "StrictCostEnforcementForVAP",
        "StrictCostEnforcementForWebhooks"), ("storagemigration.k8s.io/v1alpha1",)),
    "1.36": Removed({}, ("CSIMigrationPortworx", "InTreePluginPortworxUnregister", "WatchFromStorageWithoutResourceVersion")),
    "1.37": Removed({"kubelet": CADVISOR, "controller_manager": ("concurrent-service-syncs",)},
                    ("AnyVolumeDataSource", "PreventStaticPodAPIReferences"), ("scheduling.k8s.io/v1alpha2",)),
}
"""By the minor that no longer has them. Not complete: the staged programs are asked themselves before anything is interrupted."""


def removed_in_use(before: str, after: str, flags: Mapping[str, Mapping[str, str]], gates: Iterable[str]) -> list[str]:
    """Return the flags and gates of an inventory that the target no longer has. ``flags``: by component, as in the inventory."""
    named = list(gates)
    found = []
    for number in range(minor_number(before) + 1, minor_number(after) + 1):
        gone = REMOVED.get(f"1.{number}", Removed())
        for component, names in gone.flags.items():
            found += [f"{component} has no flag --{name} any more in 1.{number}" for name in names
                      if name in flags.get(component, {})]
        found += [f"there is no feature gate {name} any more in 1.{number}" for name in gone.gates if name in named]
    return found


def removed_apis(before: str, after: str) -> tuple[str, ...]:
    """The group/versions that are gone on the way: their objects must be deleted before."""
    return tuple(api for number in range(minor_number(before) + 1, minor_number(after) + 1)
                 for api in REMOVED.get(f"1.{number}", Removed()).apis)


def refuse_component(product: str, running: str, wanted: str) -> str:
    """Why a product other than Kubernetes cannot go from one version to another; empty where it can."""
    if order(wanted) < order(running):
        return f"{product} {running} runs, and {wanted} is older"
    (major, one), (other, two) = (tuple(int(part) for part in version.split(".")[:2]) for version in (running, wanted))
    if product in ("etcd", "containerd") and (other != major or two - one > 1):
        return f"{product} goes one minor at a time, and {running} to {wanted} is more"
    if product == "etcd" and minor(running) == "3.5" and minor(wanted) == "3.6" and order(running) < order("3.5.26"):
        return f"etcd {running} must be at 3.5.26 or later before it goes to 3.6 (members come back otherwise)"
    return ""
