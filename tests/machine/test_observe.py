"""A machine read whole: captured ones, this one from several places, and trees that are absent or damaged."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.codec import pack, unpack
from reprieve.machine.host import Host, identify
from reprieve.machine.observe import observe
from reprieve.model.finding import Gap
from reprieve.model.machine import Machine
from reprieve.model.snapshot import Snapshot
from tests.machine.real import missing, program

HOSTS = Path(__file__).parent.parent / "hosts"
NAMES = sorted(path.name for path in HOSTS.iterdir() if (path / "proc").is_dir())
CONTAINER = "container-nobody-6.12"
MACHINES = [name for name in NAMES if name != CONTAINER]
MINI = [name for name in NAMES if "-mini-" in name]  # with all their groups
WHOLE = "v2-systemd-252"
FILES = sorted(str(path.relative_to(HOSTS / WHOLE)) for path in (HOSTS / WHOLE).rglob("*") if path.is_file())
FREE_TEXT = ("proc/sys/kernel/hostname", "proc/sys/kernel/osrelease")
NOT_READ = (
    "proc/self/cgroup",
    "cgroup.controllers",
    "cgroup.events",
    "demote",
    "demote_size",
    "nr_overcommit_hugepages",
)
READ = [path for path in FILES if not path.endswith(NOT_READ)]
V1 = Path("/sys/fs/cgroup/memory")
MIB = 1 << 20


def seen(root: Path | str) -> tuple[Machine, list[Gap]]:
    gaps: list[Gap] = []
    return observe(Host(str(root)), gaps, unique_s=60), gaps


def this_machine() -> tuple[Machine, list[Gap]]:
    return seen("/")


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captured machine, to be damaged: it is made up from here."""
    root = tmp_path_factory.mktemp("hosts") / "made-up-damaged"
    shutil.copytree(HOSTS / WHOLE, root)
    return root


# -- nothing to tell ---------------------------------------------------------------------------------------------------


def test_of_nothing_nothing_is_told_but_what_is_missing(tmp_path: Path) -> None:
    machine, gaps = seen(tmp_path)
    assert machine == Machine()
    assert {gap.place for gap in gaps} == {
        *("/proc", "/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/sys/vm", "/sys/fs/cgroup"),
        "processes",
    }


@pytest.mark.parametrize("name", MACHINES)
def test_a_captured_machine_is_read_without_a_gap(name: str) -> None:
    assert seen(HOSTS / name)[1] == []


def test_processes_that_come_and_go_leave_no_gap() -> None:
    stop = threading.Event()

    def spawn() -> None:
        while not stop.is_set():
            subprocess.run([program("true")], check=True)

    before = {gap.place for gap in this_machine()[1]}
    spawner = threading.Thread(target=spawn)
    spawner.start()
    try:
        after = {gap.place for _ in range(10) for gap in this_machine()[1]}
    finally:
        stop.set()
        spawner.join()
    assert after == before


# -- what is seen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MACHINES)
def test_all_parts_of_a_captured_machine_are_there_and_belong_together(name: str) -> None:
    machine, _ = seen(HOSTS / name)
    # Of the machine itself nothing tells its page size: these are x86-64.
    assert (machine.page_bytes, machine.cpus, machine.cgroup_private) == (4096, 1, False)
    assert machine.boot_id is not None
    assert len(machine.boot_id) == 32
    assert machine.taken_uptime_s is not None
    assert machine.taken_wall_s is not None
    assert machine.taken_wall_s > 1.7e9 > machine.taken_uptime_s > 0
    assert dict(machine.meminfo)["MemTotal"] == 4096 * sum(zone.managed_pages or 0 for zone in machine.zones)
    assert dict(machine.vmstat)["nr_free_pages"] > 0
    assert [pressure.kind for pressure in machine.pressure] == ["some", "full"]
    assert dict(machine.sysctls)["vm.swappiness"] == "60"
    assert dict(machine.settings)["/sys/kernel/mm/transparent_hugepage/enabled"] in ("always", "madvise", "never")
    pids = [process.pid for process in machine.processes]
    assert pids == sorted(pids)
    assert [process.pid for process in machine.processes if process.kernel_thread] == [2]
    for process in machine.processes:
        assert process.kernel_thread or process.rss_bytes
        assert process.oom_score_adj is not None
        assert process.start_ticks <= machine.taken_uptime_s * 100


@pytest.mark.parametrize("name", MINI)
def test_a_process_and_its_group_know_each_other(name: str) -> None:
    machine, _ = seen(HOSTS / name)
    members = {pid: group.path for group in machine.cgroups for pid in group.pids}
    known = [process for process in machine.processes if process.pid in members]
    assert len(known) > 2  # the shell that listed them was one more each time
    assert {process.pid: process.cgroup for process in known} == {one.pid: members[one.pid] for one in known}


def test_two_nodes_and_who_is_large_are_told() -> None:
    machine, _ = seen(HOSTS / "numa-mini-7")
    assert [node.number for node in machine.nodes] == [0, 1]
    total = sum(dict(node.meminfo)["MemTotal"] for node in machine.nodes)
    assert total == dict(machine.meminfo)["MemTotal"]
    assert {zone.node for zone in machine.zones} == {0, 1}
    (hog,) = [process for process in machine.processes if process.comm == "hog"]
    assert hog.unique_bytes is not None
    assert hog.unique_bytes > 40 * MIB
    assert ("/dev/shm", 64 * MIB) in [(tmpfs.path, tmpfs.size_bytes) for tmpfs in machine.tmpfs]
    assert dict(machine.settings)["/sys/kernel/mm/lru_gen/enabled"] == "0x0007"


def test_swap_in_memory_idle_huge_pages_and_left_shared_memory_are_told() -> None:
    machine, _ = seen(HOSTS / WHOLE)
    assert [(area.name, area.used_bytes > 0) for area in machine.swaps] == [("/dev/zram0", True)]
    assert [zram.name for zram in machine.zram] == ["zram0"]
    assert [pool.free for pool in machine.huge_pools if pool.node is None and pool.total] == [4]
    assert [(segment.size_bytes, segment.attached) for segment in machine.segments] == [(3_000_000, 0)]


def test_what_was_swapped_out_is_of_its_process_and_its_group_on_systemd_257() -> None:
    machine, _ = seen(HOSTS / "v2-systemd-257")
    assert [(area.name, area.used_bytes > 15 * MIB) for area in machine.swaps] == [("/dev/zram0", True)]
    assert [pool.free for pool in machine.huge_pools if pool.node is None and pool.total] == [4]
    assert [(segment.size_bytes, segment.attached) for segment in machine.segments] == [(3_000_000, 0)]
    (cold,) = [group for group in machine.cgroups if group.path == "/app.slice/cold.service"]
    (hog,) = [process for process in machine.processes if process.cgroup == cold.path]
    assert hog.swap_bytes is not None
    assert cold.swap_current_bytes is not None
    assert hog.swap_bytes > 15 * MIB  # 20 were to be reclaimed, of which files give some
    assert abs(hog.swap_bytes - cold.swap_current_bytes) < MIB
    assert "/tmp" in [tmpfs.path for tmpfs in machine.tmpfs]  # in memory from Debian 13 on


def test_this_machine_is_what_the_kernel_says_of_it() -> None:
    machine, _ = this_machine()
    identity = identify()
    assert (machine.machine_id, machine.boot_id, machine.hostname) == identity
    assert machine.cpus == os.sysconf("SC_NPROCESSORS_CONF")
    assert machine.page_bytes == os.sysconf("SC_PAGE_SIZE")
    assert machine.kernel == os.uname().release
    assert machine.taken_uptime_s is not None
    (own,) = [process for process in machine.processes if process.pid == os.getpid()]
    assert own.start_ticks <= machine.taken_uptime_s * 100
    paths = [group.path for group in machine.cgroups]
    assert own.cgroup in paths


@pytest.mark.parametrize("name", NAMES)
def test_the_document_gives_back_the_machine_byte_for_byte(name: str) -> None:
    machine, gaps = seen(HOSTS / name)
    data = pack(Snapshot(machine=machine, gaps=tuple(gaps)))
    assert unpack(data).machine == machine
    assert pack(unpack(data)) == data
    assert seen(HOSTS / name) == (machine, gaps)  # and twice the same from its files


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in READ if path not in FREE_TEXT])
def test_garbage_in_any_file_is_a_gap(made_up: Path, path: str) -> None:
    whole = (made_up / path).read_bytes()
    (made_up / path).write_bytes(b"\xff\xfe not of a kernel\n" + whole[-3:])
    try:
        machine, gaps = seen(made_up)
    finally:
        (made_up / path).write_bytes(whole)
    assert gaps
    assert unpack(pack(Snapshot(machine=machine))).machine == machine


# A folder among the files of a group is a group; who a machine is, is told by no gap.
@pytest.mark.parametrize("path", [path for path in READ if not path.startswith(("sys/fs/cgroup", "etc/", *FREE_TEXT))])
def test_a_file_that_fails_to_be_read_is_a_gap(made_up: Path, path: str) -> None:
    whole = (made_up / path).read_bytes()
    (made_up / path).unlink()
    (made_up / path).mkdir()  # reading a folder fails for root too
    try:
        _, gaps = seen(made_up)
    finally:
        (made_up / path).rmdir()
        (made_up / path).write_bytes(whole)
    assert gaps or path.endswith("boot_id")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(FILES), start=st.floats(0, 1), length=st.integers(0, 64), junk=st.binary(max_size=64))
def test_a_file_damaged_somewhere_raises_nothing_and_travels(
    made_up: Path, path: str, start: float, length: int, junk: bytes
) -> None:
    whole = (made_up / path).read_bytes()
    at = int(start * len(whole))
    (made_up / path).write_bytes(whole[:at] + junk + whole[at + length :])
    try:
        machine, gaps = seen(made_up)
    finally:
        (made_up / path).write_bytes(whole)
    snapshot = Snapshot(machine=machine, gaps=tuple(gaps))
    assert unpack(pack(snapshot)) == snapshot


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from([path for path in FILES if "/sys/fs/cgroup/" in f"/{path}" or "proc/" in path]),
    digits=st.sampled_from(["9" * 17, "9" * 18, "9" * 20, str(1 << 63), str((1 << 64) - 1), "-1", "٣", "1e9"]),
)
def test_a_figure_beyond_all_machines_travels(made_up: Path, path: str, digits: str) -> None:
    whole = (made_up / path).read_bytes()
    head, _, rest = whole.partition(b" ") if b" " in whole else (b"", b"", whole)
    (made_up / path).write_bytes(head + b" " + digits.encode() + b" " + rest if head else digits.encode() + b"\n")
    try:
        machine, gaps = seen(made_up)
    finally:
        (made_up / path).write_bytes(whole)
    snapshot = Snapshot(machine=machine, gaps=tuple(gaps))
    assert unpack(pack(snapshot)) == snapshot


# -- from within a container -------------------------------------------------------------------------------------------

VIEW = "a container's view: what is outside it is not seen"


def test_nobody_in_a_container_sees_its_own_and_what_is_everybody_s_and_is_told_so() -> None:
    machine, gaps = seen(HOSTS / CONTAINER)
    assert [(gap.place, gap.reason) for gap in gaps] == [("cgroups", VIEW), ("processes", VIEW)]
    assert machine.cgroup_private
    (group,) = machine.cgroups
    assert (group.path, group.max_bytes, group.high_bytes) == ("/", 96 * MIB, 80 * MIB)
    (shell,) = machine.processes
    assert (shell.pid, shell.uid, shell.cgroup) == (1, 65534, "/")
    assert shell.unique_bytes is not None
    assert dict(machine.meminfo)["MemTotal"] > 4 * 96 * MIB  # of the host
    assert ("/tmp", 16 * MIB) in [(tmpfs.path, tmpfs.size_bytes) for tmpfs in machine.tmpfs]


def within(*unshare: str, before: str = "true", group: Path | None = None) -> tuple[set[str], str]:
    """The gaps in a view that is made with these options, in a group, and what is printed of it."""
    code = """
from reprieve.machine.host import Host
from reprieve.machine.observe import observe
gaps = []
machine = observe(Host(), gaps)
print(len(machine.processes), machine.cgroup_private, dict(machine.meminfo)["MemTotal"])
print(*(f"{gap.place}|{gap.reason}" for gap in gaps), sep="\\n")
"""
    enter = "" if group is None else f"echo 0 > {group}/cgroup.procs; "
    argv = ["sh", "-c", f'{enter}exec "$@"', "sh", "unshare", *unshare, "sh", "-c", f'{before} && exec "$0" -c "$1"']
    argv += [sys.executable, code]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    if done.returncode and ("unshare: " in done.stderr or "mount: " in done.stderr):
        missing(f"the right to {' '.join(unshare)}")
    assert done.returncode == 0, done.stderr
    told, *gaps = done.stdout.splitlines()
    return set(gaps), told


def test_in_a_pid_namespace_it_is_said_that_others_are_not_seen() -> None:
    gaps, told = within("--pid", "--fork", "--mount-proc")
    assert f"processes|{VIEW}" in gaps
    assert int(told.split()[0]) <= 2
    assert told.split()[2] == str(dict(this_machine()[0].meminfo)["MemTotal"])  # the whole machine's all the same


def test_in_a_group_of_version_1_it_is_said_that_others_are_not_seen() -> None:
    folder = V1 / f"reprieve-view-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError:
        missing("a memory controller of cgroup v1 in which a group may be made")
    try:
        gaps, told = within(
            "--cgroup", "--pid", "--fork", "--mount-proc", before=f"mount --bind {folder} {V1}", group=folder
        )
    finally:
        folder.rmdir()
    assert {f"cgroups|{VIEW}", f"processes|{VIEW}"} <= gaps
    assert told.split()[1] == "True"


def test_on_the_machine_itself_nothing_is_said_of_containers() -> None:
    gaps, _ = within("--mount")
    if not any(process.kernel_thread for process in this_machine()[0].processes):
        missing("the first pid namespace")
    assert not {gap for gap in gaps if gap.startswith("processes|")}


def test_an_ordinary_user_s_own_namespace_is_seen_as_far_as_it_goes() -> None:
    gaps, told = within("--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    assert f"processes|{VIEW}" in gaps
    assert int(told.split()[0]) <= 2
