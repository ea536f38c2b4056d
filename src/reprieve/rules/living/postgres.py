"""PostgreSQL servers whose settings allow more than they can have, and whose backends cannot be chosen."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from reprieve.model.application import Postgres
from reprieve.model.finding import Evidence, Finding, Remedy, quote
from reprieve.model.machine import Machine
from reprieve.model.oom import OOM_SCORE_ADJ_MIN
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.oom.groups import Most, most, owner
from reprieve.rules.amounts import Amount, a_quarter, connections_that_fit, work_mem_that_fits
from reprieve.rules.living.facts import can_have, limit_lines, named, process_line
from reprieve.rules.living.heaps import Part, formula, process_of, total
from reprieve.rules.living.higher import raise_bound
from reprieve.units import KIB, MIB, size

_ITSELF = 10 * MIB  # postmaster, writers and launchers of one that does nothing, measured: PostgreSQL 15
_BACKEND = 2 * MIB  # of a connection that has run a query, measured likewise
_ENTRY = 512  # bytes of memory for each byte of page tables


class Settings(NamedTuple):
    """What holds, its own defaults among it (src/backend/utils/misc/guc_tables.c). Sizes are bytes."""

    shared_buffers: int
    wal_buffers: int
    max_connections: int
    work_mem: int
    factor: float  # hash_mem_multiplier
    maintenance_work_mem: int
    autovacuum_work_mem: int
    autovacuum_max_workers: int
    max_parallel_workers: int

    @property
    def hash_mem(self) -> int:
        """The most that one sort or hash takes."""
        return int(self.work_mem * max(self.factor, 1))

    @property
    def vacuum(self) -> int:
        """What vacuums may take, one by hand among them, or an index that is built."""
        return self.autovacuum_max_workers * self.autovacuum_work_mem + self.maintenance_work_mem

    @property
    def own(self) -> int:
        """What a connection holds beside that; each has page tables of its own for what all share."""
        return _BACKEND + self.shared_buffers // _ENTRY


def settings_of(server: Postgres) -> Settings:
    """What was told, and the defaults of what was not."""
    shared = _or(server.shared_buffers_bytes, 128 * MIB)  # initdb writes it down, so it is mostly told
    maintenance = _or(server.maintenance_work_mem_bytes, 64 * MIB)
    factor = server.hash_mem_multiplier
    if factor is None:  # 2.0 since 15, 1.0 in 13 and 14, and before it was as if
        major = int((server.postgres_version or "15").partition(".")[0])
        factor = 2.0 if major >= 15 else 1.0
    return Settings(
        shared_buffers=shared,
        wal_buffers=_or(server.wal_buffers_bytes, min(max(shared // 32, 64 * KIB), 16 * MIB)),
        max_connections=_or(server.max_connections, 100),
        work_mem=_or(server.work_mem_bytes, 4 * MIB),
        factor=factor,
        maintenance_work_mem=maintenance,
        autovacuum_work_mem=_or(server.autovacuum_work_mem_bytes, maintenance),
        autovacuum_max_workers=_or(server.autovacuum_max_workers, 3),
        max_parallel_workers=_or(server.max_parallel_workers, 8),
    )


def _or(told: int | None, default: int) -> int:
    return default if told is None else told


def most_of_postgres(machine: Machine, server: Postgres) -> tuple[Part, ...]:
    """What it may hold with all the connections that it allows, when each sorts or hashes one thing at a time."""
    settings = settings_of(server)
    vacuum = (
        f"for vacuum ({settings.autovacuum_max_workers} × {size(settings.autovacuum_work_mem)} + "
        f"{size(settings.maintenance_work_mem)})"
    )
    return (
        *_with_connections(machine, server, settings.max_connections, settings.max_parallel_workers),
        (vacuum, settings.vacuum),
    )


def _with_connections(machine: Machine, server: Postgres, count: int, workers: int) -> tuple[Part, ...]:
    """The same with so many connections and parallel workers, and without vacuum."""
    settings = settings_of(server)
    return (
        *_shared(machine, server, settings),
        (_each(settings, "connection", count), count * settings.hash_mem),
        (_each(settings, "parallel worker", workers), workers * settings.hash_mem),
        (f"for the connections themselves ({count} × {size(settings.own)})", count * settings.own),
        ("for the server itself", _ITSELF),
    )


def _shared(machine: Machine, server: Postgres, settings: Settings) -> tuple[Part, ...]:
    """What all share: in huge pages it was taken from the machine before, and no limit of memory counts it."""
    process = process_of(machine, server)
    if process is not None and process.hugetlb_bytes:
        return ()
    return ("shared_buffers", settings.shared_buffers), ("wal_buffers", settings.wal_buffers)


def _each(settings: Settings, who: str, count: int) -> str:
    factor = f" × {settings.factor:g} hash_mem_multiplier" if settings.factor > 1 else ""
    return f"in {count} {who}{'' if count == 1 else 's'} (each {size(settings.work_mem)} work_mem{factor})"


def postgres_exceeds_limit(snapshot: Snapshot) -> Iterator[Finding]:
    """The settings of a PostgreSQL server allow it more memory than it can have.

    Nothing in PostgreSQL bounds the whole: work_mem is for each sort, hash and the like of each query of each
    connection, a hash takes hash_mem_multiplier times as much, parallel workers take it once more, and each vacuum its
    own. When the kernel kills one backend for it, the server ends all others, since what they share may be damaged, and
    recovers. The sum here has one sort or hash at a time in each connection: a query with three takes three times as
    much, most take nothing. What is set for one role, database or session, and temp_buffers, is not in it.

    Source: PostgreSQL's documentation, 20.4 "Resource Consumption" and 19.4.4 "Linux Memory Overcommit".
    """
    machine = snapshot.machine
    for server in machine.postgres if machine is not None else ():
        process = None if machine is None else process_of(machine, server)
        bound = None if machine is None or process is None else most(machine, process.cgroup or "/")
        if machine is None or process is None or bound is None or (server.unseen and not server.origins):
            continue
        parts, room = most_of_postgres(machine, server), bound.memory_bytes + bound.swap_bytes
        if total(parts) <= room:
            continue
        settings = settings_of(server)
        present = total(_present(machine, server, settings))
        detail = [f"{formula(parts)}."]
        if server.backends:
            detail.append(
                f"With the {server.backends} of its connections that are there now, and no vacuum, {size(present)}."
            )
        if server.unseen:
            detail.append(f"Not read, and it may be otherwise for that: {', '.join(map(quote, server.unseen))}.")
        yield Finding(
            code="postgres-exceeds-limit",
            severity="warning" if present > room else "notice",
            confidence="likely" if present > room and not server.unseen else "possible",
            claim=f"{named(process)} may come to hold {size(total(parts))} with its {settings.max_connections} "
            f"connections at work, and {can_have(machine, bound)}",
            detail=tuple(detail),
            about=owner(process.cgroup or "/", machine.containers),
            subject=f"postgres {_or(server.port, 5432)}",
            evidence=(process_line(process), *_told_lines(server), *limit_lines(machine, bound)),
            remedies=tuple(_lower(machine, server, bound, parts)),
        )


def _present(machine: Machine, server: Postgres, settings: Settings) -> tuple[Part, ...]:
    """With the connections of now, each with the two workers that a query has unless told otherwise."""
    count = server.backends or 0
    return _with_connections(machine, server, count, min(2 * count, settings.max_parallel_workers))


_FIELDS = {
    name: f"{name}_bytes"
    for name in "shared_buffers wal_buffers work_mem maintenance_work_mem autovacuum_work_mem".split()
}
_SHOWN = (*_FIELDS, "max_connections", "hash_mem_multiplier", "autovacuum_max_workers", "max_parallel_workers")


def _told_lines(server: Postgres) -> Iterator[Evidence]:
    for name, origin in server.origins:
        value = getattr(server, _FIELDS.get(name, name)) if name in _SHOWN else None
        if value is not None:
            text = f"{value // KIB}kB" if name in _FIELDS else f"{value:g}"
            yield Evidence(text=f"{name} = {text}", source=origin)


def _lower(machine: Machine, server: Postgres, bound: Most, parts: Sequence[Part]) -> Iterator[Remedy]:
    """What would make it fit, each by itself; what nothing would is not proposed."""
    settings, room = settings_of(server), bound.memory_bytes + bound.swap_bytes
    counted, smaller = bool(_shared(machine, server, settings)), settings
    for smaller, bounded in _smaller(settings, room, counted):
        beside = _beside(smaller, counted) + smaller.max_connections * smaller.own
        workers = smaller.max_connections + smaller.max_parallel_workers
        amount = work_mem_that_fits(room, beside, workers, max(smaller.factor, 1))
        if amount is not None:
            work_mem = min(amount.count_bytes, settings.work_mem)  # as much as now fits, where what is shared gives way
            if bounded is not None and work_mem == settings.work_mem:
                amount = bounded
            yield _set(server, settings, smaller._replace(work_mem=work_mem), amount)
            smaller = settings
            break
    else:  # so many connections fit with no work_mem
        smaller = smaller._replace(work_mem=min(settings.work_mem, MIB))
    beside = _beside(smaller, counted) + smaller.max_parallel_workers * smaller.hash_mem
    count = connections_that_fit(room, beside, smaller.hash_mem + smaller.own)
    if count is not None:
        fewer = min(count.count_bytes, settings.max_connections)  # as many as now fit, where vacuum gives way
        yield _set(server, settings, smaller._replace(max_connections=fewer), count)
    yield from raise_bound(machine, bound, total(parts), f"the {size(total(parts))} of the sum")


def _beside(settings: Settings, counted: bool) -> int:
    """All but the connections and the sorts and hashes."""
    shared = settings.shared_buffers + settings.wal_buffers if counted else 0
    return shared + settings.vacuum + _ITSELF


def _smaller(settings: Settings, room: int, counted: bool) -> Iterator[tuple[Settings, Amount | None]]:
    """As it is; with what vacuum takes bounded to a quarter; and with what is shared bounded to a quarter.

    A quarter for shared_buffers is what PostgreSQL's documentation begins with.
    """
    yield settings, None
    if settings.vacuum > room // 4:
        each = a_quarter(room, settings.autovacuum_max_workers + 1)
        settings = settings._replace(maintenance_work_mem=each.count_bytes, autovacuum_work_mem=each.count_bytes)
        yield settings, each
    if counted and settings.shared_buffers > room // 4:
        shared = a_quarter(room)
        wal_buffers = min(settings.wal_buffers, shared.count_bytes // 32)
        yield settings._replace(shared_buffers=shared.count_bytes, wal_buffers=wal_buffers), shared


_RESTART = ("max_connections", "shared_buffers")
_COSTS = {
    "max_connections": "further connections are refused: a pooler (PgBouncer) before it lets them wait",
    "work_mem": "what does not fit is sorted and hashed on the disk, which takes longer",
    "shared_buffers": "more is read again from its files, by way of the kernel's cache",
    "maintenance_work_mem": "a vacuum, and to make an index, takes longer",
}


def _set(server: Postgres, old: Settings, new: Settings, amount: Amount) -> Remedy:
    """By ALTER SYSTEM, which the command line alone outdoes."""
    names = ["work_mem", "max_connections", "shared_buffers", "maintenance_work_mem"]
    if server.autovacuum_work_mem_bytes is not None:
        names.append("autovacuum_work_mem")
    changed = [name for name in names if getattr(new, name) != getattr(old, name)]
    values = {name: _written(name, getattr(new, name)) for name in changed}
    origins = dict(server.origins)
    by_hand = [name for name in changed if origins.get(name) == "command line"]
    port = ("--port", str(server.port)) if server.port is not None else ()
    command = ["psql", *port]
    for name in changed:
        command += ["--command", f"ALTER SYSTEM SET {name} = '{values[name]}'"] if name not in by_hand else []
    if any(name not in _RESTART for name in changed):
        command += ["--command", "SELECT pg_reload_conf()"]
    title = "As a superuser of it, set " + ", ".join(f"{name} to {value}" for name, value in values.items())
    if by_hand:
        title += f" ({' and '.join(by_hand)} where it is started: its command line says otherwise)"
    if any(name in _RESTART for name in changed):
        title += ", and restart it"
    return Remedy(
        title=title,
        cost=next(cost for name, cost in _COSTS.items() if name in changed),
        amount=amount.formula,
        commands=() if by_hand == changed else (tuple(command),),
    )


def _written(name: str, value: int) -> str:
    if name == "max_connections":
        return str(value)
    return f"{value // MIB}MB" if value % MIB == 0 else f"{value // KIB}kB"


# -- who can be chosen -------------------------------------------------------------------------------------------------


def postgres_backends_spared(snapshot: Snapshot) -> Iterator[Finding]:
    """The backends of a PostgreSQL server are as hard to kill as its postmaster.

    oom_score_adj is lowered so that the postmaster is spared: without it the server is gone. A child inherits the
    value. Unless PostgreSQL is told to set it back, a query that takes all memory is spared as well, and others die in
    its place.

    Source: PostgreSQL's documentation, 19.4.4 "Linux Memory Overcommit": PG_OOM_ADJUST_FILE, PG_OOM_ADJUST_VALUE.
    """
    machine = snapshot.machine
    for server in machine.postgres if machine is not None else ():
        process = None if machine is None else process_of(machine, server)
        if machine is None or process is None or (process.oom_score_adj or 0) >= 0:
            continue
        alike = _as_spared(machine, process)
        if not alike:
            continue
        exempt = process.oom_score_adj == OOM_SCORE_ADJ_MIN
        value = "PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj"
        yield Finding(
            code="postgres-backends-spared",
            severity="warning" if exempt else "notice",
            confidence="certain",
            claim=f"The {len(alike)} children of {named(process)} {'may never be killed' if exempt else 'are spared'}, "
            f"as it is: oom_score_adj is {process.oom_score_adj} for all",
            detail=("If a query takes all memory, others are killed before it.",),
            about=owner(process.cgroup or "/", machine.containers),
            subject=f"postgres {_or(server.port, 5432)}",
            evidence=(process_line(process), *map(process_line, alike[:2])),
            remedies=(
                Remedy(
                    title=f"Start it with {value} in its environment: its children then set theirs to 0",
                    cost="a backend may be killed, and then the server ends all others and recovers",
                ),
            ),
        )


def _as_spared(machine: Machine, postmaster: Process) -> list[Process]:
    """Its children, if there are any and all have its oom_score_adj."""
    children = [one for one in machine.processes if one.ppid == postmaster.pid and one.comm == postmaster.comm]
    return children if all(one.oom_score_adj == postmaster.oom_score_adj for one in children) else []
