"""`reprieve run --smallest`: the smallest limit with which a command still ends well, by running it again and again."""

import signal
from dataclasses import replace

from reprieve.machine.launch import OURS, TO_END, Order, is_heeded
from reprieve.model.finding import Failure
from reprieve.model.run import Run
from reprieve.run import Report, Request, attempt, order_of, say
from reprieve.show import jsonl, ran
from reprieve.units import MIB, size

_TIMES, _MORE_S = 10, 10.0  # at too low a limit a run may never end: it has ten times as long, and ten seconds
_EXACT = 32  # the limit is known to a 32nd of it, or a MiB


class _Interrupted(Exception):
    """Somebody asked for the end of it, by the signal of that number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _why_not(first: Run) -> str:
    if first.out_of_time:
        return "its --time is over before it ends"
    if first.status == 137 and first.bounds.max_bytes is not None:
        return f"it is killed at --max {size(first.bounds.max_bytes)}; without one it is looked for from above"
    return "it does not end well as it is"


def search(request: Request) -> int:
    """Run it until the limit is known; 0, or the status with which it ends where the limit is not the reason.

    Raises Failure: no limit can be held here, or what it needs changes from run to run.
    """
    order = order_of(request)
    with Report(request.report) as report:
        try:
            status = _search(request, order, report)
        except _Interrupted as interrupted:
            status = 128 + interrupted.number
        report.write([jsonl.end(events=0, exit_status=status)])
    return status


def _search(request: Request, order: Order, report: Report) -> int:
    runs: list[Run] = []

    def run(limit_bytes: int | None, time_s: float | None) -> Run:
        bounds = replace(request.bounds, max_bytes=limit_bytes)
        done, _ = attempt(request._replace(bounds=bounds, time_s=time_s, quiet=True), order)
        runs.append(done)
        report.write([jsonl.ran(done)])
        if not request.quiet:
            say([ran.tried(done)])
        waiting = filter(is_heeded, signal.sigpending().intersection(TO_END))  # it came as nobody ran
        for number in (done.asked_to_end, *waiting):
            if number is not None:
                raise _Interrupted(number)
        return done

    first = run(request.bounds.max_bytes, request.time_s)
    if not _is_well(first):
        say([f"reprieve: there is nothing to be found: {_why_not(first)}"])
        return first.status or OURS
    peak_bytes = None if first.use is None else first.use.peak_bytes
    if peak_bytes is None:
        hint = _with_a_peak(first, request)
        raise Failure("--smallest needs a cgroup that tells its peak", hint=hint, status=OURS)
    time_s = request.time_s or _TIMES * first.wall_s + _MORE_S
    enough, too_little = None, 0
    limit = _rounded(peak_bytes)
    while enough is None or enough - too_little > max(MIB, too_little // _EXACT):
        done = run(limit, time_s)
        if _is_well(done):
            enough = limit
        elif enough is None and limit > 2 * peak_bytes:
            said = f"it needed {size(peak_bytes)}, and now does not end well with {size(limit)}"
            raise Failure(said, hint="each run must do the same", status=OURS)
        else:
            too_little = limit
        limit = _rounded(limit * 5 // 4 if enough is None else (enough + too_little) // 2)
    say([ran.found(enough, too_little, runs)])
    return 0


def _with_a_peak(first: Run, request: Request) -> str:
    """Where there is one: root may make it, and the command is its user's still."""
    since = "Linux 5.19 or later, where cgroups are of version 2"
    if first.use is not None:  # it had one: root's would tell as little
        return f"it is there on {since}"
    from reprieve.machine.program import run_as_root

    command = run_as_root("--smallest", named=request.user is not None)
    if command is None:
        return f"on the host, or in a container that may write to its cgroups; on {since}"
    return f"run it as root: `{command}`; on {since}"


def _is_well(run: Run) -> bool:
    """Did it end with status 0, and was none of it killed?"""
    return run.status == 0 and not run.out_of_time and not (run.use is not None and run.use.oom_kills)


def _rounded(count_bytes: int) -> int:
    """Up to whole MiB."""
    return -(-count_bytes // MIB) * MIB
