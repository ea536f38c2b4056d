"""Fills the PID namespace it is run in with so many processes that sleep, until it is ended: `crowd.py COUNT MIB`.

MiB above 0: the first of them holds that much. Says so when all are there.
"""

from __future__ import annotations

import subprocess
import sys
import time

_LARGE = "import time; held = b'x' * ({} << 20); print(flush=True); time.sleep(3600)"

if __name__ == "__main__":
    count, mib = map(int, sys.argv[1:])
    if mib:
        large = subprocess.Popen((sys.executable, "-c", _LARGE.format(mib)), stdout=subprocess.PIPE)
        assert large.stdout is not None
        large.stdout.readline()
    crowd = [subprocess.Popen(("sleep", "3600"), stdin=subprocess.DEVNULL) for _ in range(count)]
    print(len(crowd), flush=True)
    time.sleep(3600)
