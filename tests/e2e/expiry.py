"""A year in which nobody looked: every certificate of the machines has ended."""

from __future__ import annotations

import base64
import re
import time
from datetime import UTC, datetime, timedelta

from cluster import Cluster, until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

PLACES = "/etc/etcd/pki/*.crt /etc/kubernetes/pki/*.crt /var/lib/kubelet/pki/kubelet-client-current.pem"
UNITS = "etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy flanneld api-proxy"
BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n", re.S)


def end_all(cluster: Cluster) -> int:
    """Certificates of the same names and keys which ended an hour ago, and all programs begin with them; how many there are."""
    folder = next(cluster.inventory.parent.glob(".clusterctl/*/pki"))
    authorities = {x509.load_pem_x509_certificate(path.read_bytes()).subject: path for path in folder.glob("*.crt")}
    count = 0
    for machine in cluster.lab.machines:
        said = cluster.on(machine, f'for f in {PLACES}; do [ ! -f "$f" ] || {{ echo "FILE $f"; cat "$f"; }}; done')
        commands = []
        for path, text in re.findall(r"FILE (\S+)\n(.*?)(?=FILE |\Z)", said, re.S):
            found = x509.load_pem_x509_certificate(text.encode())
            if found.subject not in authorities:
                text = BLOCK.sub(_ended(found, authorities[found.issuer].with_suffix(".key").read_bytes()), text, count=1)
                commands.append(f"echo {base64.b64encode(text.encode()).decode()} | base64 -d >{path}")
        # As after a crash: an API server that is asked to end waits for an etcd that does not answer any more.
        cluster.on(machine, "\n".join([*commands, f"systemctl kill --signal=KILL -- {UNITS} 2>/dev/null || :"]))
        count += len(commands)
    return count


def _ended(found: x509.Certificate, authority_key: bytes) -> str:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(found.issuer, found.subject, found.public_key(), x509.random_serial_number(),
                                   now - timedelta(days=365), now - timedelta(hours=1), list(found.extensions))
    key = serialization.load_pem_private_key(authority_key, None)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]


def renewed(cluster: Cluster) -> float:
    """Seconds that ``apply`` took to have a cluster again whose every certificate had ended."""
    count = end_all(cluster)
    assert count >= 10 * len(cluster.control_planes)
    until(lambda: "no API server answers" in cluster.cli("plan"), "the cluster is down", 60)
    began = time.monotonic()
    print("apply:", cluster.apply()["stages"])
    return time.monotonic() - began
