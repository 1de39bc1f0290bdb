"""What a command costs (``python -m bench.cost COMMAND...``): one JSON object on stdout, whose own output is left out.

A process of its own, as a child's peak of memory begins with that of the process which starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Exit with the command's code; what it printed is written to stderr."""
    started = time.monotonic()
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=2)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    print(json.dumps({"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mib": used.ru_maxrss / 1024}))
    sys.exit(os.waitstatus_to_exitcode(status))


main()
