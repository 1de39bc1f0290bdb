"""An operator who wants the cluster's lock whenever a line comes on standard input, and keeps it until the next one.

usage: contender.py INVENTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

from clusterctl.cli.options import PasswordOptions
from clusterctl.engine.events import Events
from clusterctl.errors import ClusterctlError
from clusterctl.session.operator_lock import locked
from clusterctl.session.session import session


def main() -> None:
    with session(PasswordOptions().gather(Path(sys.argv[1])), Events()) as opened:
        opened.connect(opened.cluster.control_planes)
        print("ready", flush=True)
        for _ in sys.stdin:
            try:
                with locked(opened, "contend"):
                    print("held", flush=True)
                    sys.stdin.readline()
            except ClusterctlError as error:
                print(f"{type(error).__name__}: {error.message}", flush=True)
            else:
                print("released", flush=True)


if __name__ == "__main__":
    main()
