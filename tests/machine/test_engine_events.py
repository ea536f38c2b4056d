"""What engines tell of their containers while `why --follow` waits: sockets of our own, and real engines."""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reprieve.machine.engine import Ear, listen
from reprieve.machine.events import watch
from reprieve.machine.follow import Said, _lines, follow, told_to_end
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import OomReport
from tests.machine.engines import BUSYBOX, KINDS, Engine
from tests.machine.engines import engine as engine_here
from tests.machine.real import missing, program
from tests.test_why import CAPTURES, Following

MIB = 1 << 20
HOG = (BUSYBOX, "tail", "/dev/zero")
LIMITS = {"Memory": 20 * MIB, "MemorySwap": 20 * MIB}
HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
OOM = (CAPTURES / "docker26-event-oom.jsonl").read_bytes().splitlines(keepends=True)[0]
OOM_ID = "75a53e5c3c9e57cd31398318b5c4127d0226d20c3b5e6ef47bd06e2eac28d935"
KILL = (
    f"[ 9.5] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/docker/{OOM_ID},"
    f"task_memcg=/docker/{OOM_ID},task=hog,pid=77,uid=0\n"
    "[ 9.5] Memory cgroup out of memory: Killed process 77 (hog) total-vm:9kB, anon-rss:1kB, file-rss:0kB\n"
)


@contextmanager
def speaking(path: Path, *said: bytes, stays: bool = True) -> Iterator[None]:
    """A socket that says this to the first who asks, and then nothing, or ends."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        done = threading.Event()

        def answer() -> None:
            with listening.accept()[0] as asked, suppress(ConnectionError):  # who asked may have left
                asked.recv(65536)
                for words in said:
                    asked.sendall(words)
                    time.sleep(0.05)
                if stays:
                    done.wait(60)

        talk = threading.Thread(target=answer)
        talk.start()
        try:
            yield
        finally:
            done.set()
            talk.join()


def listening(path: Path, gaps: list[Gap]) -> list[Ear]:
    return [Ear("docker", str(path), gaps)]


def test_a_socket_that_is_absent_costs_nothing_and_is_no_gap(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert Ear("docker", str(tmp_path / "s"), gaps).descriptor is None
    assert gaps == []


def test_a_socket_where_nobody_listens_is_told(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "s"))
    assert Ear("docker", str(tmp_path / "s"), gaps).descriptor is None
    assert (gaps[0].place, gaps[0].reason) == (f"events of Docker, at {tmp_path}/s", "connection refused")
    assert not gaps[0].hides  # the kernel's log tells of the same kills


def test_a_socket_that_is_closed_to_us_is_told_with_who_may(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("root, to be somebody else")
    gaps: list[Gap] = []
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        assert Ear("podman", str(tmp_path / "s"), gaps).descriptor is None
    finally:
        os.seteuid(0)
    assert (gaps[0].reason, (gaps[0].hint or "")[:14]) == ("permission denied", "run it as root")


def test_one_that_answers_something_else_is_told(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    log = tmp_path / "kern.log"
    log.touch()
    with speaking(tmp_path / "s", b"HTTP/1.0 403 Forbidden\r\n\r\n", OOM):
        lines = follow(str(log), gaps, listening(tmp_path / "s", gaps))
        while not gaps:
            assert next(lines) is None
        lines.close()  # type: ignore[attr-defined]  # it is a generator
    assert gaps[0].reason.startswith("it answers HTTP/1.0 403 Forbidden")


def test_an_event_of_a_size_that_none_has_ends_it(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    with speaking(tmp_path / "s", HEAD, b"{" * 400_000):
        (ear,) = listening(tmp_path / "s", gaps)
        while not gaps:
            ear.hear()
    assert gaps[0].reason == "one of them is longer than 256 KiB"
    assert ear.descriptor is None


def heard_beside(path: Path, *words: str) -> int:
    """How many ears are lent to this socket while `podman` so called runs."""
    argv = ("podman", "-c", "import sys; print(flush=True); sys.stdin.read()", *words)
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, executable=sys.executable, stdin=pipe, stdout=pipe) as podman:
        assert podman.stdout is not None
        podman.stdout.readline()
        ears = [ear for ear in listen([], {"CONTAINER_HOST": f"unix://{path}"}) if ear.manager == "podman"]
        for ear in ears:
            ear.close()
        podman.communicate()
    return len(ears)


def test_podman_is_heard_where_the_owner_of_its_socket_runs_its_service(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as waits:
        waits.bind(str(tmp_path / "s"))
        waits.listen()
        assert heard_beside(tmp_path / "s", "run", "image", "service") == 0  # to ask would start one
        assert heard_beside(tmp_path / "s", "run", "image", "system", "service") == 0
        assert heard_beside(tmp_path / "s", "--log-level", "info", "system", "service", "--time=0") == 1
        if os.geteuid() == 0:
            os.chown(tmp_path / "s", 65534, 65534)
            assert heard_beside(tmp_path / "s", "system", "service") == 0


def test_one_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    log = tmp_path / "kern.log"
    log.touch()
    with socket.socket(socket.AF_UNIX) as hangs:
        hangs.bind(str(tmp_path / "s"))
        hangs.listen()
        lines = follow(str(log), gaps, listening(tmp_path / "s", gaps))
        assert next(lines) is None
        log.write_text("one\n")
        assert next(lines) == "one"
        lines.close()  # type: ignore[attr-defined]
    assert gaps == []


def test_what_it_says_comes_between_the_lines_of_the_log_and_its_end_is_told(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    log = tmp_path / "kern.log"
    log.touch()
    with speaking(tmp_path / "s", HEAD + OOM[:40], OOM[40:], stays=False):
        lines = follow(str(log), gaps, listening(tmp_path / "s", gaps))
        said = [next(lines)]
        while not gaps:
            said.append(next(lines))
        log.write_text("one\n")
        said += iter(lines.__next__, "one")
        lines.close()  # type: ignore[attr-defined]
    assert Said("docker", OOM.decode().rstrip("\n")) in said
    assert [gap.reason for gap in gaps] == ["it has ended them"]


def told(*lines: str | Said | None) -> list[tuple[str, tuple[str | None, ...]]]:
    """What is told of them: a kill or an end, and whose words are told with it."""
    found = []
    for seen in watch(iter(lines), "log", lambda _: True, []):
        if seen is not None and isinstance(seen.event, OomReport):
            found.append(("kill", tuple(ending.name for ending in seen.endings)))
        elif seen is not None and isinstance(seen.event, Ending):
            found.append((f"{seen.event.name} {seen.event.reason}", ()))
    return found


SAID = Said("docker", OOM.decode())
KERNEL = tuple(KILL.splitlines())


def test_the_kernels_report_and_the_engines_word_are_one_answer_whichever_comes_first() -> None:
    assert told(*KERNEL, SAID, None) == [("kill", ("o1",))]
    assert told(SAID, *KERNEL, None) == [("kill", ("o1",))]
    assert told(*KERNEL, None, SAID, None) == [("kill", ())]  # told already
    assert told(*KERNEL, SAID) == [("kill", ("o1",))]


def test_a_word_of_another_container_is_an_answer_of_its_own() -> None:
    other = Said("docker", OOM.decode().replace(OOM_ID, "d" * 64).replace('"o1"', '"other"'))
    assert told(*KERNEL, other, None) == [("kill", ()), ("other oom", ())]


def test_a_word_without_a_report_is_told_by_itself_and_a_stranger_s_line_is_none() -> None:
    assert told(SAID, None) == [("o1 oom", ())]
    assert told(SAID, SAID, None) == [("o1 oom", ())]  # it may be told of one kill again
    assert told(Said("docker", "[" * 100_000), Said("docker", '{"Type": 7}'), Said("docker", "null"), None) == []


def test_an_end_that_was_asked_for_is_told_and_one_of_which_nothing_is_known_is_not() -> None:
    events = [Said("docker", line) for line in (CAPTURES / "docker-events-oom.jsonl").read_text().splitlines()]
    assert ("kill1 kill", ()) in told(*events, None)
    ends = [said for said in events if '"Action":"die"' in said.text]
    assert len(ends) > 3
    assert told(*ends, None) == []


def test_a_word_is_told_though_the_log_is_never_quiet() -> None:
    def lines() -> Iterator[str | Said | None]:
        yield SAID
        for number in range(2000):
            time.sleep(0.02)
            yield f"[ {800 + number}.000000] nft: IN=eth0 OUT= SRC=192.0.2.1"
        raise AssertionError("it waited for silence")

    first = next(seen for seen in watch(lines(), "log", lambda _: True, []) if seen is not None)
    assert isinstance(first.event, Ending)


def test_a_word_that_has_waited_long_cuts_no_report_in_two() -> None:
    log = (CAPTURES / "dmesg-cri-oom.txt").read_text().splitlines()
    end = Said("docker", OOM.decode().replace('"oom"', '"die"'))

    def lines() -> Iterator[str | Said | None]:
        yield end
        yield SAID
        yield from log[: len(log) // 2]
        time.sleep(2.1)
        yield from log[len(log) // 2 :]

    seen = [found.event for found in watch(lines(), "log", lambda _: True, []) if found is not None]
    whole = [found.event for found in watch(iter(log), "log", lambda _: True, []) if found is not None]
    assert [event for event in seen if isinstance(event, OomReport)] == whole
    assert [event.name for event in seen if isinstance(event, Ending)] == ["o1"]


def test_a_report_that_comes_late_is_joined_to_what_the_engine_said_before() -> None:
    def lines() -> Iterator[str | Said | None]:
        yield SAID
        yield None
        time.sleep(2.1)
        yield None
        yield from (*KERNEL, None, *KERNEL, None)

    assert told(*lines()) == [("kill", ("o1",)), ("kill", ())]  # all at once: it has not waited

    def in_time() -> Iterator[tuple[str, tuple[str | None, ...]]]:
        for seen in watch(lines(), "log", lambda _: True, []):
            if seen is not None:
                yield type(seen.event).__name__, tuple(ending.name for ending in seen.endings)

    assert list(in_time()) == [("Ending", ()), ("OomReport", ("o1",)), ("OomReport", ())]


def test_an_ear_that_ends_is_no_silence_of_the_log(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    reading, writing = os.pipe()
    with (
        speaking(tmp_path / "s", b"HTTP/1.0 403 Forbidden\r\n\r\n"),
        os.fdopen(writing, "wb", buffering=0),
        told_to_end(listening(tmp_path / "s", gaps)) as wait,
    ):
        chunks = iter(lambda: b"" if wait(reading, 1.0) else None, b"")  # as _pipe waits
        lines = _lines(itertools.chain((None,), chunks), listening(tmp_path / "none", gaps))
        assert next(lines) is None  # at once: it can be heard
        begun = time.monotonic()
        assert next(lines) is None
        quiet_s = time.monotonic() - begun
    os.close(reading)
    assert gaps
    assert quiet_s >= 1.0


# -- real engines ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if not os.access("/dev/kmsg", os.R_OK):
        missing("a kernel log of its own")
    with engine_here(request.param, tmp_path) as started:
        yield started


def killing(engine: Engine, *command: str) -> Callable[[], None]:
    """Kills the next of its containers each time it is called: nobody tells when one has begun to listen."""
    count = itertools.count()

    def kill() -> None:
        name = f"hog-{next(count)}"
        engine.run(name, *command, **LIMITS)
        if not command:
            engine.call(f"POST /containers/{name}/kill")
        engine.wait(name)
        time.sleep(2)

    return kill


@pytest.mark.slow
@pytest.mark.alone
def test_a_kill_in_a_container_is_one_answer_that_names_it(engine: Engine) -> None:
    following = Following(env=engine.environment)
    said = following.until(f"{engine.title} says so too: container hog", killing(engine, *HOG))
    time.sleep(3)
    said = " ".join((said + following.stop()[1]).split())
    (name,) = re.findall(r"says so too: container (\S+?),", said)
    container_id = engine.call(f"GET /containers/{name}/json")["Id"]
    assert said.count(f"of {engine.title} container {container_id[:12]}, held") == 1
    assert said.count(f"container {name}") == 1


@pytest.mark.slow
@pytest.mark.alone
def test_an_end_that_was_asked_for_is_no_kill_for_memory(engine: Engine) -> None:
    following = Following("--cgroup", "hog-", env=engine.environment)
    said = following.until("Evidence", killing(engine)) + following.stop()[1]
    assert f"{engine.title} ended container hog-" in " ".join(said.split())
    assert "Killed" not in said


@pytest.mark.slow
@pytest.mark.alone
def test_where_the_kernels_log_is_closed_docker_alone_is_heard(tmp_path: Path) -> None:
    if Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        missing("kernel.dmesg_restrict=1")
    closed = (program("setpriv"), "--bounding-set=-syslog", "--inh-caps=-syslog")
    with engine_here("docker", tmp_path) as docker:
        following = Following(under=closed, env={"PATH": "/nowhere", **docker.environment})
        said = " ".join(following.until("$ docker logs", killing(docker, *HOG)).split())
        status, _, _ = following.stop()
    assert "Docker says that container hog-" in said
    assert "ran out of memory (event oom)" in said
    assert "The event is no count of kills" in said
    assert "/dev/kmsg" in said
    assert status == 5
