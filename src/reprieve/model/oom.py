"""What the kernel printed about one out-of-memory event, and about one failed allocation.

Every `line` counts from 1 in the text that was read. All text is valid Unicode; a `comm`, a cgroup path and whatever
else a stranger may choose is untrusted and is escaped where it is shown.
"""

from typing import Literal

from reprieve.model.noun import noun
from reprieve.model.workload import Workload

# Figures the kernel keeps adding to, by its own names, in printed order. Units are those of the field that holds them.
Figures = tuple[tuple[str, int], ...]

OOM_SCORE_ADJ_MIN = -1000  # such a task is never chosen; include/uapi/linux/oom.h
OOM_DISABLE = -17  # the same on the scale of oom_adj, until 3.6


def figure(figures: Figures, name: str) -> int | None:
    """The figure of that name; None if it was not printed."""
    for key, value in figures:
        if key == name:
            return value
    return None


@noun
class Stamp:
    """When a line was printed, as far as it tells."""

    uptime_s: float | None = None  # seconds since boot, from the kernel
    # The date as the log spells it; RFC 3164 has no year. Of the kernel's own buffer: by the clock of the machine.
    text: str | None = None
    wall_s: float | None = None  # seconds since 1970, where the log tells year and zone
    certain: bool = False  # False: `dmesg -T` drifts over suspend, RFC 3164 has neither year nor zone


@noun
class Trigger:
    """The task whose allocation failed and called the OOM killer: seldom the culprit."""

    line: int
    comm: str | None = None  # 2.6.18 and before print none
    pid: int | None = None  # from the CPU line that follows
    uid: int | None = None  # since 6.11
    gfp_mask: int | None = None  # 0 on the page fault path: it then says nothing
    gfp_flags: tuple[str, ...] = ()  # as printed, since 4.6
    order: int | None = None  # 2**order pages; -1 is sysrq-f
    oom_score_adj: int | None = None
    oom_adj: int | None = None  # the scale of -17 to 15, until 3.6


@noun
class Kill:
    """One process the kernel killed, as far as its "Killed process" line tells it."""

    line: int  # where in its source it was printed, counted from 1
    pid: int
    comm: str | None = None  # at most 15 bytes, chosen by the process: untrusted text
    total_vm_bytes: int | None = None  # address space: may be far above the memory of the machine
    anon_rss_bytes: int | None = None
    file_rss_bytes: int | None = None  # counts shmem too where shmem is not given apart
    shmem_rss_bytes: int | None = None  # since v4.5, and in RHEL 7
    pgtables_bytes: int | None = None  # since v5.4
    uid: int | None = None
    oom_score_adj: int | None = None  # since v5.4
    reaped: bool = False  # the OOM reaper took its memory; a lost line says nothing


@noun
class Task:
    """One row of the task dump: a thread group with its memory, in pages. Printed after the choice was made."""

    line: int
    pid: int
    tgid: int | None = None
    uid: int | None = None
    comm: str | None = None
    total_vm_pages: int | None = None
    rss_pages: int | None = None
    rss_anon_pages: int | None = None  # the three parts: since 6.8
    rss_file_pages: int | None = None
    rss_shmem_pages: int | None = None
    pgtables_bytes: int | None = None  # since 4.15
    nr_ptes: int | None = None  # pages of page tables, 3.7 to 4.14
    nr_pmds: int | None = None  # 4.0 to 4.14
    swap_pages: int | None = None
    oom_adj: int | None = None
    oom_score_adj: int | None = None
    others: Figures = ()  # columns unknown to us, and `cpu` of 2.6


@noun
class FreeBlocks:
    """Free blocks of one size in one zone, from the buddy list."""

    size_bytes: int
    count: int
    types: str = ""  # U unmovable, M movable, E reclaimable, C CMA, H high-atomic, I isolated


@noun
class Zone:
    """One zone: its watermarks, what is in it, its buddy list."""

    line: int
    name: str
    node: int | None = None  # kernels without NUMA print none
    free_bytes: int | None = None
    min_bytes: int | None = None
    low_bytes: int | None = None
    high_bytes: int | None = None
    present_bytes: int | None = None
    managed_bytes: int | None = None
    figures: Figures = ()  # every figure of the line, those above too: bytes; pages_scanned counts pages
    all_unreclaimable: bool | None = None
    lowmem_reserve_pages: tuple[int, ...] = ()
    per_cpu: tuple[tuple[int, Figures], ...] = ()  # CPU and its list of free pages: limits, batch, fill; until 4.1
    blocks: tuple[FreeBlocks, ...] = ()
    blocks_total_bytes: int | None = None


@noun
class Node:
    """One memory node: the figures of its line, in bytes (since 4.8)."""

    line: int
    node: int
    figures: Figures = ()
    all_unreclaimable: bool | None = None


@noun
class HugePages:
    """Huge pages of one size on one node: reserved memory that nobody else can use."""

    line: int
    node: int | None
    size_bytes: int | None = None
    total: int | None = None
    free: int | None = None
    surplus: int | None = None


@noun
class Slab:
    """One cache of "Unreclaimable slab info", printed when such slab is more than all user memory."""

    line: int
    name: str
    used_bytes: int | None = None
    total_bytes: int | None = None


@noun
class Memory:
    """The Mem-Info block: the whole machine at that moment."""

    line: int
    counts: Figures = ()  # the first paragraph, in pages: active_anon, slab_unreclaimable, shmem, free …
    free_bytes: int | None = None  # of its own line, until 2.6.17; later the count `free`
    free_highmem_bytes: int | None = None
    nodes: tuple[Node, ...] = ()
    zones: tuple[Zone, ...] = ()
    hugepages: tuple[HugePages, ...] = ()
    pagecache_pages: int | None = None
    swap_cache_pages: int | None = None
    swap_cache_stats: Figures = ()  # add, delete, find, find_total: counts since boot
    swap_total_bytes: int | None = None
    swap_free_bytes: int | None = None
    totals: Figures = ()  # "N pages RAM", "N pages reserved" …: name to pages
    slabs: tuple[Slab, ...] = ()
    # The code lines that hold most memory, where the kernel profiles (6.10): place, size as printed, calls.
    allocations: tuple[tuple[str, str, int], ...] = ()
    lines: tuple[tuple[str, int], ...] = ()  # of each count, total and size ("Free swap", …): name to line


@noun
class Usage:
    """One counter of a memory cgroup against its limit."""

    line: int
    name: str  # "memory", "memory+swap", "swap", "kmem"
    usage_bytes: int | None = None
    limit_bytes: int | Literal["max"] | None = None
    failcnt: int | None = None  # how often the limit was hit since it was set


@noun
class MemcgStat:
    """The counters of one cgroup: memory.stat of v2, or the one line per group of v1."""

    line: int
    path: str | None = None  # None: its header is not in the text, or cut
    figures: Figures = ()  # bytes; event counters such as pgfault are counts


@noun
class Memcg:
    """The memory cgroup whose limit was hit."""

    usages: tuple[Usage, ...] = ()
    stats: tuple[MemcgStat, ...] = ()  # the group itself first; v1 adds one per child
    min_bytes: int | None = None  # protection, since 6.19
    low_bytes: int | None = None

    def usage(self, name: str) -> Usage | None:
        """The counter of that name; None if it was not printed."""
        for usage in self.usages:
            if usage.name == name:
                return usage
        return None


@noun
class OomReport:
    """All that one out-of-memory event left in a log. What is cut, lost or was never printed is None or empty."""

    source: str = "-"
    line: int = 1
    last_line: int = 1
    stamp: Stamp = Stamp()
    host: str | None = None  # as the log names it
    boot_id: str | None = None  # where the source proves it: the kernel's own buffer, the journal
    verified: bool | None = None  # did the kernel write it? None: this transport cannot tell (plain text)
    trigger: Trigger | None = None
    kernel: str | None = None  # release, as printed in the CPU line
    hardware: str | None = None
    tainted: str | None = None  # letters as printed; "" is "Not tainted"
    cpu: int | None = None
    stack: tuple[str, ...] = ()  # function names of the call trace, innermost first
    constraint: str | None = None  # "CONSTRAINT_NONE", "CONSTRAINT_MEMCG", … as printed, since 5.0
    constraint_inferred: str | None = None  # the same vocabulary, where the rest of the text shows it
    constraint_line: int | None = None
    nodemask: str | None = None
    cpuset: str | None = None
    mems_allowed: str | None = None
    oom_memcg: str | None = None  # the cgroup whose limit was hit
    task_memcg: str | None = None  # the cgroup of the task that was chosen
    selected_pid: int | None = None  # the task that was chosen; the one killed can be a child of it, until 5.0
    selected_comm: str | None = None
    selected_score: int | None = None
    selected_uid: int | None = None
    selected_line: int | None = None
    kills: tuple[Kill, ...] = ()  # the victim first, then the others of a group kill; each process once
    group_path: str | None = None  # memory.oom.group of this cgroup was set
    mode: str | None = None  # "oom_kill_allocating_task"
    no_killable: bool = False  # nobody could be killed
    panic: str | None = None  # the text from "Kernel panic" on
    sysrq: bool = False  # asked for by a person with sysrq-f
    tasks: tuple[Task, ...] | None = None  # None: no table was printed
    task_columns: tuple[str, ...] | None = None  # of the table's header, "pid" first; None: no header in the text
    memory: Memory | None = None
    memcg: Memcg | None = None
    page_size_bytes: int | None = None  # from the smallest buddy block, or total_vm of the victim
    workload: Workload | None = None  # of the victim
    limit_of: Workload | None = None  # of the cgroup whose limit was hit
    missing: tuple[str, ...] = ()  # parts this kernel prints and this text lacks, in words
    lines: tuple[tuple[int, str], ...] = ()  # (number, text without prefix) of the lines that belong to it

    def text(self, line: int) -> str:
        """The line of that number as printed, without its prefix; empty if it is none of the report's."""
        return next((text for number, text in self.lines if number == line), "")

    @property
    def scope(self) -> str | None:
        """The constraint as printed, else as the rest of the text shows it."""
        return self.constraint or self.constraint_inferred

    @property
    def victim(self) -> Kill | None:
        """The process that was killed; of a group kill the one that was chosen."""
        return self.kills[0] if self.kills else None


@noun
class AllocationFailure:
    """A "page allocation failure" report: somebody was refused memory, nobody was killed."""

    source: str = "-"
    line: int = 1
    last_line: int = 1
    stamp: Stamp = Stamp()
    comm: str | None = None
    order: int | None = None
    gfp_mask: int | None = None
    gfp_flags: tuple[str, ...] = ()
    memory: Memory | None = None
    page_size_bytes: int | None = None
    lines: tuple[tuple[int, str], ...] = ()

    def text(self, line: int) -> str:
        """The line of that number as printed, without its prefix; empty if it is none of the report's."""
        return next((text for number, text in self.lines if number == line), "")


@noun
class OomSummary:
    """One event in little: ten thousand of them fit in memory."""

    source: str
    line: int
    stamp: Stamp
    host: str | None = None
    boot_id: str | None = None
    scope: str | None = None
    workload: Workload | None = None
    limit_of: Workload | None = None
    victims: tuple[tuple[int, str | None], ...] = ()  # (pid, comm)
    freed_bytes: int | None = None  # resident memory of all victims, as their kill lines tell
    limit_bytes: int | None = None  # of the memory cgroup: that which refused, where the counters tell
    limit_name: str | None = None  # of that counter: "memory", "memory+swap"
    no_killable: bool = False
    panic: bool = False
    also_in: tuple[str, ...] = ()  # other sources that hold the same event
