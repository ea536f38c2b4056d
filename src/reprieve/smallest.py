"""`reprieve run --smallest`: the smallest limit with which a command still ends well, by running it again and again."""

import signal
from dataclasses import replace

from reprieve.machine.launch import OURS
from reprieve.model.finding import Failure
from reprieve.model.run import Run
from reprieve.run import Request, attempt, open_report, order_of, say
from reprieve.show import jsonl, ran
from reprieve.units import MIB, size

_TIMES, _MORE_S = 10, 10.0  # at too low a limit a run may never end: it has ten times as long, and ten seconds
_EXACT = 32  # the limit is known to a 32nd of it, or a MiB
_INTERRUPTED = [128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)]


def search(request: Request) -> int:
    """Run it until the limit is known; 0, or the status with which it ends where the limit is not the reason.

    Raises Failure: no limit can be held here, or what it needs changes from run to run.
    """
    order = order_of(request)
    with open_report(request.report) as report:
        runs: list[Run] = []

        def run(limit_bytes: int | None, time_s: float | None) -> Run:
            bounds = replace(request.bounds, max_bytes=limit_bytes)
            done, _ = attempt(request._replace(bounds=bounds, time_s=time_s, quiet=True), order)
            runs.append(done)
            report.write(f"{jsonl.ran(done)}\n")
            if not request.quiet:
                say([ran.tried(done)])
            return done

        first = run(request.bounds.max_bytes, request.time_s)
        if not _is_well(first):
            return first.status
        peak_bytes = None if first.use is None else first.use.peak_bytes
        if peak_bytes is None:
            raise Failure("--smallest needs a cgroup that tells its peak", hint="run it as root", status=OURS)
        time_s = request.time_s or _TIMES * first.wall_s + _MORE_S
        enough, too_little = None, 0
        limit = _rounded(peak_bytes)
        while enough is None or enough - too_little > max(MIB, too_little // _EXACT):
            done = run(limit, time_s)
            if done.status in _INTERRUPTED and not done.out_of_time:
                return done.status
            if _is_well(done):
                enough = limit
            elif enough is None and limit > 2 * peak_bytes:
                said = f"it needed {size(peak_bytes)}, and now does not end well with {size(limit)}"
                raise Failure(said, hint="each run must do the same", status=OURS)
            else:
                too_little = limit
            limit = _rounded(limit * 5 // 4 if enough is None else (enough + too_little) // 2)
        say([ran.found(enough, too_little, runs)])
        report.write(f"{jsonl.end(events=0, exit_status=0)}\n")
    return 0


def _is_well(run: Run) -> bool:
    """Did it end with status 0, and was none of it killed?"""
    return run.status == 0 and not run.out_of_time and not (run.use is not None and run.use.oom_kills)


def _rounded(count_bytes: int) -> int:
    """Up to whole MiB."""
    return -(-count_bytes // MIB) * MIB
