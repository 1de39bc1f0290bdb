"""etcd, on the control planes or on machines of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clusterctl.artifacts.catalog import Release
from clusterctl.cluster.model import Cluster, Host
from clusterctl.components.base import Context, Port, Product, etcd_members
from clusterctl.components.common import CIPHERS, binary, ca_file, ids, issued, links, unit
from clusterctl.components.render import render
from clusterctl.resources.base import Resource
from clusterctl.resources.etcd_member import FORMED, INITIAL, EtcdLearner, EtcdVoter, Formed
from clusterctl.resources.file import Folder, WriteOnceFile
from clusterctl.resources.service import Service
from clusterctl.resources.system import User
from clusterctl.shell.footprint import Footprint

RELEASE = Release("etcd", "etcd", "github.com/etcd-io/etcd/releases/download/v{version}/etcd-v{version}-linux-{arch}.tar.gz",
                  members=tuple(f"etcd-v{{version}}-linux-{{arch}}/{name}" for name in ("etcd", "etcdctl", "etcdutl")),
                  checksums="github.com/etcd-io/etcd/releases/download/v{version}/SHA256SUMS")
PKI = "/etc/etcd/pki"
OWNER = "etcd:etcd"
DATA = "/var/lib/etcd"
CLIENT_PORT, PEER_PORT, METRICS_PORT = 2379, 2380, 2381


def peer_url(host: Host) -> str:
    return f"https://{host.address}:{PEER_PORT}"


def client_url(host: Host) -> str:
    return f"https://{host.address}:{CLIENT_PORT}"


def arguments(context: Context) -> dict[str, object]:
    """The flags; on the command line, as a configuration file would make etcd ignore all flags and CIS reads flags."""
    host = context.host
    return {
        "name": host.name,
        "data-dir": DATA,
        "listen-client-urls": f"{client_url(host)},https://127.0.0.1:{CLIENT_PORT}",
        "advertise-client-urls": client_url(host),
        "listen-peer-urls": peer_url(host),
        "initial-advertise-peer-urls": peer_url(host),
        "cert-file": f"{PKI}/server.crt",
        "key-file": f"{PKI}/server.key",
        "client-cert-auth": "true",
        "trusted-ca-file": f"{PKI}/ca.crt",
        "peer-cert-file": f"{PKI}/peer.crt",
        "peer-key-file": f"{PKI}/peer.key",
        "peer-client-cert-auth": "true",
        "peer-trusted-ca-file": f"{PKI}/ca.crt",
        # TLS 1.3 as the lowest version and a list of ciphers exclude each other (etcd-io/etcd#15156).
        "tls-min-version": "TLS1.2",
        "cipher-suites": ",".join(CIPHERS),
        "listen-metrics-urls": f"http://127.0.0.1:{METRICS_PORT}",
        "quota-backend-bytes": 8 * 1024**3,
        "enable-pprof": "false",
        "snapshot-count": 10000,
        "feature-gates": "InitialCorruptCheck=true",
        "watch-progress-notify-interval": "5s",
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": "1h",
    }


def resources(context: Context) -> Sequence[Resource]:
    host = context.host
    names, addresses = (host.name, "localhost"), (str(host.address), "127.0.0.1")
    program = binary(context, RELEASE)
    switch = links(program, "etcd", "etcdctl", "etcdutl")
    certificates: list[Resource] = [
        ca_file(context, "etcd", f"{PKI}/ca.crt", OWNER),
        *(issued(context, f"{PKI}/{kind}", host.name, authority="etcd", owner=OWNER, dns=names, addresses=addresses,
                 server=True, client=True) for kind in ("server", "peer")),
        issued(context, f"{PKI}/healthcheck-client", "kube-etcd-healthcheck-client", authority="etcd", owner=OWNER, client=True),
    ]
    service = unit("etcd", "etcd/etcd.service.j2", arguments=arguments(context), data=DATA, oom=context.facts.lowers_oom_score)
    return [
        User(name="etcd", home=DATA),
        Folder(path=DATA, mode="700", owner=OWNER),
        Folder(path="/etc/etcd"),
        Folder(path=PKI, mode="750", owner="root:etcd"),
        *switch,
        *certificates,
        service,
        *_entrance(context),
        Service(
            unit="etcd.service", inputs=ids(program, *switch, *certificates[:3], service), ready=("etcd_ready",), deadline=120
        ),
        *_vote(context),
        Formed(path=FORMED, name=host.name, content=b"This member has served.\n"),
    ]


def _others(context: Context) -> tuple[str, ...]:
    return tuple(
        client_url(member)
        for member in context.cluster.etcd_members
        if member.name in context.etcd_formed and member.name != context.host.name
    )


def _entrance(context: Context) -> list[Resource]:
    """Return how this member joins: with all others when the cluster is bootstrapped, or as a learner of a running cluster."""
    host = context.host
    if context.etcd_formed and host.name not in context.etcd_formed:
        return [EtcdLearner(name=host.name, peer_url=peer_url(host), endpoints=_others(context), token=context.pki.identity)]
    initial = render(
        "etcd/initial.env.j2",
        state="new",
        token=context.pki.identity,
        members=[f"{member.name}={peer_url(member)}" for member in context.cluster.etcd_members],
    )
    return [WriteOnceFile(path=INITIAL, content=initial, mode="600")]


def _vote(context: Context) -> list[Resource]:
    """Return the promotion of a member that joined as a learner; a cluster that is bootstrapped has none."""
    others = _others(context)
    joining = context.host.name not in context.etcd_formed
    return [EtcdVoter(name=context.host.name, endpoints=others, joining=joining)] if others else []


def _ports(cluster: Cluster) -> Iterator[Port]:
    members = cluster.etcd_members
    yield Port("tcp", CLIENT_PORT, members, tuple(host for host in cluster.hosts if host.is_etcd or host.is_control_plane))
    yield Port("tcp", PEER_PORT, members, members)
    yield Port("tcp", METRICS_PORT, members)


ETCD = Product(
    name="etcd", on=etcd_members, slot="etcd", resources=resources, releases=(RELEASE,), ports=_ports,
    footprint=Footprint(
        units=("etcd.service",), configuration=("/etc/etcd",), data=(DATA,), unlinked=("/etc/etcd", DATA), users=("etcd",)),
)
