import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reprieve.machine.follow import Said, follow
from reprieve.model.finding import Failure, Gap
from tests.machine.real import missing


@pytest.fixture
def following() -> Iterator[Callable[[str | None, list[Gap]], Iterator[str | Said | None]]]:
    """`follow`, ended after the test: its signal handlers must not outlive it."""
    begun = []

    def begin(path: str | None, gaps: list[Gap]) -> Iterator[str | Said | None]:
        begun.append(follow(path, gaps))
        return begun[-1]

    yield begin
    for lines in begun:
        lines.close()  # type: ignore[attr-defined]  # it is a generator


Following = Callable[[str | None, list[Gap]], Iterator[str | Said | None]]


def test_there_is_nothing_to_follow_in_a_folder_a_device_or_nowhere(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="is a directory"):
        next(follow(str(tmp_path), []))
    with pytest.raises(Failure, match="is no log that grows"):
        next(follow("/dev/zero", []))
    with pytest.raises(Failure, match="does not exist"):
        next(follow(str(tmp_path / "absent"), []))


def test_what_was_in_a_file_before_is_not_told_again(tmp_path: Path, following: Following) -> None:
    path = tmp_path / "kern.log"
    path.write_text("old\n")
    lines = following(str(path), [])
    assert next(lines) is None  # it waits, and nothing has come
    _append(path, "new\n")
    assert next(lines) == "new"


def test_silence_is_told_once_when_what_came_is_complete(tmp_path: Path, following: Following) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    lines = following(str(path), [])
    assert next(lines) is None  # it is at the end, and waits
    _append(path, "one\ntwo\nthr")
    assert [next(lines) for _ in range(3)] == ["one", "two", None]
    _append(path, "ee\n")
    assert next(lines) == "three"


def test_a_file_is_followed_through_a_rename_and_through_emptying(tmp_path: Path, following: Following) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    gaps: list[Gap] = []
    lines = following(str(path), gaps)
    assert next(lines) is None
    _append(path, "one\n")
    assert next(lines) == "one"
    _append(path, "two\n")
    path.rename(tmp_path / "kern.log.1")
    threading.Timer(0.4, _append, (path, "three\n")).start()
    assert [next(line for line in lines if line is not None) for _ in range(2)] == ["two", "three"]
    os.truncate(path, 0)
    _append(path, "4\n")
    assert next(lines) == "4"
    assert gaps == []


def test_the_old_file_is_read_on_while_its_writer_has_not_heard_of_the_rename(
    tmp_path: Path, following: Following
) -> None:
    path, old = tmp_path / "kern.log", tmp_path / "kern.log.1"
    path.touch()
    lines = following(str(path), [])
    assert next(lines) is None
    path.rename(old)
    path.write_text("new\n")
    threading.Timer(0.5, _append, (old, "late\n")).start()
    assert next(line for line in lines if line is not None) == "late"
    assert next(line for line in lines if line is not None) == "new"


def test_a_successor_that_cannot_be_opened_is_told_of(tmp_path: Path, following: Following) -> None:
    path, old = tmp_path / "kern.log", tmp_path / "kern.log.1"
    path.touch()
    gaps: list[Gap] = []
    lines = following(str(path), gaps)
    assert next(lines) is None
    path.rename(old)
    path.symlink_to(path)
    threading.Timer(1.0, _append, (old, "late\n")).start()
    assert next(lines) == "late"
    assert [gap.place for gap in gaps] == [str(path)]


def test_a_successor_that_is_no_file_is_told_of(tmp_path: Path, following: Following) -> None:
    path, old = tmp_path / "kern.log", tmp_path / "kern.log.1"
    path.touch()
    gaps: list[Gap] = []
    lines = following(str(path), gaps)
    assert next(lines) is None
    path.rename(old)
    os.mkfifo(path)
    threading.Timer(2.5, _append, (old, "late\n")).start()  # a file that is replaced is read on for a second
    assert next(lines) == "late"
    assert [(gap.place, gap.reason) for gap in gaps] == [(str(path), "is no log that grows")]


def test_whoever_may_read_neither_buffer_nor_journal_is_told_why() -> None:
    code = """
import os
from reprieve.machine import journal, kmsg
from reprieve.machine.follow import follow
from reprieve.model.finding import Failure
os.setuid(65534)
os.environ["PATH"] = "/nowhere"
try:
    next(follow(None, []))
except Failure as failure:
    print(failure.message, "|", failure.hint)
"""
    if os.geteuid() != 0 or Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        missing("root, and kernel.dmesg_restrict")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    said = "/dev/kmsg: only root may read the kernel log here; journalctl: No such file or directory | run it with sudo"
    assert done.stdout == f"{said}\n"


def test_the_kernels_log_is_not_called_followed_where_journalctl_cannot_be_started_any_more(tmp_path: Path) -> None:
    code = """
import os, sys
from reprieve.machine import journal, kmsg
from reprieve.machine.follow import follow
from reprieve.model.finding import Failure
os.chdir(sys.argv[1])
os.setuid(65534)
os.environ["PATH"] = "."
gaps = []
try:
    next(follow(None, gaps))
except Failure as failure:
    print(failure.message, "|", failure.hint)
print(*((gap.place, gap.reason, gap.hides) for gap in gaps))
"""
    if os.geteuid() != 0 or Path("/proc/sys/kernel/dmesg_restrict").read_text().strip() == "0":
        missing("root, and kernel.dmesg_restrict")
    answers_once = tmp_path / "journalctl"  # answers, and is gone, as in an upgrade
    answers_once.write_text("#!/bin/sh\n/bin/rm \"$0\"\necho '{}'\n")
    answers_once.chmod(0o755)
    tmp_path.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=True, text=True)
    refused = "only root may read the kernel log here"
    assert done.stdout.splitlines() == [
        f"/dev/kmsg: {refused}; journalctl: No such file or directory | run it with sudo",
        f"('/dev/kmsg', '{refused}', True)",
    ]
    assert not answers_once.exists()


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_pipe_is_followed_to_its_end(tmp_path: Path, following: Following) -> None:
    path = str(tmp_path / "pipe")
    os.mkfifo(path)
    ready = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    os.write(writer, b"one\ncaf\xe9\nlast")
    lines = following(path, [])
    assert next(lines) is None  # it is heard, and has been written to: that somebody waits is told first
    assert [next(lines), next(lines)] == ["one", "caf\\xe9"]
    os.close(writer)
    assert list(lines) == ["last"]
    os.close(ready)


def test_an_endless_line_is_given_in_pieces(tmp_path: Path) -> None:
    code = "from reprieve.machine.follow import follow; print(*(len(line) for line in follow('-', []) if line))"
    done = subprocess.run([sys.executable, "-c", code], input=b"x" * 1_000_000, capture_output=True, check=True)
    lengths = [int(length) for length in done.stdout.split()]
    assert sum(lengths) == 1_000_000
    assert max(lengths) <= 128 * 1024


def test_the_kernels_own_log_is_followed_from_its_end(following: Following) -> None:
    if not os.access("/dev/kmsg", os.R_OK | os.W_OK):
        missing("the rights to read and write /dev/kmsg")
    words = f"reprieve follows {os.getpid()}"
    gaps: list[Gap] = []
    lines = following(None, gaps)
    assert next(lines) is None  # it is at the end, and waits
    Path("/dev/kmsg").write_text(f"<12>{words}\n")
    for line in lines:
        if isinstance(line, str) and words in line:
            assert line.startswith("12,")
            break
    assert gaps == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_a_second_one_acts_as_ever(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "kern.log"
    path.touch()
    code = f"""
import os, signal
from reprieve.machine.follow import follow
handlers = lambda: (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
before = handlers()  # a job in the background may have begun with SIGINT ignored
lines = follow({str(path)!r}, [])
print("begun", flush=True)
print(list(lines), flush=True)
print(before == handlers(), flush=True)
for line in follow({str(path)!r}, []):
    break
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        while "S" not in (state := Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2]):
            assert state
        os.kill(process.pid, number)
        assert process.stdout.readline() in ("[]\n", "[None]\n")
        assert process.stdout.readline() == "True\n"
        process.kill()
