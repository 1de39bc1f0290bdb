"""kube-apiserver, and the keys that are the same on every control plane."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping

from clusterctl.cluster.model import API_PORT, Cluster
from clusterctl.components import etcd
from clusterctl.components.base import Context, Port, Product, control_planes
from clusterctl.components.common import CIPHERS, ETC, PKI, binary, ca_file, ids, issued, kubernetes, links, unit, with_extra
from clusterctl.components.render import render, yaml_value
from clusterctl.resources.base import Resource
from clusterctl.resources.file import File, Folder
from clusterctl.resources.service import Service
from clusterctl.shell.footprint import Footprint

RELEASE = kubernetes("kube-apiserver")
LOGS = "/var/log/kubernetes"
AUDIT = f"{LOGS}/audit"
ADMISSION_PLUGINS = "NodeRestriction,DenyServiceExternalIPs,EventRateLimit"

ADMINISTRATORS = "kubeadm:cluster-admins"
"""The group of administrators, as kubeadm names it; bound to cluster-admin, so that it can be revoked, unlike system:masters."""

KUBELET_CLIENT = "kube-apiserver-kubelet-client"


def api_names(context: Context) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(DNS names, addresses) under which this machine's API server is known."""
    cluster, host = context.cluster, context.host
    domain = cluster.network.domain
    service = "kubernetes.default.svc"
    names = [host.name, "localhost", "kubernetes", "kubernetes.default", service, f"{service}.{domain}"]
    addresses = [str(cluster.network.api_address), str(host.address), "127.0.0.1"]
    for public in map(str, (cluster.endpoint.address, *cluster.endpoint.names)):
        (addresses if public.replace(".", "").isdigit() else names).append(public)
    if not host.ssh.address.replace(".", "").isdigit():
        names.append(host.ssh.address)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(addresses))


def etcd_servers(context: Context) -> str:
    """The own member, where there is one; all members otherwise."""
    if context.host.is_etcd:
        return f"https://127.0.0.1:{etcd.CLIENT_PORT}"
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


def arguments(context: Context) -> dict[str, object]:
    """Return the flags of one machine's API server, with the user's."""
    cluster, network = context.cluster, context.cluster.network
    found: dict[str, object] = {
        **API_FLAGS,
        "secure-port": cluster.api_port,
        "advertise-address": context.host.address,
        "etcd-servers": etcd_servers(context),
        "service-account-issuer": f"https://kubernetes.default.svc.{network.domain}",
        "service-cluster-ip-range": network.services,
        "shutdown-delay-duration": "2s" if len(cluster.control_planes) == 1 else "5s",
    }
    if len(cluster.control_planes) > 1:
        found["goaway-chance"] = "0.001"
    return with_extra(found, cluster.settings.api_server.extra_args)


def keys(context: Context) -> list[Resource]:
    """Return the keys that are the same on every control plane; the controller manager reads some of them."""
    key = File(path=f"{PKI}/sa.key", content=context.pki.service_account_key, mode="600", sensitive=True)
    return [
        Folder(path=LOGS),
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


def resources(context: Context) -> list[Resource]:
    """Return kube-apiserver's own resources."""
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
    program = binary(context, RELEASE)
    switch = links(program, "kube-apiserver")
    service = unit("kube-apiserver", "kube-apiserver/kube-apiserver.service.j2", arguments=arguments(context),
                   local_etcd=context.host.is_etcd, oom=context.facts.lowers_oom_score)
    common = [f"file:{PKI}/{name}" for name in ("front-proxy-ca.crt", "etcd-ca.crt", "sa.key", "sa.pub")]
    return [
        *keys(context),
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


def _ports(cluster: Cluster) -> Iterator[Port]:
    yield Port("tcp", cluster.api_port, cluster.control_planes, cluster.nodes, pods=True)


APISERVER = Product(
    name="kube-apiserver", on=control_planes, slot="control-plane", resources=resources, releases=(RELEASE,), ports=_ports,
    footprint=Footprint(units=("kube-apiserver.service",)),
    # They stay on the machine when it is reset.
    managed=(LOGS,),
)
