"""How a command is held, and what became of it → text."""

from collections.abc import Iterator, Sequence

from reprieve.model.run import Bounds, Enforcement, Run, Use
from reprieve.show import escape
from reprieve.units import MIB, duration, percent, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.show.text import Page

_MEANS = {
    "systemd": "in a scope of systemd",
    "cgroup2": "in a cgroup of its own",
    "cgroup1": "in a cgroup of its own (version 1)",
    "job": "in a job object",
}


def began(bounds: Bounds, enforcement: Enforcement) -> str:
    """One line: what holds it, and what does not."""
    if enforcement.means == "rlimit":
        why = "; ".join(enforcement.refusals)
        told = f"no cgroup can be made here ({why})"
        if bounds.max_bytes is not None:
            told += f": each process by itself gets {size(bounds.max_bytes)} of private memory at most (RLIMIT_DATA)"
    else:
        of = "committed memory" if enforcement.means == "job" else "memory"
        held = ", ".join(_limits(_held(bounds, enforcement), of))
        told = f"{held or 'without a limit'}, {_MEANS[enforcement.means]}"
    if enforcement.unenforced:
        told += f"; not enforced: {'; '.join(enforcement.unenforced)}"
    return escape.visible(f"reprieve: {told}")


def _held(bounds: Bounds, enforcement: Enforcement) -> Bounds:
    """Those of the limits that hold, in a group."""
    lacking = {one.partition(" ")[0] for one in enforcement.unenforced}
    return Bounds(
        max_bytes=None if "--max" in lacking else bounds.max_bytes,
        high_bytes=None if "--high" in lacking else bounds.high_bytes,
        swap_max_bytes=None if "--swap-max" in lacking else bounds.swap_max_bytes,
    )


def _limits(bounds: Bounds, of: str) -> Iterator[str]:
    if bounds.max_bytes is not None:
        yield f"{size(bounds.max_bytes)} of {of} at most"
    if bounds.high_bytes is not None:
        yield f"held back above {size(bounds.high_bytes)}"
    if bounds.swap_max_bytes is not None:
        yield f"{size(bounds.swap_max_bytes)} of swap at most" if bounds.swap_max_bytes else "no swap"


def ended(page: "Page", run: Run, *, explained: bool = False) -> Iterator[str]:
    """How it ended, and what it needed; `explained`: by kills that are told behind."""
    status = f"{run.status}" if run.status < 1 << 31 else f"{run.status:#010x}"  # an NTSTATUS, as people look for it
    how = f"killed by signal {run.signal} (status {status})" if run.signal else f"with status {status}"
    over = ", as its time was over" if run.out_of_time else ""
    yield page.raw("Ended", escape.visible(f"{run.argv[0]} {how}, after {duration(run.wall_s)}{over}"), "strong")
    use = run.use or Use()
    if is_unexplained(run) and not explained:
        itself = "it ended so itself, as who hands on the status of a container or another machine does"
        said = "somebody else sent that" if run.signal else itself
        yield from page.say("Kill", f"none for memory in it: {said}")
    if use.peak_bytes is not None:
        yield from page.say("Peak", _peak(run, use.peak_bytes, use.swap_peak_bytes))
    elif run.largest_process_bytes:
        said = f"{size(run.largest_process_bytes)} resident in the largest of its processes; of all together it is not"
        yield from page.say("Peak", f"{said} known")
    if left := _left(use):
        yield from page.say("Left", left)
    if is_probably_refused(run):
        most = size(run.bounds.max_bytes or 0)
        said = f"that is near the {most} of private memory which each of its processes may have"
        yield from page.say("Limit", f"{said}: probably it was refused more, and failed for it")
    if use.at_max:
        what = "memory was taken back from it, or there was none"
        what = "it was refused memory" if run.enforcement.means == "job" else what
        yield from page.say("Limit", f"reached {_times(use.at_max)}: {what}")
    if use.at_high:
        yield from page.say("Slowed", f"{_times(use.at_high)}, above its --high")
    if use.waited_us is not None and use.waited_us >= _WORTH_TELLING_US:
        yield from page.say("Waited", f"{duration(use.waited_us / 1e6)} for memory, somebody of it")
    if run.left_behind:
        processes = "1 process" if run.left_behind == 1 else f"{run.left_behind} processes"
        yield from page.say("Ended too", f"{processes} that it had started and that outlived it")


_WORTH_TELLING_US = 100_000
_BY_SIGKILL = 137


def is_unexplained(run: Run) -> bool:
    """Did it end as what the kernel kills does, though the kernel killed nobody, nor we?"""
    ours = run.out_of_time or run.asked_to_end is not None
    return run.status == _BY_SIGKILL and not ours and run.use is not None and run.use.oom_kills == 0


_NEAR = 0.75  # of what it may have: what else it holds, asked for and not used, counts there too


def is_probably_refused(run: Run) -> bool:
    """Did it fail under RLIMIT_DATA, and one of its processes held about as much as that allows?

    Nobody counts who is refused. Resident are files too, which are not held by it: so it is not certain, and who asks
    for much at once may be refused it with little.
    """
    most, held = run.bounds.max_bytes, run.largest_process_bytes
    failed = run.status != 0 and not run.out_of_time and run.asked_to_end is None
    return run.enforcement.means == "rlimit" and failed and bool(most and held) and (held or 0) >= _NEAR * (most or 0)


def for_all_of_it(page: "Page", run: Run, command: Sequence[str] | None) -> Iterator[str]:
    """How to have a limit that holds all its processes together, by a command that is given without its end.

    None: there is none that would do it here.
    """
    where = "" if command is not None else ", on the host, or in a container that may write to its cgroups"
    yield from page.say("What now", f"Let a cgroup hold all its processes together, and tell of its kill{where}")
    if command is not None:
        limit = max((run.bounds.max_bytes or 0) // MIB, 1)
        yield page.raw("", f"$ {escape.shell((*command, '--max', f'{limit}M', '--', 'COMMAND'))}", "command")


def _peak(run: Run, peak: int, swap_peak: int | None) -> str:
    limit, committed = run.bounds.max_bytes, run.enforcement.means == "job"
    said = size(peak) if limit is None else f"{size(peak)} of {size(limit)} ({percent(peak, limit)})"
    said += ", all its processes" + (" and what they read" if limit is None and not committed else "") + " together"
    if committed:
        said += ", as far as it was committed"
    return f"{said}; {size(swap_peak)} in swap at its peak" if swap_peak else said


def _left(use: Use) -> str:
    parts = []
    if (use.file_bytes or 0) >= MIB:
        parts.append(
            f"{size(use.file_bytes or 0)} of it were files it had read or written, which is given back on demand"
        )
    if (use.shmem_bytes or 0) >= MIB:
        parts.append(f"{size(use.shmem_bytes or 0)} of shared memory or tmpfs stay behind")
    return "; ".join(parts)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def tried(run: Run) -> str:
    """One line of a search: with which limit, and what became of it."""
    limit = "without a limit" if run.bounds.max_bytes is None else size(run.bounds.max_bytes)
    if run.use is not None and run.use.oom_kills:
        what = "killed for memory"
    elif run.out_of_time:
        what = f"not done after {duration(run.wall_s)}"
    else:
        what = f"status {run.status}, after {duration(run.wall_s)}"
    return f"reprieve: {limit}: {what}"


def found(enough_bytes: int, too_little_bytes: int, runs: Sequence[Run]) -> str:
    """The last line of a search: the smallest limit that was enough, the largest that was not, and the peak."""
    first, last = runs[0], runs[-1]
    peak = (first.use or Use()).peak_bytes or 0
    below = f"{size(too_little_bytes)} too little" if too_little_bytes else "less was not tried"
    unlimited = "without a limit" if first.bounds.max_bytes is None else f"at {size(first.bounds.max_bytes)}"
    said = (
        f"reprieve: {size(enough_bytes)} is enough, {below} ({len(runs)} runs; {unlimited} its peak was {size(peak)})"
    )
    lacking = "; ".join(last.enforcement.unenforced)
    return escape.visible(f"{said}; not enforced: {lacking}" if lacking else said)
