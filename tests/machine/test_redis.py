"""Redis servers: real ones, made-up trees of their files, and what anybody may answer in their place."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.codec import pack, unpack
from reprieve.machine.host import Host
from reprieve.machine.proc import read_processes
from reprieve.machine.redis import parse_file, parse_size, read_redis
from reprieve.machine.resp import NoAnswer, ask, parse
from reprieve.model.application import Redis
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.model.snapshot import Snapshot
from tests.machine import servers
from tests.machine.real import missing, program
from tests.machine.servers import redis
from tests.machine.test_postgres import add, tree

MIB = 1 << 20
ITSELF = "the server itself"
PLAIN = ("/usr/bin/redis-server", "/etc/r.conf")


def made(root: Path, *argv: str, files: dict[str, str] | None = None, comm: str = "redis-server") -> Host:
    return tree(root, *argv, files=files, comm=comm)


def seen(host: Host) -> tuple[tuple[Redis, ...], list[Gap]]:
    gaps: list[Gap] = []
    return read_redis(host, gaps, read_processes(host, gaps)), gaps


def only(host: Host) -> Redis:
    (found,), gaps = seen(host)
    assert gaps == []
    return found


# -- nothing to tell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("comm", "argv"),
    [
        ("redis-server", ("/usr/bin/sleep", "900")),
        ("sh", PLAIN),
        ("redis-sentinel", ("/usr/bin/redis-sentinel", "/etc/sentinel.conf")),
        ("redis-server", ("redis-server *:26379 [sentinel]",)),
        ("redis-check-rdb", ("redis-check-rdb", "dump.rdb")),
    ],
)
def test_what_is_no_server_is_none(tmp_path: Path, comm: str, argv: tuple[str, ...]) -> None:
    assert seen(made(tmp_path, *argv, comm=comm)) == ((), [])


def test_a_child_that_saves_is_none_of_its_own(tmp_path: Path) -> None:
    host = made(tmp_path, *PLAIN)
    add(tmp_path, 8, 7, *PLAIN, comm="redis-server")
    assert only(host).pid == 7


def test_a_server_of_a_capture_whose_files_are_not_there_is_told_nothing(tmp_path: Path) -> None:
    assert only(made(tmp_path, *PLAIN)) == Redis(pid=7, start_ticks=9000, unseen=(ITSELF,))


# -- what is told, and where -------------------------------------------------------------------------------------------


def test_of_a_capture_its_files_and_its_words_are_read(tmp_path: Path) -> None:
    files = {
        "etc/r.conf": (
            "port 7000\nmaxmemory 1gb\nsave 900 1\nsave 300 10 60 1000\ninclude /etc/r.d/*.conf\n"
            "client-output-buffer-limit normal 0 0 0\nclient-output-buffer-limit replica 64mb 32mb 60\n"
            "Requirepass secret\n"
        ),
        "etc/r.d/a.conf": 'MaxMemory "200mb"\nmaxmemory-policy allkeys-lru\n',
        "etc/r.d/b.txt": "maxmemory 300mb\n",
    }
    words = ("--appendonly", "yes", "--repl-backlog-size", "2mb")
    assert only(made(tmp_path, *PLAIN, *words, files=files)) == Redis(
        pid=7,
        start_ticks=9000,
        port=7000,
        maxmemory_bytes=200 * MIB,
        maxmemory_policy="allkeys-lru",
        save="900 1 300 10 60 1000",
        appendonly=True,
        replica_buffer_bytes=64 * MIB,
        repl_backlog_size_bytes=2 * MIB,
        origins=(
            ("port", "/etc/r.conf:1"),
            ("save", "/etc/r.conf:4"),
            ("maxmemory", "/etc/r.d/a.conf:1"),
            ("maxmemory-policy", "/etc/r.d/a.conf:2"),
            ("client-output-buffer-limit", "/etc/r.conf:7"),
            ("appendonly", "command line"),
            ("repl-backlog-size", "command line"),
        ),
        unseen=(ITSELF,),
    )


def test_behind_a_title_the_usual_file_counts_if_it_is_of_that_port(tmp_path: Path) -> None:
    files = {"etc/redis/redis.conf": "maxmemory 100mb\n"}
    assert only(made(tmp_path / "a", "redis-server 127.0.0.1:6379", "", "", files=files)).maxmemory_bytes == 100 * MIB
    other = only(made(tmp_path / "b", "redis-server *:6380 [cluster]", "", "", files=files))
    assert (other.maxmemory_bytes, other.port) == (None, 6380)


def test_an_empty_save_takes_back_those_before(tmp_path: Path) -> None:
    assert only(made(tmp_path, *PLAIN, files={"etc/r.conf": 'save 900 1\nsave ""\n'})).save == ""
    host = made(tmp_path / "b", *PLAIN, files={"etc/r.conf": 'save ""\nsave 60 1\n'})
    assert only(host).save == "60 1"


def test_a_file_named_from_another_folder_is_said_not_to_be_seen(tmp_path: Path) -> None:
    found = only(made(tmp_path, "redis-server", "my.conf", "--maxmemory", "5mb"))
    assert (found.maxmemory_bytes, found.unseen) == (5 * MIB, (ITSELF, "my.conf"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("1k", 1000),
        ("1KB", 1024),
        ("2m", 2_000_000),
        ("1gb", 1 << 30),
        ("3b", 3),
        ("-1", None),
        ("1 mb", None),
        ("10%", None),
        ("", None),
        ("9" * 18 + "gb", None),
    ],
)
def test_a_size_is_read_as_redis_does(text: str, size: int | None) -> None:
    assert parse_size(text) == size


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("save 9'\"\\#\n\r\tmb\0\x85é"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_and_no_line_is_lost(text: str) -> None:
    told, odd = parse_file(text)
    lines = [line.strip(" \t\r") for line in text.split("\n")]
    assert len(told) + odd == len([line for line in lines if line and not line.startswith("#")])


_NAMES = st.sampled_from(("maxmemory", "save", "client-output-buffer-limit", "appendonly", "include", "port"))
_ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.from_regex(r"[0-9]{1,25}( [0-9]+)?(mb|g)?")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(told=st.lists(st.tuples(_NAMES, _ANY), max_size=6), words=st.lists(_ANY, max_size=4))
def test_any_setting_travels(
    tmp_path_factory: pytest.TempPathFactory, told: list[tuple[str, str]], words: list[str]
) -> None:
    text = "".join(f"{name} {value}\n" for name, value in told)
    argv = (*PLAIN, *(word.replace("\0", "") for word in words))
    found, gaps = seen(made(tmp_path_factory.mktemp("any"), *argv, files={"etc/r.conf": text}))
    snapshot = Snapshot(machine=Machine(redis=found), gaps=tuple(gaps))
    assert unpack(pack(snapshot)) == snapshot


# -- answers of anybody's making ---------------------------------------------------------------------------------------

ANSWER = b"$2\r\nhi\r\n-ERR no\r\n*2\r\n$4\r\nsave\r\n$0\r\n\r\n+OK\r\n:5\r\n*0\r\n"


def test_an_answer_is_whole_only_at_its_end() -> None:
    assert parse(ANSWER, 6) == ["hi", "-ERR no", ["save", ""], "OK", "5", []]
    for end in range(len(ANSWER)):
        assert parse(ANSWER[:end], 6) is None


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from([b"$", b"*", b"-", b"+", b":", b"\r\n", b"1", b"3", b"99999999", b"x"]), max_size=12))
def test_any_answer_is_read_or_refused(parts: list[bytes]) -> None:
    try:
        answers = parse(b"".join(parts), 2)
    except ValueError:
        return
    assert answers is None or len(answers) == 2


@contextmanager
def answering(path: Path, answer: bytes, *, closes: bool) -> Iterator[Process]:
    """This process, at whose socket this is answered."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        done = threading.Event()

        def serve() -> None:
            asker, _ = listener.accept()
            with asker:
                asker.recv(4096)
                try:
                    asker.sendall(answer)
                except OSError:  # it had enough
                    return
                if not closes:
                    done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Process(pid=os.getpid(), start_ticks=1)
        finally:
            done.set()
            thread.join(10)


OWN = f"# Server\r\nprocess_id:{os.getpid()}\r\n".encode()


@pytest.mark.parametrize(
    ("answer", "closes", "reason"),
    [
        (b"-NOAUTH Authentication required.\r\n-NOAUTH\r\n", True, "it asks for a password, and none is tried"),
        (b"-NOPERM no\r\n-NOPERM no\r\n", True, "it refuses to tell of itself"),
        (b"$26\r\n# Server\r\nprocess_id:1\r\n\r\n\r\n-\r\n", True, "another process answers in its place"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "its answer is none of a Redis server"),
        (b"", True, "its answer is none of a Redis server"),
        (b"$5\r\nab", True, "its answer is none of a Redis server"),
        (b"$9999999\r\n" + bytes(2 * MIB), False, "its answer is none of a Redis server"),
        (b"$5\r\nab", False, "it did not answer in time"),
        (b"", False, "it did not answer in time"),
    ],
)
def test_who_does_not_answer_as_redis_does_is_told_so(tmp_path: Path, answer: bytes, closes: bool, reason: str) -> None:
    path = tmp_path / "socket"
    with answering(path, answer, closes=closes) as process, pytest.raises(NoAnswer, match=reason):
        ask(Host(), process, (("INFO",), ("PING",)), path=str(path), port=0, until=time.monotonic() + 0.3)


def test_a_refused_setting_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with answering(path, b"$%d\r\n%b\r\n-NOPERM\r\n" % (len(OWN), OWN), closes=False) as process:
        answers = ask(Host(), process, (("INFO",), ("X",)), path=str(path), port=0, until=time.monotonic() + 5)
    assert answers == [OWN.decode(), "-NOPERM"]


@pytest.mark.parametrize("make", ["absent", "file", "stale"])
def test_a_socket_that_is_none_is_told_so(tmp_path: Path, make: str) -> None:
    path = tmp_path / "socket"
    if make == "file":
        path.touch()
    elif make == "stale":
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    process = Process(pid=os.getpid(), start_ticks=1)
    with pytest.raises(NoAnswer, match=r"no such file|its socket is none|connection refused"):
        ask(Host(), process, (("INFO",),), path=str(path), port=0, until=time.monotonic() + 1)


CALLED_SO = """
import os, socket, sys
info = f"# Server\\r\\nprocess_id:{os.getpid()}\\r\\nconfig_file:/tmp/a\\0b\\r\\nmaxmemory:5\\r\\n".encode()
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[-1])
    listener.listen()
    print("listens", flush=True)
    while True:
        asker, _ = listener.accept()
        with asker:
            asker.recv(4096)
            asker.sendall(b"$%d\\r\\n%b\\r\\n" % (len(info), info) + b"*0\\r\\n" * 3)
"""


def test_a_path_that_can_be_none_stops_nobody(tmp_path: Path) -> None:
    """Anybody may have a program of this name, which says what it likes."""
    called_so, listens = tmp_path / "redis-server", tmp_path / "s"
    shutil.copy(os.path.realpath(sys.executable), called_so)
    env = os.environ | {"PYTHONHOME": sys.base_prefix, "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib"}
    argv = [str(called_so), "-c", CALLED_SO, "--unixsocket", str(listens)]
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"listens\n"
            found, gaps = living(running.pid)
        finally:
            running.kill()
    assert (found.maxmemory_bytes, found.config_file, gaps) == (5, None, [])


# -- real servers ------------------------------------------------------------------------------------------------------


def living(pid: int, *, deadline_s: float = 5) -> tuple[Redis, list[Gap]]:
    gaps: list[Gap] = []
    found = read_redis(Host(), gaps, read_processes(Host(), []), deadline_s=deadline_s)
    (one,) = (server for server in found if server.pid == pid)
    return one, [gap for gap in gaps if gap.place.endswith(f"process {pid}")]


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("by", ["socket", "port"])
def test_a_real_server_tells_what_holds_now(tmp_path: Path, by: str) -> None:
    words = ("--bind", "127.0.0.1", "--port", free_port()) if by == "port" else ()
    with redis(tmp_path, "--maxmemory", "20mb", "--save", "900", "1", *words) as server:
        assert server.cli("CONFIG", "SET", "maxmemory", "31mb", "maxmemory-policy", "volatile-lru").stdout == "OK\n"
        assert server.cli("CONFIG", "SET", "client-output-buffer-limit", "replica 10mb 5mb 60").stdout == "OK\n"
        assert server.cli("SETRANGE", "key", "2000000", "x").stdout == "2000001\n"
        found, gaps = living(server.pid)
        info = server.cli("INFO").stdout
    assert gaps == []
    assert (found.maxmemory_bytes, found.maxmemory_policy) == (31 * MIB, "volatile-lru")
    assert (found.save, found.appendonly, found.replicas) == ("900 1", False, 0)
    assert (found.replica_buffer_bytes, found.repl_backlog_size_bytes) == (10 * MIB, MIB)
    assert f"redis_version:{found.redis_version}\n" in info.replace("\r", "")
    assert dict(found.origins)["maxmemory"] == ITSELF
    assert (found.used_memory_bytes or 0) > 2_000_000
    assert found.unseen == ()


@pytest.mark.slow
def test_a_server_in_a_network_of_its_own_is_asked_there(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, to go into the network of another")
    words = ("--bind", "127.0.0.1", "--port", "6379", "--maxmemory", "12mb")
    before = (program("unshare"), "--map-root-user", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    with redis(tmp_path, *words, before=before) as server:
        (tmp_path / "redis.sock").unlink()
        found, gaps = living(server.pid)
    assert gaps == []
    assert (found.maxmemory_bytes, found.port) == (12 * MIB, 6379)


@pytest.mark.slow
def test_a_server_that_wants_a_password_is_not_tried(tmp_path: Path) -> None:
    config = tmp_path / "r.conf"
    config.write_text("maxmemory 77mb\nrequirepass secret\nset-proc-title no\n")
    servers.own(config)
    with redis(tmp_path, str(config)) as server:
        found, gaps = living(server.pid)
    assert [(gap.reason, gap.hint) for gap in gaps] == [
        ("it asks for a password, and none is tried", "what its file says is taken")
    ]
    assert (found.maxmemory_bytes, found.unseen) == (77 * MIB, (ITSELF,))
    assert dict(found.origins)["maxmemory"] == f"{config}:1"


@pytest.mark.slow
def test_a_server_that_stands_still_costs_its_deadline(tmp_path: Path) -> None:
    with redis(tmp_path, "--bind", "127.0.0.1", "--port", free_port()) as server:
        os.kill(server.pid, 19)  # SIGSTOP
        try:
            found, gaps = living(server.pid, deadline_s=0.2)
        finally:
            os.kill(server.pid, 18)
    assert [gap.reason for gap in gaps] == ["it did not answer in time"]
    assert found.maxmemory_bytes is None


@pytest.mark.slow
def test_nothing_of_its_password_or_its_keys_is_kept(tmp_path: Path) -> None:
    with redis(tmp_path, "--masterauth", "hunter2", "--maxmemory", "9mb") as server:
        server.cli("SET", "mykey", "myvalue")
        found, _ = living(server.pid)
    assert not any(word in repr(found) for word in ("hunter2", "mykey", "myvalue"))


@pytest.mark.slow
def test_an_ordinary_user_asks_too(tmp_path: Path) -> None:
    code = """
import os, sys
from reprieve.machine.host import Host
from reprieve.machine.proc import read_processes
from reprieve.machine.redis import read_redis
os.setgroups([]); os.setgid(1); os.setuid(1)
(one,) = (server for server in read_redis(Host(), [], read_processes(Host(), [])) if server.pid == int(sys.argv[1]))
print(one.maxmemory_bytes)
"""
    with redis(tmp_path, "--bind", "127.0.0.1", "--port", free_port(), "--maxmemory", "14mb") as server:
        assert servers.as_stranger(code, str(server.pid)) == f"{14 * MIB}\n"


@pytest.mark.slow
@pytest.mark.parametrize("contained", [False, True])
def test_its_file_is_ours_to_change_unless_it_is_in_a_container(tmp_path: Path, contained: bool) -> None:
    """What lies in a container, and where, its root may change while we write there."""
    config = tmp_path / "r.conf"
    config.write_text("maxmemory 77mb\n")
    servers.own(config)
    before: tuple[str, ...] = ("sh", "-c", 'exec "$@"', "sh")
    if contained:
        before = (program("unshare"), "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")
    with redis(tmp_path, str(config), before=before) as server:
        pid = server.pid
        if contained:
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
        found, _ = living(pid)
    assert found.maxmemory_bytes == 77 * MIB
    assert found.config_file == (None if contained else str(config))
