"""Desired state: the cluster and its hosts, frozen. Observed state of machines is in ``shell/facts.py``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from clusterctl.cluster.access_settings import URL, ImageRegistry
from clusterctl.cluster.host_settings import DNS_LABEL as DNS_LABEL
from clusterctl.cluster.host_settings import DNS_NAME as DNS_NAME
from clusterctl.cluster.host_settings import FLAG as FLAG
from clusterctl.cluster.host_settings import ComponentSettings, FlagName, FlagValue, HostSettings, Model
from clusterctl.cluster.host_settings import Taint as Taint
from clusterctl.cluster.machine_settings import full

Role = Literal["control_plane", "etcd", "worker"]
Network4 = ipaddress.IPv4Network

MINOR = re.compile(r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)")
VERSION = re.compile(MINOR.pattern + r"\.(?:0|[1-9]\d*)(-[a-z0-9.]+)?")
SHA256 = re.compile(r"[0-9a-f]{64}")
Label = Annotated[str, full(DNS_LABEL, "a DNS label (RFC 1123: lower case letters, digits and '-', at most 63)")]
DnsName = Annotated[str, full(DNS_NAME, "a DNS name (RFC 1123)")]
def _version(value: str) -> str:
    if VERSION.fullmatch(value.removeprefix("v")) and value.startswith("v"):
        raise ValueError(f"{value!r} is written without v: {value[1:]}")
    if not VERSION.fullmatch(value) or len(value) > 253:
        raise ValueError(f"{value!r} is not a version such as 1.36.4")
    return value


def _release(value: str) -> str:
    return value if MINOR.fullmatch(value) else _version(value)


Version = Annotated[str, AfterValidator(_version)]
Release = Annotated[str, AfterValidator(_release)]
Sha256 = Annotated[str, full(SHA256, "a sha256 of 64 lower case hexadecimal digits")]


def _at_home(path: Path) -> Path:
    try:
        path.expanduser()
    except RuntimeError:
        raise ValueError(f"the home of {str(path)!r} is not known") from None
    return path


def _mirror(text: str) -> str:
    """Validate a URL. The message does not quote it: it may hold a password."""
    if "://" not in text:
        _at_home(Path(text))
    elif "@" in text.split("/", 3)[2]:
        raise ValueError("a URL with a user or password in it would end up in messages and files; use one without, or a folder")
    elif not URL.fullmatch(text) or urlsplit(text).port == 0:
        raise ValueError("is neither a folder nor an http(s) URL; write it as https://mirror.example")
    return text


File = Annotated[Path, AfterValidator(_at_home)]


class Ssh(Model):
    """How a machine is reached. ``port`` 1 to 65535; ``connect_timeout`` in seconds."""

    address: str
    port: int = Field(22, ge=1, le=65535)
    user: str = "root"
    private_key: Path | None = None
    become: bool = False
    host_key: str | None = Field(None, description="pinned fingerprint (SHA256:...) or public key (ssh-ed25519 AAAA...)")
    common_args: tuple[str, ...] = ()
    connect_timeout: float = Field(10.0, gt=0, le=300)
    local: bool = Field(False, description="the host is this computer itself: programs run here without SSH")
    network_namespace: Label | None = Field(None, description="Linux network namespace on this machine to connect from (the lab)")


class Host(Model):
    """One wanted machine. ``address`` is its address in the cluster's own network (the node's InternalIP)."""

    name: DnsName
    address: ipaddress.IPv4Address
    roles: frozenset[Role]
    ssh: Ssh
    groups: frozenset[str] = Field(frozenset(), description="the groups of the inventory that the host is in")
    written: str = Field("", description="the host's name as the inventory has it, before it became a node's", exclude=True)
    labels: Mapping[str, str] = Field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    settings: HostSettings = Field(HostSettings(), description="one object for all hosts that differ in nothing")

    @property
    def is_control_plane(self) -> bool:
        return "control_plane" in self.roles

    @property
    def is_etcd(self) -> bool:
        return "etcd" in self.roles

    @property
    def is_node(self) -> bool:
        """Whether a kubelet runs here: every machine but one that has etcd alone."""
        return self.is_control_plane or "worker" in self.roles


class Versions(Model):
    """The version of every product that is installed; ``known_versions`` has those that belong to one minor of Kubernetes."""

    kubernetes: Version
    etcd: Version = "3.6.14"
    containerd: Version = "2.3.4"
    runc: Version = "1.4.3"
    cni_plugins: Version = "1.9.1"
    flannel: Version = "0.28.10"
    flannel_cni: Version = "1.7.1-flannel1"
    crictl: Version
    coredns: Version = "1.14.0"
    metrics_server: Version = "0.9.0"
    pause: str = Field(pattern=r"^\d+(\.\d+)*$")


class NetworkSettings(Model):
    """The cluster's own networks. They may overlap neither each other nor a machine's address."""

    pods: Network4 = Network4("10.244.0.0/16")
    services: Network4 = Network4("10.96.0.0/16")
    node_mask: int = Field(24, ge=16, le=28, description="prefix length of each node's part of the pod network")
    domain: DnsName = "cluster.local"
    cni: Literal["flannel", "none"] = "flannel"
    backend: Literal["vxlan", "host-gw"] = "vxlan"
    proxy_mode: Literal["nftables", "iptables"] = "nftables"

    @property
    def dns_address(self) -> ipaddress.IPv4Address:
        return self.services.network_address + 10

    @property
    def api_address(self) -> ipaddress.IPv4Address:
        """The address of the ``kubernetes`` Service: the first of the service network."""
        return self.services.network_address + 1


API_PORT = 6443


class Endpoint(Model):
    """Where the API is reached from outside: a load balancer, a VIP or a DNS name; by default the first control plane."""

    address: DnsName | ipaddress.IPv4Address | None = None
    port: int = Field(API_PORT, ge=1, le=65535, description="without an address also the port of the API servers")
    names: tuple[DnsName | ipaddress.IPv4Address, ...] = Field(
        (), max_length=64, description="further names and addresses of the API, which its certificates hold")


class ArtifactSettings(Model):
    """Where programs and images come from, and how they get to machines.

    ``pins`` gives a sha256 for a path that the catalog does not know.
    """

    mirror: Annotated[str, AfterValidator(_mirror)] | None = Field(
        None, description="directory or http(s) base that holds upstream's own paths")
    cache: File | None = None
    pins: Mapping[str, Sha256] = Field(default_factory=dict)
    delivery: Literal["auto", "pull", "push"] = Field(
        "auto", description="pull: machines fetch files; push: files are sent over SSH; auto: sent to machines that cannot fetch")
    relay: str | None = Field(None, description="host that gets the files of all machines, which then fetch them from it")


class AddonSettings(Model):
    """Add-ons of the cluster. ``manifests``: files of Kubernetes objects, applied as they are."""

    coredns: bool = True
    metrics_server: bool = True
    manifests: tuple[File, ...] = ()


class TimeoutSettings(Model):
    """How long things may take, in seconds."""

    start: int = Field(600, ge=60, le=840, description="a slow start that makes progress; nodes to be Ready")


class AuthenticationSettings(Model):
    """How users prove who they are, beside client certificates: JWT authenticators of the API server."""

    jwt: tuple[Mapping[str, object], ...] = Field(
        (), max_length=64, description="the jwt list of an AuthenticationConfiguration; a CA is given inline")


def _no_oidc(flags: Mapping[str, str]) -> Mapping[str, str]:
    """The API server does not start with these beside --authentication-config (Kubernetes' structured authentication)."""
    wrong = sorted(name for name in flags if name.startswith("oidc-") or name == "authentication-config")
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: write the issuer into cluster.api_server.authentication.jwt instead")
    return flags


class ApiServerSettings(ComponentSettings):
    """Settings of the API servers."""

    extra_args: Annotated[Mapping[FlagName, FlagValue], AfterValidator(_no_oidc)] = Field(default_factory=dict)
    authentication: AuthenticationSettings = AuthenticationSettings()


class Settings(HostSettings):
    """The variable ``cluster:`` of all hosts. Groups and hosts may have what is in ``HostSettings``."""

    name: Label = "kubernetes"
    kubernetes: Release | None = None
    versions: Mapping[str, Version] = Field(default_factory=dict, description="versions of other products, by name")
    endpoint: Endpoint = Endpoint()
    network: NetworkSettings = NetworkSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    image_registry: ImageRegistry | None = Field(
        None, description="registry and path in place of registry.k8s.io for pause, CoreDNS and metrics-server")
    addons: AddonSettings = AddonSettings()
    api_server: ApiServerSettings = ApiServerSettings()
    controller_manager: ComponentSettings = ComponentSettings()
    scheduler: ComponentSettings = ComponentSettings()
    max_unavailable: str = Field(
        "1", pattern=r"^[1-9]\d*%?$", description="workers that may be disrupted at once: a number or a percentage",
        json_schema_extra={"type": ["string", "integer"], "minimum": 1},
    )
    certificate_days: int = Field(365, ge=1, le=3650, description="lifetime of leaf certificates, in days")
    schedule_on_control_plane: bool = False
    firewall: Literal["manage", "check", "ignore"] = Field(
        "check", description="ports between machines: open them, probe them before a machine joins, or neither")
    hostnames: Literal["check", "set", "ignore"] = Field(
        "ignore", description="machines' own hostnames: must be the names of their nodes, are set to them, or do not matter")
    timeouts: TimeoutSettings = TimeoutSettings()


class Cluster(Model):
    """The whole desired state."""

    hosts: tuple[Host, ...]
    versions: Versions
    settings: Settings
    base: Path = Field(description="folder of the inventory: relative paths in it start here")

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def network(self) -> NetworkSettings:
        return self.settings.network

    def with_role(self, role: Role) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if role in host.roles)

    @property
    def control_planes(self) -> tuple[Host, ...]:
        return self.with_role("control_plane")

    @property
    def etcd_members(self) -> tuple[Host, ...]:
        return self.with_role("etcd")

    @property
    def nodes(self) -> tuple[Host, ...]:
        return tuple(host for host in self.hosts if host.is_node)

    def host(self, name: str) -> Host:
        """The host of that name; raises KeyError."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def without(self, names: Iterable[str]) -> Cluster:
        gone = frozenset(names)
        return self.model_copy(update={"hosts": tuple(host for host in self.hosts if host.name not in gone)})

    def at(self, versions: Versions) -> Cluster:
        return self.model_copy(update={"versions": versions})

    @property
    def api_port(self) -> int:
        """The port of the API servers: the endpoint's where no load balancer is in between."""
        return self.settings.endpoint.port if self.settings.endpoint.address is None else API_PORT

    @property
    def endpoint(self) -> Endpoint:
        """The public endpoint; its address is the first control plane's where none is named."""
        named = self.settings.endpoint
        if named.address is not None:
            return named
        return named.model_copy(update={"address": self.control_planes[0].address})
