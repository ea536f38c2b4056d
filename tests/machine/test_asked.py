"""`why docker:NAME`, `podman:NAME`, `pid:N`: what real engines tell, beside what this machine's kernel does."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.logs_of import LOGS
from tests.machine.engines import BUSYBOX, KINDS, Engine
from tests.machine.engines import engine as engine_here
from tests.machine.real import missing

pytestmark = pytest.mark.alone

MIB = 1 << 20
LOAD = (BUSYBOX, "dd", "if=/dev/zero", "of=/dev/null", "bs=80M", "count=1")  # holds 80 MiB at once


def test_a_file_of_that_name_is_a_file(reprieve: Run, tmp_path: Path) -> None:
    shutil.copy(LOGS / "084-ubuntu1404-mysqld-python-3.13.log", tmp_path / "docker:web")
    assert "docker:web:" in reprieve("why", "docker:web").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pid:x",), "'x' is no pid"),
        (("pid:0",), "'0' is no pid"),
        (("pid:7", "docker:web"), "by itself"),
        (("unit:nginx", "docker:web"), "asked for apart"),
        (("137", "docker:web"), "by itself"),
        (("--follow", "docker:web"), "--follow reads a log as it grows"),
        (("podman:web",), "Podman, at /nowhere/s, does not listen"),
        (("podman:a b",), "'a b' is no name of a container"),
        (("docker:",), "docker:: does not exist"),
    ],
)
def test_what_cannot_be_asked_for_is_told(arguments: tuple[str, ...], said: str, reprieve: Run) -> None:
    ended = reprieve("why", *arguments, CONTAINER_HOST="unix:///nowhere/s")
    assert ended.returncode == 1
    assert said in ended.stderr


def test_of_137_it_is_told_first_that_the_newest_kill_may_be_another(reprieve: Run, real_kill: str) -> None:
    ended = reprieve("why", "137")
    said = " ".join(ended.stdout.split())
    assert said.startswith(
        "Nothing ties that 137 to this kill, the newest here: docker:NAME, pod:NS/NAME, unit:NAME or"
    )
    assert "128 + 9: SIGKILL, whoever sent it: the kernel for memory, `docker stop`" in said
    assert said.count("SIGKILL, whoever") == 1
    assert ended.returncode in (0, 5)
    lines = reprieve("why", "137", "--json").stdout.splitlines()
    assert any('"place":"exit status 137"' in line for line in lines)


def test_of_137_without_a_kill_it_is_told_who_may_have_sent_it(reprieve: Run) -> None:
    said = " ".join(reprieve("why", "137", "--until", "1990-01-01").stdout.split())
    assert said.startswith(("None of the ", "The one event found ", "No OOM kill "))
    assert "Note “exit status 137”: 128 + 9: SIGKILL, whoever sent it: the kernel for memory, `docker stop`" in said


def test_a_status_that_is_no_sigkill_is_told_for_what_it_is(reprieve: Run, tmp_path: Path) -> None:
    for status, said in (("139", "is 128 + 11: SIGSEGV, "), ("143", "is 128 + 15: SIGTERM, ")):
        ended = reprieve("why", status)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert f"exit status {status} {said}" in ended.stderr
    shutil.copy(LOGS / "084-ubuntu1404-mysqld-python-3.13.log", tmp_path / "139")
    assert reprieve("why", "139").stdout.startswith("Killed ")


def test_who_lives_was_not_killed_and_that_is_said(reprieve: Run) -> None:
    ended = reprieve("why", f"pid:{os.getpid()}")
    assert f"process {os.getpid()} lives, as " in ended.stderr
    assert "reprieve next tells whom the kernel would kill" in ended.stderr


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    if not os.access("/dev/kmsg", os.R_OK):
        missing("a kernel log of its own")
    with engine_here(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


Why = Callable[..., str]


@pytest.fixture
def why(reprieve: Run, engine: Engine) -> Why:
    def ask(word: str) -> str:
        ended = reprieve("why", word, **engine.environment)
        assert ended.returncode in (0, 5), ended.stderr  # 5: another log of this machine cannot be read
        return " ".join(ended.stdout.split())

    return ask


def status(engine: Engine, name: str) -> str:
    """What is told of a flag that Podman sets since 5.0, and Docker when the container has ended."""
    version = engine.call("GET /version")["Version"]
    if engine.manager == "podman" and int(version.partition(".")[0]) < 5:
        return f"Podman does not call it one for memory: container {name}, OOMKilled is false"
    return f"{engine.title} says so too: container {name}, OOMKilled"


@pytest.mark.slow
def test_the_kill_of_a_containers_first_process_is_told_by_its_name_and_by_its_pid(engine: Engine, why: Why) -> None:
    container_id = engine.run("one", *LOAD, Memory=48 * MIB, MemorySwap=48 * MIB)
    assert engine.wait("one")["ExitCode"] == 137
    engine.run("later", *LOAD, Memory=48 * MIB, MemorySwap=48 * MIB)  # the newest kill is another's
    engine.wait("later")
    said = why(f"{engine.manager}:one")
    assert f"of {engine.title} container {container_id[:12]}, held" in said
    assert status(engine, "one") in said
    (pid,) = re.findall(r"Killed busybox \(pid (\d+)\)", said)
    assert f"Killed busybox (pid {pid}) of {engine.title} container {container_id[:12]}" in why(f"pid:{pid}")


@pytest.mark.slow
def test_the_kill_of_a_child_is_told_while_its_container_lives(engine: Engine, why: Why) -> None:
    container_id = engine.run("child", Memory=48 * MIB, MemorySwap=48 * MIB)
    assert engine.within("child", *LOAD) == 137
    said = why(f"{engine.manager}:{container_id[:12]}")
    assert f"of {engine.title} container {container_id[:12]}, held" in said
    assert f"{engine.title} does not call it one for memory: container child, OOMKilled is false" in said
    if engine.manager == "docker":
        assert "Docker sets it when a container ends, and this one runs" in said


@pytest.mark.slow
def test_what_was_killed_on_request_is_not_called_a_kill_for_memory(engine: Engine, why: Why) -> None:
    engine.run("asked")
    engine.call("POST /containers/asked/kill")
    assert engine.wait("asked")["ExitCode"] == 137
    said = why(f"{engine.manager}:asked")
    assert "SIGKILL ended container asked (exit status 137 = 128 + 9); nothing here proves that memory" in said
    assert said.startswith(("None of the ", "The one event found is not ", "No OOM kill ", "Nothing in "))


@pytest.mark.slow
def test_one_that_is_not_there_is_told_with_the_names_that_are_near(engine: Engine, reprieve: Run) -> None:
    engine.run("database")
    ended = reprieve("why", f"{engine.manager}:databse", **engine.environment)
    assert ended.returncode == 1
    assert ended.stderr == f"reprieve: {engine.title} knows no container databse\n  there is database\n"
