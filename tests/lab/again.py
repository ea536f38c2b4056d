"""In a guest: commands of `reprieve`, a line each on stdin, each by a process of its own.

Arguments: the folder of the package; to end with the power, how many records the journal of changes has by then, and
how many seconds after the last of them. Then nothing runs any more, the console says so, and who reads it cuts it.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from reprieve import apply, fix_verbs, undo  # noqa: F401  loaded before the forks
from reprieve.__main__ import main

LEDGER = Path("/var/lib/reprieve/changes.jsonl")


def stand_still(records: int, after_s: float) -> None:
    """From then on this process has the only processor."""
    Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
    while LEDGER.read_bytes().count(b"\n") < records:
        time.sleep(0.001)
    time.sleep(after_s)
    Path("/dev/kmsg").write_text("<1>it stands still\n")
    while True:
        pass


if sys.argv[2:] and os.fork() == 0:
    stand_still(int(sys.argv[2]), float(sys.argv[3]))
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.argv = ["reprieve", *line.split()]
        main()
    _, status = os.waitpid(child, 0)
    assert status == 0, line
    print("-- said", flush=True)
