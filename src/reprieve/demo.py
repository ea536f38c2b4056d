"""`reprieve demo`: a real kill in a small cgroup, explained; without the rights for one, a recorded kill."""

import os
import shlex
from itertools import chain

from reprieve.machine.demo import LIMIT_BYTES, kill_a_leak
from reprieve.machine.host import become_expendable
from reprieve.machine.program import as_root
from reprieve.model.finding import Failure
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.report import read_reports
from reprieve.output import colour, print_lines, width
from reprieve.rules import diagnose
from reprieve.show import text
from reprieve.units import size

_RECORDED = os.path.join(os.path.dirname(__file__), "recorded.log")


def perform(*, verbose: bool) -> None:
    """Make a kill, explain it as `reprieve why` does. Nothing of it is left on the machine but its lines in the log."""
    become_expendable()
    try:
        log, source = kill_a_leak(), "/dev/kmsg"
        what = (
            f"A process leaked in a memory cgroup of its own, limited to {size(LIMIT_BYTES)}, and the kernel of this "
        )
        what += (
            "machine killed it. Only its lines in the kernel's log are left, which `reprieve why` goes on to tell of:"
        )
    except Failure as failure:
        with open(_RECORDED, "rb") as file:
            log, source = file.read(), "recorded.log"
        what = f"No kill can be made here: {failure.message}"
        if (command := as_root("demo")) is not None:
            what += f" (`{shlex.join(command)}` makes one)"
        what += ". This is a recorded one, of a virtual machine with Linux 7.3, and what `reprieve why` says of it:"
    events = read_reports(log.decode(errors="backslashreplace"), source)
    ooms = tuple(event for event in events if isinstance(event, OomReport))
    gone = tuple(oom.limit_of.path for oom in ooms if oom.limit_of is not None)  # of the demo's own, or another machine
    snapshot = Snapshot(ooms=ooms[-1:], gone_groups=gone)
    explained = text.explain(snapshot, diagnose(snapshot), width=width(), colour=colour(), verbose=verbose, hints=False)
    last = "Now for your own: reprieve why" + ("" if verbose else "; all that is known of this one: reprieve demo -v")
    print_lines(chain(text.wrap(what, width()), ("",), explained, ("", last)))
