"""A living process, as the kernel weighs it."""

from reprieve.model.noun import noun


@noun
class Process:
    """One process (thread group) of the machine. A process is identified by pid and start time together."""

    pid: int
    start_ticks: int  # since boot, in units of 1/100 s on every Linux we know (USER_HZ)
    ppid: int | None = None
    comm: str | None = None  # at most 15 bytes, chosen by the process: untrusted text
    uid: int | None = None  # effective
    threads: int | None = None
    state: str | None = None  # R, S, D, Z, T, …; a zombie holds no memory, unless threads of it go on
    living_thread: int | None = None  # whose state and memory are told, as the first thread has exited; else None
    kernel_thread: bool = False  # has no memory of its own, is never chosen
    oom_score_adj: int | None = None  # -1000 to 1000
    oom_score: int | None = None  # as the kernel says it now
    rss_bytes: int | None = None  # all three together; what the three are is told since 4.5
    rss_anon_bytes: int | None = None
    rss_file_bytes: int | None = None
    rss_shmem_bytes: int | None = None
    swap_bytes: int | None = None  # swapped out, anonymous; shmem in swap is nobody's
    pgtables_bytes: int | None = None  # all levels
    locked_bytes: int | None = None
    hugetlb_bytes: int | None = None  # of the pools; not counted in rss
    pss_bytes: int | None = None  # of smaps_rollup: each shared page divided among those who map it
    unique_bytes: int | None = None  # of smaps_rollup: what would be free if it alone ended; None: not measured
    cgroup: str | None = None  # path in the memory hierarchy, as the machine's root sees it
    ns_pids: tuple[int, ...] = ()  # its pid in each namespace it is in, outermost first
    mems_allowed: str | None = None  # nodes: "0-1,3"
    bound_to: str | None = None  # nodes of a memory policy that allows no others: "0"; None: of none, or not told
    mm: int | None = None  # the lowest pid of those that share its memory; None: nobody does, or it was not told
