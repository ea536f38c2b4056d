"""One group or process that holds most of what it can have."""

from collections.abc import Iterator

from reprieve.model.cgroup import Cgroup
from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.groups import own_bound, owner, swap_allowed
from reprieve.rules.amounts import own_limit, raised_limit
from reprieve.rules.growth import kept_to
from reprieve.rules.limits import is_of_kubelet, set_limit
from reprieve.rules.living.facts import figure, group_lines, living, meminfo_lines, named, own_bytes, process_line
from reprieve.units import percent, size

WARN_SHARE = 0.8


def group_near_limit(snapshot: Snapshot, share: float) -> Iterator[Finding]:
    """A group holds nearly all that its limit allows, and little of it can be given back.

    File cache does not count: it is dropped before anybody is killed. What is left of the limit is how much the group
    may still grow; then its largest process dies, however much memory the machine has.

    Source: try_charge_memcg() in mm/memcontrol.c; Documentation/admin-guide/cgroup-v2.rst, memory.max.
    """
    machine = snapshot.machine
    for group in machine.cgroups if machine is not None else ():
        bound = own_bound(group)
        if machine is None or bound is None or group.path == "/" or not group.current_bytes or not bound.limit_bytes:
            continue
        held = bound.limit_bytes - bound.headroom_bytes
        if bound.cache_bytes is None or held < bound.limit_bytes * share:
            continue
        whose = owner(group.path, machine.containers)
        kills = dict(group.local_events or group.events).get("oom_kill", 0)
        yield Finding(
            code="group-near-limit",
            severity="warning",
            confidence="certain",
            claim=f"{quote(whose.name)} holds {size(held)} of the {size(bound.limit_bytes)} it may "
            f"({percent(held, bound.limit_bytes)}), file cache left out: {size(bound.headroom_bytes)} until a kill",
            detail=(f"Kills at a limit so far: {kills}.",) if kills else (),
            about=whose,
            subject=group.path,
            evidence=group_lines(group, "memory.current", "memory.max", "memory.peak", "memory.swap.current"),
            remedies=_raise(group, whose, held),
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
        left = figure(machine, "MemAvailable")
        room = own_limit(ram, max(ram - (left or 0) - held, 0))
        remedies: tuple[Remedy, ...] = ()
        if room is not None:
            remedies = (
                Remedy(
                    title=f"Keep it to {size(room.count_bytes)} from its next start: then it cannot take all",
                    cost="it is killed when it reaches that, and nobody else is",
                    amount=room.formula,
                    commands=(kept_to(room.count_bytes, has_swap=bool(figure(machine, "SwapTotal"))),),
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


def _raise(group: Cgroup, whose: Workload, held: int) -> tuple[Remedy, ...]:
    if is_of_kubelet(whose):
        return ()
    amount = raised_limit(held, group.swap_current_bytes or 0 if group.version == 2 else 0)
    settings, commands, note = set_limit(
        whose, amount.count_bytes, swap=swap_allowed(group), old_cgroups=group.version == 1
    )
    title = f"Raise its limit to {size(amount.count_bytes)}, if it needs more{note}"
    cost = "a leak only takes longer to get there"
    return (Remedy(title=title, cost=cost, amount=amount.formula, settings=settings, commands=commands),)
