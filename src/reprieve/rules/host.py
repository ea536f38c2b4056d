"""The machine itself ran out, or the memory nodes that a process may use."""

from collections.abc import Iterator

from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.oom import OomReport, Zone, figure
from reprieve.model.snapshot import Snapshot
from reprieve.model.workload import Workload
from reprieve.oom.choose import parse_nodes
from reprieve.rules.account import (
    BOUND,
    FREE,
    PAGE_TABLES,
    STACKS,
    UNACCOUNTED,
    Holder,
    holders,
    of_cgroup,
    of_machine,
    part,
    ram_bytes,
    where,
)
from reprieve.rules.amounts import half_as_many
from reprieve.rules.evidence import lines, memory_lines
from reprieve.rules.limits import is_inside, leads_upwards, set_property
from reprieve.rules.workers import alike, fewer_at_a_time
from reprieve.rules.zones import free_bytes, kept_bytes, usable_zones
from reprieve.units import percent, size


def host_full(snapshot: Snapshot) -> Iterator[Finding]:
    """The machine itself ran out of memory: no zone that could serve the request had a page to spare.

    No limit of a container or unit was reached, so the kernel chose among all processes of the machine, and who died
    need not be who grew. The finding says what filled the RAM and which programs held most of it.

    Source: out_of_memory() in mm/oom_kill.c; __zone_watermark_ok() in mm/page_alloc.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        if not of_machine(oom):
            continue
        ram, zones = ram_bytes(oom), usable_zones(oom)
        if ram is None or not zones:
            continue
        free, kept = free_bytes(oom), kept_bytes(oom)
        if free is None or kept is None or free > 2 * kept or kept > ram:  # twice: what is printed is of a later moment
            continue
        named = holders(oom)
        most = ", ".join(_held(holder) for holder in named[:3])
        many = any(len(holder.tasks) > 1 for holder in named[:3])
        shared = " (what processes share counts in each)" if many else ""
        yield Finding(
            code="host-full",
            severity="critical",
            confidence="certain" if oom.scope == "CONSTRAINT_NONE" else "likely",
            claim=f"The machine itself was full: {size(free)} of {size(ram)} RAM were free, "
            f"and the kernel keeps {size(kept)} back for itself",
            detail=(*_filled_by(oom, ram), *((f"Most RAM was held by {most}{shared}.",) if most else ())),
            evidence=(
                *memory_lines(oom, "RAM"),
                *lines(oom, *(zone.line for zone in zones), *(holder.tasks[0].line for holder in named[:3])),
            ),
            remedies=_fewer_workers(oom, named, ram),
            oom=number,
        )


def node_short(snapshot: Snapshot) -> Iterator[Finding]:
    """Only some memory nodes were allowed, and they were full while others had room.

    A cpuset or a memory policy (numactl --membind, mbind) is a wall: the kernel kills behind it rather than use a node
    outside. --preferred and --interleave are no walls, and an unbound process moves on to other nodes by itself.

    Source: constrained_alloc() in mm/oom_kill.c; Documentation/admin-guide/mm/numa_memory_policy.rst.
    """
    for number, oom in enumerate(snapshot.ooms):
        if of_cgroup(oom) or oom.scope not in BOUND:
            continue
        by_cpuset = oom.scope == "CONSTRAINT_CPUSET"
        nodes = oom.mems_allowed if by_cpuset else oom.nodemask
        elsewhere = _free_elsewhere(oom, nodes)
        zones = _zones_of(oom, nodes)
        if nodes is None or elsewhere is None or not zones:
            continue
        free = sum(zone.free_bytes or 0 for zone in zones)
        if elsewhere <= 4 * free:
            continue  # the other nodes were full too: more of them would not have helped
        wall = f"cpuset {quote(oom.cpuset)}" if by_cpuset and oom.cpuset is not None else "the memory policy"
        yield Finding(
            code="node-short",
            severity="critical",
            confidence="certain",
            claim=f"Only memory node {quote(nodes)} was allowed by {wall if by_cpuset else 'a memory policy'}: "
            f"{size(free)} were free there, {size(elsewhere)} on other nodes",
            detail=("The machine was not full. RAM or swap added elsewhere does not help a process behind this wall.",),
            about=oom.workload,
            evidence=(*lines(oom, oom.constraint_line, *(zone.line for zone in zones)), *memory_lines(oom, "free")),
            remedies=_take_down_wall(oom, by_cpuset, nodes),
            oom=number,
        )


def many_processes(snapshot: Snapshot) -> Iterator[Finding]:
    """So many processes or threads were running that what each costs the kernel filled the memory.

    A process that does nothing costs about 100 KiB: a kernel stack (16 KiB for every thread), page tables, and
    structures in slab. Little of it shows in its RSS, so the task dump seems to say that nobody holds anything, and the
    kernel kills one small process after another. Threads are not in the dump: many stacks and few rows are threads.

    Source: alloc_thread_stack_node() in kernel/fork.c; systemd.resource-control(5), TasksMax=.
    """
    for number, oom in enumerate(snapshot.ooms):
        ram, stacks, tables = ram_bytes(oom), part(oom, STACKS), part(oom, PAGE_TABLES)
        if not of_machine(oom) or ram is None or stacks is None or tables is None or stacks + tables < ram / 8:
            continue
        most, all_rows = max(holders(oom), key=lambda holder: len(holder.tasks), default=None), len(oom.tasks or ())
        if most is None or len(most.tasks) * 2 < all_rows or len(most.tasks) < 100:
            continue
        yield Finding(
            code="many-processes",
            severity="warning",
            confidence="certain",
            claim=f"{all_rows} processes were running, {len(most.tasks)} of them {quote(most.comm)}: the kernel needs "
            f"{size(stacks)} of stacks and {size(tables)} of page tables for them",
            about=oom.workload if any(kill.comm == most.comm for kill in oom.kills) else None,
            evidence=(
                *memory_lines(oom, "pagetables"),
                *lines(oom, *(task.line for task in most.tasks[:3])),
            ),
            remedies=_fewer_processes(most),
            oom=number,
        )


def _fewer_processes(most: Holder) -> tuple[Remedy, ...]:
    count, formula = half_as_many(len(most.tasks))
    return (
        Remedy(
            title=f"Allow the program that starts them no more than {count} (TasksMax= in its unit)",
            cost="it is refused more (EAGAIN), and must bear it",
            amount=formula,
            commands=(("systemd-run", "--scope", "--property", f"TasksMax={count}", "--", "PROGRAM"),),
        ),
    )


def _filled_by(oom: OomReport, ram: int) -> tuple[str, ...]:
    parts = [(label, held) for label, held in where(oom) if label != FREE and held >= ram / 20]
    parts.sort(key=lambda item: (item[0] == UNACCOUNTED, -item[1]))
    said = ", ".join(f"{label} {size(held)} ({percent(held, ram)})" for label, held in parts)
    return (f"RAM was filled by {said}.",) if said else ()


def _held(holder: Holder) -> str:
    count = f"{len(holder.tasks)} × " if len(holder.tasks) > 1 else ""
    return f"{count}{quote(holder.comm)} {size(holder.rss_bytes)}"


def _fewer_workers(oom: OomReport, named: tuple[Holder, ...], ram: int) -> tuple[Remedy, ...]:
    """Fewer processes of a kind, where most of them are of about the same size and hold a third of the RAM together."""
    if not named:
        return ()
    workers = alike(named[0])
    held = sum(task.rss_pages or 0 for task in workers.tasks) * (oom.page_size_bytes or 0)
    if held * 3 < ram or len(workers.tasks) * 2 < len(named[0].tasks):
        return ()
    return fewer_at_a_time(oom, workers, ram, smaller=len(named[0].tasks) - len(workers.tasks))


def _zones_of(oom: OomReport, nodes: str | None) -> tuple[Zone, ...]:
    wanted = parse_nodes(nodes)
    zones = oom.memory.zones if oom.memory is not None else ()
    return tuple(zone for zone in zones if zone.node in wanted and zone.free_bytes is not None)


def _free_elsewhere(oom: OomReport, nodes: str | None) -> int | None:
    """Free memory on the nodes that were not allowed: the machine's less that of the allowed ones."""
    if oom.memory is None or oom.page_size_bytes is None:
        return None
    # The zones of other nodes are not printed when a nodemask is given (since 4.11), the count of free pages is global.
    free = figure(oom.memory.counts, "free")
    inside = _zones_of(oom, nodes)
    if free is None or not inside:
        return None
    return max(0, free * oom.page_size_bytes - sum(zone.free_bytes or 0 for zone in inside))


def _take_down_wall(oom: OomReport, by_cpuset: bool, nodes: str) -> tuple[Remedy, ...]:
    if not by_cpuset:
        command = ("numactl", f"--preferred={min(parse_nodes(nodes))}", "--", "PROGRAM")
        return (
            Remedy(
                title="Prefer the node instead of binding to it (numactl --membind, mbind): then others help out",
                cost="memory of another node is slower to reach",
                commands=(command,),
            ),
        )
    clear = open_nodes(oom.workload)  # Mem-Info has the zones of those allowed alone
    return (
        Remedy(
            title=f"Allow more memory nodes in cpuset.mems of {quote(oom.cpuset or 'its cpuset')}",
            cost="memory of another node is slower to reach",
            commands=(clear,) if clear is not None else (),
        ),
    )


def open_nodes(group: Workload | None, nodes: str = "") -> tuple[str, ...] | None:
    """The command by which a workload may use all nodes; None where it is not known. `nodes`: all, if they are known.

    A group takes those of its parent by name: one with processes in it refuses to be given none.
    """
    if group is None or leads_upwards(group):
        return None
    is_plain = is_inside(group) or group.kind == "cgroup"
    if not is_plain and group.manager == "systemd" and group.unit is not None:
        of_others = group.uid is not None or group.container_id is not None  # of another manager than the machine's
        return None if of_others else set_property(group.unit, f"AllowedMemoryNodes={nodes}")
    if is_plain and group.path.startswith("/"):
        return ("sh", "-c", 'cat "$0/../cpuset.mems.effective" > "$0/cpuset.mems"', f"/sys/fs/cgroup{group.path}")
    return None
