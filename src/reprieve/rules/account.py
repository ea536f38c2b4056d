"""Where the memory was: every page once, by kind and by process name."""

from collections import defaultdict
from typing import NamedTuple

from reprieve.model.oom import Figures, Memcg, Memory, OomReport, Task, figure
from reprieve.oom.once import once

ANON = "anonymous"
FILE = "page cache"
SHMEM = "shmem and tmpfs"
LOCKED = "unevictable"
SLAB_FREEABLE = "slab, reclaimable"
SLAB = "slab, unreclaimable"
PAGE_TABLES = "page tables"
STACKS = "kernel stacks"
HUGE = "huge pages"
PERCPU = "per-CPU"
VMALLOC = "vmalloc"
SOCKETS = "sockets"
KERNEL = "other kernel memory"
ZSPAGES = "zram and zswap"
GPU = "GPU"
FREE = "free"
UNACCOUNTED = "unaccounted"

Parts = tuple[tuple[str, int], ...]

BOUND = ("CONSTRAINT_CPUSET", "CONSTRAINT_MEMORY_POLICY")

# The counts without which a division would be wrong, by their names of then and now.
_NEEDED = (("inactive_anon", "inactive"), ("slab_unreclaimable", "slab"), ("pagetables",), ("free",))

# Counters are read one after another while the machine runs, and each CPU keeps a share of its own: the sum of a true
# report can exceed the whole by a little. More than this is a report that contradicts itself.
_DRIFT = 0.02


_DIRTY = ("file_dirty", "file_writeback", "total_dirty", "total_writeback")  # of v2; of v1, with its children


class Holder(NamedTuple):
    """All processes of one name, and what they held. Shared pages count in each process that maps them."""

    comm: str
    tasks: tuple[Task, ...]
    rss_bytes: int
    swap_bytes: int | None = None
    anon_bytes: int | None = None  # of rss_bytes what hardly any page is shared of; told since 6.8


@once
def where(oom: OomReport) -> Parts:
    """What the memory was used for, by label, in bytes, none of it twice; () where the report does not tell.

    For a limit that was hit it adds up to the usage of that cgroup, else to the RAM the kernel manages. What no counter
    of the report covers is `unaccounted`: drivers, vmalloc, balloons, per-CPU data.
    """
    total = total_bytes(oom)
    if total is None:
        return ()
    if of_cgroup(oom):
        parts = _of_memcg(oom.memcg) if oom.memcg is not None else []
    else:
        parts = _of_machine(oom.memory, oom.page_size_bytes) if oom.memory is not None and oom.page_size_bytes else []
    if not parts:
        return ()
    rest = total - sum(size for _, size in parts)
    if rest < -total * _DRIFT:
        return ()
    if rest < 0:  # the largest counter is as little off as any
        largest = max(range(len(parts)), key=lambda index: parts[index][1])
        parts[largest] = (parts[largest][0], parts[largest][1] + rest)
        rest = 0
    return (*((label, size) for label, size in parts if size), (UNACCOUNTED, rest))


def of_machine(oom: OomReport) -> bool:
    """Was it the machine as a whole that ran out: no limit, no set of nodes, and nobody asked for the kill?"""
    return not (of_cgroup(oom) or oom.sysrq or oom.scope is None or oom.scope in BOUND)


def part(oom: OomReport, *labels: str) -> int | None:
    """What the kinds of these labels held together; None where the report does not tell."""
    held = _by_label(oom)
    return sum([held.get(label, 0) for label in labels]) if held else None


@once
def _by_label(oom: OomReport) -> dict[str, int]:
    return dict(where(oom))


@once
def total_bytes(oom: OomReport) -> int | None:
    """The whole that `where` divides: the usage of the cgroup whose limit was hit, or the RAM the kernel manages."""
    if of_cgroup(oom):
        usage = oom.memcg.usage("memory") if oom.memcg is not None else None
        return None if usage is None else usage.usage_bytes
    return ram_bytes(oom)


@once
def of_cgroup(oom: OomReport) -> bool:
    """Was it the limit of a memory cgroup that was hit? Some 5.2 kernels print CONSTRAINT_NONE there."""
    usage = oom.memcg.usage("memory") if oom.memcg is not None else None
    return oom.scope == "CONSTRAINT_MEMCG" or oom.oom_memcg is not None or usage is not None


def ram_bytes(oom: OomReport) -> int | None:
    """The RAM that the kernel manages: all of it less what it and the firmware reserved at boot."""
    if oom.memory is None or oom.page_size_bytes is None:
        return None
    ram, reserved = figure(oom.memory.totals, "RAM"), figure(oom.memory.totals, "reserved")
    if ram is None or reserved is None or not 0 <= reserved < ram:
        return None
    return (ram - reserved) * oom.page_size_bytes


@once
def holders(oom: OomReport) -> tuple[Holder, ...]:
    """The processes of the task dump by name, those that held most first; () without a dump or a page size."""
    page = oom.page_size_bytes
    if not oom.tasks or page is None:
        return ()
    named: defaultdict[str, list[Task]] = defaultdict(list)
    for task in oom.tasks:
        if task.comm is not None and task.rss_pages is not None:
            named[task.comm].append(task)
    found = []
    for comm, tasks in named.items():
        swap_bytes = _bytes([task.swap_pages for task in tasks], page)
        told = tasks[0].rss_anon_pages is not None  # else it is of a kernel before 6.8
        anon_bytes = _bytes([task.rss_anon_pages for task in tasks], page) if told else None
        rss_bytes = sum([task.rss_pages or 0 for task in tasks]) * page
        found.append(Holder(comm, tuple(tasks), rss_bytes, swap_bytes, anon_bytes))
    return tuple(sorted(found, key=lambda holder: -holder.rss_bytes - (holder.swap_bytes or 0)))


def _bytes(pages: list[int | None], page: int) -> int | None:
    """All of them in bytes; None where one is not told."""
    return None if None in pages else sum(filter(None, pages)) * page


@once
def largest_task(oom: OomReport) -> Task | None:
    """The process that held most RAM and swap together; None without a task dump."""
    return max(oom.tasks or (), key=task_pages, default=None)


def task_pages(task: Task) -> int:
    """RAM and swap of a process in pages, as far as its row tells: what a kill of it can free."""
    return (task.rss_pages or 0) + (task.swap_pages or 0)


def _of_machine(memory: Memory, page: int) -> list[tuple[str, int]]:
    """By the counts of Mem-Info; [] where they were cut, which would make the rest look unaccounted."""
    counts = dict(memory.counts)
    if any(counts.keys().isdisjoint(names) for names in _NEEDED):
        return []

    def pages(*names: str) -> int:
        return sum([counts.get(name, 0) for name in names])

    # Pages of shmem are on the anonymous lists, or on the unevictable one if they are locked (or of a ramfs, or the
    # tmpfs of an initramfs without swap). Every page is on one list.
    anon = pages("active_anon", "inactive_anon", "isolated_anon")
    locked = pages("unevictable")
    shmem = min(pages("shmem"), anon + locked)
    shmem_on_anon = min(shmem, anon)
    sizes = [
        (ANON, (anon - shmem_on_anon) * page),
        (SHMEM, shmem * page),
        (FILE, pages("active_file", "inactive_file", "isolated_file", "active", "inactive") * page),
        (LOCKED, (locked - (shmem - shmem_on_anon)) * page),
        (SLAB_FREEABLE, pages("slab_reclaimable") * page),
        (SLAB, pages("slab_unreclaimable", "slab") * page),
        (PAGE_TABLES, pages("pagetables", "sec_pagetables") * page),
        (STACKS, _of_zones(memory, "kernel_stack")),
        (HUGE, sum((huge.total or 0) * (huge.size_bytes or 0) for huge in memory.hugepages)),
        (KERNEL, pages("kernel_misc_reclaimable", "bounce") * page),
        (ZSPAGES, _of_zones(memory, "zspages")),
        (GPU, _of_zones(memory, "gpu_active") + _of_zones(memory, "gpu_reclaim")),
        (FREE, pages("free", "free_pcp") * page),
    ]
    return [(label, size) for label, size in sizes if size]


def _of_zones(memory: Memory, name: str) -> int:
    """A figure of the node lines, which older kernels print per zone."""
    lines: list[Figures] = [node.figures for node in memory.nodes if figure(node.figures, name) is not None]
    return sum(figure(figures, name) or 0 for figures in lines or [zone.figures for zone in memory.zones])


def _of_memcg(memcg: Memcg) -> list[tuple[str, int]]:
    """By memory.stat of v2 or v1; [] where it was not printed, or cut before what matters."""
    figures = dict(memcg.stats[0].figures) if memcg.stats else {}

    def size(*names: str) -> int:
        return sum([figures.get(name, 0) for name in names])

    if "anon" in figures and "slab_unreclaimable" in figures:
        # v2, and from 5.3 to 6.x v1 too
        slab = size("slab_reclaimable", "slab_unreclaimable")
        charged = slab + size("kernel_stack", "pagetables", "sec_pagetables", "percpu", "vmalloc", "zswap")
        kernel = figures.get("kernel")  # since v5.18; all of the above and more
        kmem = memcg.usage("kmem")
        if kernel is None and kmem is not None:
            kernel = kmem.usage_bytes
        told = figures.get
        return [
            (ANON, told("anon", 0)),
            (SHMEM, told("shmem", 0)),
            (FILE, max(0, told("file", 0) - told("shmem", 0))),
            (SLAB_FREEABLE, told("slab_reclaimable", 0)),
            (SLAB, told("slab_unreclaimable", 0)),
            (PAGE_TABLES, told("pagetables", 0) + told("sec_pagetables", 0)),
            (STACKS, told("kernel_stack", 0)),
            (PERCPU, told("percpu", 0)),
            (VMALLOC, told("vmalloc", 0)),
            (ZSPAGES, told("zswap", 0)),
            (SOCKETS, told("sock", 0)),
            (HUGE, told("hugetlb", 0)),
            (KERNEL, max(0, (kernel or 0) - charged)),
        ]
    # v1: figures of the group alone and `total_` ones of its children too; until 5.2 one line per group instead.
    prefix = "total_" if "total_rss" in figures else ""
    stats = memcg.stats[:1] if prefix else memcg.stats
    if all(figure(stat.figures, prefix + "rss") is None for stat in stats):
        return []

    def summed(name: str) -> int:
        return sum(figure(stat.figures, prefix + name) or 0 for stat in stats)

    kmem = memcg.usage("kmem")
    return [
        (ANON, summed("rss")),
        (SHMEM, summed("shmem")),
        (FILE, max(0, summed("cache") - summed("shmem"))),
        (KERNEL, (kmem.usage_bytes or 0) if kmem is not None else 0),
    ]


def dirty_bytes(oom: OomReport) -> int | None:
    """File pages of the group that are dirty or being written; None where memory.stat was not printed."""
    stats = oom.memcg.stats if oom.memcg is not None else ()
    told = [held for name, held in stats[0].figures if name in _DIRTY] if stats else []
    return sum(told) if told else None
