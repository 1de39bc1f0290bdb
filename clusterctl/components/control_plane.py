"""kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from clusterctl.cluster.model import API_PORT, Cluster
from clusterctl.components import etcd
from clusterctl.components.base import Component, Context, control_planes
from clusterctl.components.common import CIPHERS, PKI, ca_file, ids, issued, kubeconfig, links, product, unit, with_extra
from clusterctl.components.render import render, yaml_value
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder, Link
from clusterctl.resources.program import ROOT
from clusterctl.resources.service import Service

ETC = "/etc/kubernetes"
AUDIT = "/var/log/kubernetes/audit"
ADMISSION_PLUGINS = "NodeRestriction,DenyServiceExternalIPs,EventRateLimit"
ADMINISTRATORS = "kubeadm:cluster-admins"
"""The group of administrators, as kubeadm names it; bound to cluster-admin, so that it can be revoked, unlike system:masters."""

KUBELET_CLIENT = "kube-apiserver-kubelet-client"


def api_names(context: Context) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(DNS names, addresses) under which this machine's API server is known."""
    cluster, host = context.cluster, context.host
    domain = cluster.network.domain
    names = [
        host.name,
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        f"kubernetes.default.svc.{domain}",
    ]
    addresses = [str(cluster.network.api_address), str(host.address), "127.0.0.1"]
    for public in map(str, (cluster.endpoint.address, *cluster.endpoint.names)):
        (addresses if public.replace(".", "").isdigit() else names).append(public)
    if not host.ssh.address.replace(".", "").isdigit():
        names.append(host.ssh.address)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(addresses))


def etcd_servers(context: Context) -> str:
    """The own member, where there is one; all members otherwise."""
    if context.host.is_etcd:
        return "https://127.0.0.1:2379"
    return ",".join(etcd.client_url(host) for host in context.cluster.etcd_members)


API_FLAGS: Mapping[str, object] = {
    "bind-address": "0.0.0.0",
    "secure-port": API_PORT,
    "allow-privileged": "true",
    "authorization-mode": "Node,RBAC",
    "client-ca-file": f"{PKI}/ca.crt",
    "tls-cert-file": f"{PKI}/apiserver.crt",
    "tls-private-key-file": f"{PKI}/apiserver.key",
    "tls-min-version": "VersionTLS12",
    "tls-cipher-suites": ",".join(CIPHERS),
    "authentication-config": f"{ETC}/authentication.yaml",
    "enable-admission-plugins": ADMISSION_PLUGINS,
    "admission-control-config-file": f"{ETC}/admission.yaml",
    "etcd-cafile": f"{PKI}/etcd-ca.crt",
    "etcd-certfile": f"{PKI}/apiserver-etcd-client.crt",
    "etcd-keyfile": f"{PKI}/apiserver-etcd-client.key",
    "kubelet-client-certificate": f"{PKI}/apiserver-kubelet-client.crt",
    "kubelet-client-key": f"{PKI}/apiserver-kubelet-client.key",
    "kubelet-certificate-authority": f"{PKI}/ca.crt",
    "kubelet-preferred-address-types": "InternalIP,ExternalIP,Hostname",
    "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
    "requestheader-allowed-names": "front-proxy-client",
    "requestheader-extra-headers-prefix": "X-Remote-Extra-",
    "requestheader-group-headers": "X-Remote-Group",
    "requestheader-username-headers": "X-Remote-User",
    "proxy-client-cert-file": f"{PKI}/front-proxy-client.crt",
    "proxy-client-key-file": f"{PKI}/front-proxy-client.key",
    "service-account-key-file": f"{PKI}/sa.pub",
    "service-account-signing-key-file": f"{PKI}/sa.key",
    "service-account-extend-token-expiration": "false",
    "service-account-lookup": "true",
    "encryption-provider-config": f"{ETC}/encryption.yaml",
    "audit-policy-file": f"{ETC}/audit-policy.yaml",
    "audit-log-path": f"{AUDIT}/audit.log",
    "audit-log-maxage": 30,
    "audit-log-maxbackup": 10,
    "audit-log-maxsize": 100,
    "profiling": "false",
    "request-timeout": "1m0s",
    # Without it a stop waits for open watches until they end by themselves.
    "shutdown-watch-termination-grace-period": "5s",
}
"""The flags of every API server, whatever its cluster and machine."""


def api_arguments(context: Context) -> dict[str, object]:
    cluster, network = context.cluster, context.cluster.network
    arguments: dict[str, object] = {
        **API_FLAGS,
        "secure-port": cluster.api_port,
        "advertise-address": context.host.address,
        "etcd-servers": etcd_servers(context),
        "service-account-issuer": f"https://kubernetes.default.svc.{network.domain}",
        "service-cluster-ip-range": network.services,
        "shutdown-delay-duration": "2s" if len(cluster.control_planes) == 1 else "5s",
    }
    if len(cluster.control_planes) > 1:
        arguments["goaway-chance"] = "0.001"
    return with_extra(arguments, cluster.settings.api_server.extra_args)


def shared(context: Context) -> list[Resource]:
    """What all three read: the keys that are the same on every control plane."""
    key = File(path=f"{PKI}/sa.key", content=context.pki.service_account_key, mode="600", sensitive=True)
    return [
        Folder(path="/var/log/kubernetes"),
        Folder(path=AUDIT, mode="700"),
        ca_file(context, "front-proxy", f"{PKI}/front-proxy-ca.crt"),
        ca_file(context, "etcd", f"{PKI}/etcd-ca.crt"),
        key,
        File(path=f"{PKI}/sa.pub", content=context.pki.service_account_public),
        File(path=f"{PKI}/ca.key", content=context.pki.authorities["kubernetes"].key, mode="600", sensitive=True),
    ]


def encryption(context: Context) -> File:
    key = context.pki.encryption_key
    name = f"key-{hashlib.sha256(key).hexdigest()[:8]}"
    provider = {"secretbox": {"keys": [{"name": name, "secret": base64.b64encode(key).decode()}]}}
    content = yaml_value({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets", "configmaps"], "providers": [provider, {"identity": {}}]}],
    })
    return File(path=f"{ETC}/encryption.yaml", content=content.encode() + b"\n", mode="600", sensitive=True)


def authentication(context: Context) -> File:
    """Return the AuthenticationConfiguration: anonymous requests to the health endpoints alone, and the user's JWT issuers."""
    content: dict[str, object] = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in ("/livez", "/readyz", "/healthz")]},
    }
    if issuers := context.cluster.settings.api_server.authentication.jwt:
        content["jwt"] = [dict(issuer) for issuer in issuers]
    return File(path=f"{ETC}/authentication.yaml", content=yaml_value(content).encode() + b"\n", mode="600")


def _api_server(context: Context) -> list[Resource]:
    names, addresses = api_names(context)
    certificates: list[Resource] = [
        issued(context, f"{PKI}/apiserver", "kube-apiserver", dns=names, addresses=addresses, server=True),
        issued(context, f"{PKI}/apiserver-kubelet-client", KUBELET_CLIENT, client=True),
        issued(context, f"{PKI}/front-proxy-client", "front-proxy-client", authority="front-proxy", client=True),
        issued(context, f"{PKI}/apiserver-etcd-client", "kube-apiserver-etcd-client", authority="etcd", client=True),
    ]
    configuration: list[Resource] = [
        encryption(context),
        authentication(context),
        *(
            File(path=f"{ETC}/{name}", content=render(f"kube-apiserver/{name}.j2"), mode="600")
            for name in ("admission.yaml", "audit-policy.yaml")
        ),
    ]
    program = product(context, "kube-apiserver", context.cluster.versions.kubernetes)
    switch = links(program, "kube-apiserver")
    service = unit(
        "kube-apiserver",
        "kube-apiserver/kube-apiserver.service.j2",
        arguments=api_arguments(context),
        local_etcd=context.host.is_etcd,
        oom=context.facts.lowers_oom_score,
    )
    common = ids(*shared(context)[2:6])
    return [
        *certificates,
        *configuration,
        *switch,
        service,
        Service(
            unit="kube-apiserver.service",
            ready=("api_ready", f"{ETC}/admin.conf"),
            deadline=120,
            inputs=(f"file:{PKI}/ca.crt", *common, *ids(program, *switch, *certificates, *configuration, service)),
        ),
    ]


def patient_election(cluster: Cluster) -> dict[str, str]:
    """Return the timings of the leader election where there is one control plane: nothing else could lead.

    A controller manager ends when it cannot renew its lease in time, 10 s by default, and on a slow machine it would end over and
    over again (client-go, leaderelection.go: a renewal may take half of the deadline). A new one waits until the lease ends.
    """
    if len(cluster.control_planes) > 1:
        return {}
    return {"lease-duration": "30s", "renew-deadline": "25s", "retry-period": "3s"}


def manager_arguments(context: Context) -> dict[str, object]:
    cluster, network, conf = context.cluster, context.cluster.network, f"{ETC}/controller-manager.conf"
    return with_extra(
        {
            "kubeconfig": conf,
            "authentication-kubeconfig": conf,
            "authorization-kubeconfig": conf,
            "client-ca-file": f"{PKI}/ca.crt",
            "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
            "root-ca-file": f"{PKI}/ca.crt",
            "cluster-signing-cert-file": f"{PKI}/ca.crt",
            "cluster-signing-key-file": f"{PKI}/ca.key",
            "cluster-signing-duration": "8760h",
            "service-account-private-key-file": f"{PKI}/sa.key",
            "use-service-account-credentials": "true",
            "leader-elect": "true",
            **{f"leader-elect-{name}": value for name, value in patient_election(cluster).items()},
            "bind-address": "127.0.0.1",
            "profiling": "false",
            "terminated-pod-gc-threshold": 1000,
            "tls-cert-file": f"{PKI}/controller-manager-server.crt",
            "tls-private-key-file": f"{PKI}/controller-manager-server.key",
            "tls-min-version": "VersionTLS12",
            "tls-cipher-suites": ",".join(CIPHERS),
            "allocate-node-cidrs": "true",
            "cluster-cidr": network.pods,
            "node-cidr-mask-size": network.node_mask,
            "service-cluster-ip-range": network.services,
            "cluster-name": cluster.name,
            "configure-cloud-routes": "false",
            # A new leader asks some hundred things before its controllers run: at 20 a second, the default, 4 s long.
            "kube-api-qps": 150,
            "kube-api-burst": 300,
        },
        cluster.settings.controller_manager.extra_args,
    )


def scheduler_arguments(context: Context) -> dict[str, object]:
    conf = f"{ETC}/scheduler.conf"
    return with_extra(
        {
            "config": f"{ETC}/scheduler.yaml",
            "authentication-kubeconfig": conf,
            "authorization-kubeconfig": conf,
            "bind-address": "127.0.0.1",
            "profiling": "false",
            "client-ca-file": f"{PKI}/ca.crt",
            "requestheader-client-ca-file": f"{PKI}/front-proxy-ca.crt",
            "tls-cert-file": f"{PKI}/scheduler-server.crt",
            "tls-private-key-file": f"{PKI}/scheduler-server.key",
            "tls-min-version": "VersionTLS12",
            "tls-cipher-suites": ",".join(CIPHERS),
        },
        context.cluster.settings.scheduler.extra_args,
    )


PORTS = {"kube-controller-manager": "10257", "kube-scheduler": "10259"}


def _daemon(context: Context, name: str, short: str, arguments: dict[str, object], *more: Resource) -> list[Resource]:
    """The controller manager and the scheduler are alike: a kubeconfig, a serving certificate, a unit."""
    program = product(context, name, context.cluster.versions.kubernetes)
    client = issued(context, f"{PKI}/{short}", f"system:{name}", client=True)
    server = issued(
        context, f"{PKI}/{short}-server", name, dns=("localhost", context.host.name), addresses=("127.0.0.1",), server=True
    )
    conf = kubeconfig(context, f"{ETC}/{short}.conf", f"system:{name}", client.path)
    switch = links(program, name)
    service = unit(name, f"{name}/{name}.service.j2", arguments=arguments)
    inputs = (
        f"file:{PKI}/ca.crt",
        f"file:{PKI}/front-proxy-ca.crt",
        *ids(program, client, server, conf, *more, *switch, service),
    )
    if short == "controller-manager":
        inputs = (f"file:{PKI}/ca.key", f"file:{PKI}/sa.key", *inputs)
    daemon = Service(unit=f"{name}.service", inputs=inputs, deadline=60, ready=("tcp_open", "127.0.0.1", PORTS[name]))
    return [client, server, conf, *more, *switch, service, daemon]


def resources(context: Context) -> Sequence[Resource]:
    admin = issued(context, f"{PKI}/admin", "kubernetes-admin", organizations=(ADMINISTRATORS,), client=True)
    kubectl = product(context, "kubectl", context.cluster.versions.kubernetes)
    election = patient_election(context.cluster)
    scheduler = File(path=f"{ETC}/scheduler.yaml", content=render("kube-scheduler/config.yaml.j2", election=election), mode="600")
    return [
        *shared(context),
        admin,
        kubeconfig(context, f"{ETC}/admin.conf", "kubernetes-admin", admin.path),
        *links(kubectl, "kubectl"),
        Link(path="/usr/local/bin/kubectl", target=f"{ROOT}/bin/kubectl"),
        *_api_server(context),
        *_daemon(context, "kube-controller-manager", "controller-manager", manager_arguments(context)),
        *_daemon(context, "kube-scheduler", "scheduler", scheduler_arguments(context), scheduler),
    ]


CONTROL_PLANE = Component(name="control-plane", on=control_planes, resources=resources)
