"""Rules about PostgreSQL, Redis and pools of workers, on real ones in small cgroups: who died lives as advised.

What changes the machine, or needs rights over all of it, is tried in a guest: test_servers_in_guest.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.host_cgroup import HostCgroup, host_cgroup
from reprieve.fix.plan import Wanted, plan, wanted_by
from reprieve.fix.transaction import apply, undo
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.machine.places import MachinePlaces
from reprieve.model.change import Plan
from reprieve.model.finding import Change, Failure, Finding, Place
from reprieve.model.snapshot import Snapshot
from reprieve.rules.living.pool import pool_exceeds_limit
from reprieve.rules.living.postgres import postgres_backends_spared, postgres_exceeds_limit
from reprieve.rules.living.redis import redis_exceeds_limit, redis_nearly_full, redis_unbounded
from tests.fix.dictionary import World, journal
from tests.lab.conftest import here_or_skipped
from tests.machine.servers import Postgres, Redis, data_of_postgres, own, postgres, redis

MIB = 1 << 20

pytestmark = [pytest.mark.slow, pytest.mark.alone]


def found(rule: Callable[[Snapshot], Iterator[Finding]], pid: int) -> list[Finding]:
    """What a rule says of a process, on this machine as it is."""
    machine = observe(Host(), [], unique_s=2)
    return [finding for finding in rule(Snapshot(machine=machine)) if f"pid {pid})" in finding.claim]


def only(rule: Callable[[Snapshot], Iterator[Finding]], pid: int) -> Finding:
    (finding,) = found(rule, pid)
    assert finding.code == rule.__name__.replace("_", "-")
    assert finding.evidence
    return finding


@contextmanager
def small(mib: int) -> Iterator[HostCgroup]:
    with here_or_skipped(), host_cgroup(mib * MIB) as group:
        yield group


# -- PostgreSQL --------------------------------------------------------------------------------------------------------

PLAIN = (
    *("-B", "32MB", "-N", "12", "-c", "max_parallel_workers=0"),
    *("-c", "maintenance_work_mem=4MB", "-c", "autovacuum=off"),
)
LOAD = ("BEGIN", "DECLARE c CURSOR FOR SELECT b FROM t ORDER BY b", "FETCH 1 FROM c", "SELECT pg_sleep(600)")
SESSIONS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A table of some 45 MiB, which takes more to sort."""
    with data_of_postgres(tmp_path_factory.mktemp("servers") / "pg") as folder:
        with postgres(folder) as server:
            made = "CREATE TABLE t AS SELECT md5(g::text) || md5((-g)::text) AS b FROM generate_series(1, 450000) g"
            assert server.psql(made, "VACUUM ANALYZE t").returncode == 0
        yield folder


Run = Callable[..., AbstractContextManager[Postgres]]


@pytest.fixture
def server(data: Path) -> Iterator[Run]:
    """Runs a server with the same data, in a group, and what the test sets by ALTER SYSTEM."""

    def run(*words: str, group: HostCgroup | None = None) -> AbstractContextManager[Postgres]:
        return postgres(data, *PLAIN, *words, group=None if group is None else group.folder)

    yield run
    (data / "postgresql.auto.conf").write_text("")


def all_sort(server: Postgres) -> bool:
    """Do so many sessions each hold a sorted table at a time?"""
    sessions = []
    try:
        for count in range(1, SESSIONS + 1):
            sessions.append(server.start(*LOAD))
            while server.waiting() < count:
                if sessions[-1].process.poll() is not None:
                    return False
        return True
    finally:
        server.wake()
        for session in sessions:
            session.finish()


def test_a_server_whose_settings_fit_is_not_spoken_of(server: Run) -> None:
    with small(400) as group:
        with server("-c", "work_mem=1MB", group=group) as running:
            assert found(postgres_exceeds_limit, running.pid) == []
        with server("-c", "work_mem=64MB", group=group) as running:
            assert len(found(postgres_exceeds_limit, running.pid)) == 1
    with server("-c", "work_mem=64MB") as running:  # as before, with all memory of the machine
        assert found(postgres_exceeds_limit, running.pid) == []


def test_sorts_that_died_live_with_the_proposed_work_mem(server: Run) -> None:
    with small(400) as group, server(group=group) as running:
        assert running.psql("ALTER SYSTEM SET work_mem = '128MB'", "SELECT pg_reload_conf()").returncode == 0
        assert not all_sort(running)
        while running.psql("SELECT 1").returncode != 0:  # it recovers
            pass
        finding = only(postgres_exceeds_limit, running.pid)
        assert any("work_mem = 131072kB" in line.text for line in finding.evidence)
        (command,) = finding.remedies[0].commands
        assert command[:2] == ("psql", "--command")
        assert "ALTER SYSTEM SET work_mem = " in command[2]
        assert running.psql(*command[2::2]).returncode == 0
        assert all_sort(running)
        assert found(postgres_exceeds_limit, running.pid) == []


def test_connections_that_are_there_make_it_likely(server: Run) -> None:
    with small(400) as group, server("-c", "work_mem=64MB", group=group) as running:
        finding = only(postgres_exceeds_limit, running.pid)
        assert (finding.severity, finding.confidence) == ("notice", "possible")
        sessions = [running.start("SELECT pg_sleep(600)") for _ in range(5)]
        while running.waiting() < 5:
            pass
        finding = only(postgres_exceeds_limit, running.pid)
        assert (finding.severity, finding.confidence) == ("warning", "likely")
        running.wake()
        for session in sessions:
            session.finish()


def test_its_own_settings_are_computed_and_told_and_its_limit_is_left_alone(server: Run) -> None:
    with small(400) as group, server(group=group) as running:
        assert running.psql("ALTER SYSTEM SET work_mem = '128MB'", "SELECT pg_reload_conf()").returncode == 0
        title = only(postgres_exceeds_limit, running.pid).remedies[0].title
        argv = [sys.executable, "-m", "reprieve", "fix", "app", "postgresql"]
        told = subprocess.run([*argv, "--dry-run"], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
        said = " ".join(told.stdout.split())
        assert "nothing to change" in said
        assert f"By hand postgres (pid {running.pid}) may come to hold" in said
        assert title in said
        assert "$ psql --command 'ALTER SYSTEM SET work_mem" in said
        script = subprocess.run([*argv, "--as", "sh"], capture_output=True, text=True).stdout
        assert all(line.startswith("#") or line == "set -eu" for line in script.splitlines())
        assert f"# By hand: {title}" in script
        assert "# psql --command 'ALTER SYSTEM SET work_mem" in script
        for elsewhere in ("ansible", "systemd"):
            ended = subprocess.run([*argv, "--as", elsewhere], capture_output=True, text=True)
            assert "By hand" in ended.stderr
            assert ended.stdout == ""


def test_a_server_that_nobody_spares_is_not_spoken_of(server: Run) -> None:
    with server() as running:
        assert found(postgres_backends_spared, running.pid) == []


# -- Redis -------------------------------------------------------------------------------------------------------------

VALUE = 100_000
FILL = "".join(f"SETRANGE k:{number} {VALUE - 1} x\n" for number in range(1200))  # twice what the group may hold
NEVER = ("--save", "")


def follow(server: Redis, finding: Finding) -> None:
    """Do what its first remedy says."""
    (command,) = finding.remedies[0].commands
    assert command[:3] == ("redis-cli", "-s", "SOCKET")
    assert server.cli(*command[3:]).stdout == "OK\n"


def lives(server: Redis) -> bool:
    return server.process.poll() is None and server.cli("PING").stdout == "PONG\n"


def filled(server: Redis) -> str:
    return server.cli(given=FILL).stdout


def rewritten_while_saving(server: Redis, count: int) -> None:
    """Write to all of so many values while a child saves them, one every 100 ms: it is never the sooner one."""
    server.cli("CONFIG", "SET", "rdb-key-save-delay", "100000")
    assert "Background saving started" in server.cli("BGSAVE").stdout
    server.cli("CONFIG", "SET", "rdb-key-save-delay", "0")  # what it saves as it ends
    server.cli(given="".join(f"BITOP NOT k:{number} k:{number}\n" for number in range(count)))


def test_a_bounded_server_and_one_under_no_limit_are_not_spoken_of(tmp_path: Path) -> None:
    with redis(tmp_path, *NEVER) as server:
        assert found(redis_unbounded, server.pid) == []
    with small(64) as group, redis(tmp_path, *NEVER, "--maxmemory", "30mb", group=group.folder) as server:
        assert found(redis_unbounded, server.pid) == []
        assert found(redis_exceeds_limit, server.pid) == []


def test_an_unbounded_server_that_died_lives_with_the_proposed_bound(tmp_path: Path) -> None:
    with small(64) as group:
        with redis(tmp_path, *NEVER, group=group.folder) as server:
            only(redis_unbounded, server.pid)
            filled(server)
            assert server.process.wait(20) == -signal.SIGKILL
        (tmp_path / "redis.sock").unlink()
        with redis(tmp_path, *NEVER, group=group.folder) as server:
            follow(server, only(redis_unbounded, server.pid))
            assert "OOM command not allowed" in filled(server)
            assert lives(server)
            assert found(redis_unbounded, server.pid) == found(redis_exceeds_limit, server.pid) == []


def test_a_bound_above_the_limit_is_as_good_as_none(tmp_path: Path) -> None:
    bound = (*NEVER, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    with small(64) as group:
        with redis(tmp_path, *bound, group=group.folder) as server:
            finding = only(redis_exceeds_limit, server.pid)
            assert (finding.severity, finding.confidence) == ("warning", "certain")
            filled(server)
            assert server.process.wait(20) == -signal.SIGKILL
        (tmp_path / "redis.sock").unlink()
        with redis(tmp_path, *bound, group=group.folder) as server:
            follow(server, only(redis_exceeds_limit, server.pid))
            assert "OOM" not in filled(server)
            assert lives(server)
            assert found(redis_exceeds_limit, server.pid) == []


def test_what_is_advised_of_a_server_that_is_too_full_already_refuses_no_write_and_loses_no_key(tmp_path: Path) -> None:
    many = "".join(FILL.splitlines(keepends=True)[:300])
    with small(64) as group, redis(tmp_path, "--save", "9999 9999", group=group.folder) as server:
        server.cli(given=many)
        _, cache, no_more = only(redis_unbounded, server.pid).remedies
        assert cache.title.startswith("If it is a cache, have it save nothing")
        assert no_more.title.startswith("Let it grow no more")
        for remedy in (no_more, cache):
            for command in remedy.commands:
                assert server.cli(*command[3:]).stdout == "OK\n"
            assert server.cli("SET", "one", "more").stdout == "OK\n"
            assert server.cli("DBSIZE").stdout == "301\n"
        assert found(redis_unbounded, server.pid) == []
        assert "OOM command not allowed" in filled(server)
        assert lives(server)


def test_what_is_copied_while_it_saves_counts(tmp_path: Path) -> None:
    """The fork succeeds; who dies of the copies is the server."""
    bound = ("--save", "9999 9999", "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with small(64) as group:
        with redis(tmp_path, *bound, group=group.folder) as server:
            finding = only(redis_exceeds_limit, server.pid)
            assert (finding.severity, finding.confidence) == ("notice", "possible")
            server.cli(given="".join(FILL.splitlines(keepends=True)[:420]))
            assert lives(server)
            rewritten_while_saving(server, 420)
            assert server.process.wait(20) == -signal.SIGKILL
        (tmp_path / "redis.sock").unlink()
        with redis(tmp_path, *bound, group=group.folder) as server:
            follow(server, only(redis_exceeds_limit, server.pid))
            server.cli(given="".join(FILL.splitlines(keepends=True)[:420]))
            rewritten_while_saving(server, 420)
            assert lives(server)
            assert found(redis_exceeds_limit, server.pid) == []


def fixes(rule: Callable[[Snapshot], Iterator[Finding]], pid: int) -> Plan:
    """What `reprieve fix` would do about it."""
    places = MachinePlaces()
    wanted, _ = wanted_by(found(rule, pid), places.kinds)
    return plan(wanted, places, observe(Host(), []))


def test_what_the_finding_asks_for_is_put_in_the_server_and_its_file_and_undone(tmp_path: Path) -> None:
    file = tmp_path / "redis.conf"
    told = b'# mine\nsave ""\n  maxmemory 0\n# \xff'
    file.write_bytes(told)
    file.chmod(0o640)
    own(file)
    with small(64) as group, redis(tmp_path, str(file), group=group.folder) as server:
        owner = file.stat().st_uid
        made = fixes(redis_unbounded, server.pid)
        assert [step.place.kind for step in made.steps] == ["redis", "redis.conf"]
        kept = journal(World())
        number = apply(made.steps, MachinePlaces(), kept)
        most = int(server.cli("CONFIG", "GET", "maxmemory").stdout.split()[1])
        assert 32 * MIB < most < 64 * MIB
        assert f"  maxmemory {most}\n".encode() in file.read_bytes()
        assert "OOM command not allowed" in filled(server)
        assert lives(server)
        assert fixes(redis_unbounded, server.pid).steps == ()
        held = Change(place=made.steps[0].place, want=f"{most // 2}")
        (refused,) = plan([Wanted((held,))], MachinePlaces(), observe(Host(), [])).refused
        assert "would refuse all writes at once" in refused.reason
        server.cli("CONFIG", "SET", "maxmemory", str(most - MIB))
        with pytest.raises(Failure, match="maxmemory: changed"):  # somebody's: theirs stays
            undo(number, MachinePlaces(), kept)
        assert server.cli("CONFIG", "GET", "maxmemory").stdout.split()[1] == str(most - MIB)
        server.cli("CONFIG", "SET", "maxmemory", str(most))
        assert undo(number, MachinePlaces(), kept) == []
        assert server.cli("CONFIG", "GET", "maxmemory").stdout.split()[1] == "0"
        assert (file.read_bytes(), file.stat().st_mode & 0o777, file.stat().st_uid) == (told, 0o640, owner)


def test_what_holds_in_a_server_that_has_ended_is_gone_with_it(tmp_path: Path) -> None:
    with small(64) as group, redis(tmp_path, *NEVER, group=group.folder) as server:
        made, kept = fixes(redis_unbounded, server.pid), journal(World())
        assert [step.place.kind for step in made.steps] == ["redis"]  # no file: it was started without one
        number = apply(made.steps, MachinePlaces(), kept)
    (left,) = undo(number, MachinePlaces(), kept)
    assert left.why == "gone"


def test_a_server_that_wants_a_password_is_not_changed(tmp_path: Path) -> None:
    with redis(tmp_path, *NEVER, "--requirepass", "x") as server:
        start = next(one for one in observe(Host(), []).processes if one.pid == server.pid).start_ticks
        place = Place(kind="redis", of=f"0/{server.pid}@{start}", key="maxmemory")
        (refused,) = plan([Wanted((Change(place=place, want="1gb"),))], MachinePlaces(), observe(Host(), [])).refused
        assert "asks for a password" in refused.reason


def test_a_server_that_refuses_to_take_more_takes_it_as_a_cache(tmp_path: Path) -> None:
    with redis(tmp_path, *NEVER, "--maxmemory", "20mb") as server:
        assert found(redis_nearly_full, server.pid) == []  # it is empty
        assert "OOM command not allowed" in filled(server)
        follow(server, only(redis_nearly_full, server.pid))
        assert "OOM" not in filled(server)
        assert found(redis_nearly_full, server.pid) == []  # as full, and a cache


# -- pools of workers --------------------------------------------------------------------------------------------------

POOL = """
import os, signal, sys, time
shared, grow, *sizes = map(int, sys.argv[1:])
kept = b"x" * (shared << 20)
children = []
for size in sizes:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        own = [b"y" * (size << 20)]
        print(end="\\n", flush=True)
        if grow:
            time.sleep(1)
            own.append(b"y" * (grow - size << 20))
        time.sleep(3 if grow else 600)
        os._exit(0)
    children.append(child)
ended = [os.waitpid(child, 0)[1] for child in children]
sys.exit(9 if any(ended) else 0)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A program with workers."""

    process: subprocess.Popen[bytes]


@contextmanager
def pool(group: HostCgroup, *sizes_mib: int, shared_mib: int = 0, grow_mib: int = 0) -> Iterator[Pool]:
    """Workers of these sizes, beside what they share; they grow to a size and end, or stay."""
    enter = ("sh", "-c", 'echo $$ > "$0"/cgroup.procs; exec "$@"', str(group.folder))
    words = map(str, (shared_mib, grow_mib, *sizes_mib))
    process = subprocess.Popen(
        (*enter, sys.executable, "-S", "-c", POOL, *words), stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        for _ in sizes_mib:
            process.stdout.readline()
        yield Pool(process=process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_workers_that_fit_are_not_spoken_of() -> None:
    with small(120) as group, pool(group, 18, 16, 17, 18) as workers:
        assert found(pool_exceeds_limit, workers.process.pid) == []


def test_workers_that_share_what_they_hold_are_not_spoken_of() -> None:
    """Six times 60 MiB resident, and hardly anything of their own."""
    with small(120) as group, pool(group, 1, 1, 1, 1, 1, 1, shared_mib=60) as workers:
        assert found(pool_exceeds_limit, workers.process.pid) == []


def test_processes_of_unlike_sizes_are_no_pool() -> None:
    with small(120) as group, pool(group, 1, 1, 2, 1, 40) as workers:
        assert found(pool_exceeds_limit, workers.process.pid) == []


def test_workers_that_died_as_large_as_the_largest_live_in_the_proposed_number() -> None:
    with small(120) as group:
        with pool(group, 18, 16, 17, 18, 32) as workers:
            finding = only(pool_exceeds_limit, workers.process.pid)
        with pool(group, 18, 16, 17, 18, 32, grow_mib=32) as workers:
            assert workers.process.wait(20) == 9
        count = int(finding.remedies[0].title.split()[1])
        assert 1 < count < 5
        with pool(group, *(16,) * count, grow_mib=32) as workers:
            assert workers.process.wait(20) == 0
