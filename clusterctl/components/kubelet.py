"""kubelet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.base import Context, Finding, Port, Product, nodes, purge
from clusterctl.components.common import CIPHERS, ETC, PKI, daemon, issued, kubeconfig, kubernetes, node_user, with_extra
from clusterctl.components.kernel import in_container
from clusterctl.components.objects import node_taints
from clusterctl.components.render import yaml_value
from clusterctl.components.reserves import reserved
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder
from clusterctl.shell.facts import Facts
from clusterctl.shell.footprint import Footprint

RELEASE = kubernetes("kubelet")
PACKAGED = ("/usr/bin/kubelet", "/usr/bin/kubeadm")
PORT, HEALTH_PORT = 10250, 10248


def kubelet_config(context: Context) -> dict[str, object]:
    """The KubeletConfiguration, with the user's fields merged over ours."""
    cluster, facts, settings = context.cluster, context.facts, context.host.settings.kubelet
    config: dict[str, object] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs" if facts.cgroup_v1 else "systemd",
        "clusterDNS": [str(cluster.network.dns_address)],
        "clusterDomain": cluster.network.domain,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "tlsCertFile": f"{PKI}/kubelet.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet.key",
        "tlsMinVersion": "VersionTLS12",
        "tlsCipherSuites": list(CIPHERS),
        "rotateCertificates": True,
        "readOnlyPort": 0,
        "protectKernelDefaults": not in_container(context),
        "makeIPTablesUtilChains": True,
        "seccompDefault": True,
        "podPidsLimit": 4096,
        "maxPods": settings.max_pods,
        "eventRecordQPS": 50,
        "streamingConnectionIdleTimeout": "5m0s",
        "failSwapOn": False,
        "nodeStatusUpdateFrequency": "4s",
        "shutdownGracePeriod": "30s",
        "shutdownGracePeriodCriticalPods": "10s",
    }
    if facts.resolves_locally:
        config["resolvConf"] = "/run/systemd/resolve/resolv.conf"
    elif facts.resolv_conf == "missing":
        config["resolvConf"] = "/etc/clusterctl/resolv.conf"
    if facts.cgroup_v1:
        config["failCgroupV1"] = False
    if not facts.lowers_oom_score:
        config["oomScoreAdj"] = 0
    if quantities := reserved(settings, facts):
        config["kubeReserved"] = dict(quantities)
    if taints := node_taints(cluster, context.host):
        # From its first moment on: a pod that was placed before the taint would stay.
        config["registerWithTaints"] = taints
    return _merge(config, settings.config)


def _merge(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _kubelet(context: Context) -> Sequence[Resource]:
    host = context.host
    name = node_user("system:node", host.name)
    server = issued(context, f"{PKI}/kubelet", name, organizations=("system:nodes",), dns=(host.name,),
                    addresses=(str(host.address),), server=True)
    client = issued(context, f"{PKI}/kubelet-client", name, organizations=("system:nodes",), client=True)
    conf = kubeconfig(context, f"{ETC}/kubelet.conf", name, client.path)
    config = File(path="/var/lib/kubelet/config.yaml", content=yaml_value(kubelet_config(context)).encode() + b"\n", mode="600")
    ours = {"config": config.path, "kubeconfig": conf.path, "hostname-override": host.name, "node-ip": host.address, "v": 2}
    arguments = with_extra(ours, host.settings.kubelet.extra_args)
    return [
        Folder(path="/etc/cni/net.d"),
        Folder(path=f"{ETC}/manifests"),
        *daemon(context, RELEASE, server, client, conf, config, ready=("http_ok", str(HEALTH_PORT), "/healthz"), deadline=90,
                arguments=arguments),
    ]


def _ports(cluster: Cluster) -> Iterator[Port]:
    metrics = cluster.settings.addons.metrics_server
    yield Port("tcp", PORT, cluster.nodes, cluster.nodes if metrics else cluster.control_planes, pods=metrics)
    yield Port("tcp", HEALTH_PORT, cluster.nodes)


def _foreign(cluster: Cluster, host: Host, facts: Facts) -> Iterator[Finding]:
    """A kubelet of a package: our unit takes precedence over an inactive one."""
    if "kubelet" in facts.foreign.get("active", ()):
        yield Finding("host.foreign-kubelet", "kubelet.service is active and not of this cluster",
                      f"systemctl disable --now kubelet.service, then {purge('kubelet', 'kubeadm')}")
    elif programs := [path for path in facts.foreign.get("program", ()) if path in PACKAGED]:
        yield Finding("host.foreign-kubelet", f"{' and '.join(programs)} of a package: installed, not active",
                      f"not used; to remove: {purge('kubelet', 'kubeadm')}", fatal=False)


KUBELET = Product(
    name="kubelet", on=nodes, slot="nodes", resources=_kubelet, releases=(RELEASE,), ports=_ports, foreign=_foreign,
    footprint=Footprint(
        units=("kubelet.service",),
        # The kubelet writes logind's drop-in itself, and makes the folder of volume plugins.
        configuration=("/etc/systemd/logind.conf.d/99-kubelet.conf", "/usr/libexec/kubernetes"),
        data=("/var/lib/kubelet",),
        foreign_programs=PACKAGED,
        foreign_units=("kubelet",),
    ),
)
