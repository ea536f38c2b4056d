"""`reprieve run`: limits that hold, exit statuses, signals, and nothing that stays behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import jsonschema
import pytest

from reprieve.bounded import kills_of
from reprieve.machine.demo import small_cgroup
from reprieve.machine.enclosure import Enclosure, find_hierarchy, left_limits
from reprieve.machine.host import Host, root_could
from reprieve.machine.writer import acting_as
from reprieve.model.run import COMMAND, Bounds, Enforcement, Use
from reprieve.model.run import Run as Ran
from tests.conftest import Run
from tests.machine.real import as_another, missing, program

_SCHEMA = Path(__file__).parents[1] / "docs" / "schema" / "why-1.json"
_RUN = [sys.executable, "-m", "reprieve", "run"]
_PATIENCE_S = 60.0
_LEAK = 'x = [b"x" * (1 << 20) for _ in range(400)]'
_TELLS_SIGNALS = """
import os, signal, sys
told = {getattr(signal, f"SIG{name}") for name in "CONT TERM INT HUP QUIT USR1 USR2".split()}
signal.pthread_sigmask(signal.SIG_BLOCK, told)  # and waited for: none is missed between a handler and a pause
print("ready", os.getpid(), flush=True)
while True:
    number = signal.sigwait(told)
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGUSR2:
        sys.exit(7)
"""
_FAMILY = """
import os, signal, subprocess, sys
for number in (signal.SIGTERM, signal.SIGINT):  # of two that wait, the lower number is told first
    signal.signal(number, signal.SIG_IGN)  # which children inherit
stays = "import time; print(1, flush=True); time.sleep(300)"
child = subprocess.Popen([sys.executable, "-c", stays], start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(os.getpid(), child.pid, flush=True)
signal.pause()
"""


@pytest.fixture(autouse=True)
def may_make_groups() -> None:
    """A memory cgroup can be made here, by who runs the tests."""
    if os.geteuid() != 0 or find_hierarchy() is None:
        missing("root, and a memory controller, for a cgroup of its own")


def until(true: Callable[[], object]) -> bool:
    """Wait for it; False: it did not come."""
    end = monotonic() + _PATIENCE_S
    while not true():
        if monotonic() > end:
            return False
        sleep(0.02)
    return True


def groups(owner: int) -> list[str]:
    """The groups of the `reprieve run` of that pid."""
    hierarchy = find_hierarchy()
    assert hierarchy is not None
    return [folder for folder, _, _ in os.walk(hierarchy.mount) if Path(folder).name.startswith(f"{COMMAND}{owner}-")]


def is_alive(pid: int) -> bool:
    """A zombie is dead: who is to reap it may be none of ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wardens(of: int) -> list[int]:
    """The process that watches over it."""
    children = Path(f"/proc/{of}/task/{of}/children").read_text().split()
    return [int(pid) for pid in children if b"warden.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([*_RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        leave(process)


def leave(process: subprocess.Popen[str]) -> None:
    """End it; its pipes are not read to their end, which who was left behind may hold."""
    process.kill()
    process.wait()
    for end in (process.stdout, process.stderr):
        if end is not None:
            end.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def facts(path: Path) -> list[dict[str, Any]]:
    """What --report wrote; each line fits the published schema."""
    lines = [json.loads(one) for one in path.read_text().splitlines()]
    for one in lines:
        jsonschema.Draft202012Validator(json.loads(_SCHEMA.read_text())).validate(one)
    return lines


def test_who_exceeds_the_limit_is_killed_and_that_kill_explained(reprieve: Run, tmp_path: Path) -> None:
    file = tmp_path / "report"
    said = reprieve("run", "--max", "40M", "--report", file, "--", sys.executable, "-c", _LEAK)
    assert said.returncode == 137, said.stderr
    told = " ".join(said.stderr.split())
    assert "40 MiB of memory at most, in a cgroup of its own" in told
    assert "killed by signal 9 (status 137)" in told
    assert "Peak 40 MiB of 40 MiB (100 %)" in told
    assert "of “a command under reprieve run”, held" in told
    assert "Limit 40 MiB for “a command under reprieve run”; all of it used" in told
    assert "$ reprieve run --max 112M" in told
    assert "As root" not in told
    ran, killed, end = facts(file)
    assert ran["run"]["use"]["oom_kills"] == 1
    assert ran["run"]["use"]["peak_bytes"] == 40 << 20
    assert [kill["comm"] for kill in killed["report"]["kills"]] == [Path(sys.executable).name[:15]]
    assert (end["events"], end["exit_status"]) == (1, 137)


def test_of_a_137_that_is_none_of_the_kernels_that_is_said(reprieve: Run) -> None:
    for script, said in (("kill -9 $$", "somebody else sent that"), ("exit 137", "it ended so itself")):
        ended = reprieve("run", "--max", "64M", "--", "sh", "-c", script)
        assert ended.returncode == 137
        assert f"none for memory in it: {said}" in " ".join(ended.stderr.split())


_KILLED_WHILE_HELD = """
import os, signal
from reprieve.machine.launch import Held, Order, await_end, keep_signals
held = Held(Order(("true",), keep_signals()))
held.await_ready()
os.kill(held.pid, signal.SIGKILL)
os.waitid(os.P_PID, held.pid, os.WEXITED | os.WNOWAIT)
held.let_go(grouped=True)
print(await_end(held.pid, None, lambda: [], lambda: None).status)
"""


def test_who_is_killed_while_it_waits_to_be_let_go_has_been_killed() -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED_WHILE_HELD], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("137\n", "")


def test_ctrl_c_while_it_waits_to_be_let_go_ends_it_as_ctrl_c_does() -> None:
    script = _KILLED_WHILE_HELD.replace("SIGKILL", "SIGINT").replace("os.waitid(", "0 and os.waitid(")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("130\n", "")


def test_what_keeps_it_from_being_started_is_told_whatever_it_is() -> None:
    script = _KILLED_WHILE_HELD.replace('("true",)', '("true", "\\0")').replace("os.kill(", "0 and os.kill(")
    ended = subprocess.run([sys.executable, "-c", script.replace("os.waitid(", "0 and os.waitid(")], **_QUIETLY)
    assert "true could not be started: ValueError" in ended.stderr
    assert ended.stdout == ""


_QUIETLY: dict[str, Any] = {"capture_output": True, "text": True}


def test_a_limit_above_what_the_process_may_have_is_no_reason_to_fail() -> None:
    script = "import resource as r; r.setrlimit(r.RLIMIT_DATA, (1 << 30, 1 << 30));" + _ALONE
    ended = subprocess.run([sys.executable, "-c", script], **_QUIETLY)
    assert (ended.stdout, ended.stderr) == (f"{1 << 20}\n0\n", "")


_ALONE = """
from reprieve.machine.launch import Held, Order, await_end, keep_signals
held = Held(Order(("sh", "-c", "ulimit -d"), keep_signals()))
held.await_ready()
held.let_go(grouped=False, data_bytes=2 << 30)
print(await_end(held.pid, None, lambda: [], lambda: None).status)
"""


_RUNS_TRUE = """
import sys
from reprieve.model.run import Bounds
from reprieve.run import Request, perform
sys.exit(perform(Request(argv=("true",), bounds=Bounds(max_bytes=int(sys.argv[1])))))
"""


@pytest.mark.parametrize("kib", [4, 64, 128])
def test_a_limit_below_what_waiting_for_it_takes_kills_before_it_runs(kib: int) -> None:
    argv = [sys.executable, "-c", _RUNS_TRUE, str(kib << 10)]
    said = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert said.returncode == 137
    assert "killed by signal 9" in said.stderr
    assert "Killed " in said.stderr


def test_the_kill_of_a_child_is_told_though_the_command_ends_well(reprieve: Run) -> None:
    said = reprieve("run", "--max", "40M", "sh", "-c", f"{sys.executable} -c '{_LEAK}'; echo on; exit 0")
    assert (said.returncode, said.stdout) == (0, "on\n")
    assert "Killed    python" in said.stderr


def test_where_memory_and_swap_together_are_full_both_limits_are_proposed(reprieve: Run) -> None:
    hierarchy = find_hierarchy()
    if hierarchy is None or hierarchy.version != 1 or not Path(f"{hierarchy.mount}/memory.memsw.failcnt").exists():
        missing("cgroup version 1 that counts swap")
    said = reprieve("run", "--max", "40M", "--swap-max", "0", "--", sys.executable, "-c", _LEAK)
    assert "40 MiB of memory at most, no swap" in said.stderr
    assert "$ reprieve run --max 112M --swap-max 0 -- COMMAND" in said.stderr


def test_what_fits_is_not_spoken_of(reprieve: Run) -> None:
    said = reprieve("run", "--max", "1G", "echo", "done")
    assert (said.returncode, said.stdout) == (0, "done\n")
    assert len(said.stderr.splitlines()) == 1
    assert reprieve("run", "-q", "--max", "1G", "true").stderr == ""


def test_what_it_needed_is_told_where_that_is_asked(reprieve: Run, tmp_path: Path) -> None:
    hold = 'x = b"x" * (60 << 20)'
    said = reprieve("run", "-v", "--max", "200M", "--report", tmp_path / "report", sys.executable, "-c", hold)
    assert said.returncode == 0
    ran, end = facts(tmp_path / "report")
    assert 60 << 20 < ran["run"]["use"]["peak_bytes"] < 120 << 20
    assert ran["run"]["largest_process_bytes"] > 60 << 20
    assert "of 200 MiB (" in said.stderr
    assert end["exit_status"] == 0


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        (["sh", "-c", "exit 3"], 3, ""),
        (["sh", "-c", "kill -TERM $$"], 143, ""),
        (["no-such-program"], 127, "reprieve: no-such-program: No such file or directory"),
        (["/etc/passwd"], 126, "reprieve: /etc/passwd: Permission denied"),
        (["--no-such-option", "true"], 125, "No such option"),
        (["--max", "3q", "true"], 125, "'3q' is no size"),
        (["--time", "soon", "true"], 125, "'soon' is no length of time"),
        (["--max", "1G", "--high", "2G", "true"], 125, "--high is above --max"),
        (["--user", "no-such-user", "true"], 125, "there is no such user"),
        (["--node", "1000", "true"], 125, "--node 1000: Invalid argument"),
        (["--report", "/no/such/folder/file", "true"], 125, "No such file or directory"),
        ([], 125, "Missing argument"),
    ],
)
def test_the_exit_status_is_the_commands_own_or_tells_that_it_is_ours(
    command: list[str], status: int, says: str, reprieve: Run
) -> None:
    said = reprieve("run", "-q", *command)
    assert said.returncode == status
    assert says in said.stderr
    assert (said.stderr == "") is (says == "")


def test_words_of_the_command_are_its_own(reprieve: Run) -> None:
    assert reprieve("run", "-q", "echo", "--max", "-v", "--", "x").stdout == "--max -v -- x\n"
    assert reprieve("run", "-q", "--", "echo", "-n", "x").stdout == "x"
    assert reprieve("run", "-q", "cat", stdin="passed on").stdout == "passed on"


def test_it_runs_as_it_was_told(reprieve: Run) -> None:
    shows = "id -un; nice; cat /proc/self/oom_score_adj; grep -c bind:0 /proc/self/numa_maps; echo $HOME"
    options = ("--user", "nobody", "--nice", "7", "--adj", "300", "--node", "0")
    user, nice, adj, bound, home = reprieve("run", "-q", *options, "sh", "-c", shows).stdout.split()
    assert (user, nice, adj, home) == ("nobody", "7", "300", os.path.expanduser("~nobody"))
    assert int(bound) > 0


def test_nothing_of_ours_is_passed_on(reprieve: Run) -> None:
    shows = "import os, signal; print(sorted(os.listdir('/proc/self/fd'))[:-1], signal.pthread_sigmask(0, []))"
    shows += "; print(open('/proc/self/status').read().partition('SigIgn:')[2].split()[0])"
    alone = subprocess.run([sys.executable, "-c", shows], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert reprieve("run", "-q", sys.executable, "-c", shows).stdout == alone.stdout


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_a_signal_is_handed_on_once(name: str) -> None:
    with running("-q", sys.executable, "-c", _TELLS_SIGNALS) as process:
        assert line(process).startswith("ready")
        process.send_signal(signal.Signals[name])
        assert line(process) == name
        process.send_signal(signal.SIGUSR2)
        assert line(process) == "SIGUSR2"
        assert process.wait(_PATIENCE_S) == 7


def test_what_the_command_sends_to_its_whole_job_is_not_handed_back_to_it() -> None:
    script = _TELLS_SIGNALS.replace("while True:", "os.kill(os.getppid(), signal.SIGTERM)\nwhile True:")
    with running("-q", sys.executable, "-c", script) as process:
        assert line(process).startswith("ready")
        process.send_signal(signal.SIGUSR1)
        assert line(process) == "SIGUSR1"


def test_a_second_request_ends_all_of_it() -> None:
    with running("-q", sys.executable, "-c", _FAMILY) as process:
        family = [int(pid) for pid in line(process).split()]
        process.send_signal(signal.SIGTERM)
        sleep(0.3)
        assert all(map(is_alive, family))
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE_S) == 137
        assert not any(map(is_alive, family))
        assert not groups(process.pid)


def test_who_outlives_the_command_is_ended_and_that_is_told(reprieve: Run) -> None:
    said = reprieve("run", "sh", "-c", "sleep 900 > /dev/null 2>&1 & echo $!; exit 4")
    assert said.returncode == 4
    assert not is_alive(int(said.stdout))
    assert "1 process that it had started and that outlived it" in said.stderr


def test_a_report_that_cannot_be_written_costs_nothing_but_itself(reprieve: Run) -> None:
    for more in ((), ("--smallest",)):
        said = reprieve("run", *more, "--report", "/dev/full", "sh", "-c", "exit 7")
        assert said.returncode == 7
        assert "reprieve: --report /dev/full: No space left on device" in said.stderr


def test_run_under_run_tells_the_kill(reprieve: Run) -> None:
    inner = (*_RUN, "--max", "40M", "--", sys.executable, "-c", _LEAK)
    said = reprieve("run", "--max", "400M", "-q", "--", *inner)
    assert said.returncode == 137
    assert "Killed    python" in said.stderr
    assert "logged no report" not in said.stderr


def test_a_limit_that_is_left_behind_is_told() -> None:
    hierarchy = find_hierarchy()
    assert hierarchy is not None
    made = Enclosure(hierarchy, f"{hierarchy.mount}/reprieve-test-made")
    with small_cgroup(f"reprieve-test-{os.getpid()}", 512 << 20) as small:
        inside = hierarchy._replace(own=small.path)
        assert (small.path, 512 << 20) in list(left_limits(inside, made))
        below = Enclosure(hierarchy, f"{small.folder}/reprieve-run-1-2-3-1")
        assert list(left_limits(inside, below)) == []


@pytest.mark.parametrize("time", ["999999d", "0", "soon"])
def test_what_is_no_length_of_time_is_refused(time: str, reprieve: Run) -> None:
    said = reprieve("run", "--time", time, "true")
    assert said.returncode == 125
    assert "no length of time" in said.stderr


def test_when_its_time_is_over_it_is_asked_to_end(reprieve: Run) -> None:
    said = reprieve("run", "--time", "0.5s", "sleep", "900")
    assert said.returncode == 143
    assert "as its time was over" in said.stderr


def test_when_reprieve_is_killed_nothing_stays_behind() -> None:
    with running("-q", sys.executable, "-c", _FAMILY) as process:
        family = [int(pid) for pid in line(process).split()]
        (warden,) = wardens(process.pid)
        assert groups(process.pid)
        process.kill()
        process.wait()
        assert until(lambda: not any(map(is_alive, (*family, warden))))
        assert until(lambda: not groups(process.pid))


def test_what_watches_over_it_is_not_ended_by_signals() -> None:
    with running("-q", sys.executable, "-c", _FAMILY) as process:
        line(process)
        (warden,) = wardens(process.pid)
        assert os.getsid(warden) == warden
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(warden, number)
        blocked = re.findall(r"SigBlk:\s(\w+)", Path(f"/proc/{warden}/status").read_text())[0]
        assert all(int(blocked, 16) >> number - 1 & 1 for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        assert is_alive(warden)


def test_what_a_double_kill_leaves_is_swept_by_the_next_run(reprieve: Run) -> None:
    with running("-q", sys.executable, "-c", _FAMILY) as process, running("-q", sys.executable, "-c", _FAMILY) as other:
        command, child = (int(pid) for pid in line(process).split())
        others = [int(pid) for pid in line(other).split()]
        for pid in (*wardens(process.pid), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert until(lambda: not is_alive(command))  # with its parent
        assert is_alive(child)
        assert groups(process.pid)
        assert reprieve("run", "-q", "true").returncode == 0
        assert not is_alive(child)
        assert not groups(process.pid)
        assert all(map(is_alive, others))
        assert groups(other.pid)


def test_while_it_runs_nothing_of_ours_does() -> None:
    with running("-q", "--time", "900", "sleep", "900") as process:
        assert until(lambda: groups(process.pid) and wardens(process.pid))
        both = (process.pid, *wardens(process.pid))

        def switches() -> list[str]:
            return [
                one
                for pid in both
                for one in re.findall(r"ctxt_switches:\s(\d+)", Path(f"/proc/{pid}/status").read_text())
            ]

        def are_at_rest() -> bool:
            before = switches()
            sleep(0.5)
            return switches() == before

        assert until(are_at_rest)
        before = switches()
        sleep(2)
        assert switches() == before


def test_without_rights_rlimits_hold_and_what_they_do_not_is_told(tmp_path: Path) -> None:
    done = _as_nobody("run", "--max", "400M", "--swap-max", "0", "python3", "-c", 'x = b"x" * (600 << 20)')
    assert done.returncode == 1
    assert "MemoryError" in done.stderr
    told = done.stderr.splitlines()[0]
    assert "no cgroup can be made here (" in told
    assert "each process by itself gets 400 MiB of private memory at most (RLIMIT_DATA)" in told
    assert "not enforced: --max for all its processes together, for shared memory and for files; --swap-max" in told
    assert _as_nobody("run", "-q", "--max", "400M", "python3", "-c", 'x = b"x" * (60 << 20)').returncode == 0


_LEAK = "cache = [bytearray(1 << 20) for _ in range(500)]"


def test_who_fails_near_its_rlimit_was_probably_refused_and_how_to_have_a_cgroup_is_told() -> None:
    for command in (("python3", "-c", _LEAK), ("sh", "-c", f"python3 -c '{_LEAK}'; exit 3")):
        done = _as_nobody("run", "--max", "64M", *command)
        assert done.returncode == (1 if command[0] == "python3" else 3)
        told = " ".join(done.stderr.split())
        assert "near the 64 MiB of private memory which each of its processes may have: probably it was refused" in told
        assert re.search(r"\$ sudo .*reprieve run --user nobody --max 64M -- COMMAND", told)


def test_who_fails_with_little_or_lives_with_much_is_told_nothing_of_it() -> None:
    for command in (("false",), ("python3", "-c", "cache = bytearray(60 << 20)")):
        done = _as_nobody("run", "--max", "72M", *command)
        assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("option", "told", "by_root"),
    [
        (("--smallest",), "run it as root", ("--user", "nobody", "--smallest")),
        (("--user", "root"), "run it as root", ("--user", "root")),
        (("--nice", "-5"), "it takes CAP_SYS_NICE; run it as root", ("--user", "nobody", "--nice", "-5")),
    ],
)
def test_what_root_may_is_told_with_the_command_which_leaves_the_command_to_its_user(
    option: tuple[str, ...], told: str, by_root: tuple[str, ...], reprieve: Run
) -> None:
    done = _as_nobody("run", *option, "true")
    assert done.returncode == 125
    found = re.search(f"{told}: `sudo (.*)`", done.stderr)
    assert found, done.stderr
    program, *words = found[1].split()
    which = ["true"] if words[-1] == "true" else ["--", "COMMAND"]  # one that is too long to be read is not repeated
    assert words[words.index("run") :] == ["run", *by_root, *which]
    assert os.access(program, os.X_OK)
    assert set(reprieve("run", *by_root, "id", "-un").stdout.split()) == {by_root[1]}


def test_a_command_that_is_too_long_to_be_told_again_is_left_out() -> None:
    done = _as_nobody("run", "--nice", "-5", "--", "echo", 100 * "x")
    assert re.search(r"run it as root: `sudo .* run --user nobody --nice -5 -- COMMAND`", done.stderr), done.stderr


def test_a_right_that_root_lacks_here_is_not_told_to_be_root_s(reprieve: Run) -> None:
    for done in (_as_nobody("run", "--adj", "-500", "true"), reprieve("run", "--adj", "-500", "true")):
        if root_could(Host(), 24):
            assert "not even root" not in done.stderr
        else:
            assert "which not even root has here; root has it on the host" in done.stderr
            assert "run it as root" not in done.stderr


def test_the_log_is_root_s_to_read_and_the_command_not_root_s_to_run() -> None:
    killed = Ran(
        argv=("x",),
        bounds=Bounds(),
        enforcement=Enforcement(means="cgroup2", cgroup=f"/{COMMAND}1-2-3-4"),
        status=137,
        wall_s=1.0,
        use=Use(oom_kills=1),
    )
    with acting_as(65534):
        _, (gap,) = kills_of(None, killed, 1)
    assert re.fullmatch(r"sudo .*reprieve why tells it|sudo .* -m reprieve why tells it", gap.hint or "")
    _, (gap,) = kills_of(None, killed, 1)
    assert gap.hint == "reprieve why tells it on the host"


@pytest.mark.parametrize(("columns", "width"), [(70, 70), (0, 80)], ids=["70", "none told"])
def test_what_holds_it_is_told_within_the_terminal_s_width(columns: int, width: int) -> None:
    argv, environ = _nobodys()
    pid, end = pty.fork()
    if pid == 0:
        os.execve(program(argv[0]), [*argv, "run", "--max", "64M", "true"], environ)
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    shown = b""
    with contextlib.suppress(OSError):  # EIO: it has ended
        while data := os.read(end, 65536):
            shown += data
    os.close(end)
    os.waitpid(pid, 0)
    lines = shown.decode().split("\r\n")
    assert lines[0].startswith("reprieve: no cgroup can be made here")
    assert width - 20 < max(map(len, lines)) <= width
    assert len(lines) > 2


def test_without_a_group_too_a_second_request_ends_all_of_it() -> None:
    with _nobody("run", "-q", "python3", "-c", _FAMILY.replace("start_new_session=True,", "")) as process:
        family = [int(pid) for pid in line(process).split()]
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(_PATIENCE_S) == 137
        assert until(lambda: not any(map(is_alive, family)))


def test_without_a_group_too_the_command_ends_with_reprieve() -> None:
    with _nobody("run", "-q", "python3", "-c", _FAMILY) as process:
        family = [int(pid) for pid in line(process).split()]
        process.kill()
        process.wait()
        assert until(lambda: not any(map(is_alive, family)))


def test_the_smallest_limit_is_found_and_less_is_too_little(reprieve: Run, tmp_path: Path) -> None:
    file = tmp_path / "report"
    hold = 'x = b"x" * (20 << 20)'
    said = reprieve("run", "--smallest", "--swap-max", "0", "--report", file, "--", sys.executable, "-c", hold)
    assert said.returncode == 0, said.stderr
    (told,) = re.findall(r"reprieve: (\d+) MiB is enough, (\d+) MiB too little \((\d+) runs", said.stderr)
    enough, too_little, count = map(int, told)
    assert 20 < enough < 60
    assert enough - too_little == 1
    *runs, end = facts(file)
    assert len(runs) == count
    assert end["exit_status"] == 0
    ends = {one["run"]["bounds"]["max_bytes"]: one["run"]["status"] for one in runs}
    assert (ends[None], ends[enough << 20], ends[too_little << 20]) == (0, 0, 137)


def test_cache_that_can_be_given_back_is_no_need(reprieve: Run) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as disk:  # what lies in a /tmp in memory cannot be given back
        (Path(disk) / "data").write_bytes(bytes(64 << 20))
        os.sync()
        with open(Path(disk) / "data", "rb") as data:
            os.posix_fadvise(data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        said = reprieve("run", "--smallest", "cp", Path(disk) / "data", Path(disk) / "copy")
    assert said.returncode == 0, said.stderr
    (told,) = re.findall(r"(\d+) MiB is enough.* its peak was (\d+) MiB", said.stderr)
    assert int(told[0]) * 2 < int(told[1])


@pytest.mark.parametrize(
    ("second", "status", "says"),
    [
        ("exit 1", 125, "now does not end well"),
        ("kill -TERM $$", 125, "now does not end well"),
        (None, 1, "without a limit: status 1"),
    ],
)
def test_the_search_ends_where_the_limit_is_not_the_reason(
    second: str | None, status: int, says: str, reprieve: Run, tmp_path: Path
) -> None:
    script = "exit 1" if second is None else f"test -e {tmp_path}/again && {second}; touch {tmp_path}/again"
    said = reprieve("run", "--smallest", "sh", "-c", script)
    assert said.returncode == status
    assert says in said.stderr


@pytest.mark.parametrize("end", ["exit 3", "exit 0", "kill -KILL $$"])
def test_the_search_ends_where_somebody_asks_for_it_however_the_command_takes_that(end: str, tmp_path: Path) -> None:
    with running("--smallest", "--report", str(tmp_path / "report"), "sh", "-c", _TRAPS.format(end=end)) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(_PATIENCE_S) == 143
    ran, ended = facts(tmp_path / "report")
    assert ran["run"]["asked_to_end"] == signal.SIGTERM
    assert ended["exit_status"] == 143


_TRAPS = "trap '{end}' TERM; echo ready; while :; do sleep 0.1; done"


def test_what_was_to_be_ignored_does_not_end_the_search() -> None:
    script = 'trap "" HUP; exec "$0" -m reprieve run --smallest -- sh -c "echo; sleep 0.3"'
    argv = ["sh", "-c", script, sys.executable]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        _, said = process.communicate(timeout=_PATIENCE_S)
    assert process.returncode == 0
    assert "is enough" in said


def test_a_search_that_can_find_nothing_does_not_end_well(reprieve: Run) -> None:
    said = reprieve("run", "--smallest", "--time", "0.5", "sh", "-c", _TRAPS.format(end="exit 0"))
    assert said.returncode == 125
    assert "there is nothing to be found: its --time is over before it ends" in said.stderr


def test_a_report_of_what_could_not_be_run_has_an_end(reprieve: Run, tmp_path: Path) -> None:
    said = reprieve("run", "--report", tmp_path / "facts", "no-such-program")
    assert said.returncode == 127
    (end,) = map(json.loads, (tmp_path / "facts").read_text().splitlines())
    assert (end["kind"], end["exit_status"]) == ("end", 127)


def test_json_of_what_could_not_be_run_has_an_end(reprieve: Run, tmp_path: Path) -> None:
    for status, *asked in ((127, "no-such-program"), (125, "--user", "no-such-user", "true")):
        said = reprieve("run", "--json", *asked)
        assert said.returncode == status
        (end,) = (json.loads(line) for line in said.stderr.splitlines() if line.startswith("{"))
        assert (end["kind"], end["exit_status"]) == ("end", status)
    said = reprieve("run", "--json", "--report", tmp_path, "true")
    assert (said.returncode, '"kind":"end"' in said.stderr) == (125, True)


def test_of_two_runs_one_in_the_other_it_is_told_whose_limit_it_was(reprieve: Run) -> None:
    within = ("run", "-q", "--max", "300M", "--", *_RUN, "--max", "40M", "--", sys.executable, "-c", _LEAK)
    told = " ".join(reprieve(*within).stderr.split())
    assert re.search(r"Limit 40 MiB for “a command under reprieve run \d+, within another”; all of it used", told)
    within = ("run", "--max", "60M", "--", *_RUN, "-q", "--max", "300M", "--", sys.executable, "-c", _LEAK)
    told = " ".join(reprieve(*within).stderr.split())
    assert "Limit 60 MiB for “a command under reprieve run”, its parent; all of it used" in told
    assert re.search(r"which holds “a command under reprieve run \d+, within another”", told)


@pytest.mark.parametrize("size", ["64", "1K", "0"])
def test_a_limit_under_which_nothing_could_live_is_refused(size: str, reprieve: Run, tmp_path: Path) -> None:
    said = reprieve("run", "--max", size, "touch", tmp_path / "made")
    assert said.returncode == 125
    assert "is less than any program needs" in said.stderr
    assert not (tmp_path / "made").exists()


def _nobodys() -> tuple[list[str], dict[str, str]]:
    """How nobody runs `reprieve`."""
    return [*as_another(65534), sys.executable, "-m", "reprieve"], {"PATH": os.defpath}


def _as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv, environ = _nobodys()
    return subprocess.run([*argv, *arguments], env=environ, cwd="/", capture_output=True, text=True)


@contextlib.contextmanager
def _nobody(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    argv, environ = _nobodys()
    pipe = subprocess.PIPE
    process = subprocess.Popen([*argv, *arguments], env=environ, cwd="/", stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        leave(process)


class Terminal:
    """A shell with job control on a terminal of its own."""

    def __init__(self) -> None:
        bash = shutil.which("bash") or missing("bash")
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            os.execve(bash, ["bash", "--norc", "--noprofile", "-i"], os.environ | {"PS1": "", "HISTFILE": ""})

    def type(self, keys: str) -> None:
        os.write(self._end, keys.encode())

    def read_to(self, text: str) -> str:
        """What it shows until that is there, or nothing comes any more."""
        shown = ""
        while text not in shown and select.select([self._end], [], [], _PATIENCE_S)[0]:
            try:
                shown += os.read(self._end, 4096).decode(errors="replace")
            except OSError:  # its last process has gone
                break
        return shown

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self._end)
        os.waitpid(self.pid, 0)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_at_a_terminal_keys_reach_the_command_once_and_the_shell_sees_one_job(
    terminal: Terminal, tmp_path: Path
) -> None:
    script = tmp_path / "tells.py"
    script.write_text(_TELLS_SIGNALS)
    terminal.type(f"{sys.executable} -m reprieve run -q {sys.executable} {script}\n")
    assert "ready" in terminal.read_to("ready")
    terminal.type("\x03")
    assert terminal.read_to("SIGINT").count("SIGINT") == 1
    terminal.type("\x03")  # a second one is the command's, too
    assert terminal.read_to("SIGINT").count("SIGINT") == 1
    terminal.type("\x1a")
    assert "Stopped" in terminal.read_to("Stopped")
    terminal.type("fg\n")
    assert "SIGCONT" in terminal.read_to("SIGCONT")
    terminal.type("\x1c")
    assert terminal.read_to("SIGQUIT").count("SIGQUIT") == 1
    terminal.type("\x1a")
    assert "Stopped" in terminal.read_to("Stopped")
    terminal.type("kill -USR2 $(jobs -p); fg; echo status=$?\n")
    shown = terminal.read_to("status=7")
    assert "status=7" in shown
    assert shown.count("SIGINT") == 0


def test_a_command_that_stops_itself_stops_the_job(terminal: Terminal) -> None:
    terminal.type(
        f"{sys.executable} -m reprieve run -q sh -c 'kill -TSTP $$; echo went-\"\"on; exit 5'; echo first-$?\n"
    )
    assert "Stopped" in terminal.read_to("Stopped")
    terminal.type("fg; echo then-$?\n")
    shown = terminal.read_to("then-5")
    assert "went-on" in shown
    assert "then-5" in shown
