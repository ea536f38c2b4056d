"""Swap: there is none, it is full, or the group may not use it, or did not."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from reprieve.model.finding import Change, Finding, Place, Remedy, quote
from reprieve.model.oom import Memcg
from reprieve.model.rootfs import HOLD_SWAP, RootFs
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.reclaim import LRU_GEN
from reprieve.rules.account import ANON, SHMEM, holders, of_cgroup, of_machine, part, ram_bytes, total_bytes
from reprieve.rules.amounts import Amount, at_most, swap_size
from reprieve.rules.evidence import lines, memory_lines
from reprieve.rules.limits import is_inside, is_no_more, leads_upwards, of_group, set_property, swap_limit
from reprieve.rules.zones import free_bytes, kept_bytes
from reprieve.units import MIB, percent, size

KUBELET = "kubelet"
_SWAPPABLE = (ANON, SHMEM)
_UNTOUCHED, _WORTH_IT = 0.9, 0.02  # so much of swap is free, and so large, in shares of RAM, it is at least
_ENOUGH = 0.25  # less than this share of the memory in swappable pages, and swap would not have mattered
# A report does not tell it: where it is another it stays, for 1 would be less.
_UNLESS_NONE = ("sh", "-c", '[ "$(sysctl -n vm.swappiness)" != 0 ] || sysctl -w vm.swappiness=1')


def no_swap(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine has no swap, so memory that nobody uses had to stay in RAM.

    Anonymous pages (heaps, stacks) and tmpfs can only be reclaimed to swap. Without any, the page cache, which holds
    the code of running programs, is thrown out first and read back again and again; then somebody is killed. Swap does
    not cure a leak: it buys time, and room for what lies idle. zram does so without a disk.

    Source: get_scan_count() in mm/vmscan.c; Documentation/admin-guide/blockdev/zram.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        if not of_machine(oom) or oom.memory is None or oom.memory.swap_total_bytes != 0:
            continue
        ram, held = ram_bytes(oom), part(oom, *_SWAPPABLE)
        if ram is None or held is None or held < ram * _ENOUGH:
            continue
        yield Finding(
            code="no-swap",
            severity="notice",
            confidence="certain",
            claim=f"There is no swap: {size(held)} ({percent(held, ram)} of RAM) of heaps and tmpfs had to stay in RAM",
            evidence=memory_lines(oom, "Total swap", "active_anon"),
            remedies=add_swap(swap_size(held), kubelet=any(task.comm == KUBELET for task in oom.tasks or ())),
            oom=number,
        )


def swap_full(snapshot: Snapshot) -> Iterator[Finding]:
    """Swap was full too: RAM and swap together were not enough.

    Somebody wanted more memory than the machine has of both kinds. The processes that hold most of the swap are named:
    what lies in swap does not show in their RSS, and a long slow time before the kill is typical.

    Source: show_swap_cache_info() in mm/swap_state.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        memory = oom.memory
        if not of_machine(oom) or memory is None:
            continue
        total, free = memory.swap_total_bytes, memory.swap_free_bytes
        # Slots are handed to CPUs in clusters, so a few may be left where somebody got none.
        if not total or free is None or free > max(total * 0.02, min(MIB, total * 0.1)):
            continue
        named = [holder for holder in holders(oom) if holder.swap_bytes]
        named.sort(key=lambda holder: -(holder.swap_bytes or 0))
        most = ", ".join(f"{quote(holder.comm)} {size(holder.swap_bytes or 0)}" for holder in named[:3])
        yield Finding(
            code="swap-full",
            severity="warning",
            confidence="certain",
            claim=f"Swap was full as well: {size(free)} of {size(total)} were free",
            detail=(f"Most of what was swapped out is of {most}.",) if most else (),
            evidence=(
                *memory_lines(oom, "Free swap", "Total swap"),
                *lines(oom, *(holder.tasks[0].line for holder in named[:3])),
            ),
            oom=number,
        )


def swap_unused(snapshot: Snapshot) -> Iterator[Finding]:
    """Swap was free, and next to nothing of what could have gone there was in it.

    By rule what is idle is swapped out before anybody is killed. With the multi-generational LRU (since 6.1; many
    distributions have it on) vm.swappiness 0 means never, and no longer "as late as possible": all swap is free when
    somebody dies. 1 is as late as possible, with either. What is locked in memory cannot go to swap, and is not counted
    here. Swap does not cure a leak: it buys time, and room for what lies idle.

    Source: isolate_folios() in mm/vmscan.c; Documentation/admin-guide/mm/multigen_lru.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        memory, held, ram = oom.memory, part(oom, *_SWAPPABLE), ram_bytes(oom)
        if not of_machine(oom) or memory is None or ram is None or held is None or held < ram * _ENOUGH:
            continue
        total, free, order = memory.swap_total_bytes, memory.swap_free_bytes, oom.trigger.order if oom.trigger else None
        if not total or free is None or free < max(total * _UNTOUCHED, ram * _WORTH_IT) or order:
            continue
        left, kept = free_bytes(oom), kept_bytes(oom)
        if left is None or kept is None or left > 2 * kept:  # as with host-full: else it was not RAM that ran out
            continue
        swappiness = Remedy(
            title="Let what is idle go there, as late as possible but not never, if vm.swappiness is 0 (command 1)",
            cost="what is swapped out is slow to use again",
            commands=(("sysctl", "vm.swappiness"), ("cat", LRU_GEN), _UNLESS_NONE),
        )
        yield Finding(
            code="swap-unused",
            severity="warning",
            confidence="certain",
            claim=f"{size(free)} of {size(total)} swap were free, and {size(held)} ({percent(held, ram)} of RAM) of "
            "heaps and tmpfs stayed in RAM",
            detail=("With the multi-generational LRU a vm.swappiness of 0 forbids to swap, whatever happens.",),
            evidence=memory_lines(oom, "Free swap", "Total swap", "active_anon"),
            remedies=(swappiness,),
            oom=number,
        )


def cgroup_swap_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The group may not use swap, or has used all it may, so its memory limit was the end.

    At its memory limit a group can still move idle pages to the machine's swap, and live: adding swap does help a
    container, unless memory.swap.max (v1: the limit for memory and swap together) forbids it. Kubernetes forbids it
    by default.

    Source: mem_cgroup_get_nr_swap_pages() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.swap.max.
    """
    for number, oom in enumerate(snapshot.ooms):
        if oom.memcg is None or oom.limit_of is None or not of_cgroup(oom):
            continue
        swap, usage, held = _swap_of(oom.memcg), total_bytes(oom), part(oom, *_SWAPPABLE)
        if swap is None or not usage or held is None or held < usage * _ENOUGH:
            continue
        line, used, limit = swap
        if used < limit * 0.98:
            continue
        name, old = quote(oom.limit_of.name), oom.memcg.usage("memory+swap") is not None
        no_more = is_no_more(oom.limit_of, snapshot.gone_groups)
        whether = f"has used all the swap it may ({size(limit)})" if limit else "may not use swap"
        yield Finding(
            code="cgroup-swap-limit",
            severity="notice",
            confidence="certain",
            claim=f"{name} {whether}: {size(held)} of heaps and tmpfs had to stay in RAM",
            about=oom.limit_of,
            evidence=lines(oom, line),
            remedies=() if no_more else allow_swap(oom.limit_of, old_cgroups=old),
            oom=number,
        )


def cgroup_swap_unused(snapshot: Snapshot) -> Iterator[Finding]:
    """The group may use swap, and at its limit none of its memory was there.

    A report of a limit does not say whether the machine has swap, nor what the groups above may use. If there is some,
    the usual reason is vm.swappiness 0: of a group no anonymous page is swapped out then, however much swap is free, so
    the limit is the end for all that is no file cache. 1 is as little as possible. Swap does not cure a leak: it buys
    time, and room for what lies idle.

    Source: get_scan_count() in mm/vmscan.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        swap = None if oom.memcg is None else oom.memcg.usage("swap")  # version 2: in 1 each group has a swappiness
        if swap is None or oom.limit_of is None or not of_cgroup(oom) or swap.usage_bytes != 0 or swap.limit_bytes == 0:
            continue
        usage, held = total_bytes(oom), part(oom, *_SWAPPABLE)
        if not usage or held is None or held < usage * _ENOUGH:
            continue
        swappiness = Remedy(
            title="If the machine has swap (swapon --show) and vm.swappiness is 0, let what is idle go there",
            cost="what is swapped out is slow to use again",
            commands=(_UNLESS_NONE,),
        )
        added = add_swap(swap_size(held), kubelet=oom.limit_of.manager == "kubernetes")
        yield Finding(
            code="cgroup-swap-unused",
            severity="info",
            confidence="certain",
            claim=f"Its own limit leaves {quote(oom.limit_of.name)} swap, and none of its {size(held)} of heaps and "
            "tmpfs was there",
            detail=("The machine has none, or none free; a group above may use none; or vm.swappiness is 0.",),
            about=oom.limit_of,
            evidence=lines(oom, swap.line),
            remedies=(swappiness, *(replace(one, title=f"If it has none: {one.title}") for one in added)),
            oom=number,
        )


def _swap_of(memcg: Memcg) -> tuple[int, int, int] | None:
    """Line, usage and limit of the group's swap; None where it has no limit, or the text does not tell."""
    swap, memory, both, limit = (
        memcg.usage("swap"),
        memcg.usage("memory"),
        memcg.usage("memory+swap"),
        swap_limit(memcg),
    )
    if not isinstance(limit, int):
        return None
    if swap is not None:
        return None if swap.usage_bytes is None else (swap.line, swap.usage_bytes, limit)
    if both is None or memory is None or both.usage_bytes is None or memory.usage_bytes is None:
        return None
    return both.line, max(both.usage_bytes - memory.usage_bytes, 0), limit


_ON = "the space in /, on ext4, xfs or the like: btrfs, ZFS and overlay hold no file made so"
_KEEP_FREE = 0.05  # of the file system: a full disk stops more than a full memory does
_LATER = "a program that leaks is killed later, after a slower time"
_OF_KUBELET = "; a kubelet does not start beside swap, unless failSwapOn is false"


def add_swap(
    amount: Amount,
    *,
    names: Collection[str] = (),
    kubelet: bool = False,
    root: RootFs | None = None,
    ram_bytes: int | None = None,
) -> tuple[Remedy, ...]:
    """More swap: a file of that size where / can hold one, else a compressed device in memory.

    `names`: of the swap there is. `kubelet`: one runs there. `root`, `ram_bytes`: None if they are not known.
    """
    beside = _OF_KUBELET if kubelet else ""
    if root is None:
        return (_dd(amount, names, f"{_LATER}; needs {_ON}{beside}"),)
    on_btrfs = root.kind == "btrfs" and not root.read_only
    if root.read_only or not (on_btrfs or root.kind in HOLD_SWAP):
        how = "is read-only" if root.read_only else f"is on {quote(root.kind)}"
        return _zram(amount, names, ram_bytes, f"/ {how} and holds no swap file", beside)
    if root.free_bytes is not None and root.size_bytes is not None:
        room = root.free_bytes - int(root.size_bytes * _KEEP_FREE)
        if room < 64 * MIB:
            return _zram(amount, names, ram_bytes, f"/ has {size(root.free_bytes)} free", beside)
        amount = at_most(amount, room, f"the {size(root.free_bytes)} free in / less a twentieth of it all")
    if on_btrfs:
        return (_btrfs(amount, names, beside),)
    return (_dd(amount, names, f"{_LATER}; needs the space on a disk{beside}"),)


def _unused(file: str, names: Collection[str]) -> str:
    while file in names:
        file += "+"
    return file


def _dd(amount: Amount, names: Collection[str], cost: str) -> Remedy:
    file = _unused("/swapfile.reprieve", names)  # a name that nothing else has
    commands = (  # dd, not fallocate: swapon refuses holes
        ("dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={amount.count_bytes // MIB}"),
        ("chmod", "600", file),
        ("mkswap", file),
        ("swapon", file),
    )
    return Remedy(
        title=f"Add {size(amount.count_bytes)} of swap (a line in /etc/fstab keeps it after a reboot)",
        cost=cost,
        amount=amount.formula,
        settings=swap_file(file, amount.count_bytes),
        commands=commands,
    )


def _btrfs(amount: Amount, names: Collection[str], beside: str) -> Remedy:
    """In a subvolume of its own: one that holds a file that is swapped to cannot be snapshotted."""
    folder = "/swap.reprieve"
    file = _unused(f"{folder}/swapfile", names)
    first = (("btrfs", "subvolume", "create", folder),) if file == f"{folder}/swapfile" else ()
    return Remedy(
        title=f"Add {size(amount.count_bytes)} of swap (a line in /etc/fstab keeps it after a reboot)",
        cost=f"{_LATER}; needs the space on one disk without RAID, and btrfs-progs 6.1{beside}",
        amount=amount.formula,
        commands=(
            *first,
            ("btrfs", "filesystem", "mkswapfile", "--size", f"{amount.count_bytes // MIB}M", file),
            ("swapon", file),
        ),
    )


def _zram(amount: Amount, names: Collection[str], ram_bytes: int | None, why: str, beside: str) -> tuple[Remedy, ...]:
    """What is swapped to it stays in memory: no more than half of that, and no second, which would share it."""
    if any(name.startswith("/dev/zram") for name in names):
        title = f"Add {size(amount.count_bytes)} of swap on a partition, or on a disk that holds a file: {why}"
        commands = (("mkswap", "/dev/PARTITION"), ("swapon", "/dev/PARTITION"))
        return (Remedy(title=title, cost=f"{_LATER}{beside}", amount=amount.formula, commands=commands),)
    if ram_bytes is not None:
        amount = at_most(amount, ram_bytes // 2, "half of the RAM")
    make = (
        'modprobe -q zram; device=$(zramctl --find --size "$0M") && mkswap "$device" && swapon --priority 100 "$device"'
    )
    return (
        Remedy(
            title=f"Add {size(amount.count_bytes)} of compressed swap in memory (zram), or a partition: {why}",
            cost=f"{_LATER}; processor time, and memory for what does not compress{beside}",
            amount=amount.formula,
            settings=(Change(place=Place(kind="zram", key="disksize"), want=str(amount.count_bytes)),),
            commands=(("sh", "-c", make, str(amount.count_bytes // MIB)),),
        ),
    )


def swap_file(file: str, size_bytes: int) -> tuple[Change, ...]:
    """A swap file as places: made, swapped to at each boot, and swapped to now."""
    return (
        Change(place=Place(kind="swapfile", of=file), want=str(size_bytes)),
        Change(place=Place(kind="fstab", of=file), want=""),
        Change(place=Place(kind="swap", of=file), want="on"),
    )


def allow_swap(group: Workload, *, old_cgroups: bool) -> tuple[Remedy, ...]:
    """Let such a workload use the machine's swap; nothing where its manager decides. `old_cgroups`: of version 1."""
    cost = "what is swapped out is slow to use again; it helps only if the machine has swap"
    title = "Let it use the machine's swap"
    inside = is_inside(group)
    by_systemd = group.manager == "systemd" and group.uid is None and group.container_id is None
    if leads_upwards(group):
        return ()
    if group.manager == "docker" and group.container_id is not None and not inside:
        return (Remedy(title=f"{title}: docker run --memory-swap=-1", cost=cost),)
    if old_cgroups:  # systemd sets no limit for both there: who did is not known
        if inside or (by_systemd and group.unit is not None) or group.kind == "cgroup":
            return (Remedy(title=f"{title}: raise memory.memsw.limit_in_bytes of the group", cost=cost),)
        return ()
    if inside or group.kind == "cgroup":
        write = ("sh", "-c", 'echo max > "$1"', "sh", f"/sys/fs/cgroup{group.path}/memory.swap.max")
        own = () if inside or group.manager else (of_group(group, "memory.swap.max", "max"),)
        return (Remedy(title=title, cost=cost, settings=own, commands=(write,)),)
    if by_systemd and group.unit is not None:
        setting = Change(place=Place(kind="unit", of=group.unit, key="MemorySwapMax"), want="infinity")
        command = set_property(group.unit, "MemorySwapMax=infinity")
        return (Remedy(title=title, cost=cost, settings=(setting,), commands=(command,)),)
    return ()
