"""Processes: those of this machine, started for it, and trees that are absent, refused or damaged."""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.observe import observe
from reprieve.machine.proc import FILES, UNIQUE_MOST_BYTES, glance, measure_unique, read_processes
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.process import Process
from reprieve.oom.choose import oom_score
from reprieve.oom.living import predict, whole_machine
from tests.machine.real import missing, program

MIB = 1024 * 1024
PAGE = os.sysconf("SC_PAGE_SIZE")
STAT = b"7 (sh) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9000 3133440 390 18446744073709551615 1 1\n"


@contextmanager
def child(work: Callable[[], object]) -> Iterator[int]:
    """A process that has done `work` and waits."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kept = work()
            os.write(done, b"." if kept is not False else b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    try:
        assert os.read(ready, 1) == b"."
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def only(pid: int, page_bytes: int | None = None) -> Process:
    """One process of this machine, which leaves no gap."""
    gaps: list[Gap] = []
    (process,) = read_processes(Host(), gaps, pids=[pid], page_bytes=page_bytes)
    assert gaps == []
    return process


def named(name: bytes) -> Callable[[], object]:
    def prctl() -> object:
        return ctypes.CDLL(None).prctl(15, ctypes.c_char_p(name), 0, 0, 0) == 0  # PR_SET_NAME

    return prctl


def filled(size: int, flags: int = mmap.MAP_PRIVATE) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags | mmap.MAP_ANONYMOUS)
    for at in range(0, size, PAGE):
        memory[at] = 1
    return memory


def tree(root: Path, **files: bytes) -> Host:
    """A machine of one process, pid 7."""
    folder = root / "proc/7"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ({"stat": STAT} | files).items():
        (folder / name).write_bytes(content)
    return Host(str(root))


# -- nothing to tell ---------------------------------------------------------------------------------------------------


def test_a_process_that_has_gone_is_left_out() -> None:
    with child(lambda: None) as pid:
        pass
    gaps: list[Gap] = []
    assert read_processes(Host(), gaps, pids=[pid]) == []
    assert gaps == []


def test_processes_that_come_and_go_leave_no_gap() -> None:
    stop = threading.Event()

    def spawn() -> None:
        while not stop.is_set():
            subprocess.run([program("true")], check=True)

    spawner = threading.Thread(target=spawn)
    spawner.start()
    try:
        gaps: list[Gap] = []
        seen = [{process.pid for process in read_processes(Host(), gaps)} for _ in range(30)]
    finally:
        stop.set()
        spawner.join()
    assert gaps == []
    assert all(os.getpid() in pids for pids in seen)


def test_a_file_that_a_captured_process_lacks_is_no_figure_and_no_gap(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    (process,) = read_processes(tree(tmp_path), gaps)
    assert gaps == []
    assert process == Process(pid=7, start_ticks=9000, ppid=1, comm="sh", threads=3, state="S")


def test_a_machine_without_proc_is_a_gap(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert read_processes(Host(str(tmp_path)), gaps) == []
    assert [gap.place for gap in gaps] == ["/proc"]


# -- this machine ------------------------------------------------------------------------------------------------------


def test_every_process_of_this_machine_is_understood() -> None:
    gaps: list[Gap] = []
    processes = read_processes(Host(), gaps, page_bytes=PAGE)
    assert gaps == []
    assert len({process.pid for process in processes}) == len(processes)
    later = read_processes(Host(), [], pids=[process.pid for process in processes], page_bytes=PAGE)
    stayed = {process.pid for process in later if process.state != "Z"}  # who ends gives its memory back first
    assert os.getpid() in stayed
    for process in processes:
        if process.pid not in stayed:
            continue
        held = process.state != "Z" and not process.kernel_thread
        assert (process.rss_anon_bytes is not None) == held, process
        assert (process.pgtables_bytes is not None) == held, process
        assert None not in (process.uid, process.oom_score, process.oom_score_adj, process.cgroup), process


def test_it_reads_itself_as_it_is() -> None:
    me = only(os.getpid(), page_bytes=PAGE)
    assert (me.ppid, me.uid, me.ns_pids[-1]) == (os.getppid(), os.geteuid(), os.getpid())
    assert me.threads == len(os.listdir("/proc/self/task"))
    assert str(me.oom_score_adj) == Path("/proc/self/oom_score_adj").read_text().strip()
    assert any(line.endswith(f":{me.cgroup}") for line in Path("/proc/self/cgroup").read_text().splitlines())


def test_the_resident_parts_add_up_to_what_is_resident() -> None:
    me = only(os.getpid())
    assert (me.rss_anon_bytes or 0) + (me.rss_file_bytes or 0) + (me.rss_shmem_bytes or 0) == me.rss_bytes


def test_anonymous_memory_is_told_apart_from_shared() -> None:
    with child(lambda: None) as pid:
        bare = only(pid)
    with child(lambda: filled(16 * MIB)) as pid:
        anonymous = only(pid)
    with child(lambda: filled(24 * MIB, mmap.MAP_SHARED)) as pid:
        shared = only(pid)
    near = pytest.approx(0, abs=MIB)
    assert (anonymous.rss_anon_bytes or 0) - (bare.rss_anon_bytes or 0) - 16 * MIB == near
    assert (anonymous.rss_shmem_bytes or 0) == near
    assert (shared.rss_shmem_bytes or 0) - 24 * MIB == near
    assert (shared.rss_anon_bytes or 0) - (bare.rss_anon_bytes or 0) == near


def test_a_memfd_is_shared_memory_even_with_one_user() -> None:
    def write() -> object:
        descriptor = os.memfd_create("reprieve")
        os.ftruncate(descriptor, 8 * MIB)
        memory = mmap.mmap(descriptor, 8 * MIB)
        memory.write(bytes(8 * MIB))
        return memory

    with child(write) as pid:
        assert (only(pid).rss_shmem_bytes or 0) >= 8 * MIB


def test_locked_memory_is_told() -> None:
    def lock() -> object:
        memory = filled(4 * MIB)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        return memory if ctypes.CDLL(None).mlock(ctypes.c_void_p(address), 4 * MIB) == 0 else False

    with child(lock) as pid:
        assert only(pid).locked_bytes == 4 * MIB


def test_threads_are_one_process() -> None:
    def start() -> object:
        for _ in range(20):
            threading.Thread(target=signal.pause, daemon=True).start()
        return None

    with child(start) as pid:
        process = only(pid)
        tasks = [int(task) for task in os.listdir(f"/proc/{pid}/task")]
        assert process.threads == 21
        assert {one.pid for one in read_processes(Host(), [])} & set(tasks) == {pid}


@pytest.mark.parametrize("name", [b") R 1 2 3 4", b"a\nVmRSS:\t9 kB", b"((", b") ", b" ", b"\xff\xfe", b"\\n", b""])
def test_a_name_may_be_anything(name: bytes) -> None:
    with child(named(name)) as pid:
        process = only(pid)
    assert process.comm == name[:15].decode(errors="backslashreplace")
    assert (process.ppid, process.threads, process.state in ("R", "S")) == (os.getpid(), 1, True)
    assert (process.rss_bytes or 0) > MIB


def test_a_zombie_holds_nothing_and_is_no_kernel_thread() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        zombie = only(pid, page_bytes=PAGE)
    finally:
        os.waitpid(pid, 0)
    assert (zombie.state, zombie.kernel_thread) == ("Z", False)
    assert (zombie.rss_anon_bytes, zombie.rss_bytes) == (None, 0)


def test_of_a_captured_root_no_name_is_taken_for_a_thread_that_is_none(tmp_path: Path) -> None:
    stat = "7 (dead) Z 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 3 0 100 0 0" + " 0" * 30
    for path, text in (("7/stat", stat), ("7/task/abc/stat", stat.replace(" Z ", " S ")), ("7/status", "")):
        place = tmp_path / "proc" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + "\n")
    gaps: list[Gap] = []
    processes = read_processes(Host(str(tmp_path)), gaps)
    assert [(process.pid, process.state) for process in processes] == [(7, "Z")]


def headless(size: int) -> subprocess.Popen[bytes]:
    """A process whose first thread exits, while another keeps its memory and takes more when it is told to."""
    program = f"""
import ctypes, os, threading
kept = [b"x" * {size}]
def go_on():
    while " Z " not in open(f"/proc/self/task/{{os.getpid()}}/stat").read():  # until the first has exited
        ctypes.CDLL(None).usleep(10_000)
    print("alone", flush=True)
    for line in open(0):
        kept.append(b"x" * int(line))
        print("more", flush=True)
threading.Thread(target=go_on, daemon=True).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    return subprocess.Popen((sys.executable, "-S", "-c", program), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_whose_first_thread_has_exited_holds_what_the_others_do() -> None:
    with headless(32 * MIB) as started:
        pid = started.pid
        try:
            assert started.stdout is not None
            assert started.stdout.readline() == b"alone\n"
            process, before = only(pid, page_bytes=PAGE), glance(Host(), pid, None)
            assert before is not None
            assert glance(Host(), pid, before) is not before  # what the others do is not in it
            machine = observe(Host(), [], unique_s=0)
            domain = whole_machine(machine)
            assert domain is not None
            prediction = predict(machine, domain)
            shown = int(Path(f"/proc/{pid}/oom_score").read_text())
        finally:
            started.kill()
    assert process.state in ("R", "S")
    assert process.living_thread not in (None, pid)
    assert (process.rss_bytes or 0) >= (process.rss_anon_bytes or 0) > 32 * MIB
    assert (process.ns_pids[-1:], process.uid) == ((pid,), os.geteuid())
    (ranked,) = (one for one in prediction.choice.ranking if one.pid == pid)
    assert abs(oom_score(prediction.choice.points(ranked), domain.total_pages) - shown) <= 1


def test_whose_living_threads_were_not_captured_is_nobody_who_holds_nothing(tmp_path: Path) -> None:
    host = tree(tmp_path, stat=STAT.replace(b" S ", b" Z "), oom_score_adj=b"0\n")
    (process,) = read_processes(host, [], page_bytes=PAGE)
    assert (process.state, process.threads, process.rss_bytes) == ("Z", 3, None)
    machine = Machine(page_bytes=PAGE, meminfo=(("MemTotal", 100 * MIB),), processes=(process,))
    domain = whole_machine(machine)
    assert domain is not None
    assert predict(machine, domain).uncounted == 1


def test_a_kernel_thread_is_one() -> None:
    kthreadd = Path("/proc/2/comm")
    if not kthreadd.exists() or kthreadd.read_text() != "kthreadd\n":
        missing("kthreadd as process 2")
    assert only(2).kernel_thread
    assert not only(1).kernel_thread


def test_oom_score_adj_is_read_with_its_sign() -> None:
    def raise_it() -> object:
        return Path("/proc/self/oom_score_adj").write_text("700")

    with child(raise_it) as pid:
        process = only(pid)
    assert process.oom_score_adj == 700
    assert (process.oom_score or 0) > 700


def test_files_that_are_not_asked_for_are_not_read() -> None:
    (process,) = read_processes(Host(), [], pids=[os.getpid()], files=("oom_score",), page_bytes=PAGE)
    assert process.oom_score is not None
    assert process.rss_bytes is not None
    assert (process.cgroup, process.uid, process.oom_score_adj) == (None, None, None)


# -- what is theirs alone ----------------------------------------------------------------------------------------------


def test_unique_memory_leaves_out_what_a_fork_shares() -> None:
    shared = filled(16 * MIB)
    gaps: list[Gap] = []
    with child(lambda: filled(8 * MIB)) as pid:
        (process,) = measure_unique(Host(), [only(pid)], gaps)
    shared.close()
    assert gaps == []
    assert 8 * MIB <= (process.unique_bytes or 0) < 16 * MIB
    assert (process.unique_bytes or 0) < (process.pss_bytes or 0) < (process.rss_bytes or 0)


def test_the_largest_come_first_and_time_ends_it() -> None:
    with child(lambda: filled(8 * MIB)) as large, child(lambda: None) as small:
        both = read_processes(Host(), [], pids=[small, large])
        ticks = iter([0.0, 0.0, 1.0])
        first, second = measure_unique(Host(), both, [], budget_s=0.5, clock=lambda: next(ticks))
    assert (first.pid, second.pid) == (small, large)
    assert first.unique_bytes is None
    assert second.unique_bytes is not None


def test_one_too_large_to_add_up_in_passing_is_not_asked(tmp_path: Path) -> None:
    rollup = b"Rss: 1 kB\nPss: 1 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 1 kB\n"
    host = tree(tmp_path, smaps_rollup=rollup)
    large = Process(pid=7, start_ticks=9000, rss_bytes=UNIQUE_MOST_BYTES + 1)
    assert measure_unique(host, [large], []) == [large]
    (asked,) = measure_unique(host, [Process(pid=7, start_ticks=9000, rss_bytes=UNIQUE_MOST_BYTES)], [])
    assert asked.unique_bytes == 2048


def test_a_later_process_of_that_pid_is_not_measured(tmp_path: Path) -> None:
    host = tree(tmp_path, smaps_rollup=b"Pss: 1 kB\nPrivate_Clean: 1 kB\nPrivate_Dirty: 1 kB\n")
    before = Process(pid=7, start_ticks=8999, rss_bytes=MIB)
    assert measure_unique(host, [before], []) == [before]


# -- without the right -------------------------------------------------------------------------------------------------

_SHOW = """
from reprieve.machine.host import Host
from reprieve.machine.proc import measure_unique, read_processes
gaps = []
processes = read_processes(Host(), gaps)
measure_unique(Host(), processes, gaps)
print(len(processes), *(f"{gap.place}|{gap.reason}|{gap.hint}" for gap in gaps), sep="\\n")
"""
_LEAVE_ROOT = "os.setgroups([]); os.setgid(64321); os.setuid(64321)\n"  # whom no other test is, or it would see it


def as_nobody(options: str) -> tuple[int, list[str]]:
    """How many processes an unprivileged user sees with /proc mounted so, and the gaps."""
    if os.geteuid() != 0:
        missing("root, to become somebody else")
    argv = [program("unshare"), "-m", "sh", "-ec", f'mount -t proc -o {options} proc /proc; exec "$@"', "sh"]
    source = str(Path(sys.modules["reprieve"].__file__ or "").parents[1])
    script = f"import os, sys; sys.path.insert(0, {source!r}); import reprieve.machine.proc\n{_LEAVE_ROOT}"
    done = subprocess.run([*argv, sys.executable, "-c", script + _SHOW], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"the right to mount /proc: {done.stderr.strip()[-300:]}")
    count, *gaps = done.stdout.splitlines()
    return int(count), gaps


def test_without_root_all_are_seen_and_what_is_refused_is_one_gap() -> None:
    count, gaps = as_nobody("hidepid=0")
    assert count >= len(read_processes(Host(), [])) - 20
    assert len(gaps) == 1
    place, reason, hint = gaps[0].split("|")
    assert place == "/proc/*/smaps_rollup"
    assert reason.startswith("of ")
    assert reason.endswith(" processes: permission denied")
    assert hint == "run it as root"


_MEASURE = f"""
import os, sys
from reprieve.machine.host import Host
from reprieve.machine.proc import measure_unique, read_processes
{_LEAVE_ROOT}
processes = read_processes(Host(), [], pids=map(int, sys.argv[1:]))
gaps = []
assert measure_unique(Host(), processes, gaps, budget_s=1000) == processes
print(*((gap.place, gap.reason, gap.hides) for gap in gaps))
"""


def test_one_that_may_not_be_measured_is_a_note_and_children_of_one_parent_may_hide_a_pool() -> None:
    if os.geteuid() != 0:
        missing("root, to become somebody else")

    def refused(*pids: int) -> str:
        argv = [sys.executable, "-c", _MEASURE, *map(str, pids)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    with subprocess.Popen(["sleep", "600"]) as one, subprocess.Popen(["sleep", "600"]) as another:
        try:
            assert refused(one.pid) == f"('/proc/{one.pid}/smaps_rollup', 'permission denied', False)\n"
            of_both = "('/proc/*/smaps_rollup', 'of 2 processes: permission denied', True)\n"
            assert refused(one.pid, another.pid) == of_both
            assert "False" in refused(one.pid, os.getpid())  # parent and child are no pool
        finally:
            one.kill()
            another.kill()


def test_processes_hidden_by_hidepid_are_a_gap() -> None:
    count, gaps = as_nobody("hidepid=2")
    assert count == 1
    assert len(gaps) == 1
    assert "hidepid" in gaps[0]


def test_processes_whose_files_are_refused_are_one_gap() -> None:
    count, gaps = as_nobody("hidepid=1")
    assert count == 1
    assert len(gaps) == 1
    assert gaps[0].startswith("/proc/*/stat|of ")


@pytest.mark.parametrize(
    ("status", "hidden"),
    [
        ("CapEff:\t0000000000000000\nGid:\t5\t5\t5\t5\nGroups:\t27 \n", True),
        ("CapEff:\t000001ffffffffff\n", False),  # CAP_SYS_PTRACE
        ("CapEff:\t0000000000000000\nGid:\t0\t0\t0\t0\nGroups:\t27 \n", True),  # gid=99 is no longer group 0
        ("CapEff:\t0000000000000000\nGid:\t5\t5\t5\t5\nGroups:\t4 27 99\n", False),  # the group that may
    ],
)
def test_who_may_see_all_misses_nobody(tmp_path: Path, status: str, hidden: bool) -> None:
    host = tree(tmp_path)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/status").write_text(f"Name:\tsh\n{status}")
    (tmp_path / "proc/self/mountinfo").write_text("21 1 0:20 / /proc rw - proc proc rw,gid=99,hidepid=invisible\n")
    gaps: list[Gap] = []
    assert len(read_processes(host, gaps)) == 1
    assert [gap.place for gap in gaps] == ["/proc"] * hidden


# -- other machines, and damage ----------------------------------------------------------------------------------------

STATUS = (
    b"Name:\tsh\nUid:\t1\t2\t3\t4\nNSpid:\t7\t1\nVmLck:\t       4 kB\nVmRSS:\t      12 kB\n%sVmPTE:\t       8 kB\n"
    b"%sVmSwap:\t       0 kB\nMems_allowed_list:\t0-1,3\n"
)


def test_before_four_five_resident_memory_is_told_as_one(tmp_path: Path) -> None:
    (process,) = read_processes(tree(tmp_path, status=STATUS % (b"", b"")), [])
    assert (process.rss_bytes, process.rss_anon_bytes, process.rss_shmem_bytes) == (12288, None, None)
    assert (process.uid, process.ns_pids, process.mems_allowed, process.swap_bytes) == (2, (7, 1), "0-1,3", 0)


def test_before_four_fifteen_two_levels_of_page_tables_are_added(tmp_path: Path) -> None:
    (process,) = read_processes(tree(tmp_path, status=STATUS % (b"", b"VmPMD:\t      12 kB\n")), [])
    assert process.pgtables_bytes == 20 * 1024


@pytest.mark.parametrize(
    ("lines", "path"),
    [
        (b"0::/user.slice/x.scope\n", "/user.slice/x.scope"),
        (b"4:memory:/a\n1:name=systemd:/b\n0::/c\n", "/a"),
        (b"4:cpu,memory:/a:b\n", "/a:b"),
        (b"4:pids:/a\n1:name=memory:/b\n0::/c\n", "/c"),  # hybrid: memory is version 2's
        (b"4:pids:/a\n", None),
        (b"0::/gone.service (deleted)\n", "/gone.service"),
        (b"0::/../sibling\n", "/../sibling"),
        (b"0::/\xff\n", "/\\xff"),
        (b"", None),
    ],
)
def test_the_group_is_that_of_the_hierarchy_that_counts_memory(tmp_path: Path, lines: bytes, path: str | None) -> None:
    (process,) = read_processes(tree(tmp_path, cgroup=lines), [])
    assert process.cgroup == path


@pytest.mark.parametrize("file", ["status", "oom_score_adj", "oom_score", "cgroup"])
def test_a_file_that_cannot_be_read_leaves_the_rest(tmp_path: Path, file: str) -> None:
    host = tree(tmp_path)
    (tmp_path / "proc/7" / file).mkdir()  # reading a folder fails for root too
    gaps: list[Gap] = []
    assert [process.comm for process in read_processes(host, gaps)] == ["sh"]
    assert [gap.place for gap in gaps] == [f"/proc/7/{file}"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("stat", STAT[:60] + b"\n"),
        ("stat", STAT.rstrip()),
        ("stat", STAT.replace(b"9000", b"9_00")),
        ("status", (STATUS % (b"", b"")).replace(b"12 kB", b"1")),
        ("status", b"VmRSS:\t12 kB\n"),
        ("oom_score_adj", b"1001\n"),
        ("oom_score_adj", b"10"),
        ("oom_score", b"\n"),
        ("cgroup", b"0::/a\n0::b\n"),
    ],
)
def test_a_damaged_file_is_a_gap(tmp_path: Path, file: str, content: bytes) -> None:
    gaps: list[Gap] = []
    processes = read_processes(tree(tmp_path, **{file: content}), gaps)
    assert len(processes) == (file != "stat")  # without its start it cannot be told from another
    assert [gap.place for gap in gaps] == [f"/proc/7/{file}"]


@pytest.mark.parametrize("file", ["stat", "smaps_rollup", *FILES])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_bytes_at_random_raise_nothing(tmp_path: Path, file: str, content: bytes) -> None:
    host = tree(tmp_path, **{file: content})
    repr(measure_unique(host, read_processes(host, []), [])).encode()


@pytest.mark.parametrize("file", ["stat", "smaps_rollup", *FILES])
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_a_real_file_damaged_somewhere_raises_nothing(
    tmp_path: Path, file: str, at: float, junk: bytes, cut: bool
) -> None:
    content = STAT if file == "stat" else Path("/proc/self", file).read_bytes()
    place = int(at * len(content))
    host = tree(tmp_path, **{file: content[:place] + junk + (b"" if cut else content[place + len(junk) :])})
    repr(measure_unique(host, read_processes(host, []), [])).encode()


def test_a_status_longer_than_one_read_is_read_whole(tmp_path: Path) -> None:
    status = (STATUS % (b"", b"")).replace(b"Mems", b"Mems_allowed:\t" + b"0,00000000" * 900 + b"\nMems")
    (process,) = read_processes(tree(tmp_path, status=status), [])
    assert process.mems_allowed == "0-1,3"
