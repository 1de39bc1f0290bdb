"""The peer of a second apply: one SSH connection per host that runs one program (``python -m bench.bare INVENTORY [PROGRAMS]``).

PROGRAMS: a file with a program for each host, pickled; by default all run one ``stat``. It loads nothing that it does not need.
"""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from clusterctl.cluster.model import Host
from clusterctl.inventory import load
from clusterctl.shell import Script
from clusterctl.ssh.transport import Transport


def _one(host: Host, program: Script) -> None:
    transport = Transport(host)
    try:
        list(transport.stream(program))
    finally:
        transport.close()


def main(inventory: Path, programs: str = "") -> None:
    """All hosts at once."""
    hosts = load(inventory).hosts
    small = Script(probes=(("stat", "/etc/hostname"),))
    sent = pickle.loads(Path(programs).read_bytes()) if programs else {host.name: small for host in hosts}
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        list(pool.map(lambda host: _one(host, sent[host.name]), hosts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
