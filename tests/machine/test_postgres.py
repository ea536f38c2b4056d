"""PostgreSQL servers: real ones, made-up trees of their files, and files that are of anybody's making."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.codec import pack, unpack
from reprieve.machine.host import Host
from reprieve.machine.postgres import parse_file, parse_size, read_postgres, read_words
from reprieve.machine.proc import read_processes
from reprieve.model.application import Postgres
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from tests.machine import servers
from tests.machine.servers import data_of_postgres, postgres

KIB, MIB = 1 << 10, 1 << 20
ARGV = ("/usr/lib/postgresql/15/bin/postgres", "-D", "/data")
CONFIG = "/data/postgresql.conf"


def stat(pid: int, ppid: int, comm: str = "postgres") -> bytes:
    return (f"{pid} ({comm}) S {ppid}" + " 0" * 15 + " 1 0 9000" + " 0" * 30 + "\n").encode()


def tree(root: Path, *argv: str, files: dict[str, str] | None = None, comm: str = "postgres") -> Host:
    """A machine on which process 7 was started with these words, and has these files."""
    add(root, 7, 1, *argv, comm=comm)
    for name, text in (files or {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Host(str(root))


def add(root: Path, pid: int, ppid: int, *argv: str, comm: str = "postgres") -> None:
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True)
    (folder / "stat").write_bytes(stat(pid, ppid, comm))
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
    (folder / "environ").write_bytes(b"")


def seen(host: Host) -> tuple[tuple[Postgres, ...], list[Gap]]:
    gaps: list[Gap] = []
    return read_postgres(host, gaps, read_processes(host, gaps)), gaps


def only(host: Host) -> Postgres:
    (found,), gaps = seen(host)
    assert gaps == []
    return found


# -- nothing to tell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comm", "argv"),
    [
        ("postgres", ("/usr/bin/sleep", "900")),  # named so by itself
        ("sh", ARGV),  # says it is one in its words alone
        ("postgres", ("postgres: 15/main: checkpointer ",)),  # whose postmaster is in another namespace
        ("postgres", (ARGV[0], "--single", "-D", "/data", "postgres")),
        ("postgres", (ARGV[0], "--boot", "-X", "1048576", "-F")),
        ("postgres", ()),
    ],
)
def test_what_is_no_server_is_none(tmp_path: Path, comm: str, argv: tuple[str, ...]) -> None:
    assert seen(tree(tmp_path, *argv, comm=comm)) == ((), [])


def test_a_program_of_another_name_is_none_whatever_it_calls_itself(tmp_path: Path) -> None:
    host = tree(tmp_path, *ARGV)
    (tmp_path / "proc/7/exe").symlink_to("/usr/bin/python3.11")
    assert seen(host) == ((), [])


def test_of_a_server_whose_files_are_not_there_it_is_said_that_they_were_not_seen(tmp_path: Path) -> None:
    assert only(tree(tmp_path, *ARGV)) == Postgres(pid=7, start_ticks=9000, backends=0, unseen=(CONFIG,))


# -- what is told, and where -------------------------------------------------------------------------------------------


def test_what_is_told_later_counts(tmp_path: Path) -> None:
    files = {
        "etc/pg/postgresql.conf": (
            "data_directory = '/data'\nwork_mem = 1MB\ninclude_dir 'conf.d'\ninclude 'more/one.conf'\n"
            "include_if_exists 'absent.conf'\nmax_connections = 20 # of us\nmax_connections=30\nport=5433\n"
        ),
        "etc/pg/conf.d/b.conf": "work_mem = 3MB\ntemp_buffers = 1024\n",
        "etc/pg/conf.d/a.conf": "work_mem = 2MB\nshared_buffers = 2000\nhuge_pages = yes\n",
        "etc/pg/conf.d/.c.conf": "work_mem = 4MB\n",
        "etc/pg/conf.d/d.txt": "work_mem = 5MB\n",
        "etc/pg/more/one.conf": "include two.conf\n",
        "etc/pg/more/two.conf": "maintenance_work_mem 65536\nautovacuum_work_mem = -1\nwal_buffers = -1\n",
        "data/postgresql.auto.conf": "# by ALTER SYSTEM\nhash_mem_multiplier = '1.5'\nshared_buffers = '1GB'\n",
        "data/PG_VERSION": "15\n",
    }
    words = ("-c", "config_file=/etc/pg/postgresql.conf", "--max-parallel-workers=4", "-N10")
    found = only(tree(tmp_path, ARGV[0], *words, files=files))
    assert found == Postgres(
        pid=7,
        start_ticks=9000,
        postgres_version="15",
        port=5433,
        shared_buffers_bytes=1024 * MIB,
        huge_pages="on",
        max_connections=10,
        work_mem_bytes=3 * MIB,
        hash_mem_multiplier=1.5,
        temp_buffers_bytes=8 * MIB,
        maintenance_work_mem_bytes=64 * MIB,
        max_parallel_workers=4,
        backends=0,
        origins=(
            ("huge_pages", "/etc/pg/conf.d/a.conf:3"),
            ("work_mem", "/etc/pg/conf.d/b.conf:1"),
            ("temp_buffers", "/etc/pg/conf.d/b.conf:2"),
            ("maintenance_work_mem", "/etc/pg/more/two.conf:1"),
            ("autovacuum_work_mem", "/etc/pg/more/two.conf:2"),
            ("wal_buffers", "/etc/pg/more/two.conf:3"),
            ("port", "/etc/pg/postgresql.conf:8"),
            ("hash_mem_multiplier", "/data/postgresql.auto.conf:2"),
            ("shared_buffers", "/data/postgresql.auto.conf:3"),
            ("max_parallel_workers", "command line"),
            ("max_connections", "command line"),
        ),
    )


def test_the_folder_may_be_told_by_the_environment(tmp_path: Path) -> None:
    host = tree(tmp_path, "postgres", files={"var/pg/postgresql.conf": "work_mem = 1MB"})
    (tmp_path / "proc/7/environ").write_bytes(b"SECRET=1\0PGDATA=/var/pg\0")
    assert only(host).work_mem_bytes == MIB


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-B", "100", "-S", "64"), {"shared_buffers": "100", "work_mem": "64"}),
        (("-ip5433", "-D/data"), {"port": "5433", "data_directory": "/data"}),
        (("-c", "work_mem=1MB", "--Work-Mem=2MB"), {"work_mem": "2MB"}),
        (("-o", "-S", "-B", "5"), {"shared_buffers": "5"}),  # -S is what -o is given
        (("-c",), {}),
        (("-c", "work_mem"), {}),
        (("-h", "-B", "stray", "-B", "5"), {}),
        (("-FB9",), {"shared_buffers": "9"}),
    ],
)
def test_a_command_line_is_read_as_the_postmaster_does(words: tuple[str, ...], told: dict[str, str]) -> None:
    assert read_words(("postgres", *words)).values == told


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("100", 8192, 819200),
        ("64kB", 1024, 64 * KIB),
        (" 4 MB ", 1024, 4 * MIB),
        ("1.5MB", 1024, 1536 * KIB),
        ("0x10", 1024, 16 * KIB),
        ("500B", 1024, 500),
        ("2TB", 1024, 2 << 40),
        ("-1", 1024, None),
        ("1mb", 1024, None),  # units are told apart by their letters' case
        ("1 M B", 1024, None),
        ("", 1024, None),
        ("٣MB", 1024, None),
        ("9" * 15 + "TB", 1024, None),
    ],
)
def test_a_size_is_read_as_postgresql_does(text: str, unit: int, size: int | None) -> None:
    assert parse_size(text, unit) == size


def test_those_that_serve_a_connection_are_counted(tmp_path: Path) -> None:
    host = tree(tmp_path, *ARGV)
    titles = (
        "postgres: checkpointer ",
        "postgres: 15/main: autovacuum launcher ",
        "postgres: me mine [local] idle",
        "postgres: 15/main: me mine 127.0.0.1(53412) SELECT",
        "postgres: me my base [local] idle in transaction",
        "postgres: walsender repl 10.0.0.2(4000) streaming START_REPLICATION",
        "postgres: parallel worker for PID 12 ",
        "postgres: 15/main: logical replication launcher ",
        "sh: me mine [local] idle",
    )
    for pid, title in enumerate(titles, 20):
        add(tmp_path, pid, 7, title)
    add(tmp_path, 50, 1, "postgres: me mine [local] idle")  # of another
    (found, *_), _ = seen(host)
    assert found.backends == 4


# -- files of anybody's making -----------------------------------------------------------------------------------------


def test_a_link_does_not_lead_out_of_the_root_of_the_process(tmp_path: Path) -> None:
    outside = tmp_path / "outside.conf"
    outside.write_text("work_mem = 1MB\n")
    root = tmp_path / "root"
    host = tree(root, *ARGV, files={"data/PG_VERSION": "15\n", "etc/real.conf": "work_mem = 2MB\n"})
    (root / "data/postgresql.conf").symlink_to(outside)
    assert only(host).work_mem_bytes is None
    (root / "data/postgresql.conf").unlink()
    (root / "data/postgresql.conf").symlink_to("../../../../etc/real.conf")  # upwards ends at the root
    assert only(host).work_mem_bytes == 2 * MIB
    (root / "data/postgresql.conf").unlink()
    (root / "data/postgresql.conf").symlink_to("/etc/real.conf")
    assert only(host).work_mem_bytes == 2 * MIB


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("include 'postgresql.conf'\nwork_mem = 1MB\n", None),  # itself: until PostgreSQL's own depth
        ("include_dir '/data'\ninclude_dir '/data'\n", "more than 64 files of settings"),
        ("work_mem = 1MB\nwork_mem = '2MB\n=\n", "2 of its lines cannot be understood"),
        ("#" * (MIB + 1), "larger than 1048576 bytes"),
    ],
)
def test_a_file_that_goes_too_far_is_a_gap(tmp_path: Path, text: str, reason: str | None) -> None:
    found, gaps = seen(tree(tmp_path, *ARGV, files={"data/postgresql.conf": text}))
    assert len(found) == 1
    assert [gap.reason for gap in gaps][:1] == ([] if reason is None else [reason])
    assert bool(found[0].unseen) == (reason is not None)


@pytest.mark.parametrize("make", ["fifo", "folder", "loop"])
def test_what_is_no_file_is_a_gap_and_is_not_waited_for(tmp_path: Path, make: str) -> None:
    host = tree(tmp_path, *ARGV, files={"data/PG_VERSION": "15\n"})
    path = tmp_path / "data/postgresql.conf"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    else:
        path.symlink_to("postgresql.conf")
    (found,), gaps = seen(host)
    assert [gap.place for gap in gaps] == ["/data/postgresql.conf, of process 7"]
    assert found.unseen == ("/data/postgresql.conf",)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("work_mem=' \\#\n\r\t9MB\0\x85é"), max_size=80) | st.text(max_size=80))
def test_any_text_is_read_and_no_line_is_lost(text: str) -> None:
    settings_, odd = parse_file(text)
    lines = [line for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]
    assert len(settings_) + odd == len(lines)
    assert all(name and name == name.lower() for _, name, _ in settings_)


_NAMES = st.sampled_from(("shared_buffers", "work_mem", "hash_mem_multiplier", "max_connections", "huge_pages", "port"))
_ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.from_regex(r"[0-9]{1,25}(\.[0-9]+)?(MB|TB)?")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(st.tuples(_NAMES, _ANY), max_size=6), words=st.lists(_ANY, max_size=4))
def test_any_setting_travels(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, str]], words: list[str]
) -> None:
    text = "".join(f"{name} = '{value}'\n" for name, value in told)
    argv = (*ARGV, *(word.replace("\0", "") for word in words))
    host = tree(tmp_path_factory.mktemp("any"), *argv, files={"data/postgresql.conf": text})
    found, gaps = seen(host)
    snapshot = Snapshot(machine=Machine(postgres=found), gaps=tuple(gaps))
    assert unpack(pack(snapshot)) == snapshot


# -- real servers ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with data_of_postgres(tmp_path_factory.mktemp("servers") / "pg") as folder:
        yield folder


def living(pid: int) -> tuple[Postgres, list[Gap]]:
    gaps: list[Gap] = []
    found = read_postgres(Host(), gaps, read_processes(Host(), []))
    (one,) = (server for server in found if server.pid == pid)
    return one, gaps


@pytest.mark.slow
def test_a_real_server_has_the_settings_that_are_read(data: Path) -> None:
    (data / "conf.d").mkdir()
    (data / "conf.d/mine.conf").write_text("work_mem = '7MB'\nhash_mem_multiplier = 3\ntemp_buffers = 300\n")
    with (data / "postgresql.conf").open("a") as config:
        config.write("include_dir 'conf.d'\nwork_mem = 3000 # too late?\nmax_parallel_workers=5\n")
    words = ("-B", "1000", "--autovacuum-max-workers=4", "-c", "max_connections=19")
    with postgres(data, *words) as server:
        assert server.psql("ALTER SYSTEM SET maintenance_work_mem = '33MB'").returncode == 0
        assert server.psql("SELECT pg_reload_conf()").returncode == 0
        found, _ = living(server.pid)
        names = "shared_buffers work_mem maintenance_work_mem temp_buffers".split()
        sizes = ", ".join(f"pg_size_bytes(current_setting('{name}'))" for name in names)
        counts = ", ".join(f"current_setting('{name}')" for name in ("max_connections", "autovacuum_max_workers"))
        said = server.psql(f"SELECT {sizes}, {counts}, current_setting('hash_mem_multiplier')").stdout.strip()
    assert said == "|".join(
        str(value)
        for value in (
            found.shared_buffers_bytes,
            found.work_mem_bytes,
            found.maintenance_work_mem_bytes,
            found.temp_buffers_bytes,
            found.max_connections,
            found.autovacuum_max_workers,
            f"{found.hash_mem_multiplier:g}",
        )
    )
    assert (found.postgres_version or "0") in server.folder.joinpath("PG_VERSION").read_text()
    assert found.max_parallel_workers == 5
    assert found.unseen == ()


@pytest.mark.slow
def test_the_connections_of_a_real_server_are_counted(data: Path) -> None:
    with postgres(data) as server:
        end = time.monotonic() + 60
        while (before := living(server.pid)[0]).backends and time.monotonic() < end:
            pass  # of who asked whether the server is there
        sessions = [server.start("SELECT pg_sleep(600)") for _ in range(3)]
        try:
            while server.waiting() < 3:
                pass
            during, _ = living(server.pid)
        finally:
            server.wake()
            for session in sessions:
                session.finish()
    assert (before.backends, during.backends) == (0, 3)


@pytest.mark.slow
def test_an_ordinary_user_is_told_that_the_files_cannot_be_read(data: Path) -> None:
    """Of a server of somebody else, whose folder is closed to all others."""
    code = """
import os, sys
from reprieve.machine.host import Host
from reprieve.machine.postgres import read_postgres
from reprieve.machine.proc import read_processes
os.setgroups([]); os.setgid(1); os.setuid(1)
gaps = []
found = read_postgres(Host(), gaps, read_processes(Host(), []))
(one,) = (server for server in found if server.pid == int(sys.argv[1]))
print(one.max_connections, len(one.unseen) > 0, any(gap.hint == "run it as root" for gap in gaps))
"""
    with postgres(data, "-c", "max_connections=11") as server:
        assert servers.as_stranger(code, str(server.pid)) == "11 True True\n"
