"""Rules about servers whose cases change the whole machine: PostgreSQL and Redis of this one, in a guest."""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab import kernels, states
from lab.guest import SPARE_DISK_MIB, Answer, Guest
from lab.states import Saved
from tests.lab.box import pack_box
from tests.lab.conftest import here_or_skipped
from tests.lab.parcel import parcel
from tests.machine.real import program
from tests.machine.servers import data_of_postgres, of_postgres, postgres

pytestmark = pytest.mark.slow

_BOX = "/opt/reprieve/box"
_LOOK = "cd /; PYTHONPATH=/opt/reprieve COLUMNS=1000 python3 -m reprieve check"
_UNPACK = (
    "mkdir /opt/reprieve; gzip -dcf /dev/vda | tar -C /opt/reprieve -xf - 2> /dev/null; chmod 755 /opt /opt/reprieve\n"
    f"cd {_BOX}; mkdir -p dev proc tmp; mount --bind /dev dev; mount --bind /proc proc; sync\n"
)


@pytest.fixture(scope="module")
def with_redis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tool and a Redis, for the spare disk."""
    packed = parcel(tmp_path_factory.mktemp("redis") / "parcel.tar")
    with tarfile.open(packed, "a") as archive:
        pack_box(archive, "box", (program("redis-server"), program("redis-cli")))
    return packed


@pytest.fixture(scope="module")
def with_postgres(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tool and a PostgreSQL with a table of some 45 MiB, for the spare disk."""
    folder = tmp_path_factory.mktemp("postgres")
    packed = parcel(folder / "parcel.tar")
    with data_of_postgres(folder / "pg") as data:
        with postgres(data, "-c", "max_wal_size=32MB") as server:
            rows = "SELECT lpad((g * 79 % 450001)::text, 64, '0') AS b FROM generate_series(1, 450000) g"
            made = server.psql(f"CREATE TABLE t AS {rows}", "VACUUM ANALYZE t", "CHECKPOINT")
            assert made.returncode == 0, made.stderr + (data / "log").read_text()[-2000:]
        with tarfile.open(packed, "a") as archive:
            folders = [Path("/usr/share/zoneinfo/Etc"), *Path("/usr/share/postgresql").glob("*")]
            pack_box(archive, "box", (of_postgres("psql"), of_postgres("postgres")), folders)
            archive.add(data, "box/data")
    small = packed.with_suffix(".gz")  # for the spare disk has SPARE_DISK_MIB
    with packed.open("rb") as whole, gzip.open(small, "wb", compresslevel=1) as compressed:
        shutil.copyfileobj(whole, compressed)
    assert small.stat().st_size < SPARE_DISK_MIB << 20
    return small


@contextmanager
def guest_with(spare: Path) -> Iterator[Guest]:
    with here_or_skipped():
        saved: Saved = states.saved(kernels.DEFAULT, states.SYSTEMD)
    with saved.restore(spare=spare) as guest:
        done(guest, _UNPACK)
        yield guest


def done(guest: Guest, script: str) -> str:
    """What a script prints that succeeds."""
    ended: Answer = guest.run(script, timeout_s=200)
    assert ended.status == 0, ended.output
    return ended.output


def said(guest: Guest, code: str) -> str:
    return guest.run(f"{_LOOK} --only {code} -v", timeout_s=200).output


# -- Redis, and what the kernel promises -------------------------------------------------------------------------------


def cli() -> str:
    return f"chroot {_BOX} {program('redis-cli')}"


def filled() -> str:
    """A server that holds 120 MiB, and saves now and then."""
    options = "--save '9999 9999'"
    return (
        f"chroot {_BOX} {program('redis-server')} --bind 127.0.0.1 {options} --dir /tmp > /run/redis.log 2>&1 &\n"
        f"for n in $(seq 60); do {cli()} PING 2>&1 | grep -q PONG && break; sleep 0.5; done\n"
        f'for n in $(seq 1200); do echo "SETRANGE k:$n 99999 x"; done | {cli()} > /dev/null\n'
    )


def strict(more_percent: int) -> str:
    """The kernel may promise so much more than it has, in percent of RAM, and no more."""
    return (
        "promised=$(awk '/^Committed_AS/ {print $2}' /proc/meminfo)\n"
        "total=$(awk '/^MemTotal/ {print $2}' /proc/meminfo)\n"
        f"sysctl -q -w vm.overcommit_ratio=$((promised * 100 / total + {more_percent})) vm.overcommit_memory=2\n"
    )


def saves(guest: Guest) -> bool:
    """Can it save what it holds?"""
    if "Background saving started" not in guest.run(f"{cli()} BGSAVE").output:
        return False
    waited = (
        f"for n in $(seq 300); do {cli()} INFO persistence | grep -q bgsave_in_progress:0 && break; sleep 0.5; done\n"
    )
    return "rdb_last_bgsave_status:ok" in done(guest, waited + f"{cli()} INFO persistence")


def test_a_server_that_can_save_or_need_not_is_not_spoken_of(with_redis: Path) -> None:
    with guest_with(with_redis) as guest:
        done(guest, filled())
        for setting in ("sysctl -q -w vm.overcommit_memory=0", "sysctl -q -w vm.overcommit_memory=1", strict(60)):
            done(guest, setting)
            assert saves(guest)
        assert "Found     nothing" in said(guest, "redis-fork-refused")
        done(guest, strict(8) + f"{cli()} CONFIG SET save ''")
        assert "Found     nothing" in said(guest, "redis-fork-refused")


def test_a_server_that_could_not_fork_saves_as_advised(with_redis: Path) -> None:
    with guest_with(with_redis) as guest:
        done(guest, "sysctl -q -w vm.overcommit_ratio=300 vm.overcommit_memory=2\n" + filled() + strict(8))
        assert not saves(guest)
        text = said(guest, "redis-fork-refused")
        assert "cannot fork to save" in text
        more, guessing = re.findall(r"^ +\$ (.*)$", text, re.MULTILINE)
        done(guest, more)
        assert saves(guest)
        done(guest, strict(8))
        assert not saves(guest)
        done(guest, guessing)
        assert saves(guest)


# -- PostgreSQL, and whom the kernel chooses ---------------------------------------------------------------------------


def crowded(environ: str) -> str:
    """A server, its postmaster spared, in a group with somebody else."""
    server = of_postgres("postgres")
    words = "-D /data -k /data -h '' -F -c dynamic_shared_memory_type=mmap -c jit=off -c work_mem=64MB -B 16MB"
    options = "-c max_parallel_workers=0 -c autovacuum=off"
    ask = f"chroot {_BOX} {of_postgres('psql')} -h /data -U postgres -c 'SELECT 1' postgres"
    return f"""
mkdir -p {_BOX}{Path(server).parent.parent}/lib
mkdir /sys/fs/cgroup/app; echo 200M > /sys/fs/cgroup/app/memory.max; echo 0 > /sys/fs/cgroup/app/memory.swap.max
sh -c 'echo $$ > /sys/fs/cgroup/app/cgroup.procs; exec hog --mib 40 --name bystander --hold -1' > /dev/null &
cat > /run/server <<'END'
echo $$ > /sys/fs/cgroup/app/cgroup.procs; echo -900 > /proc/self/oom_score_adj
exec env {environ} chroot --userspec=65534:65534 {_BOX} {server} {words} {options}
END
sh /run/server > /run/pg.log 2>&1 &
for n in $(seq 60); do {ask} > /dev/null 2>&1 && break; sleep 0.5; done
{ask}
"""


def sorting() -> str:
    """Sessions that each hold a sorted table, until one of them has ended."""
    psql = f"chroot {_BOX} {of_postgres('psql')} -h /data -U postgres"
    words = (
        "-c BEGIN -c 'DECLARE c CURSOR FOR SELECT b FROM t ORDER BY b' -c 'FETCH 1 FROM c' -c 'SELECT pg_sleep(600)'"
    )
    return f"""
for n in 1 2 3 4 5; do
    {psql} {words} postgres > /run/session.$n 2>&1 &
    for m in $(seq 60); do grep -q '1 row' /run/session.$n && break; kill -0 $! 2> /dev/null || exit 0; sleep 0.5; done
done
"""


@pytest.mark.parametrize("told", [False, True])
def test_backends_that_are_spared_let_others_die_unless_they_set_theirs_back(with_postgres: Path, told: bool) -> None:
    with guest_with(with_postgres) as guest:
        done(guest, crowded("PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj" if told else "A=B"))
        text = said(guest, "postgres-backends-spared")
        assert ("Found     nothing" in text) == told
        assert ("PG_OOM_ADJUST_FILE=/proc/self/oom_score_adj" in text) != told
        guest.run(sorting(), timeout_s=200)
        killed = re.findall(r"Killed process \d+ \((\w+)\)", guest.kernel_log())
        assert killed[:1] == ["postgres" if told else "bystander"]
        assert ("bystander" in killed) != told
