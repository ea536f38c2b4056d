"""One process holds most of the memory: which, and how to see inside the next one."""

from collections.abc import Iterator

from reprieve.model.finding import Finding, Remedy, quote
from reprieve.model.oom import OomReport
from reprieve.model.snapshot import Snapshot
from reprieve.oom.choose import recompute
from reprieve.rules.account import (
    ANON,
    FREE,
    SHMEM,
    Holder,
    holders,
    largest_task,
    of_cgroup,
    of_machine,
    part,
    ram_bytes,
    task_pages,
    total_bytes,
)
from reprieve.rules.amounts import Amount, heap_limit, less_than_took_all, own_limit
from reprieve.rules.evidence import lines
from reprieve.rules.limits import set_limit, whole
from reprieve.rules.workers import SEVERAL, fewer_at_a_time
from reprieve.units import MIB, percent, size

_MOST = 0.5
_NEARLY_ALL = 0.75  # what the victim must hold of what all processes hold, where the report does not tell of the whole
_JVM = ("java", "jsvc")
_NODE = ("node", "nodejs", "MainThread", "node-MainThread")  # Node names its main thread since 22.14
_PYTHON = ("python", "uvicorn", "gunicorn", "celery", "uwsgi")
_GO = ("dockerd", "containerd", "kubelet", "prometheus", "etcd", "kube-apiserver", "grafana", "traefik", "telegraf")


def process_grew(snapshot: Snapshot) -> Iterator[Finding]:
    """One process holds most of the memory, so the cause is inside it.

    Whether it leaks or needs so much cannot be told from one report: its runtime can tell, while the next one runs. The
    remedies name the command for that runtime and what it costs in memory, because a heap dump taken too late is the
    next kill. A JVM bounds its heap at a quarter of the machine or limit unless told otherwise (-Xmx,
    MaxRAMPercentage), and HeapDumpOnOutOfMemoryError acts on Java's own error, never on a kill by the kernel. Node's
    --max-old-space-size bounds the old space alone. Where a text holds the task dump and no figures of the memory, the
    victim is measured against what all processes hold: what the kernel or a tmpfs held is not told, so it is likely.

    Source: the task dump, dump_tasks() in mm/oom_kill.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        found = _largest(oom)
        if found is None or oom.sysrq:
            continue
        line, pid, comm, held = found
        killed = any(kill.pid == pid for kill in oom.kills)
        total = total_bytes(oom)
        whole = total or (_of_all_processes(oom) if killed else None)
        if not whole or held < whole * (_MOST if total else _NEARLY_ALL):
            continue
        of_what = "the memory" if total else "what all processes hold"
        yield Finding(
            code="process-grew",
            severity="warning",
            confidence="certain" if total else "likely",
            claim=f"One process holds most of {of_what}: {quote(comm)} (pid {pid}) with {_share(held, whole)}"
            f"{_swapped(oom, pid)}",
            detail=() if killed else ("It was not the one that was killed.",),
            about=oom.workload if killed else None,
            evidence=lines(oom, line, *(kill.line for kill in oom.kills if kill.pid == pid)),
            remedies=(*_contain(oom, comm, held), *_look_inside(comm, total if of_cgroup(oom) else None)),
            oom=number,
        )


def alike_hold_most(snapshot: Snapshot) -> Iterator[Finding]:
    """Several processes of one name hold most of the memory together, and none of them does alone.

    So many workers, or services of one runtime, were started that their sum does not fit: each may be of the size it
    should be. What they share is counted once at most: what all of them hold that is not shared memory, and never more
    than there is of anonymous memory. How many fit is reckoned with one as large as the largest, and the others as
    large as the next, beside a tenth of the memory. JVMs are seldom workers of one pool: their heaps are to be bounded.

    Source: the task dump, dump_tasks() in mm/oom_kill.c.
    """
    for number, oom in enumerate(snapshot.ooms):
        total, anonymous, largest = total_bytes(oom), part(oom, ANON), _largest(oom)
        if oom.sysrq or not total or anonymous is None or largest is None or largest[3] >= total * _MOST:
            continue
        holder = next(iter(holders(oom)), None)
        if holder is None or len(holder.tasks) < SEVERAL:
            continue
        together = min(_unshared_bytes(oom, holder), anonymous)
        if together < total * _MOST:
            continue
        yield Finding(
            code="alike-hold-most",
            severity="warning",
            confidence="likely",
            claim=f"{len(holder.tasks)} processes of one name hold most of the memory together: {quote(holder.comm)} "
            f"with {_share(together, total)}",
            about=oom.workload if any(kill.comm == holder.comm for kill in oom.kills) else None,
            evidence=lines(oom, *(task.line for task in sorted(holder.tasks, key=task_pages, reverse=True)[:3])),
            remedies=_for_all(oom, holder, total),
            oom=number,
        )


def _for_all(oom: OomReport, group: Holder, total: int) -> tuple[Remedy, ...]:
    limit = total if of_cgroup(oom) else None
    if group.comm not in _JVM:
        return (*fewer_at_a_time(oom, group, total), *_look_inside(group.comm, limit))
    room = own_limit(total, max(total - (part(oom, FREE) or 0) - group.rss_bytes, 0))
    if room is None:
        return _jvm(None)
    heaps = heap_limit(room.count_bytes)
    all_of_them = f"all {len(group.tasks)} {quote(group.comm)} (-Xmx)"
    bound = Remedy(
        title=f"Bound the heaps of {all_of_them} to {size(heaps.count_bytes)} together",
        cost="more collections; where one was killed it throws OutOfMemoryError, which can write a heap dump",
        amount=f"{room.formula}; {heaps.formula}",
    )
    return (bound, *_jvm(None))


def _unshared_bytes(oom: OomReport, holder: Holder) -> int:
    """What they hold in RAM beside shared memory, at least. Before 6.8 a row does not tell: all may be in each."""
    page = oom.page_size_bytes or 0
    if all(task.rss_anon_pages is not None for task in holder.tasks):
        return sum(task.rss_anon_pages or 0 for task in holder.tasks) * page
    shared = part(oom, SHMEM) or 0
    return sum(max((task.rss_pages or 0) * page - shared, 0) for task in holder.tasks)


def _largest(oom: OomReport) -> tuple[int, int, str, int] | None:
    """Line, pid, name and bytes in RAM of the largest process: of the task dump, without one of the kill line.

    The bytes are those it holds alone (anonymous), as far as the report tells.
    """
    task, page = largest_task(oom), oom.page_size_bytes
    if task is not None and page is not None and task.comm is not None and task.rss_pages is not None:
        kill = next((kill for kill in oom.kills if kill.pid == task.pid), None)
        if task.rss_anon_pages is not None:
            held = task.rss_anon_pages * page
        elif kill is not None and kill.anon_rss_bytes is not None:
            held = kill.anon_rss_bytes
        else:  # before 6.8 a row counts shared memory too: all of it may be in this one, and in others
            held = max(task.rss_pages * page - (part(oom, SHMEM) or 0), 0)
        return task.line, task.pid, task.comm, held
    victim = oom.victim
    if oom.tasks is not None or victim is None or victim.comm is None or victim.anon_rss_bytes is None:
        return None
    return victim.line, victim.pid, victim.comm, victim.anon_rss_bytes


def _of_all_processes(oom: OomReport) -> int | None:
    """What all processes hold in RAM; None where there are few to compare. What several map counts in each of them."""
    listed = holders(oom) if len(oom.tasks or ()) > SEVERAL else ()
    return sum(holder.rss_bytes for holder in listed) or None


def _share(held: int, total: int) -> str:
    """Pages of files count for each process that maps them: together they may be more than there is."""
    return f"all of the {size(total)}" if held >= total else f"{size(held)} of {size(total)} ({percent(held, total)})"


def _swapped(oom: OomReport, pid: int) -> str:
    """What it has in swap besides, where that is worth a word."""
    task = recompute(oom).tasks.get(pid)
    if task is None or oom.page_size_bytes is None or (task.swap_pages or 0) * 10 < (task.rss_pages or 0):
        return ""
    return f", and {size((task.swap_pages or 0) * oom.page_size_bytes)} in swap"


def _contain(oom: OomReport, comm: str, held: int) -> tuple[Remedy, ...]:
    """A limit of its own for a process that took the whole machine: then it dies alone, and before all is slow."""
    ram, free = ram_bytes(oom), part(oom, FREE)
    if not of_machine(oom):
        return ()
    if ram is None or free is None:
        amount: Amount | None = less_than_took_all(held)
    else:
        amount = own_limit(ram, max(ram - free - held, 0))
    if amount is None or amount.count_bytes < MIB:
        return ()
    group = oom.workload if any(kill.comm == comm for kill in oom.kills) else None
    if group is not None and group.kind not in ("unit", "container", "pod"):
        group = None  # a login session, or all of a user: it holds more than this program
    settings, commands, note = set_limit(whole(group), amount.count_bytes) if group is not None else ((), (), "")
    has_swap = oom.memory is None or oom.memory.swap_total_bytes != 0  # it may have some, where that is not told
    if group is not None and commands:  # who else lives in it is not in the report
        whom, cost = (
            f"all of {quote(group.name)}",
            "all that runs in it counts, and at that limit the kernel kills one of them",
        )
        cost += "; what it has in swap is apart (MemorySwapMax=)" if has_swap else ""
    else:
        settings, note, whom = (), " from its next start", quote(comm)
        commands, cost = (
            (kept_to(amount.count_bytes, has_swap=has_swap),),
            "it is killed when it reaches that, and nobody else is",
        )
    return (
        Remedy(
            title=f"Keep {whom} to {size(amount.count_bytes)}{note}, so that it cannot take the whole machine",
            cost=cost,
            amount=amount.formula,
            settings=settings,
            commands=commands,
        ),
    )


def kept_to(limit_bytes: int, *, has_swap: bool) -> tuple[str, ...]:
    """The command that starts a program with a limit of its own; swap is none of it, or it would fill that instead."""
    swap = ("--property", "MemorySwapMax=0") if has_swap else ()
    return ("systemd-run", "--scope", "--property", f"MemoryMax={limit_bytes // MIB}M", *swap, "--", "PROGRAM")


def _look_inside(comm: str, limit: int | None) -> tuple[Remedy, ...]:
    """What to run against the next one, by the runtime its name tells; `limit` is that of its cgroup, if it has one."""
    if comm in _JVM:
        return _jvm(limit)
    if comm in _NODE:
        return _node(limit)
    if comm.startswith(_PYTHON):
        return _python()
    if comm.startswith(_GO):
        return _go()
    return _native()


def _jvm(limit: int | None) -> tuple[Remedy, ...]:
    found = [
        Remedy(
            title="See which classes fill the heap of the next one (PID)",
            cost="a full collection and a pause; next to no memory",
            commands=(("jcmd", "PID", "GC.class_histogram"),),
        ),
        Remedy(
            title="Dump its heap, well before it is full",
            cost="a file as large as the live heap, and a pause while it is written",
            commands=(("jcmd", "PID", "GC.heap_dump", "/var/tmp/heap.hprof"),),
        ),
    ]
    if limit is not None:
        heap = heap_limit(limit)
        found.append(
            Remedy(
                title=f"Bound the heap below the limit: -Xmx{heap.count_bytes // MIB}m, unless it is lower already",
                cost="more collections; where it was killed it throws OutOfMemoryError, which can write a heap dump",
                amount=heap.formula,
            )
        )
    return tuple(found)


def _node(limit: int | None) -> tuple[Remedy, ...]:
    found = [
        Remedy(
            title="Have the next one write a heap snapshot on a signal: node --heapsnapshot-signal=SIGUSR2, then (PID)",
            cost="about as much memory again as its heap, and a pause: take it well below the limit",
            commands=(("kill", "-USR2", "PID"),),
        ),
    ]
    if limit is not None:
        heap = heap_limit(limit)
        bound = f"node --max-old-space-size={heap.count_bytes // MIB}"
        found.append(
            Remedy(
                title=f"Bound its heap below the limit: {bound}, unless it is lower already",
                cost="it ends itself with a stack trace (exit 134) where it was killed; buffers are outside this bound",
                amount=heap.formula,
            )
        )
    return tuple(found)


def _python() -> tuple[Remedy, ...]:
    return (
        Remedy(
            title="See what the next one (PID) is doing while it grows",
            cost="reads from outside: no pause worth naming, no memory of the process",
            commands=(("py-spy", "dump", "--pid", "PID"),),
        ),
        Remedy(
            title="Start it under a memory profiler, and see who allocated what was held at the peak",
            cost="slower by a half or so; little memory, a growing file on disk",
            commands=(
                ("memray", "run", "--output", "/var/tmp/memray.bin", "PROGRAM.py"),
                ("memray", "summary", "/var/tmp/memray.bin"),
            ),
        ),
    )


def _go() -> tuple[Remedy, ...]:
    return (
        Remedy(
            title="See who holds the heap of the next one, if it serves net/http/pprof (its own port instead of 6060)",
            cost="a few MiB, no pause worth naming",
            commands=(("go", "tool", "pprof", "-top", "http://127.0.0.1:6060/debug/pprof/heap"),),
        ),
    )


def _native() -> tuple[Remedy, ...]:
    return (
        Remedy(
            title="See by kind what the next one (PID) holds while it grows",
            cost="nothing",
            commands=(("cat", "/proc/PID/smaps_rollup"),),
        ),
        Remedy(
            title="If it is a native program, start it under heaptrack and see who allocated",
            cost="slower twofold or so; some memory for each allocation alive, a growing file on disk",
            commands=(("heaptrack", "PROGRAM"),),
        ),
    )
