"""How each product is built from its Go module where upstream's release is not available: one table for each product.

A weight is the seconds that the output took with an empty build cache on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from clusterctl.artifacts.catalog import ContainerImage, image_path
from clusterctl.cluster.model import Versions
from clusterctl.components.products import IMAGES, RELEASES
from clusterctl.mirror.image import ImageSpec

MIRRORED = ("1.36.4", "1.37.2", "1.35.8")
"""The versions of Kubernetes that a mirror holds by default, in the order of downloads."""
AGNHOST = "2.63.0"
"""The version of agnhost, the image that network checks use; it is built from the Kubernetes that follows."""
AGNHOST_IMAGE = ContainerImage("agnhost", "", "e2e-test-images/agnhost:{version}")
AGNHOST_KUBERNETES = "1.36.4"
FLANNEL_CNI_SOURCE = "0.9.1"
"""The release of containernetworking/plugins that still had flannel's plugin, whose own module is not available."""

PLUGINS = "github.com/containernetworking/plugins"
CNI_STAMP = f"{PLUGINS}/pkg/utils/buildversion.BuildVersion"
CNI = ("main/bridge", "main/dummy", "main/host-device", "main/ipvlan", "main/loopback", "main/macvlan", "main/ptp", "main/tap",
       "main/vlan", "ipam/dhcp", "ipam/host-local", "ipam/static", "meta/bandwidth", "meta/firewall", "meta/portmap", "meta/sbr",
       "meta/tuning", "meta/vrf")


@dataclass(frozen=True, slots=True)
class Output:
    """One file of a mirror, made of programs: one as it is, an archive (``members``: name in it to program) or an image."""

    label: str
    path: str
    packages: Mapping[str, str]
    weight: int
    checks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)
    image: ImageSpec | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """A Go module and what is built of it. ``replaced`` names the stand-in of a module, in ``sources/``."""

    module: str
    version: str
    outputs: tuple[Output, ...]
    requires: tuple[str, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)
    printed: str = ""
    tags: str = ""
    cgo: bool = False
    replaced: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, str] = field(default_factory=dict)
    c_source: str = ""

    @property
    def name(self) -> str:
        return f"{self.module}@v{self.version}" if self.module else self.c_source


def _stamp_kubernetes(version: str) -> Mapping[str, str]:
    major, minor = version.split(".")[:2]
    fields = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean", "buildDate": "{time}"}
    return {f"{package}/version.{key}": value for package in ("k8s.io/component-base", "k8s.io/client-go/pkg")
            for key, value in fields.items()}


KUBERNETES = {"kube-apiserver": 199, "kube-controller-manager": 47, "kubelet": 13, "kube-proxy": 6, "kube-scheduler": 4,
              "kubectl": 17}


def _kubernetes(versions: Versions, arch: str) -> Recipe:
    version = versions.kubernetes
    return Recipe("k8s.io/kubernetes", version, stamps=_stamp_kubernetes(version), printed=f"v{version}", outputs=tuple(
        Output(f"{name} {version}", RELEASES[name].at(version, arch), {name: f"k8s.io/kubernetes/cmd/{name}"},
               weight, checks={name: ("version", "--client") if name == "kubectl" else ("--version",)})
        for name, weight in KUBERNETES.items()))


def _archive(product: str, version: str, arch: str, packages: Mapping[str, str], weight: int, *,
             checks: Mapping[str, tuple[str, ...]], members: Mapping[str, str] | None = None) -> Output:
    """The output for an archive; by default its members are those that the catalog takes out of it."""
    return Output(f"{product} {version}", RELEASES[product].at(version, arch), packages, weight, checks,
                  members=members or {name: name.rsplit("/", 1)[-1] for name in RELEASES[product].members_at(version, arch)})


def _etcd(versions: Versions, arch: str) -> Recipe:
    version, base = versions.etcd, "go.etcd.io/etcd"
    packages = {"etcd": f"{base}/server/v3", "etcdctl": f"{base}/etcdctl/v3", "etcdutl": f"{base}/etcdutl/v3"}
    return Recipe(packages["etcd"], version, requires=tuple(f"{packages[name]} v{version}" for name in ("etcdctl", "etcdutl")),
                  printed=version, outputs=(_archive("etcd", version, arch, packages, 29, checks={
                      "etcd": ("--version",), "etcdctl": ("version",), "etcdutl": ("version",)}),))


def _containerd(versions: Versions, arch: str) -> Recipe:
    version, module = versions.containerd, "github.com/containerd/containerd/v2"
    packages = {name: f"{module}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")}
    return Recipe(module, version, stamps={f"{module}/version.Version": f"v{version}"}, printed=f"v{version}", tags="no_btrfs",
                  outputs=(_archive("containerd", version, arch, packages, 42, checks={
                      "containerd": ("--version",), "ctr": ("--version",), "containerd-shim-runc-v2": ("-v",)}),))


def _runc(versions: Versions, arch: str) -> Recipe:
    version, module = versions.runc, "github.com/opencontainers/runc"
    return Recipe(module, version, printed=version, tags="seccomp", cgo=True, outputs=(
        Output(f"runc {version}", RELEASES["runc"].at(version, arch), {"runc": module}, 14,
               checks={"runc": ("--version",)}),))


def _cni_plugins(versions: Versions, arch: str) -> Recipe:
    version = versions.cni_plugins
    packages = {path.rsplit("/", 1)[1]: f"{PLUGINS}/plugins/{path}" for path in CNI}
    return Recipe(PLUGINS, version, stamps={CNI_STAMP: f"v{version}"}, printed=f"v{version}", outputs=(
        _archive("cni-plugins", version, arch, packages, 9, checks={"bridge": (), "portmap": ()},
                 members={f"./{name}": name for name in sorted(packages)}),))


def _flannel_cni(versions: Versions, arch: str) -> Recipe:
    packages = {"flannel": f"{PLUGINS}/plugins/meta/flannel"}
    stamped = f"v{FLANNEL_CNI_SOURCE}"
    return Recipe(PLUGINS, FLANNEL_CNI_SOURCE, stamps={CNI_STAMP: stamped}, printed=stamped, outputs=(
        _archive("flannel-cni", versions.flannel_cni, arch, packages, 2, checks={"flannel": ()},
                 members={f"./flannel-{arch}": "flannel"}),))


def _crictl(versions: Versions, arch: str) -> Recipe:
    version, module = versions.crictl, "sigs.k8s.io/cri-tools"
    return Recipe(module, version, stamps={f"{module}/pkg/version.Version": version}, printed=version, outputs=(
        _archive("crictl", version, arch, {"crictl": f"{module}/cmd/crictl"}, 22, checks={"crictl": ("--version",)}),))


def _flannel(versions: Versions, arch: str) -> Recipe:
    version, module = versions.flannel, "github.com/flannel-io/flannel"
    sdk = "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud"
    return Recipe(module, version, stamps={f"{module}/pkg/version.Version": f"v{version}"}, printed=f"v{version}", cgo=True,
                  replaced={f"{sdk}/common": "tencentcloud/common", f"{sdk}/vpc": "tencentcloud/vpc"},
                  extras={"mk-docker-opts.sh": "dist/mk-docker-opts.sh", "README.md": "README.md"},
                  outputs=(_archive("flannel", version, arch, {"flanneld": module}, 46, checks={"flanneld": ("--version",)}),))


def _image(name: str, version: str, arch: str, packages: Mapping[str, str], weight: int, *, checks: Mapping[str, tuple[str, ...]],
           spec: ImageSpec) -> Output:
    return Output(f"image {name} {version}", image_path(name, version, arch), packages, weight, checks, image=spec)


def _coredns(versions: Versions, arch: str) -> Recipe:
    version, module = versions.coredns, "github.com/coredns/coredns"
    spec = ImageSpec(IMAGES["coredns"].reference(version), ("/coredns",), user="65532:65532", ports=("53/tcp", "53/udp"),
                     bind_low_ports=True)
    return Recipe(module, version, printed=version, outputs=(
        _image("coredns", version, arch, {"coredns": module}, 81, checks={"coredns": ("-version",)}, spec=spec),))


def _metrics_server(versions: Versions, arch: str) -> Recipe:
    version, module = versions.metrics_server, "sigs.k8s.io/metrics-server"
    spec = ImageSpec(IMAGES["metrics-server"].reference(version), ("/metrics-server",), user="65534:65534")
    stamps = {"k8s.io/client-go/pkg/version.gitVersion": f"v{version}", "k8s.io/client-go/pkg/version.buildDate": "{time}"}
    return Recipe(module, version, stamps=stamps, printed=f"v{version}", outputs=(_image(
        "metrics-server", version, arch, {"metrics-server": f"{module}/cmd/metrics-server"}, 87,
        checks={"metrics-server": ("--version",)}, spec=spec),))


def _agnhost(versions: Versions, arch: str) -> Recipe:
    del versions
    spec = ImageSpec(AGNHOST_IMAGE.reference(AGNHOST), ("/agnhost",), ("pause",),
                     ports=("80/tcp", "8080/tcp", "8081/tcp", "9376/tcp", "5000/tcp"))
    return Recipe("k8s.io/kubernetes", AGNHOST_KUBERNETES, stamps={"main.Version": AGNHOST}, printed=AGNHOST, outputs=(
        _image("agnhost", AGNHOST, arch, {"agnhost": "k8s.io/kubernetes/test/images/agnhost"}, 5,
               checks={"agnhost": ("--version",)}, spec=spec),))


def _pause(versions: Versions, arch: str) -> Recipe:
    version = versions.pause
    spec = ImageSpec(IMAGES["pause"].reference(version), ("/pause",), user="65535:65535", temporary_folder=False)
    return Recipe("", version, c_source="pause.c", outputs=(
        _image("pause", version, arch, {"pause": "pause.c"}, 1, checks={}, spec=spec),))


_ALL: tuple[Callable[[Versions, str], Recipe], ...] = (
    _kubernetes, _etcd, _containerd, _runc, _cni_plugins, _crictl, _flannel, _flannel_cni, _pause, _coredns, _metrics_server,
    _agnhost)


def recipes(versions: Iterable[Versions], arch: str) -> list[Recipe]:
    """All that these versions need, in the order of the versions, each file once."""
    found: list[Recipe] = []
    seen: set[str] = set()
    for one in versions:
        for make in _ALL:
            recipe = make(one, arch)
            paths = {output.path for output in recipe.outputs}
            if not paths <= seen:
                found.append(recipe)
                seen |= paths
    return found
