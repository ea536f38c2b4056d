"""`reprieve` on Windows, as far as Wine is one: it takes limits of memory and drops them, and keeps no peaks."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import jsonschema
import pytest

from tests.conftest import Run
from tests.logs_of import LOGS
from tests.machine.real import program
from tests.windows import PYTHON, Windows, windows

pytestmark = [pytest.mark.slow, pytest.mark.alone]  # two workers would make two of it

_SCHEMA = Path(__file__).parents[1] / "docs" / "schema" / "why-1.json"
_PATIENCE_S = 60.0
_FAMILY = """
import subprocess, sys, time
if sys.argv[1] == "child":
    print("ready", flush=True)
    time.sleep(600)
child = subprocess.Popen([sys.executable, __file__, "child", *sys.argv[2:]], stdout=subprocess.PIPE)
print(child.stdout.readline().decode().strip(), flush=True)
time.sleep(600 if sys.argv[1] == "stays" else 0)
sys.exit(7)
"""
_IS_IN_JOB = """
import ctypes
within, kernel = ctypes.c_int(), ctypes.WinDLL("kernel32")
kernel.GetCurrentProcess.restype = ctypes.c_void_p
kernel.IsProcessInJob(ctypes.c_void_p(kernel.GetCurrentProcess()), None, ctypes.byref(within))
print(within.value)
"""
_IS_TOLD_OF_LIMITS = """
import sys
from reprieve.machine import job
made = job.Job()
made.limit(None)
for message in (6, 9, 10, 10):  # NEW_PROCESS, PROCESS_MEMORY_LIMIT, JOB_MEMORY_LIMIT
    job._windows.PostQueuedCompletionStatus(made._port, message, 1, None)
made.start(("cmd", "/c", "exit 4"))
print(made.await_end(None).status, made.use().at_max)
"""
_PRESSES_CTRL_C = """
import os, signal, sys, time
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
for time_s in range(int(sys.argv[1])):
    os.kill(0, signal.CTRL_C_EVENT)
    while len(heard) <= time_s:
        time.sleep(0.01)
print("heard", len(heard), flush=True)
while len(heard) > 1:  # it is ended
    time.sleep(0.01)
sys.exit(9)
"""
_REFUSES = """
import click
from reprieve.cli import cli
for option in ("--high=1G", "--swap-max=0", "--adj=0", "--nice=0", "--node=0", "--user=me", "--smallest"):
    try:
        cli.main(["run", option, "--", "cmd", "/c", "echo x > made"], standalone_mode=False)
    except click.UsageError as error:
        print(error.exit_code, error.message)
"""


@pytest.fixture(scope="module")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Windows]:
    program("wine")
    program("wineserver")
    with windows(tmp_path_factory.mktemp("windows")) as made:
        for name, text in (
            ("family.py", _FAMILY),
            ("in_job.py", _IS_IN_JOB),
            ("told.py", _IS_TOLD_OF_LIMITS),
            ("presses.py", _PRESSES_CTRL_C),
            ("refuses.py", _REFUSES),
        ):
            (made.folder / name).write_text(text)
        yield made


def processes(mark: str) -> list[int]:
    """Of this machine, those with a word in their command line: a process of Wine is one of them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def until_gone(mark: str) -> bool:
    end = monotonic() + _PATIENCE_S
    while processes(mark) and monotonic() < end:
        sleep(0.05)
    return not processes(mark)


def test_a_log_is_explained_as_on_linux(wine: Windows, reprieve: Run, tmp_path: Path) -> None:
    log = "084-ubuntu1404-mysqld-python-3.13.log"
    for folder in (wine.folder, tmp_path):
        shutil.copy(LOGS / log, folder)
        subprocess.run(["gzip", "--keep", log], cwd=folder, check=True)
    for arguments in (("why", "-v", log), ("why", "--json", f"{log}.gz")):
        there, here = wine.reprieve(*arguments), reprieve(*arguments)
        assert (there.returncode, there.stderr) == (here.returncode, here.stderr)
        assert there.stdout == here.stdout
    assert "python" in there.stdout


def test_nothing_is_listed_that_is_not_there(wine: Windows) -> None:
    told = wine.reprieve("--help").stdout.partition("Commands:")[2]
    assert [line.split()[0] for line in told.splitlines() if line.strip()] == ["run", "why"]
    said = wine.reprieve("check")
    assert said.returncode == 2
    assert "not there on Windows" in said.stderr
    assert "--high" not in wine.reprieve("run", "--help").stdout


def test_without_a_log_it_says_that_one_is_to_be_named(wine: Windows) -> None:
    said = wine.reprieve("why")
    assert said.returncode == 1
    assert "name a log of a Linux machine: reprieve why FILE" in said.stderr


def test_a_limit_that_is_dropped_is_refused_and_nothing_has_run(wine: Windows) -> None:
    said = wine.reprieve("run", "--max", "64M", "--", "cmd", "/c", "echo x > made")
    assert said.returncode == 125
    assert "--max is not kept by this Windows: JobMemoryLimit reads 0, not 67108864" in said.stderr
    assert not (wine.folder / "made").exists()
    assert wine.reprieve("run", "-q", "--", "cmd", "/c", "echo x > made").returncode == 0
    assert (wine.folder / "made").exists()


def test_what_windows_has_no_equal_for_is_refused(wine: Windows) -> None:
    (wine.folder / "made").unlink(missing_ok=True)
    told = wine.python("refuses.py").stdout.splitlines()
    options = ["--high", "--swap-max", "--adj", "--nice", "--node", "--user", "--smallest"]
    assert told == [f"125 {option} is not there on Windows" for option in options]
    assert not (wine.folder / "made").exists()


def test_the_exit_status_is_the_commands_own_or_tells_that_it_is_ours(wine: Windows) -> None:
    (wine.folder / "text").write_text("no program")
    (wine.folder / "batch.bat").write_text("exit 0")
    for command, status, says in (
        (["cmd", "/c", "exit 3"], 3, ""),
        (["no-such-program"], 127, "no-such-program: there is no such program"),
        (["text"], 126, "text is no program"),
        (["batch.bat"], 126, "reprieve run -- cmd /c batch.bat"),
    ):
        said = wine.reprieve("run", "-q", "--", *command)
        assert said.returncode == status
        assert says in said.stderr
        assert (said.stderr == "") is (says == "")


def test_words_reach_the_command_as_they_are_and_it_runs_in_the_job_from_its_start(wine: Windows) -> None:
    shows = "import sys; print(ascii(sys.argv[1:]))"
    words = ['a "b" c', "d\\", "", "ä%PATH%", "*", "~"]
    assert wine.reprieve("run", "-q", "--", PYTHON, "-c", shows, *words).stdout == f"{words!a}\n"
    assert wine.python("in_job.py").stdout == "0\n"
    assert wine.reprieve("run", "-q", "--", PYTHON, "in_job.py").stdout == "1\n"


def test_facts_are_reported(wine: Windows) -> None:
    ends = "import os; os._exit(-1073741819)"  # STATUS_ACCESS_VIOLATION
    said = wine.reprieve("run", "-v", "--report", "facts", "--", PYTHON, "-c", ends)
    assert "without a limit, in a job object" in said.stderr
    assert "with status 0xc0000005" in said.stderr
    ran, end = map(json.loads, (wine.folder / "facts").read_text().splitlines())
    for one in (ran, end):
        jsonschema.Draft202012Validator(json.loads(_SCHEMA.read_text())).validate(one)
    assert ran["run"]["enforcement"]["means"] == "job"
    assert ran["run"]["status"] == 0xC0000005
    assert ran["run"]["use"]["peak_bytes"] is None  # Wine keeps none, which is not 0


def test_messages_of_the_limit_are_counted(wine: Windows) -> None:
    """Sent by the test, to the real port: Wine never sends one."""
    assert wine.python("told.py").stdout == "4 3\n"


def test_who_outlives_the_command_is_ended_and_that_is_told(wine: Windows) -> None:
    said = wine.reprieve("run", "--", PYTHON, "family.py", "leaves", "left-behind")
    assert (said.returncode, said.stdout) == (7, "ready\n")
    assert "1 process that it had started and that outlived it" in said.stderr
    assert until_gone("left-behind")


def test_when_its_time_is_over_all_of_it_is_ended(wine: Windows) -> None:
    said = wine.reprieve("run", "--time", "3s", "--", PYTHON, "family.py", "stays", "out-of-time")
    assert said.returncode == 137
    assert "as its time was over" in said.stderr
    assert until_gone("out-of-time")


def test_when_reprieve_is_killed_nothing_stays_behind(wine: Windows) -> None:
    argv = wine.argv("-m", "reprieve", "run", "-q", "--", PYTHON, "family.py", "stays", "job-closed")
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=wine.folder, env=wine.environ, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(processes("job-closed")) == 3  # reprieve, the command, and its child
        process.kill()
        assert until_gone("job-closed")


@pytest.mark.parametrize(("times", "status", "heard"), [(1, 9, "heard 1\n"), (2, 137, None)])
def test_ctrl_c_reaches_the_command_and_a_second_one_ends_all_of_it(
    times: int, status: int, heard: str | None, wine: Windows
) -> None:
    ours, console = pty.openpty()  # of which Wine makes a console
    said = wine.reprieve(*("run", "-q", "--report", "facts", "--", PYTHON, "presses.py", str(times)), stdin=console)
    os.close(console)
    os.close(ours)
    assert said.returncode == status
    assert heard is None or said.stdout == heard
    ran, _ = map(json.loads, (wine.folder / "facts").read_text().splitlines())
    assert (ran["run"]["status"], ran["run"]["asked_to_end"]) == (status, signal.SIGINT)
