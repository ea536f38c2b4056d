"""`reprieve top`: the machine as it lives, look after look: on a screen, as text, as JSON or CSV lines."""

import gc
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from reprieve.looked import clock, explained
from reprieve.machine.cgroup import read_cgroups, read_hierarchy
from reprieve.machine.follow import turns
from reprieve.machine.host import Host, become_expendable, identify
from reprieve.machine.kills import Kills
from reprieve.machine.memory import read_meminfo
from reprieve.machine.proc import measure_unique, read_processes
from reprieve.machine.program import gaps_at_hand
from reprieve.machine.sampler import Sampler
from reprieve.model.finding import Failure, Gap
from reprieve.model.machine import Machine
from reprieve.next import look
from reprieve.oom.counted import kills_since_boot
from reprieve.oom.groups import ancestors
from reprieve.output import INCOMPLETE, colour, print_lines, width
from reprieve.rules.survey import Surveyor

_EXTRA = "textual>=8,<9"

_ROWS = 20
_LINES = 24


class Request(NamedTuple):
    """What was asked for, as on the command line."""

    once: bool = False
    batch: bool = False
    csv: bool = False
    pid: int | None = None
    every_s: float | None = None
    looks: int | None = None
    rows: int | None = None
    origin: str | None = None


def perform(request: Request) -> int:
    """Look, and tell; the exit status. Raises Failure."""
    become_expendable()
    _live_long()
    if request.pid is not None:
        return _one_process(request, request.pid)
    if request.batch:
        return _batch(request)
    if request.once or request.origin is not None:
        return _once(request)
    return _live(request)


def _live_long() -> None:
    """Take garbage away as it comes: who answers once lets it lie (`__main__`), and we stay for hours."""
    gc.freeze()
    gc.set_threshold(2_000, 10, 10)


def _live(request: Request) -> int:
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual writes to the last
        raise Failure("the live view needs a terminal", hint="reprieve top --once, or --batch")
    try:
        import textual  # noqa: F401  # an extra: what it needs itself may be missing too
    except ModuleNotFoundError as missing:
        raise Failure(
            f"the live view needs Textual, and {missing.name} is not installed",
            hint=f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(_EXTRA)}; --once and --batch need nothing",
        ) from missing
    from reprieve.tui import run

    return run(every_s=request.every_s or 1.0, looks=request.looks)


def _once(request: Request) -> int:
    from reprieve.show.live import screenful

    gaps: list[Gap] = []
    machine = _machine(request.origin, gaps)
    survey = Surveyor().survey(machine)
    print_lines(
        screenful(
            survey,
            width=width(),
            height=_height(),
            rows=request.rows,
            colour=colour(),
            clock=clock(machine),
            gaps=gaps,
        )
    )
    return _status(gaps)


def _machine(origin: str | None, gaps: list[Gap]) -> Machine:
    """As it lives, without this process; or as it was captured."""
    if origin is not None:
        return look(origin, gaps)
    sampler = Sampler(leave_out=frozenset({os.getpid()}))
    gaps += gaps_at_hand(sampler.gaps)
    return sampler.look()


def _batch(request: Request) -> int:
    from reprieve.show import jsonl, looks

    every_s, rows = request.every_s or 1.0, request.rows or _ROWS
    sampler = Sampler(leave_out=frozenset({os.getpid()}))
    surveyor, told, seen = Surveyor(every_s=every_s), list[Gap](), 0
    counted: int | None = None
    open_to_reader = print_lines([looks.csv_head()]) if request.csv else True
    with Kills(identify().boot_id) as kills:
        for _ in turns(every_s, request.looks):
            survey = surveyor.survey(sampler.look())
            new = kills.new()
            unseen = [gap for gap in (*sampler.gaps, *kills.gaps) if gap not in told]
            told += unseen
            unseen = list(gaps_at_hand(unseen))
            lines: Iterator[str]
            if request.csv:
                time_s, before, counted = survey.machine.taken_wall_s, counted, kills_since_boot(survey.machine)
                unknown = (counted or 0) - before if kills.unheard and before is not None else 0
                killed = (*looks.csv_kills(time_s, new), *looks.csv_unknown_kills(time_s, unknown))
                lines = iter((*looks.csv_look(survey, rows), *killed))
                _complain(unseen)
            else:
                lines = iter((looks.look(survey, rows), *explained(new, unseen)))
            seen += 1
            if not open_to_reader or not print_lines(lines):
                return 0
    status = _status(told)
    if not request.csv:
        print_lines([jsonl.end(events=seen, exit_status=status)])
    return status


def _one_process(request: Request, pid: int) -> int:
    from reprieve.show import jsonl, looks

    host, gaps = Host(), list[Gap]()
    surveyor = Surveyor(every_s=request.every_s or 1.0)
    first = machine = _around(host, pid, gaps)
    gaps = list(gaps_at_hand(gaps))
    if first is None:
        raise Failure(f"there is no process {pid}", hint="its pid, as ps tells it")
    if first.processes[0].rss_bytes in (None, 0):
        raise Failure(f"process {pid} holds no memory of its own", hint="it is the kernel's, or has ended")
    if request.csv:
        print_lines([looks.csv_head()])
        _complain(gaps)
    seen = 0
    for _ in turns(request.every_s or 1.0, request.looks):
        if seen:
            machine = _around(host, pid, [])
        if machine is None or machine.processes[0].start_ticks != first.processes[0].start_ticks:
            break
        survey = surveyor.survey(machine)
        # Alone it would be the first of all.
        survey = survey._replace(processes=tuple(held._replace(place=None) for held in survey.processes))
        if not survey.processes:  # a zombie: it has ended, and nobody has asked how
            break
        seen += 1
        if not print_lines(looks.csv_sample(survey) if request.csv else [looks.sample(survey)]):
            return 0
    status = _status(gaps)
    if not request.csv:
        print_lines(explained((), gaps))
        print_lines([jsonl.end(events=seen, exit_status=status)])
    return status


def _around(host: Host, pid: int, gaps: list[Gap]) -> Machine | None:
    """A machine of this one process, and of the groups whose limits it lives under; None: it is not there."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    found = read_processes(host, gaps, pids=(pid,), page_bytes=page_bytes)
    if not found:
        return None
    (process,) = measure_unique(host, found, gaps)
    hierarchy = read_hierarchy(host, gaps)
    path = process.cgroup or "/"
    above = {path, *ancestors(path)}
    groups = () if hierarchy is None else read_cgroups(host, gaps, hierarchy)
    return Machine(
        taken_wall_s=time.time(),
        taken_uptime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
        page_bytes=page_bytes,
        meminfo=read_meminfo(host, gaps),
        cgroups=tuple(replace(group, pids=()) for group in groups if group.path in above),
        processes=(process,),
    )


def _status(gaps: Iterable[Gap]) -> int:
    return INCOMPLETE if any(gap.hides for gap in gaps) else 0


def _height() -> int:
    try:
        return max(os.get_terminal_size(1).lines - 1, _LINES)
    except OSError:
        return _LINES


def _complain(gaps: Iterable[Gap]) -> None:
    """Where lines are for a spreadsheet, what was not seen is said beside them."""
    from reprieve.show.escape import visible

    for gap in gaps:
        hint = f" ({gap.hint})" if gap.hint else ""
        print(visible(f"reprieve: {gap.place}: {gap.reason}{hint}"), file=sys.stderr)
