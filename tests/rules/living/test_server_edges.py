"""Rules about servers and pools at their edges, on machines changed from a captured one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reprieve.model.application import Postgres, Redis
from reprieve.model.finding import Finding
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from reprieve.rules.amounts import maxmemory_that_fits, pool_that_fits
from reprieve.rules.living.demand import demands
from reprieve.rules.living.heaps import total
from reprieve.rules.living.pool import pool_exceeds_limit
from reprieve.rules.living.postgres import most_of_postgres, postgres_backends_spared, postgres_exceeds_limit
from reprieve.rules.living.redis import (
    most_of_redis,
    redis_exceeds_limit,
    redis_fork_refused,
    redis_nearly_full,
    redis_unbounded,
)
from tests.rules.living.made import captured, with_group, with_meminfo, with_sysctls

MIB, GIB = 1 << 20, 1 << 30
GROUP = "/app/web"  # may hold 40 MiB, and /app above it 64
TOLD = (("shared_buffers", "/data/postgresql.conf:1"),)
SAID = (("maxmemory", "the server itself"),)
Rule = Callable[[Snapshot], Iterator[Finding]]


def machine_with(
    *processes: Process, limit_bytes: int = 40 * MIB, postgres: Postgres | None = None, redis: Redis | None = None
) -> Machine:
    machine = captured("v2-mini-6.12")
    machine = with_group(machine, "/app", max_bytes="max", swap_max_bytes=0)
    machine = with_group(machine, GROUP, max_bytes=limit_bytes, swap_max_bytes=0)
    machine = with_meminfo(machine, MemTotal=8 * GIB, MemAvailable=7 * GIB, SwapTotal=0)
    return replace(
        machine,
        processes=processes,
        postgres=() if postgres is None else (postgres,),
        redis=() if redis is None else (redis,),
    )


def server(pid: int = 7, comm: str = "postgres", ppid: int = 1, **facts: object) -> Process:
    own = {"cgroup": GROUP, "unique_bytes": 3 * MIB, "oom_score_adj": 0} | facts
    return Process(pid=pid, start_ticks=9, ppid=ppid, comm=comm, **own)  # type: ignore[arg-type]


def found(rule: Rule, machine: Machine) -> list[Finding]:
    return list(rule(Snapshot(machine=machine)))


RULES = (
    *(postgres_exceeds_limit, postgres_backends_spared, redis_unbounded, redis_exceeds_limit, redis_nearly_full),
    *(redis_fork_refused, pool_exceeds_limit),
)


@pytest.mark.parametrize("rule", RULES)
def test_of_nothing_nothing_is_said(rule: Rule) -> None:
    assert list(rule(Snapshot())) == []
    assert found(rule, Machine()) == []
    gone = Machine(postgres=(Postgres(pid=7, start_ticks=9),), redis=(Redis(pid=7, start_ticks=9),))
    assert found(rule, gone) == []  # its process has ended


# -- PostgreSQL --------------------------------------------------------------------------------------------------------


def test_a_server_of_which_nothing_could_be_read_is_not_reckoned_by_defaults() -> None:
    unread = Postgres(pid=7, start_ticks=9, unseen=("/data/postgresql.conf",))
    assert found(postgres_exceeds_limit, machine_with(server(), postgres=unread)) == []
    partly = replace(unread, origins=TOLD)
    (finding,) = found(postgres_exceeds_limit, machine_with(server(), postgres=partly))
    assert finding.confidence == "possible"
    assert "/data/postgresql.conf" in finding.detail[-1]


def test_what_lies_in_huge_pages_is_not_counted() -> None:
    told = Postgres(pid=7, start_ticks=9, shared_buffers_bytes=16 * GIB, origins=TOLD)
    small = machine_with(server(), postgres=told)
    huge = machine_with(server(hugetlb_bytes=16 * GIB), postgres=told)
    assert total(most_of_postgres(small, told)) - total(most_of_postgres(huge, told)) >= 16 * GIB


@pytest.mark.parametrize(("version", "factor"), [("12", 1), ("14", 1), ("15", 2), ("9.6", 1), (None, 2)])
def test_a_hash_takes_as_much_more_as_its_version_has_it(version: str | None, factor: int) -> None:
    told = Postgres(pid=7, start_ticks=9, postgres_version=version, work_mem_bytes=MIB, max_connections=10)
    parts = most_of_postgres(machine_with(server(), postgres=told), told)
    assert [count for name, count in parts if name.startswith("in 10 connections")] == [10 * MIB * factor]


SIZES = st.integers(64 * 1024, 4 * GIB)


@settings(max_examples=300, deadline=None)
@example(limit=144 * MIB, shared=19189303, work=218953, maintenance=44101083, connections=19, workers=3, factor=5.0)
@given(
    limit=st.integers(32 * MIB, 64 * GIB),
    shared=SIZES,
    work=SIZES,
    maintenance=SIZES,
    connections=st.integers(1, 2000),
    workers=st.integers(0, 64),
    factor=st.floats(1, 10),
)
def test_what_is_proposed_fits(
    limit: int, shared: int, work: int, maintenance: int, connections: int, workers: int, factor: float
) -> None:
    told = Postgres(
        pid=7,
        start_ticks=9,
        shared_buffers_bytes=shared,
        work_mem_bytes=work,
        maintenance_work_mem_bytes=maintenance,
        max_connections=connections,
        max_parallel_workers=workers,
        hash_mem_multiplier=factor,
        origins=TOLD,
    )
    machine = with_meminfo(machine_with(server(), limit_bytes=limit, postgres=told), MemTotal=64 * GIB)
    for finding in found(postgres_exceeds_limit, machine):
        for remedy in finding.remedies:
            for command in remedy.commands:
                if command[0] == "psql":
                    assert total(most_of_postgres(machine, _as_set(told, command))) <= limit


def _as_set(told: Postgres, command: tuple[str, ...]) -> Postgres:
    for word in command:
        if word.startswith("ALTER SYSTEM SET "):
            name, _, value = word.removeprefix("ALTER SYSTEM SET ").partition(" = ")
            value = value.strip("'")
            if name == "max_connections":
                told = replace(told, max_connections=int(value))
            else:
                size = int(value[:-2]) * (MIB if value.endswith("MB") else 1024)
                told = replace(told, **{f"{name}_bytes": size})  # type: ignore[arg-type]
    return told


def test_what_its_command_line_says_is_not_set_by_sql() -> None:
    told = Postgres(
        pid=7, start_ticks=9, work_mem_bytes=GIB, max_connections=10, origins=(("work_mem", "command line"),)
    )
    (finding,) = found(postgres_exceeds_limit, machine_with(server(), limit_bytes=GIB, postgres=told))
    assert "work_mem where it is started" in finding.remedies[0].title
    assert finding.remedies[0].commands == ()


def test_work_mem_is_not_raised_where_less_is_shared() -> None:
    told = Postgres(
        pid=7, start_ticks=9, work_mem_bytes=MIB, shared_buffers_bytes=8 * GIB, max_connections=10, origins=TOLD
    )
    (finding,) = found(postgres_exceeds_limit, machine_with(server(), limit_bytes=4 * GIB, postgres=told))
    assert "work_mem to" not in finding.remedies[0].title.replace("maintenance_work_mem", "")
    assert "shared_buffers to 1024MB" in finding.remedies[0].title
    assert finding.remedies[0].amount == "a quarter of 4 GiB: 1 GiB"


@pytest.mark.parametrize(("postmaster", "backends", "speaks"), [(-900, -900, True), (-900, 0, False), (0, 0, False)])
def test_only_backends_that_are_spared_as_their_postmaster_is_are_spoken_of(
    postmaster: int, backends: int, speaks: bool
) -> None:
    family = (server(oom_score_adj=postmaster), *(server(pid=pid, ppid=7, oom_score_adj=backends) for pid in (8, 9)))
    machine = machine_with(*family, postgres=Postgres(pid=7, start_ticks=9))
    assert bool(found(postgres_backends_spared, machine)) == speaks


# -- Redis -------------------------------------------------------------------------------------------------------------


def redis(**facts: object) -> Machine:
    told = {"maxmemory_bytes": 0, "save": "", "appendonly": False, "origins": SAID} | facts
    return machine_with(server(comm="redis-server"), redis=Redis(pid=7, start_ticks=9, **told))  # type: ignore[arg-type]


def test_a_server_that_was_not_asked_and_whose_file_was_not_read_is_not_called_unbounded() -> None:
    assert found(redis_unbounded, redis(maxmemory_bytes=None, origins=(), unseen=("the server itself",))) == []
    (finding,) = found(redis_unbounded, redis(maxmemory_bytes=None, unseen=("the server itself",)))
    assert finding.confidence == "likely"


@pytest.mark.parametrize("contained", [False, True])
def test_of_a_server_in_a_container_it_is_said_where_its_file_is_set(contained: bool) -> None:
    machine = redis()
    (one,) = machine.processes
    machine = replace(machine, processes=(replace(one, ns_pids=(7, 1) if contained else (7,)),))
    (finding,) = found(redis_unbounded, machine)
    said = "where its container is made" if contained else "CONFIG REWRITE keeps it in its file"
    assert any(said in remedy.title for remedy in finding.remedies)


def test_replicas_count_and_those_without_a_bound_do_not_make_it_smaller() -> None:
    with_replicas = redis(maxmemory_bytes=20 * MIB, replicas=2, replica_buffer_bytes=64 * MIB).redis[0]
    assert total(most_of_redis(with_replicas)) == (20 + 2 * 64 + 8) * MIB
    assert total(most_of_redis(replace(with_replicas, replica_buffer_bytes=0))) == 28 * MIB


@pytest.mark.parametrize(
    ("policy", "used", "speaks"),
    [("noeviction", 19, True), ("noeviction", 17, False), ("allkeys-lru", 20, False), (None, 20, False)],
)
def test_only_who_refuses_is_nearly_full(policy: str | None, used: int, speaks: bool) -> None:
    machine = redis(maxmemory_bytes=20 * MIB, maxmemory_policy=policy, used_memory_bytes=used * MIB)
    assert bool(found(redis_nearly_full, machine)) == speaks


def advised(machine: Machine, rule: Rule = redis_unbounded) -> list[tuple[str, ...]]:
    """The titles and the commands, apart from where the server listens."""
    (finding,) = found(rule, machine)
    return [(one.title, *(" ".join(command[1:]) for command in one.commands)) for one in finding.remedies]


def holding(used: int, *, limit: int | None = 4 * GIB, **facts: object) -> Machine:
    """A server that saves and holds so much, under such a limit, or none, in a machine of 8 GiB."""
    machine = redis(**{"save": "3600 1", "used_memory_bytes": used, **facts})
    machine = with_group(machine, GROUP, max_bytes="max" if limit is None else limit)
    return replace(machine, processes=(server(comm="redis-server", unique_bytes=used),))


def test_no_maxmemory_below_what_is_held_is_advised() -> None:
    """It would refuse each write at once, or throw away half."""
    assert advised(holding(GIB))[0][1:] == ("CONFIG SET maxmemory 1536mb",)
    higher, cache, no_more = advised(holding(2 * GIB, limit=3 * GIB))
    assert higher[0].startswith("Raise the limit of \x02/app/web\x03 to")
    assert cache[1:] == ("CONFIG SET save ", "CONFIG SET maxmemory 2304mb")
    assert "2151mb" in no_more[0]
    assert [one[0][:5] for one in advised(holding(2 * GIB, limit=3 * GIB, replicas=1))] == ["Raise", "Let i"]
    assert advised(holding(3990 * MIB, limit=4 * GIB, save=""))[-1][0].startswith("Take keys out of it")
    full = holding(2 * GIB, limit=3 * GIB, maxmemory_bytes=3 * GIB)
    assert [one[0][:5] for one in advised(full, redis_exceeds_limit)] == ["Raise"]


def test_swap_is_no_room_for_data() -> None:
    machine = with_meminfo(holding(5 * GIB, limit=None, save=""), SwapTotal=8 * GIB, MemAvailable=3 * GIB)
    assert advised(machine)[0][1:] == ("CONFIG SET maxmemory 6144mb",)


def test_what_others_hold_is_no_room_for_data() -> None:
    machine = with_meminfo(holding(5 * GIB, limit=None, save=""), MemAvailable=GIB)
    (only,) = advised(machine)
    assert only[1:] == ("CONFIG SET maxmemory 5376mb",)
    assert only[0].startswith("Let it grow no more")


@settings(max_examples=200, deadline=None)
@given(
    used=st.integers(MIB, 16 * GIB),
    limit=st.one_of(st.none(), st.integers(MIB, 16 * GIB)),
    left=st.integers(0, 8 * GIB),
    save=st.sampled_from(["", "3600 1"]),
    full=st.sampled_from([0, 512 * MIB, 4 * GIB]),
)
def test_any_maxmemory_that_is_advised_holds_what_is_there(
    used: int, limit: int | None, left: int, save: str, full: int
) -> None:
    machine = with_meminfo(holding(used, limit=limit, save=save, maxmemory_bytes=full), MemAvailable=left)
    for rule in (redis_unbounded, redis_exceeds_limit, redis_nearly_full):
        for finding in found(rule, machine):
            assert finding.remedies
            for remedy in finding.remedies:
                for command in remedy.commands:
                    if command[-2] == "maxmemory":
                        assert used <= int(command[-1].removesuffix("mb")) * MIB <= min(limit or 8 * GIB, 8 * GIB)


@pytest.mark.parametrize(
    ("mode", "promised", "save", "speaks"),
    [(2, 99, "60 1", True), (2, 90, "60 1", False), (2, 99, "", False), (1, 99, "60 1", False), (0, 99, "60 1", False)],
)
def test_only_strict_overcommit_refuses_the_fork(mode: int, promised: int, save: str, speaks: bool) -> None:
    machine = with_sysctls(redis(save=save), overcommit_memory=mode, overcommit_kbytes=0)
    machine = with_meminfo(machine, CommitLimit=100 * MIB, Committed_AS=promised * MIB)
    assert bool(found(redis_fork_refused, machine)) == speaks


@settings(max_examples=200, deadline=None)
@given(room=st.integers(0, 1 << 42), buffers=st.integers(0, 1 << 34), saving=st.booleans())
def test_a_proposed_maxmemory_fits_with_all_that_comes_beside_it(room: int, buffers: int, saving: bool) -> None:
    amount = maxmemory_that_fits(room, buffers, saving=saving)
    assert amount is None or amount.count_bytes * (1 + saving) + buffers + 16 * MIB <= room


# -- pools, and what all may hold --------------------------------------------------------------------------------------


def workers(*sizes_mib: int | None, comm: str = "worker") -> tuple[Process, ...]:
    parent = server(pid=7, comm="master")
    own = [None if size is None else size * MIB for size in sizes_mib]
    return (parent, *(server(pid=pid, ppid=7, comm=comm, unique_bytes=size) for pid, size in enumerate(own, 8)))


@pytest.mark.parametrize(
    ("sizes", "speaks"),
    [
        ((20, 20, 20), True),
        ((20, 20), False),  # two are a program and its helper
        ((7, 7, 7, 7, 7, 7, 7), False),  # small
        ((5, 5, 5, 39), False),  # one that is not like the others
        ((20, None, None, None, None, None), False),  # most were not measured
        ((20, 20, None), True),
    ],
)
def test_a_pool_is_of_like_workers_that_were_measured(sizes: tuple[int | None, ...], speaks: bool) -> None:
    assert bool(found(pool_exceeds_limit, machine_with(*workers(*sizes)))) == speaks


def test_the_backends_of_postgresql_are_no_pool() -> None:
    machine = machine_with(*workers(20, 20, 20), postgres=Postgres(pid=7, start_ticks=9))
    assert found(pool_exceeds_limit, machine) == []


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(1, 1 << 36), st.integers(3, 500))
def test_a_proposed_number_of_workers_fits_and_is_smaller(room: int, beside: int, each: int, present: int) -> None:
    amount = pool_that_fits(room, beside, each, present)
    assert amount is None or (beside + amount.count_bytes * each <= room and 1 <= amount.count_bytes < present)


def test_what_all_servers_may_hold_can_be_added_up() -> None:
    machine = machine_with(
        server(),
        server(pid=8, comm="redis-server"),
        postgres=Postgres(pid=7, start_ticks=9),
        redis=Redis(pid=8, start_ticks=9, maxmemory_bytes=GIB, save="", appendonly=False),
    )
    told = {demand.what: demand.bytes for demand in demands(machine)}
    assert told["Redis"] == GIB + 8 * MIB
    assert told["PostgreSQL"] > 128 * MIB + 100 * 8 * MIB
    assert not list(demands(redis()))  # nothing bounds it
