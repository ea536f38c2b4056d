"""Swap of a living machine: none, or little, nearly full, one that somebody may not use, or used late."""

from collections.abc import Iterator

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Change, Evidence, Finding, Place, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import called, is_on_zram, owner, swap_room
from reprieve.oom.reclaim import LRU_GEN, swaps
from reprieve.rules.amounts import Amount, more_swap, swap_size
from reprieve.rules.living.facts import (
    figure,
    group_lines,
    living,
    meminfo_lines,
    named,
    process_line,
    setting,
    sysctl_lines,
    unreclaimable_bytes,
)
from reprieve.rules.swap import KUBELET, add_swap, allow_swap
from reprieve.units import MIB, percent, size

_ENOUGH = 0.25  # of RAM: less than that in heaps and tmpfs, and swap would not matter
_LITTLE = 0.1  # of what swap could take
_SCARCE = 0.25  # of RAM: what can still be had, from which on full swap is a warning
_FULL = 0.1  # of swap: free, from which on it is nearly full
_MOST = 0.6  # of its limit: what a group holds that only swap could take
_EVEN = 100  # a swappiness at which swap and the files of a disk count as equally dear
_COMPRESSED = 180  # at which swap counts as nine times cheaper
_AGAIN = "workingset_refault_file"  # pages of files, dropped and needed again; since 5.9
_WORN = 0.25  # of RAM: what was read again, from which on that is no accident
_KEPT = "a file in /etc/sysctl.d keeps it after a reboot"
_OWN = "; groups that are there keep their own (memory.swappiness)"


def swap_absent(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine has no swap, so memory that nobody uses has to stay in RAM.

    Anonymous pages (heaps, stacks) and tmpfs can only be reclaimed to swap. Without any, the page cache, which holds
    the code of running programs, is thrown out first and read back again and again; then somebody is killed. Swap does
    not cure a leak: it buys time, and room for what lies idle. zram does so without a disk.

    Source: get_scan_count() in mm/vmscan.c; Documentation/admin-guide/blockdev/zram.rst.
    """
    machine = snapshot.machine
    if machine is None or figure(machine, "SwapTotal") != 0:
        return
    ram, anon, shmem = (figure(machine, name) for name in ("MemTotal", "AnonPages", "Shmem"))
    if ram is None or anon is None or anon + (shmem or 0) < ram * _ENOUGH:
        return
    held = anon + (shmem or 0)
    yield Finding(
        code="swap-absent",
        severity="notice",
        confidence="certain",
        claim=f"There is no swap: {size(held)} ({percent(held, ram)} of RAM) of heaps and tmpfs have to stay in RAM",
        subject="swap",
        evidence=meminfo_lines(machine, "MemTotal", "SwapTotal", "AnonPages", "Shmem", "MemAvailable"),
        remedies=_add(machine, swap_size(held)),
    )


def swap_small(snapshot: Snapshot) -> Iterator[Finding]:
    """There is swap, but so little that it could take next to nothing of what has to stay in RAM.

    A few MiB beside gigabytes of heaps and tmpfs are full at the first shortage, and from then on it is as if there
    were none. How much of these lies idle no file tells; less than a tenth would leave no room for it.

    Source: get_scan_count() in mm/vmscan.c.
    """
    machine = snapshot.machine
    if machine is None:
        return
    ram, total, free, anon = (figure(machine, name) for name in ("MemTotal", "SwapTotal", "SwapFree", "AnonPages"))
    if not total or free is None or ram is None or anon is None or free <= total * _FULL:
        return
    held = anon + (figure(machine, "Shmem") or 0) + total - free
    if held < ram * _ENOUGH or total >= held * _LITTLE:
        return
    yield Finding(
        code="swap-small",
        severity="notice",
        confidence="certain",
        claim=f"There is little swap: {size(total)} for {size(held)} ({percent(held, ram)} of RAM) of heaps and tmpfs",
        subject="swap",
        evidence=meminfo_lines(machine, "MemTotal", "SwapTotal", "SwapFree", "AnonPages", "Shmem"),
        remedies=_add(machine, swap_size(held)),
    )


def swap_nearly_full(snapshot: Snapshot) -> Iterator[Finding]:
    """Swap is nearly full: what comes next must stay in RAM.

    Full swap alone harms nobody, if what lies there is idle. With little RAM left as well, the page cache goes next,
    everything becomes slow, and then somebody is killed. What lies in swap does not show in the RSS of its owner.

    Source: get_scan_count() in mm/vmscan.c.
    """
    machine = snapshot.machine
    if machine is None:
        return
    ram, total, free, left = (figure(machine, name) for name in ("MemTotal", "SwapTotal", "SwapFree", "MemAvailable"))
    if not total or free is None or ram is None or free > total * _FULL:
        return
    scarce = left is not None and left < ram * _SCARCE
    most = sorted((one for one in living(machine) if one.swap_bytes), key=lambda one: -(one.swap_bytes or 0))[:3]
    whose = ", ".join(f"{named(one)} {size(one.swap_bytes or 0)}" for one in most)
    could = "" if left is None else f", and {size(left)} of RAM can be had"
    yield Finding(
        code="swap-nearly-full",
        severity="warning" if scarce else "info",
        confidence="certain",
        claim=f"Swap is nearly full: {size(free)} of {size(total)} are free{could}",
        detail=(f"Most of what is swapped out is of {whose}.",) if whose else (),
        subject="swap",
        evidence=(*meminfo_lines(machine, "SwapTotal", "SwapFree", "MemAvailable"), *map(process_line, most)),
        remedies=_add(machine, more_swap(total)) if scarce else (),
    )


def swap_forbidden(snapshot: Snapshot) -> Iterator[Finding]:
    """A group with a memory limit may not use swap, though the machine has some free.

    At its limit a group can move idle pages to the machine's swap, and live: swap does help a container, unless
    memory.swap.max (version 1: the limit for memory and swap together) forbids it. Kubernetes forbids it by default.

    Source: mem_cgroup_get_nr_swap_pages() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.swap.max.
    """
    machine = snapshot.machine
    free = None if machine is None else figure(machine, "SwapFree")
    if machine is None or not free or free < MIB:
        return
    groups = {group.path: group for group in machine.cgroups}
    for group in machine.cgroups:
        held = unreclaimable_bytes(group)
        if not isinstance(group.max_bytes, int) or held is None or held < group.max_bytes * _MOST:
            continue
        if swap_room(groups, group.path) != 0 or group.swap_current_bytes:
            continue
        whose = called(machine, group.path)
        forbids = _forbidder(groups, group)
        yield Finding(
            code="swap-forbidden",
            severity="notice",
            confidence="certain",
            claim=f"{quote(whose.name)} holds {size(held)} of its {size(group.max_bytes)} and may not use swap, of "
            f"which the machine has {size(free)} free",
            about=whose,
            subject=group.path,
            evidence=(
                *group_lines(group, "memory.current", "memory.max"),
                *group_lines(forbids, "memory.swap.max", "memory.memsw.limit_in_bytes"),
                *meminfo_lines(machine, "SwapFree"),
            ),
            remedies=allow_swap(owner(forbids.path, machine.containers), old_cgroups=forbids.version == 1),
        )


def swappiness_zero(snapshot: Snapshot) -> Iterator[Finding]:
    """vm.swappiness is 0: a group at its limit is killed though swap is free, and the machine swaps late.

    0 is not "as little as possible": reclaim of a cgroup takes no anonymous page then, so the limit is the end for all
    that is no file cache, and of the machine it takes them only when hardly any cache is left; small guests with 6.12
    and 7 were killed with all swap free at times. Where MGLRU reclaims (/sys/kernel/mm/lru_gen/enabled is odd, since
    6.1) it takes none of the machine either: there it is the rule. 1 is as little as possible. Until 5.8 the range was
    0 to 100; up to 200 it weighs the cost of swap against that of the page cache. In version 1 a group has a swappiness
    of its own, that of its parent when it was made: there those at a limit count.

    Source: get_scan_count() and isolate_folios() in mm/vmscan.c; mem_cgroup_swappiness() in include/linux/swap.h;
    Documentation/admin-guide/sysctl/vm.rst, swappiness.
    """
    machine = snapshot.machine
    total = None if machine is None else figure(machine, "SwapTotal")
    if machine is None or not total or setting(machine, "vm.swappiness") != 0:
        return
    limited = [group for group in machine.cgroups if group.path != "/" and isinstance(group.max_bytes, int)]
    own = {group.swappiness for group in limited} - {None}
    of_no_use = "are of no use to a group that reaches its limit"
    if own and 0 not in own:
        of_no_use = "are used only when hardly any page cache is left"
    never = () if swaps(machine) else (Evidence(text=dict(machine.settings)[LRU_GEN], source=LRU_GEN),)
    if never:
        of_no_use = "are never used, as MGLRU reclaims (lru_gen)"
    place = Place(kind="sysctl", key="vm.swappiness")
    remedy = Remedy(
        title=f"Let it swap as little as possible, but not never ({_KEPT})",
        cost="idle memory may be moved to swap before the page cache is gone" + (_OWN if own else ""),
        settings=(Change(place=place, want="1"),),
        commands=(("sysctl", "-w", "vm.swappiness=1"),),
    )
    yield Finding(
        code="swappiness-zero",
        severity="notice",
        confidence="certain",
        claim=f"vm.swappiness is 0: {size(total)} of swap {of_no_use}",
        subject="vm.swappiness",
        evidence=(*sysctl_lines(machine, "vm.swappiness"), *never, *meminfo_lines(machine, "SwapTotal")),
        remedies=(remedy,),
    )


def zram_swappiness(snapshot: Snapshot) -> Iterator[Finding]:
    """All swap is on zram, the kernel takes it to be as slow as a disk, and files are read again and again.

    vm.swappiness weighs what it costs to read a page of a heap back from swap against a page of a file from its disk:
    up to 100 the first counts as dearer or as dear. zram lies in RAM, so the files that programs run from and work on
    are thrown out, and read back from the disk, while idle heaps stay uncompressed. It speaks where as much as a
    quarter of RAM was read back since boot. Since 5.8 vm.swappiness may be up to 200; at 180 swap counts as nine times
    cheaper.

    Source: Documentation/admin-guide/sysctl/vm.rst, swappiness; get_scan_count() in mm/vmscan.c.
    """
    machine = snapshot.machine
    swappiness = None if machine is None else setting(machine, "vm.swappiness")
    if machine is None or not swappiness or swappiness > _EVEN:
        return
    ram, again, page = figure(machine, "MemTotal"), dict(machine.vmstat).get(_AGAIN), machine.page_bytes
    if not ram or not again or not page or again * page < ram * _WORN:
        return
    if not machine.swaps or not all(map(is_on_zram, machine.swaps)):
        return
    own = any(group.swappiness is not None for group in machine.cgroups if group.path != "/")
    yield Finding(
        code="zram-swappiness",
        severity="info",
        confidence="certain",
        claim=f"All swap is on zram, and vm.swappiness is {swappiness}: files are dropped before idle heaps are "
        f"compressed, and {size(again * page)} of them were read again since boot",
        subject="vm.swappiness",
        evidence=(
            *sysctl_lines(machine, "vm.swappiness"),
            Evidence(text=f"{_AGAIN} {again}", source="/proc/vmstat"),
            *meminfo_lines(machine, "SwapTotal", "SwapFree"),
        ),
        remedies=(
            Remedy(
                title=f"Let it compress heaps first ({_KEPT})",
                cost="time to compress and to unpack; if a disk is swapped to later, it is swapped to as readily"
                + (_OWN if own else ""),
                amount=f"swap nine times cheaper than a file: 200 x 9 / (9 + 1) = {_COMPRESSED}",
                settings=(Change(place=Place(kind="sysctl", key="vm.swappiness"), want=str(_COMPRESSED)),),
                commands=(("sysctl", "-w", f"vm.swappiness={_COMPRESSED}"),),
            ),
        ),
    )


def _add(machine: Machine, amount: Amount) -> tuple[Remedy, ...]:
    """More swap; a container can add none."""
    if machine.cgroup_private:
        return ()
    kubelet = any(process.comm == KUBELET for process in machine.processes)
    return add_swap(
        amount,
        names=[area.name for area in machine.swaps],
        kubelet=kubelet,
        root=machine.root,
        ram_bytes=figure(machine, "MemTotal"),
    )


def _forbidder(groups: dict[str, Cgroup], group: Cgroup) -> Cgroup:
    """Whose setting it is: its own, or of the nearest above that leaves nothing."""
    path = group.path
    while path != "/" and swap_room({path: groups[path]} if path in groups else {}, path) != 0:
        path = path.rpartition("/")[0] or "/"
    return groups.get(path, group)
