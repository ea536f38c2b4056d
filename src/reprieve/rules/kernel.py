"""Memory that no process holds: tmpfs and shared memory, the kernel's own, and what no counter covers."""

from collections.abc import Iterator, Sequence

from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.oom import HugePages, Kill, OomReport, Slab, Task
from reprieve.model.snapshot import Snapshot
from reprieve.rules.account import (
    KERNEL,
    LOCKED,
    PAGE_TABLES,
    SHMEM,
    SLAB,
    SOCKETS,
    UNACCOUNTED,
    VMALLOC,
    ZSPAGES,
    dirty_bytes,
    of_cgroup,
    of_machine,
    part,
    task_pages,
    total_bytes,
)
from reprieve.rules.amounts import tmpfs_size
from reprieve.rules.evidence import lines, memory_lines
from reprieve.units import MIB, percent, size


def shmem_holds(snapshot: Snapshot) -> Iterator[Finding]:
    """Files in a tmpfs, or shared memory, hold a good part of the memory, which killing a process need not free.

    /dev/shm, /run, often /tmp, `emptyDir` with `medium: Memory` and every `--tmpfs` live in RAM (or swap) until the
    file is deleted. Shared memory of System V lives until ipcrm, other shared memory until the last process that maps
    it is gone. The kernel chooses a victim all the same, so innocents die one after another while the files stay.

    Source: Documentation/filesystems/tmpfs.rst; shmem_fault() and shmem_get_folio_gfp() in mm/shmem.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        total, held = total_bytes(oom), part(oom, SHMEM)
        victim = oom.victim
        if not oom.sysrq and total and held is None and victim and (victim.shmem_rss_bytes or 0) >= total / 4:
            yield _mapped_by_victim(number, oom, victim, total)
        if oom.sysrq or not total or held is None or held < total / 4:
            continue
        mapped = _mapped_shmem_bytes(oom)
        claim = "killing a process need not free it"
        owner: tuple[str, ...] = ()
        if mapped is not None and mapped * 2 > held:
            owner = ("Processes map it: what is no file in a tmpfs is free when the last of them is gone.",)
        elif mapped is not None:
            claim = "killing a process does not free it"
            owner = ("No process maps most of it: it is files in a tmpfs, or segments nobody is attached to.",)
        yield Finding(
            code="shmem-holds",
            severity="critical" if of_cgroup(oom) and held * 2 >= total else "warning",  # before a limit that is raised
            confidence="certain",
            claim=f"tmpfs and shared memory hold {size(held)} of {size(total)} ({percent(held, total)}): {claim}",
            detail=owner,
            about=oom.limit_of if of_cgroup(oom) else None,
            evidence=(*memory_lines(oom, "shmem"), *_stat_line(oom)),
            remedies=_bound_tmpfs(held),
            oom=number,
        )


def _mapped_by_victim(number: int, oom: OomReport, victim: Kill, total: int) -> Finding:
    """Where the counters are not in the text, the kill line tells what of it the victim had mapped."""
    held = victim.shmem_rss_bytes or 0
    who = f"process {victim.pid}" if victim.comm is None else f"{quote(victim.comm)} (pid {victim.pid})"
    return Finding(
        code="shmem-holds",
        severity="critical" if of_cgroup(oom) and held * 2 >= total else "warning",
        confidence="certain",
        claim=f"{who} had {size(held)} of {size(total)} ({percent(held, total)}) mapped as shared memory or tmpfs: "
        "others may map it too, and files stay",
        detail=("The memory of a virtual machine can be such, where its files are shared with the host (virtiofs).",),
        about=oom.limit_of if of_cgroup(oom) else oom.workload,
        evidence=lines(oom, victim.line),
        oom=number,
    )


def dirty_cache(snapshot: Snapshot) -> Iterator[Finding]:
    """Most of the group's memory was file pages not yet written to disk, which cannot be freed at once.

    A copy, a backup or a build writes faster than its disk takes it. Clean file pages would have been dropped before
    anybody is killed; dirty ones must be written first. cgroup v1, and file systems without cgroup writeback, slow a
    writer down by the limits of the whole machine only: a small group is at its own limit long before. With MGLRU
    reclaim did not even have them written until 1bc542c6a0d1 ("mm/vmscan: wake up flushers conditionally to avoid
    cgroup OOM").

    Source: shrink_folio_list() in mm/vmscan.c; Documentation/admin-guide/cgroup-v2.rst, "Writeback".
    """
    for number, oom in enumerate(snapshot.ooms):
        total, dirty = total_bytes(oom), dirty_bytes(oom)
        if not of_cgroup(oom) or not total or dirty is None or dirty < total / 2:
            continue
        yield Finding(
            code="dirty-cache",
            severity="critical",
            confidence="certain",
            claim=f"{size(dirty)} of {size(total)} ({percent(dirty, total)}) are file pages not yet written to disk, "
            "which cannot be freed at once",
            detail=(
                "A writer that writes out as it goes (fsync), or more slowly, leaves clean pages, which can be freed.",
            ),
            about=oom.limit_of,
            evidence=(*_stat_line(oom), *lines(oom, *(line for line, text in oom.lines if "dirty " in text))),
            oom=number,
        )


def kernel_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """The kernel itself holds a good part of the memory: slab, sockets, or pages that no counter of the report covers.

    No process owns them, so no kill frees them, except where the process that dies was the cause: its sockets, its
    open files, its cgroups. Unreclaimable slab that grows for days is a leak in a driver or file system, or of objects
    that user space keeps open. Pages that are in no counter belong to drivers, balloons, pipes, trace buffers, vmalloc,
    and in older reports to zram and huge pages.

    Source: dump_unreclaimable_slab() in mm/slab_common.c; Documentation/admin-guide/cgroup-v2.rst, memory.stat.
    """
    for number, oom in enumerate(snapshot.ooms):
        total = total_bytes(oom)
        slab, lost = part(oom, SLAB, KERNEL, SOCKETS, VMALLOC), part(oom, UNACCOUNTED)
        if not oom.sysrq and not total and oom.memory is not None and oom.memory.slabs:
            yield _slab_alone(number, oom)
        if oom.sysrq or not total or slab is None or lost is None:
            continue
        unseen = not of_cgroup(oom) and oom.nodemask in (None, "(null)") and lost >= total / 3 and lost > slab
        if not unseen and slab < total / 3:
            continue
        share = f"{size(lost if unseen else slab)} of {size(total)} ({percent(lost if unseen else slab, total)})"
        claim = f"The kernel's own data take {share}: no process owns them"
        if unseen:
            claim = f"No counter of the report covers {share}: the kernel or a driver holds it"
        caches = _largest_caches(oom)
        if not unseen:
            claim += _of_what(oom, caches, slab)
        yield Finding(
            code="kernel-memory",
            severity="critical" if of_cgroup(oom) and slab * 2 >= total else "warning",  # before a limit that is raised
            confidence="likely" if unseen else "certain",
            claim=claim,
            detail=_suspects(oom) if unseen else _in_words(oom, caches, slab),
            about=oom.limit_of if of_cgroup(oom) else None,
            evidence=(
                *memory_lines(oom, "RAM" if unseen else "slab_unreclaimable"),
                *lines(oom, *(cache.line for cache in caches)),
                *_stat_line(oom),
            ),
            remedies=(_look_at_unseen(),) if unseen else (*_look_at_slab(oom), *_confine(oom)),
            oom=number,
        )


def _slab_alone(number: int, oom: OomReport) -> Finding:
    """The list of caches is printed where they hold more than all processes and files together, and only there."""
    caches = _largest_caches(oom)
    named = ", ".join(f"{quote(cache.name)} {size(cache.total_bytes or 0)}" for cache in caches)
    return Finding(
        code="kernel-memory",
        severity="warning",
        confidence="certain",
        claim=f"The kernel's own unreclaimable caches hold more than all processes and files together: {named}",
        evidence=lines(oom, *(cache.line for cache in caches)),
        remedies=_look_at_slab(oom),
        oom=number,
    )


def page_tables(snapshot: Snapshot) -> Iterator[Finding]:
    """Page tables hold a good part of the memory: the kernel's notes of where the pages of each process are.

    A page of 4 KiB of them stands for 2 MiB of address space, and each process has its own. So memory that many
    processes map, as the buffers of a database with hundreds of connections, costs again in each; and a program that
    touches a page here and there in a vast address space has more of them than memory. They are not in the RSS, but in
    the score, and come free when the process ends. Huge pages need a 512th of them, fewer processes need fewer.

    Source: oom_badness() in mm/oom_kill.c; Documentation/mm/page_tables.rst; admin-guide/mm/hugetlbpage.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        total, held = total_bytes(oom), part(oom, PAGE_TABLES)
        if oom.sysrq or (total and held is not None and held < total / 4):
            continue
        most = sorted(oom.tasks or (), key=_own_tables, reverse=True)[:3]
        claim: str | None
        if total and held is not None:
            claim = f"Page tables take {size(held)} of {size(total)} ({percent(held, total)})"
        else:
            claim = _of_the_largest(oom, most)
        if claim is None:
            continue
        yield Finding(
            code="page-tables",
            severity="warning",
            confidence="certain",
            claim=claim,
            detail=(_by_name(oom, most[0]),) if total and most and _own_tables(most[0]) else (),
            about=oom.limit_of if of_cgroup(oom) else None,
            evidence=(*memory_lines(oom, "pagetables"), *_stat_line(oom), *lines(oom, *(task.line for task in most))),
            oom=number,
        )


def _own_tables(task: Task) -> int:
    return task.pgtables_bytes or 0


def _of_the_largest(oom: OomReport, most: list[Task]) -> str | None:
    """What is claimed where the text lacks the figures of the memory: of all that the rows tell, most is theirs."""
    page, held = oom.page_size_bytes or 0, sum(map(_own_tables, oom.tasks or ()))
    if held < 64 * MIB or not page or held < sum(map(task_pages, oom.tasks or ())) * page:
        return None
    first = most[0]
    name = quote(first.comm or "?")
    return (
        f"Page tables are most of what processes held: {name} (pid {first.pid}) has {size(_own_tables(first))} of them"
    )


def _by_name(oom: OomReport, first: Task) -> str:
    """Whose the largest are, and how many of that name there are."""
    alike = sum(task.comm == first.comm for task in oom.tasks or ())
    many = "" if alike == 1 else f", of which there are {alike}"
    return f"The largest are of {quote(first.comm or '?')} (pid {first.pid}), {size(_own_tables(first))}{many}."


def _largest_caches(oom: OomReport) -> tuple[Slab, ...]:
    caches = oom.memory.slabs if oom.memory is not None else ()
    return tuple(sorted(caches, key=lambda cache: -(cache.total_bytes or 0))[:3])


def _in_words(oom: OomReport, caches: tuple[Slab, ...], slab: int) -> tuple[str, ...]:
    """Which objects they are, as far as the list of caches tells."""
    said = []
    if caches:
        named = ", ".join(f"{quote(cache.name)} {size(cache.total_bytes or 0)}" for cache in caches)
        listed = sum(cache.total_bytes or 0 for cache in oom.memory.slabs) if oom.memory is not None else 0
        if listed * 2 >= slab:
            said.append(f"The largest caches: {named}.")
        else:  # kmalloc() of more than two pages takes them from the page allocator and counts them as slab
            said.append(f"All caches listed hold {size(listed)}: the rest are single large buffers, as of sockets.")
    return tuple(said)


def _of_what(oom: OomReport, caches: tuple[Slab, ...], slab: int) -> str:
    """The largest cache if most of it is listed, else that a socket's buffer was asked for: for the end of a claim."""
    listed = sum(cache.total_bytes or 0 for cache in oom.memory.slabs) if oom.memory is not None else 0
    if caches and listed * 2 >= slab:
        return f"; the largest cache is {quote(caches[0].name)}, {size(caches[0].total_bytes or 0)}"
    if any("skb" in frame or frame.startswith("sock_") for frame in oom.stack):
        return ", and a socket's buffer was asked for"
    return ""


def _suspects(oom: OomReport) -> tuple[str, ...]:
    """Who holds pages that are in no counter of this report."""
    memory = oom.memory
    held = ["drivers (GPU, network)", "balloons of virtual machines", "pipes", "trace buffers", "vmalloc"]
    swapped = memory is not None and (memory.swap_total_bytes or 0) > (memory.swap_free_bytes or 0)
    if swapped and part(oom, ZSPAGES) == 0:  # zspages are printed since 6.18
        held.append("swap on zram")
    if memory is not None and not memory.hugepages:  # printed since 3.7
        held.append("huge pages")
    return (f"Such pages are held by {', '.join(held)}.",)


def huge_pages_idle(snapshot: Snapshot) -> Iterator[Finding]:
    """Reserved huge pages lay idle while memory ran out.

    Pages of vm.nr_hugepages belong to nobody but programs that ask for huge pages by name (hugetlbfs, MAP_HUGETLB):
    databases, virtual machines, DPDK. What they do not use is free to nobody else. Transparent huge pages are another
    thing and are not reserved. Some that lie idle may be promised to who has mapped them and not touched them yet
    (HugePages_Rsvd), which a report does not tell: the command reads it first, and leaves them.

    Source: hugetlb_show_meminfo_node() in mm/hugetlb.c; Documentation/admin-guide/mm/hugetlbpage.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        pools = oom.memory.hugepages if oom.memory is not None and of_machine(oom) else ()
        total = total_bytes(oom)
        damaged = {pool.size_bytes for pool in pools if pool.total is None or pool.total < (pool.free or 0)}
        sound = [pool for pool in pools if pool.size_bytes and pool.free is not None and pool.size_bytes not in damaged]
        held = [pool for pool in sound if pool.free]
        idle = sum((pool.free or 0) * (pool.size_bytes or 0) for pool in held)
        if not total or idle < total / 10:
            continue
        yield Finding(
            code="huge-pages-idle",
            severity="warning",
            confidence="likely",  # nobody has touched them: some may be promised
            claim=f"{size(idle)} of {size(total)} ({percent(idle, total)}) are reserved as huge pages that nobody uses",
            evidence=lines(oom, *(pool.line for pool in held)),
            remedies=tuple(
                _fewer_huge_pages(sound, size_bytes)  # those in use stand on other nodes, perhaps
                for size_bytes in sorted({pool.size_bytes for pool in held if pool.size_bytes})
            ),
            oom=number,
        )


def locked_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """A good part of the memory is locked, so neither reclaim nor swap could help.

    mlock(), mlockall() and MAP_LOCKED keep pages in RAM; so do ramfs, and SHM_LOCK. Swap added for such a program is of
    no use. RLIMIT_MEMLOCK (LimitMEMLOCK= of a unit) bounds it, but not for root.

    Source: Documentation/mm/unevictable-lru.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        if of_cgroup(oom) or oom.sysrq:
            continue
        total, held = total_bytes(oom), part(oom, LOCKED)
        if not total or held is None or held < total / 3:
            continue
        yield Finding(
            code="locked-memory",
            severity="warning",
            confidence="certain",
            claim=f"{size(held)} of {size(total)} ({percent(held, total)}) are locked in RAM: swap cannot take them",
            evidence=memory_lines(oom, "unevictable"),
            oom=number,
        )


def _fewer_huge_pages(pools: Sequence[HugePages], size_bytes: int) -> Remedy:
    """Keep those in use, of one size on all nodes."""
    total, free = (
        sum(count or 0 for count in counts)
        for counts in zip(*((p.total, p.free) for p in pools if p.size_bytes == size_bytes), strict=True)
    )
    folder = f"/sys/kernel/mm/hugepages/hugepages-{size_bytes // 1024}kB"
    keep = f'echo $(({total - free} + $(cat "$0/resv_hugepages"))) > "$0/nr_hugepages"'
    return Remedy(
        title=f"Give back the idle ones: keep {total - free} of {total} huge pages of {size(size_bytes)}, and "
        "those that are promised",
        cost="a program that is to use them, and has not started yet, will not find them",
        amount=f"{total} reserved − {free} free = {total - free} in use",
        commands=(("sh", "-c", keep, folder),),
    )


def _mapped_shmem_bytes(oom: OomReport) -> int | None:
    """Shared memory that processes map, at most: pages that several map count in each. None before 6.8."""
    if not oom.tasks or oom.page_size_bytes is None:
        return None
    told = [task.rss_shmem_pages for task in oom.tasks]
    if any(pages is None for pages in told):
        return None
    return sum(pages or 0 for pages in told) * oom.page_size_bytes


def _stat_line(oom: OomReport) -> tuple[Evidence, ...]:
    stats = oom.memcg.stats if oom.memcg is not None and of_cgroup(oom) else ()
    return lines(oom, *(stat.line for stat in stats[:1]))


def _bound_tmpfs(held: int) -> tuple[Remedy, ...]:
    amount = tmpfs_size(held)
    return (
        Remedy(
            title="Find the files and segments, and delete those that nobody needs",
            commands=(("df", "--type=tmpfs", "--human-readable"), ("ipcs", "--shmems", "--human")),
        ),
        Remedy(
            title=f"Give the tmpfs a size of {size(amount.count_bytes)}: then its writer is refused (ENOSPC) instead",
            cost="the writer must bear a full disk; refused while it holds more, or where it was made with size=0",
            amount=amount.formula,
            commands=(("mount", "-o", f"remount,size={amount.count_bytes // MIB}m", "MOUNTPOINT"),),
        ),
    )


# Unreclaimable caches by a part of their names, and what they are made for. Extent maps have a shrinker since Linux
# 956a17d9d050 ("btrfs: add a shrinker for extent maps", v6.10).
_MADE_BY = (
    ("btrfs_extent_map", "where the data of open btrfs files lie; since 6.10 it is given back under pressure"),
    ("kmalloc", "any driver; slab_debug=U at boot has the kernel note who"),
    ("skbuff", "buffers of sockets and packets"),
    ("sock", "open sockets"),
    ("TCP", "TCP connections"),
    ("nf_conntrack", "connections that the firewall tracks"),
    ("filp", "open files"),
    ("eventpoll", "watched files (epoll)"),
    ("vm_area_struct", "mappings of processes"),
    ("task_struct", "threads"),
    ("bio", "writes and reads under way"),
)


def _look_at_slab(oom: OomReport) -> tuple[Remedy, ...]:
    if not of_cgroup(oom):
        caches = _largest_caches(oom)[:1]
        known = [f"{quote(one.name)} grow ({words})" for one in caches for name, words in _MADE_BY if name in one.name]
        title = "See which caches grow, from one day to the next"
        if known:
            title = f"Find what makes {known[0]}; slabtop shows whether it still does"
        return (Remedy(title=title, cost="no memory", commands=(("slabtop", "--once", "--sort=c"),)),)
    title = "Find what its processes make the kernel hold: open files, pipes, sockets, mappings, BPF maps"
    return (Remedy(title=f"{title}; a higher limit only delays the next kill"),)


def _confine(oom: OomReport) -> tuple[Remedy, ...]:
    """Kernel memory is charged to the cgroup that caused it (v2 always, v1 since 4.5): its limit holds that too."""
    if of_cgroup(oom):
        return ()
    title = (
        "Once you know which service causes it, give that service a memory limit: what it makes the kernel hold counts"
    )
    return (Remedy(title=f"{title} against it", cost="it is killed at its limit, instead of others on the machine"),)


def _look_at_unseen() -> Remedy:
    return Remedy(
        title="See what the kernel allocated outside its counters",
        cost="no memory",
        commands=(
            ("grep", "-E", "Vmalloc|Percpu|HardwareCorrupted|Balloon|Hugetlb", "/proc/meminfo"),
            ("sort", "-k2", "-n", "-r", "/proc/vmallocinfo"),
            ("cat", "/sys/kernel/tracing/buffer_total_size_kb"),
            ("zramctl",),
        ),
    )
