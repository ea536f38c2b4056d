"""What `reprieve run` is told, and what became of the command."""

from reprieve.model.noun import noun

COMMAND, TEST = "reprieve-run-", "reprieve-test-"  # how the names of cgroups begin that are made around one


def is_own(name: str) -> bool:
    """Is it the name of a cgroup, or of a scope, that we made? By whom, since when, in which namespace of pids, …"""
    told = name.removeprefix(COMMAND).removeprefix(TEST).removesuffix(".scope").split("-")
    return (
        name.startswith((COMMAND, TEST)) and len(told) == 4 and all(one.isascii() and one.isdecimal() for one in told)
    )


@noun
class Bounds:
    """The limits that are asked for; None: none."""

    max_bytes: int | None = None
    high_bytes: int | None = None
    swap_max_bytes: int | None = None


@noun
class Enforcement:
    """How the limits are held, and which of them are not."""

    means: str  # "systemd": a scope; "cgroup2", "cgroup1": a cgroup of our own; "rlimit": each process by itself; "job"
    cgroup: str | None = None  # the path of the group that has the limits, as /proc names it
    unenforced: tuple[str, ...] = ()  # an option and why, each
    refusals: tuple[str, ...] = ()  # why nothing better could be had


@noun
class Use:
    """What a cgroup tells of all who were in it, once they have ended."""

    peak_bytes: int | None = None  # in a job object what was committed, touched or not
    swap_peak_bytes: int | None = None  # cgroup version 2
    file_bytes: int | None = None  # still charged to it: the page cache it filled
    shmem_bytes: int | None = None  # still charged to it: shared memory and tmpfs that outlive it
    at_max: int | None = None  # how often it was at its limit, and memory was taken back from it or was not to be had
    at_high: int | None = None  # how often it was held back above memory.high
    waited_us: int | None = None  # how long at least one of it waited for memory
    oom_kills: int | None = None


@noun
class Run:
    """A command that has ended."""

    argv: tuple[str, ...]
    bounds: Bounds
    enforcement: Enforcement
    status: int  # with which `reprieve run` ends: its own, or 128 and the signal; on Windows of 32 bits
    signal: int | None = None
    out_of_time: bool = False  # it was ended as its time was over
    asked_to_end: int | None = None  # the last signal by which somebody asked for its end, at a terminal too
    wall_s: float
    largest_process_bytes: int | None = None  # the most that one process of it held resident, or had committed in a job
    use: Use | None = None  # None: it had no cgroup
    left_behind: int = 0  # processes it had started that outlived it, and were ended
