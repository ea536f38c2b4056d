"""Memory that no kill frees: reserved huge pages, files in memory, the kernel's own, what is locked."""

from collections.abc import Iterator

from reprieve.model.finding import Change, Evidence, Finding, Place, Remedy, quote
from reprieve.model.machine import HugePool, Machine, Tmpfs
from reprieve.model.snapshot import Snapshot
from reprieve.rules.amounts import tmpfs_size_now
from reprieve.rules.living.facts import figure, living, meminfo_lines, named, process_line
from reprieve.units import KIB, MIB, percent, size

_HUGE = 0.05  # of RAM: huge pages that lie idle
_FILES = 0.2  # of RAM: files in one tmpfs, or in all where none holds so much
_NAMED = 4
_SEGMENTS = 0.02  # of RAM: shared memory that nobody is attached to
_SLAB = 0.15  # of RAM: what the kernel cannot give back
_LOCKED = 0.25  # of RAM


def huge_pages_reserved(snapshot: Snapshot) -> Iterator[Finding]:
    """Huge pages are reserved that nobody uses.

    Pages of vm.nr_hugepages belong to nobody but programs that ask for huge pages by name (hugetlbfs, MAP_HUGETLB):
    databases, virtual machines, DPDK. What they do not use is free to nobody else. Transparent huge pages are another
    thing and are not reserved. What is idle now may be promised to a program that is to start: ask before.

    Source: Documentation/admin-guide/mm/hugetlbpage.rst.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram:
        return
    for pool in machine.huge_pools:
        if pool.node is not None or pool.total is None:
            continue
        idle = min((pool.free or 0) - (pool.reserved or 0), pool.total)  # they are read one after another
        if idle * pool.page_bytes < ram * _HUGE:
            continue
        held = idle * pool.page_bytes
        yield Finding(
            code="huge-pages-reserved",
            severity="warning" if held > ram * 4 * _HUGE else "notice",
            confidence="likely" if pool.reserved is None else "certain",
            claim=f"{size(held)} ({percent(held, ram)} of RAM) are reserved as huge pages that nobody uses: "
            f"{idle} of {pool.total}",
            subject=f"hugepages-{pool.page_bytes // KIB}kB",
            evidence=(
                Evidence(
                    text=f"nr {pool.total}, free {pool.free}"
                    + ("" if pool.reserved is None else f", reserved {pool.reserved}"),
                    source=f"/sys/kernel/mm/hugepages/hugepages-{pool.page_bytes // KIB}kB",
                ),
                *meminfo_lines(machine, "MemTotal"),
            ),
            remedies=(_fewer(pool, pool.total - idle),),
        )


def tmpfs_holds(snapshot: Snapshot) -> Iterator[Finding]:
    """Files in a tmpfs hold a good part of the memory, which killing a process does not free.

    /dev/shm, /run, often /tmp, `emptyDir` with `medium: Memory` and every `--tmpfs` live in RAM (or swap) until the
    file is deleted and nobody holds it open. The kernel chooses a victim all the same, so innocents die one after
    another while the files stay. Without a size a tmpfs may take half of the RAM, and several of them all of it.

    Source: Documentation/filesystems/tmpfs.rst.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram:
        return
    large = [mount for mount in machine.tmpfs if (mount.used_bytes or 0) >= ram * _FILES]
    if not large:
        yield from _tmpfs_together(machine, ram)
    for mount in large:
        used = mount.used_bytes or 0
        yield Finding(
            code="tmpfs-holds",
            severity="warning",
            confidence="certain",
            claim=f"Files in {quote(mount.path)} hold {size(used)}, {percent(used, ram)} of RAM: no kill frees them",
            detail=_what_fills(mount),
            subject=mount.path,
            evidence=(
                Evidence(text=f"used {used // KIB} kB", source=mount.path),
                *(Evidence(text=f"{one.held_bytes // KIB} kB", source=one.path) for one in mount.largest[:3]),
            ),
            remedies=_bound(mount, used),
        )


def _tmpfs_together(machine: Machine, ram: int) -> Iterator[Finding]:
    """Each of them holds less than is worth a word, and all of them more."""
    filled = sorted((one for one in machine.tmpfs if one.used_bytes), key=lambda one: -(one.used_bytes or 0))
    together = sum(one.used_bytes or 0 for one in filled)
    if together < ram * _FILES:
        return
    named = ", ".join(f"{quote(one.path)} {size(one.used_bytes or 0)}" for one in filled[:_NAMED])
    more = f" and {len(filled) - _NAMED} more" if len(filled) > _NAMED else ""
    yield Finding(
        code="tmpfs-holds",
        severity="warning",
        confidence="certain",
        claim=f"Files in {len(filled)} tmpfs hold {size(together)} together, {percent(together, ram)} of RAM: no kill "
        "frees them",
        detail=(f"They are {named}{more}.",),
        subject="tmpfs",
        evidence=tuple(Evidence(text=f"used {(one.used_bytes or 0) // KIB} kB", source=one.path) for one in filled),
    )


def segments_forgotten(snapshot: Snapshot) -> Iterator[Finding]:
    """Shared memory of System V lies there that nobody is attached to.

    Such a segment stays when the last process that used it has gone, until ipcrm(1) or a reboot. A database that was
    killed leaves its segments behind; started anew it makes new ones.

    Source: shmctl(2), IPC_RMID; Documentation/admin-guide/sysctl/kernel.rst, shm_rmid_forced.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram:
        return
    idle = [one for one in machine.segments if one.attached == 0 and (one.rss_bytes or 0) + (one.swap_bytes or 0)]
    held = sum((one.rss_bytes or 0) + (one.swap_bytes or 0) for one in idle)
    if held < ram * _SEGMENTS:
        return
    largest = sorted(idle, key=lambda one: -(one.rss_bytes or 0))[:4]
    count = "1 segment" if len(idle) == 1 else f"{len(idle)} segments"
    yield Finding(
        code="segments-forgotten",
        severity="notice",
        confidence="certain",
        claim=f"{count} of shared memory hold {size(held)}, and nobody is attached",
        subject="shm",
        evidence=tuple(
            Evidence(
                text=f"shmid {one.number}, size {one.size_bytes}, rss {one.rss_bytes}, nattch 0",
                source="/proc/sysvipc/shm",
            )
            for one in largest
        ),
        remedies=(
            Remedy(
                title="Remove those that no program will come back for",
                cost="what is in them is lost",
                commands=tuple(("ipcrm", "--shmem-id", str(one.number)) for one in largest),
            ),
        ),
    )


def slab_holds(snapshot: Snapshot) -> Iterator[Finding]:
    """The kernel's own data that it cannot give back take a good part of the memory.

    Unreclaimable slab that grows for days is a leak in a driver or file system, or of objects that user space keeps
    open: sockets, files, cgroups. No process owns it, so no kill frees it, unless that process was the cause.

    Source: Documentation/filesystems/proc.rst, meminfo.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    slab = None if machine is None else figure(machine, "SUnreclaim")
    if machine is None or not ram or slab is None or slab < ram * _SLAB:
        return
    yield Finding(
        code="slab-holds",
        severity="warning",
        confidence="certain",
        claim=f"{size(slab)} ({percent(slab, ram)} of RAM) are the kernel's own and cannot be given back",
        subject="slab",
        evidence=meminfo_lines(machine, "SUnreclaim", "SReclaimable", "MemTotal"),
        remedies=(
            Remedy(
                title="See which caches grow, from one day to the next",
                cost="no memory",
                commands=(("slabtop", "--once", "--sort=c"),),
            ),
        ),
    )


def unevictable_holds(snapshot: Snapshot) -> Iterator[Finding]:
    """A good part of the memory is locked in RAM: neither reclaim nor swap can take it.

    mlock(), mlockall() and MAP_LOCKED keep pages in RAM; so do ramfs, and SHM_LOCK. Swap added for such a program is of
    no use. RLIMIT_MEMLOCK (LimitMEMLOCK= of a unit) bounds it, but not for root.

    Source: Documentation/mm/unevictable-lru.rst.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    held = None if machine is None else figure(machine, "Unevictable")
    if machine is None or not ram or held is None or held < ram * _LOCKED:
        return
    most = sorted((one for one in living(machine) if one.locked_bytes), key=lambda one: -(one.locked_bytes or 0))[:3]
    whose = ", ".join(f"{named(one)} {size(one.locked_bytes or 0)}" for one in most)
    yield Finding(
        code="unevictable-holds",
        severity="notice",
        confidence="certain",
        claim=f"{size(held)} ({percent(held, ram)} of RAM) are locked in RAM: swap cannot take them",
        detail=(f"Most is locked by {whose}.",) if whose else (),
        subject="unevictable",
        evidence=(*meminfo_lines(machine, "Unevictable", "Mlocked", "MemTotal"), *map(process_line, most)),
    )


def _fewer(pool: HugePool, keep: int) -> Remedy:
    file = f"/sys/kernel/mm/hugepages/hugepages-{pool.page_bytes // KIB}kB/nr_hugepages"
    return Remedy(
        title=f"Keep {keep} of them, if nobody is to start who wants more",
        cost="a program that finds too few huge pages when it starts may refuse to",
        settings=(Change(place=Place(kind="file", of=file), want=str(keep)),),
        commands=(("sh", "-c", f'echo {keep} > "$0"', file),),
    )


def _what_fills(mount: Tmpfs) -> tuple[str, ...]:
    said = []
    if mount.largest:
        files = ", ".join(f"{quote(one.path)} {size(one.held_bytes)}" for one in mount.largest[:3])
        said.append(f"The largest: {files}.")
    if mount.found_bytes is not None and mount.used_bytes is not None:
        lost = mount.used_bytes - mount.found_bytes
        if lost > mount.used_bytes / 4:
            said.append(f"{size(lost)} are of files that were deleted and are held open still.")
    return tuple(said)


def _bound(mount: Tmpfs, used: int) -> tuple[Remedy, ...]:
    amount = tmpfs_size_now(used)
    bound = f"remount,size={amount.count_bytes // MIB}m"
    return (
        Remedy(
            title="Delete those files that nobody needs; those deleted already are free once who has them open ends"
        ),
        Remedy(
            title=f"Let it grow no more: at {size(amount.count_bytes)} its writer is refused (ENOSPC) instead",
            cost="the writer must bear a full disk",
            amount=amount.formula,
            commands=(("mount", "-o", bound, mount.path),),
        ),
    )
