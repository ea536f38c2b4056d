"""`reprieve demo`: a real kill in a small cgroup, explained; without the rights for one, a recorded kill."""

import os
import sys

from reprieve.machine.demo import LIMIT_BYTES, kill_a_leak
from reprieve.machine.host import become_expendable
from reprieve.model.finding import Failure
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.rules import diagnose
from reprieve.show import text
from reprieve.units import size
from reprieve.why import colour, width

_RECORDED = os.path.join(os.path.dirname(__file__), "recorded.log")


def perform(*, verbose: bool) -> None:
    """Make a kill, explain it as `reprieve why` does. Nothing of it is left on the machine."""
    become_expendable()
    try:
        print(f"A process leaks in a memory cgroup of its own, limited to {size(LIMIT_BYTES)} …", flush=True)
        log, source = kill_a_leak(), "/dev/kmsg"
        print("… and the kernel has killed it. `reprieve why` says of it:\n")
    except Failure as failure:
        print(f"… but not here: {failure.message}. This is a recorded kill of a Linux 7.3 machine instead.\n")
        with open(_RECORDED, "rb") as file:
            log, source = file.read(), "recorded.log"
    events = read_reports(log.decode(errors="backslashreplace"), source)
    ooms = tuple(event for event in events if isinstance(event, OomReport))
    snapshot = Snapshot(ooms=ooms[-1:])
    lines = text.explain(snapshot, diagnose(snapshot), width=width(), colour=colour(), verbose=verbose)
    sys.stdout.writelines(f"{line}\n" for line in lines)
