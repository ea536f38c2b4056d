"""Who holds most of what there is: the machine all of its own, one group or one process."""

from collections.abc import Iterator

from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import Bound, ancestors, called, most, own_bound, owner, rooms, swappable
from reprieve.rules.amounts import own_limit, raised_limit
from reprieve.rules.growth import kept_to
from reprieve.rules.living.facts import (
    figure,
    group_lines,
    living,
    meminfo_lines,
    named,
    own_bytes,
    process_line,
    unreclaimable_bytes,
)
from reprieve.rules.living.higher import raise_limit
from reprieve.units import GIB, MIB, percent, size

WARN_SHARE = 0.8
_SCARCE = 0.1  # of RAM: what is left in it and in swap, from which on the machine is nearly full
_ENOUGH = 4 * GIB  # which is not little on any machine
_TOGETHER = ("root", "slice", "user")  # kinds of groups that hold many programs: that they hold most is no news


def memory_nearly_full(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine itself has little left: what can be had of its RAM, and the swap that is free.

    Cache that can be dropped counts as left, and so does swap, of that on zram what it saves. When that is taken the
    kernel kills, and before that all is slow: the code of running programs is read from the disk again and again.

    Source: si_mem_available() in mm/show_mem.c; out_of_memory() in mm/oom_kill.c.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    whole = None if machine is None else next((room for room in rooms(machine) if room.path is None), None)
    if machine is None or not ram or whole is None or whole.left_bytes >= min(ram * _SCARCE, _ENOUGH):
        return
    largest = sorted(living(machine), key=own_bytes, reverse=True)[:3]
    whose = ", ".join(f"{named(one)} {size(own_bytes(one))}" for one in largest if own_bytes(one))
    swap = f", {size(whole.swap_bytes)} of it in swap" if whole.swap_bytes else ""
    yield Finding(
        code="memory-nearly-full",
        severity="warning",
        confidence="certain",
        claim=f"The machine has {size(whole.left_bytes)} left until a kill ({percent(whole.left_bytes, ram)} of "
        f"{size(ram)} RAM){swap}",
        detail=(f"Most is held by {whose}; `reprieve next` tells who would be killed.",) if whose else (),
        evidence=(*meminfo_lines(machine, "MemTotal", "MemAvailable", "SwapFree"), *map(process_line, largest)),
    )


def group_holds(snapshot: Snapshot, share: float) -> Iterator[Finding]:
    """The processes of one unit, container or session hold most of the machine's memory, and no limit bounds them.

    Their caches do not count: those go before anybody is killed. If they grow on, the machine itself runs out, and then
    the kernel chooses among all processes. A limit of its own keeps that within the group. Where a single process holds
    so much, the finding is about that one; groups that hold many programs, such as system.slice, are not told of.

    Source: try_charge_memcg() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.current.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram or machine.cgroup_private:  # within a container its own limit is what counts
        return
    alone = {f"{one.cgroup or ''}/" for one in living(machine) if own_bytes(one) >= ram * share}
    large = [group for group in machine.cgroups if (unreclaimable_bytes(group) or 0) >= ram * share]
    told: set[str] = set()
    for group in sorted(large, key=lambda one: one.path):
        whose, bound, below = called(machine, group.path), most(machine, group.path), f"{group.path}/"
        if whose.kind in _TOGETHER or bound is None or bound.group is not None:
            continue
        many = whose.kind == "cgroup" and any(one.path.startswith(below) for one in large)  # the one below is told of
        if many or any(path.startswith(below) for path in alone) or not told.isdisjoint(ancestors(group.path)):
            continue
        told.add(group.path)
        held = unreclaimable_bytes(group) or 0
        yield Finding(
            code="group-holds",
            severity="warning",
            confidence="certain",
            claim=f"{quote(whose.name)} holds {size(held)}, {percent(held, ram)} of RAM, caches left out, and no limit "
            "below that bounds it",
            about=whose,
            subject=group.path,
            evidence=(
                *group_lines(group, "memory.current", "memory.max", "memory.swap.current"),
                *meminfo_lines(machine, "MemTotal", "MemAvailable"),
            ),
        )


def group_near_limit(snapshot: Snapshot, share: float) -> Iterator[Finding]:
    """A group holds nearly all that its limit allows, and little of it can be given back.

    What can be given up does not count, file cache and reclaimable slab: that goes before anybody is killed. What is
    left of the limit is how much the group may still grow. Then it swaps, where it may and swap is free, and gets slow;
    when that is used up too its largest process dies, however much memory the machine has. Where swap leaves it more
    than the margin this finding speaks of, it is a notice, else a warning. In a group of version 1 whose kills are
    switched off (memory.oom_control) its processes hang instead, until somebody raises the limit, or ends one.

    Source: try_charge_memcg() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.max.
    """
    machine = snapshot.machine
    may_swap = None if machine is None else swappable(machine)
    for group in machine.cgroups if machine is not None else ():
        bound = None if may_swap is None else own_bound(group, may_swap(group))
        if machine is None or bound is None or not group.current_bytes or not bound.limit_bytes:
            continue
        left = bound.headroom_bytes - bound.swap_bytes
        held = bound.limit_bytes - left
        if bound.cache_bytes is None or held < bound.limit_bytes * share:
            continue
        whose = called(machine, group.path)
        kills = dict(group.local_events or group.events).get("oom_kill", 0)
        swaps = f"{size(left)} until it swaps, " if bound.swap_bytes else ""
        left_until = f"{swaps}{size(bound.headroom_bytes)} until a kill"
        if group.oom_kill_disable:  # whoever needs more waits for it, in the kernel
            left_until = left_until.removesuffix("a kill") + "they hang, as nobody is killed there (oom_kill_disable)"
            left_until = "its processes hang (oom_kill_disable)" if group.under_oom else left_until
        yield Finding(
            code="group-near-limit",
            severity="notice" if bound.headroom_bytes > bound.limit_bytes * (1 - share) else "warning",
            confidence="certain",
            claim=f"{quote(whose.name)} holds {size(held)} of the {size(bound.limit_bytes)} it may "
            f"({percent(held, bound.limit_bytes)}), caches left out: {left_until}",
            detail=(f"Kills at a limit so far: {kills}.",) if kills else (),
            about=whose,
            subject=group.path,
            evidence=group_lines(group, "memory.current", "memory.max", "memory.peak", "memory.swap.current"),
            remedies=_raise(machine, bound, held),
        )


def process_holds(snapshot: Snapshot, share: float) -> Iterator[Finding]:
    """One process alone holds most of the machine's memory.

    What is its own counts: private pages as measured where the kernel let us and it was not too large to ask, else its
    anonymous and shared memory, and what it has in swap. If it grows on, it takes the machine; a limit of its own makes
    it the only one to suffer.

    Source: Documentation/filesystems/proc.rst, smaps_rollup.
    """
    machine = snapshot.machine
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or not ram:
        return
    for process in living(machine):
        held = own_bytes(process)
        if held < ram * share:
            continue
        left, resident = figure(machine, "MemAvailable"), held - (process.swap_bytes or 0)
        room = None if left is None else own_limit(ram, max(ram - left - resident, 0))
        remedies: tuple[Remedy, ...] = ()
        if room is not None:
            now = f"; it holds {size(held)} now" if room.count_bytes < held else ""
            remedies = (
                Remedy(
                    title=f"Keep it to {size(room.count_bytes)} from its next start: then it cannot take all",
                    cost=f"it is killed when it reaches that, and nobody else is{now}",
                    amount=room.formula,
                    commands=(_kept_to(machine, room.count_bytes),),
                ),
            )
        yield Finding(
            code="process-holds",
            severity="warning",
            confidence="certain" if process.unique_bytes is not None else "likely",
            claim=f"{named(process)} alone holds {size(held)}, {percent(held, ram)} of RAM",
            about=owner(process.cgroup or "/", machine.containers),
            subject=process.comm or str(process.pid),
            evidence=(process_line(process), *meminfo_lines(machine, "MemTotal", "MemAvailable")),
            remedies=remedies,
        )


def _kept_to(machine: Machine, limit_bytes: int) -> tuple[str, ...]:
    """The command that starts a program with a limit of its own; another first process than systemd makes no scope."""
    has_swap = bool(figure(machine, "SwapTotal"))
    first = next((process.comm for process in machine.processes if process.pid == 1), None)
    if first in (None, "systemd"):
        return kept_to(limit_bytes, has_swap=has_swap)
    swap = ("--swap-max", "0") if has_swap else ()
    return ("reprieve", "run", "--max", f"{limit_bytes // MIB}M", *swap, "--", "PROGRAM")


def _raise(machine: Machine, bound: Bound, held: int) -> tuple[Remedy, ...]:
    """None where what it holds fits, with half as much again, under the limit that it has."""
    group, limit = bound.group, bound.limit_bytes
    swapped = group.swap_current_bytes or 0 if group.version == 2 else 0
    if raised_limit(held, swapped).count_bytes <= limit:
        return ()
    present = group.max_bytes if isinstance(group.max_bytes, int) else limit  # of version 1 it may be the one for both
    return raise_limit(machine, group, present, raised_limit(max(held if present == limit else 0, present), swapped))
