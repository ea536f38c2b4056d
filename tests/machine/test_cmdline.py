"""What a process was started with: files that it names are read as it sees them, and nothing else is opened."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprieve.machine.cmdline import FILE_BYTES, read_file, read_started, running
from reprieve.machine.host import Host
from reprieve.machine.proc import Problems, read_processes
from reprieve.model.process import Process
from tests.machine.real import missing, program

CAPTURED = Process(pid=7, start_ticks=9000)


@pytest.fixture
def captured(tmp_path: Path) -> Host:
    """A captured machine, with a file in it and a secret beside it."""
    root = tmp_path / "made-up"
    (root / "app/conf").mkdir(parents=True)
    (root / "app/conf/words").write_text("-Xmx1g")
    (tmp_path / "secret").write_text("secret")
    return Host(str(root))


def test_a_file_is_read_and_links_within_its_root_are_followed(captured: Host) -> None:
    root = Path(captured.root)
    (root / "absolute").symlink_to("/app/conf")
    (root / "app/relative").symlink_to("../app/./conf//words")
    for path in ("/app/conf/words", "/absolute/words", "/app/relative", "/app/../../../app/conf/words"):
        assert read_file(captured, CAPTURED, path) == "-Xmx1g"


def test_nothing_out_of_its_root_is_read(captured: Host) -> None:
    root = Path(captured.root)
    (root / "upwards").symlink_to("../secret")
    (root / "away").symlink_to(root.parent / "secret")
    (root / "folder").symlink_to(root.parent)
    for path in ("/upwards", "/away", "/folder/secret", "/../secret", "../secret"):
        assert read_file(captured, CAPTURED, path) is None


def test_what_is_no_regular_file_is_not_opened(captured: Host) -> None:
    root = Path(captured.root)
    os.mkfifo(root / "pipe")
    (root / "circle").symlink_to("circle")
    (root / "words").symlink_to("pipe")
    deep = "/".join(["app/.."] * 2000)
    for path in (
        "/pipe",
        "/words",
        "/circle",
        "/app",
        "/",
        "",
        "/nowhere",
        "/app/conf/words/x",
        "/\0",
        "/" + "a" * 5000,
    ):
        assert read_file(captured, CAPTURED, path) is None
    assert read_file(captured, CAPTURED, f"/{deep}/app/conf/words") == "-Xmx1g"


def test_a_large_file_is_read_in_part(captured: Host) -> None:
    (Path(captured.root) / "large").write_bytes(b"x" * (FILE_BYTES + 9))
    assert len(read_file(captured, CAPTURED, "/large") or "") == FILE_BYTES


@pytest.fixture
def jailed(tmp_path: Path) -> Iterator[Process]:
    """A process with a root of its own, in which a file stands that our root has too, with something else in it."""
    if os.geteuid() != 0:
        missing("root, for a root of its own")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hostname").write_text("its own")
    (tmp_path / "etc/link").symlink_to("/etc/hostname")
    (tmp_path / "etc/null").symlink_to("/dev/null")
    pid = os.fork()
    if pid == 0:
        os.chroot(tmp_path)
        os.chdir("/etc")
        signal.pause()
    try:
        while os.readlink(f"/proc/{pid}/cwd") != str(tmp_path / "etc"):
            pass
        (process,) = read_processes(Host(), [], pids=[pid])
        yield process
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_file_is_the_one_that_the_process_sees(jailed: Process) -> None:
    assert read_file(Host(), jailed, "/etc/hostname") == "its own"
    assert read_file(Host(), jailed, "/etc/link") == "its own"
    assert read_file(Host(), jailed, "/etc/null") is None


def test_what_has_gone_meanwhile_is_left_out() -> None:
    child = subprocess.Popen([program("sleep"), "60"])
    (process,) = read_processes(Host(), [], pids=[child.pid])
    child.kill()
    child.wait()
    problems: Problems = {}
    assert list(running(Host(), [process], ("sleep",))) == []
    assert read_started(Host(), process, None, ("HOME",), problems) is None
    assert problems == {}


def test_what_has_only_begun_is_left_out(captured: Host) -> None:
    folder = Path(captured.root) / "proc/7"
    folder.mkdir(parents=True)
    stat = "7 (java) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9000 3133440 390 18446744073709551615 1 1\n"
    (folder / "stat").write_text(stat)
    for words, expected in (("", False), ("java\0", True)):
        (folder / "cmdline").write_text(words)
        assert (read_started(captured, CAPTURED, None, (), {}) is not None) == expected


def test_another_process_of_the_same_number_is_not_taken_for_it() -> None:
    (process,) = read_processes(Host(), [], pids=[os.getpid()])
    other = Process(pid=process.pid, start_ticks=process.start_ticks + 1)
    assert read_started(Host(), other, None, ("HOME",), {}) is None


def test_the_environment_is_that_which_was_asked_for() -> None:
    environ = {"SECRET": "hunter2", "WANTED": "a=b", "EMPTY": ""}
    child = subprocess.Popen([program("sleep"), "60"], env=environ)
    try:
        (process,) = read_processes(Host(), [], pids=[child.pid])
        while not Path(f"/proc/{child.pid}/environ").read_bytes():
            pass
        started = read_started(Host(), process, None, ("WANTED", "EMPTY", "ABSENT"), {})
    finally:
        child.kill()
        child.wait()
    assert started is not None
    assert started.environ == {"WANTED": "a=b", "EMPTY": ""}
    assert started.words == (program("sleep"), "60")
