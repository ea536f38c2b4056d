"""`reprieve run` on Windows: a command in a job object, and what became of it."""

import sys

if sys.platform == "win32":
    from time import monotonic

    from reprieve.machine.job import Job
    from reprieve.model.run import Enforcement, Run
    from reprieve.run import Report, Request, said, say, tell
    from reprieve.show import ran

    _OF_32_BITS = 1 << 32

    def perform(request: Request) -> int:
        """Run the command; the exit status, which is its own. Raises Failure with one of ours."""
        with Report(request.report, as_json=request.as_json) as report:
            run = _attempt(request)
            tell(request, run, ((), ()), report)
        return run.status if run.status < _OF_32_BITS // 2 else run.status - _OF_32_BITS  # os._exit() takes a C int

    def _attempt(request: Request) -> Run:
        job, enforcement = Job(), Enforcement(means="job")
        job.limit(request.bounds.max_bytes)
        if not (request.quiet or request.as_json):
            say([ran.began(request.bounds, enforcement)])
        began_s = monotonic()
        job.start(request.argv)
        ended = job.await_end(request.time_s)
        wall_s = monotonic() - began_s
        return Run(
            argv=said(request.argv),
            bounds=request.bounds,
            enforcement=enforcement,
            status=ended.status,
            out_of_time=ended.out_of_time,
            asked_to_end=ended.asked,
            wall_s=wall_s,
            left_behind=job.end_stragglers(),
            largest_process_bytes=job.largest_process_bytes(),
            use=job.use(),
        )
