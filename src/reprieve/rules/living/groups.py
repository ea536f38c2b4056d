"""Limits of groups: one that holds its group still, one that can never be met, and all of them together."""

from collections.abc import Iterator, Sequence

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.pressure import Pressure
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import ancestors, called, owner, reclaimable_bytes, swap_allowed, swappable
from reprieve.rules.amounts import limit_by_peak, limit_of_parent, raised_limit
from reprieve.rules.limits import is_of_kubelet, set_limit
from reprieve.rules.living.facts import figure, group_lines, meminfo_lines, memory_and_swap_bytes
from reprieve.rules.living.higher import raise_high, raise_outer
from reprieve.units import MIB, size

_AT = 0.97  # of memory.high: charges are batched, so usage stays a little below or above it
_SPARE = 0.05  # of memory.high: cache that could be dropped; less is as good as none
_STALLED = 10.0  # percent of ten seconds in which some task of the group waited for memory


def held_at_high(snapshot: Snapshot) -> Iterator[Finding]:
    """A group stands still at its memory.high: nothing in it can be given back, and nobody is killed.

    Above memory.high the kernel makes each task of the group reclaim, and sleep. Where there is neither cache
    (files, slab that can go) nor swap, that frees nothing, so the group crawls for as long as it wants more: the work
    is not done, no limit is reached, no kill is logged. It looks healthy to everything that counts kills or restarts.

    Source: mem_cgroup_handle_over_high() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.high.
    """
    machine = snapshot.machine
    if machine is None:
        return
    may_swap = swappable(machine)
    for group in machine.cgroups:
        high, current, spare = group.high_bytes, group.current_bytes, reclaimable_bytes(group)
        if not isinstance(high, int) or current is None or spare is None or current < high * _AT:
            continue
        if isinstance(group.max_bytes, int) and group.max_bytes <= high:
            continue  # it is killed before it could be held
        if spare > high * _SPARE or may_swap(group) >= MIB:
            continue
        waiting = _waiting(group.pressure)
        if waiting is not None and waiting < _STALLED:
            continue
        whose = called(machine, group.path)
        stall = "" if waiting is None else f": its tasks waited for memory {waiting:.0f} % of the last 10 s"
        yield Finding(
            code="held-at-high",
            severity="critical",
            confidence="likely" if waiting is None else "certain",
            claim=f"{quote(whose.name)} stands still at its memory.high of {size(high)}, with nothing to give back"
            f"{stall}",
            detail=(
                f"Cache that it could drop: {size(spare)}; swap that it could use: none. It is not killed either: "
                "give it room, swap, or a memory.max at which it is killed and started anew.",
            ),
            about=whose,
            subject=group.path,
            evidence=group_lines(group, "memory.current", "memory.high", "memory.max", "memory.swap.max"),
            remedies=raise_high(machine, group, high, raised_limit(current)),
        )


def parent_below_child(snapshot: Snapshot) -> Iterator[Finding]:
    """The limit of a group is below that of one inside it, which so can never reach its own.

    A charge goes upwards and stops at the first group that is full. Who set the inner limit counts on memory that the
    outer one does not give; at the outer limit the kernel chooses among all in it, so a neighbour may die instead.

    Source: try_charge_memcg() in mm/memcontrol.c.
    """
    machine = snapshot.machine
    groups = {} if machine is None else {group.path: group for group in machine.cgroups}
    for path, group in groups.items():
        limit = group.max_bytes
        above = [groups[name] for name in ancestors(path) if name in groups and isinstance(groups[name].max_bytes, int)]
        if machine is None or not isinstance(limit, int) or not above:
            continue
        tightest = min(above, key=_limit_bytes)
        if _limit_bytes(tightest) >= limit:
            continue
        whose, outer = called(machine, path), called(machine, tightest.path)
        beside = max((tightest.current_bytes or 0) - (group.current_bytes or 0), 0)
        yield Finding(
            code="parent-below-child",
            severity="notice",
            confidence="certain",
            claim=f"{quote(whose.name)} may hold {size(limit)}, but is in {quote(outer.name)}, which may hold only "
            f"{size(_limit_bytes(tightest))}",
            about=whose,
            subject=path,
            evidence=(*group_lines(group, "memory.max"), *group_lines(tightest, "memory.max", "memory.current")),
            remedies=raise_outer(machine, tightest, limit_of_parent(limit, beside)),
        )


def limits_exceed_memory(snapshot: Snapshot) -> Iterator[Finding]:
    """The limits of all groups together are above all memory: if they use what they may, the machine runs out.

    Such limits bound a leak in one group; they do not keep the groups from each other. That is often meant, as most
    never use what they may. Where it is not, the limit of a group that holds them all, below the memory of the machine,
    keeps the kernel's choice among them and spares what is outside.

    Source: Documentation/admin-guide/cgroup-v2.rst, "Limits".
    """
    machine = snapshot.machine
    there = None if machine is None else memory_and_swap_bytes(machine)
    ram = None if machine is None else figure(machine, "MemTotal")
    if machine is None or there is None or ram is None:
        return
    limited = _topmost(machine.cgroups)
    total = sum(min(_limit_bytes(group), there) for group in limited)
    if len(limited) < 2 or total <= there:
        return
    largest = sorted(limited, key=_limit_bytes, reverse=True)[:3]
    named = ", ".join(
        f"{quote(owner(group.path, machine.containers).name)} {size(_limit_bytes(group))}" for group in largest
    )
    yield Finding(
        code="limits-exceed-memory",
        severity="notice",
        confidence="certain",
        claim=f"The limits of {len(limited)} groups add up to {size(total)}, {total / there:.1f} times the "
        f"{size(there)} of RAM and swap",
        detail=(f"The largest: {named}.",),
        subject="limits",
        evidence=(
            *(line for group in largest for line in group_lines(group, "memory.max", "memory.peak")),
            *meminfo_lines(machine, "MemTotal", "SwapTotal"),
        ),
        remedies=_lower(machine, limited),
    )


def _lower(machine: Machine, limited: Sequence[Cgroup]) -> tuple[Remedy, ...]:
    """Take from the group with the most to spare, as far as its peak tells; a kubelet writes its own limits anew."""
    spare = [
        (_limit_bytes(group) - amount.count_bytes, group, amount)
        for group in limited
        if group.peak_bytes and (amount := limit_by_peak(_most_held(group))).count_bytes < _limit_bytes(group)
        if not is_of_kubelet(whose := owner(group.path, machine.containers)) and whose.kind != "pod"
    ]
    if not spare:
        return ()
    _, group, amount = max(spare, key=lambda row: row[0])
    whose = owner(group.path, machine.containers)
    settings, commands, note = set_limit(
        whose, amount.count_bytes, swap=swap_allowed(group), old_cgroups=group.version == 1, lower=True
    )
    return (
        Remedy(
            title=f"Lower the limit of {quote(whose.name)} to {size(amount.count_bytes)}: it never held more than "
            f"{size(_most_held(group))}{note}",
            cost="it is killed where it would have lived; its peak counts since it was started, file cache too",
            amount=amount.formula,
            settings=settings,
            commands=commands,
        ),
    )


def _most_held(group: Cgroup) -> int:
    """Its peak may have been reset since."""
    return max(group.peak_bytes or 0, group.current_bytes or 0)


def _topmost(groups: Sequence[Cgroup]) -> list[Cgroup]:
    """Groups with a limit that are in no other with one, and have anything in them."""
    limited = {group.path for group in groups if isinstance(group.max_bytes, int)}
    return [
        group
        for group in groups
        if group.path in limited and group.current_bytes and limited.isdisjoint(ancestors(group.path))
    ]


def _limit_bytes(group: Cgroup) -> int:
    """Of a group with a limit; for one without, more than there can be."""
    return group.max_bytes if isinstance(group.max_bytes, int) else 1 << 62


def _waiting(pressure: Sequence[Pressure]) -> float | None:
    return next((line.avg10_percent for line in pressure if line.kind == "some"), None)
