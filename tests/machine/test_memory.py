"""The memory of a whole machine: this one's, and trees that are absent, refused or damaged."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine.host import Host
from reprieve.machine.memory import (
    SYSCTLS,
    Mount,
    read_meminfo,
    read_mounts,
    read_nodes,
    read_pressure,
    read_root,
    read_swaps,
    read_sysctls,
    read_tmpfs,
    read_vmstat,
    read_zones,
)
from reprieve.model.finding import Gap
from reprieve.model.machine import Tmpfs
from reprieve.model.rootfs import RootFs
from tests.machine.real import missing, program

READERS: dict[str, Callable[[Host, list[Gap]], object]] = {
    "proc/meminfo": read_meminfo,
    "proc/vmstat": read_vmstat,
    "proc/pressure/memory": read_pressure,
    "proc/swaps": read_swaps,
    "proc/zoneinfo": read_zones,
    "proc/buddyinfo": read_zones,
    "sys/devices/system/node/node0/meminfo": read_nodes,
    "proc/self/mountinfo": read_tmpfs,
    "proc/sys/vm/swappiness": read_sysctls,
}


def tree(root: Path, path: str, content: bytes | str) -> Host:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Host(str(root))


# -- nothing to tell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [*dict.fromkeys(READERS.values())])
def test_what_is_not_there_gives_nothing_and_no_gap(tmp_path: Path, reader: Callable[..., object]) -> None:
    gaps: list[Gap] = []
    assert reader(Host(str(tmp_path)), gaps) == ()
    assert gaps == []


@pytest.mark.parametrize("path", READERS)
def test_a_file_that_cannot_be_read_is_a_gap(tmp_path: Path, path: str) -> None:
    (tmp_path / path).mkdir(parents=True)  # reading a folder fails for root too
    gaps: list[Gap] = []
    READERS[path](Host(str(tmp_path)), gaps)
    assert [gap.place for gap in gaps] == [f"/{path}"]


@pytest.mark.parametrize("path", READERS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300))
def test_bytes_at_random_are_a_gap_and_nothing_is_raised(tmp_path: Path, path: str, content: bytes) -> None:
    gaps: list[Gap] = []
    told = READERS[path](tree(tmp_path, path, content), gaps)
    if content.strip(b"\n") and not content.strip().lstrip(b"-").isdigit():  # a setting is a number, any number
        assert gaps
    repr(told).encode()  # whatever it is, it is text


@pytest.mark.parametrize("path", [path for path in READERS if path not in ("proc/self/mountinfo", "proc/swaps")])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1), junk=st.binary(min_size=1, max_size=8))
def test_this_machine_s_own_file_damaged_somewhere_raises_nothing(
    tmp_path: Path, path: str, at: float, junk: bytes
) -> None:
    try:
        content = Path("/", path).read_bytes()
    except FileNotFoundError:
        missing(f"/{path}")
    place = int(at * len(content))
    READERS[path](tree(tmp_path, path, content[:place] + junk + content[place + len(junk) :]), [])


# -- this machine ------------------------------------------------------------------------------------------------------


def test_meminfo_of_this_machine_is_in_bytes() -> None:
    gaps: list[Gap] = []
    figures = dict(read_meminfo(Host(), gaps))
    assert gaps == []
    # totalram_pages() times the page size is what sysconf() tells too
    assert figures["MemTotal"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert figures.get("HugePages_Total", 0) < 1024 * 1024  # a count: not made bytes of


def test_every_file_of_this_machine_is_understood() -> None:
    gaps: list[Gap] = []
    for reader in dict.fromkeys(READERS.values()):
        reader(Host(), gaps)
    assert gaps == []


def test_the_zones_of_this_machine_manage_the_memory_of_its_nodes() -> None:
    zones, nodes = read_zones(Host(), []), read_nodes(Host(), [])
    if not nodes:
        missing("/sys/devices/system/node")
    managed = {node.number: 0 for node in nodes}
    for zone in zones:
        managed[zone.node] += (zone.managed_pages or 0) * os.sysconf("SC_PAGE_SIZE")
    assert managed == {node.number: dict(node.meminfo)["MemTotal"] for node in nodes}  # si_meminfo_node() adds them up
    assert all(zone.free_blocks for zone in zones if zone.managed_pages)
    assert all(len(zone.protection_pages) > 1 for zone in zones)
    assert all(zone.min_pages is not None and zone.low_pages is not None for zone in zones)


def test_a_file_in_shared_memory_is_counted_in_its_file_system(tmp_path: Path) -> None:
    before = {tmpfs.path: tmpfs for tmpfs in read_tmpfs(Host(), []) if tmpfs.used_bytes is not None}
    if "/dev/shm" not in before:
        missing("a tmpfs at /dev/shm")
    file = Path("/dev/shm", f"reprieve-{os.getpid()}")
    try:
        file.write_bytes(bytes(8 << 20))
        after = {tmpfs.path: tmpfs for tmpfs in read_tmpfs(Host(), []) if tmpfs.used_bytes is not None}
    finally:
        file.unlink()
    assert (after["/dev/shm"].used_bytes or 0) - (before["/dev/shm"].used_bytes or 0) >= 7 << 20
    assert after["/dev/shm"].size_bytes == os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize


def test_settings_are_as_the_kernel_writes_them() -> None:
    values = dict(read_sysctls(Host(), []))
    assert values["vm.swappiness"] == Path("/proc/sys/vm/swappiness").read_text().strip()
    assert list(values) == [name for name in SYSCTLS if name in values]


# -- mounts made for it ------------------------------------------------------------------------------------------------

_SHOW = """
import sys
from reprieve.machine.host import Host
from reprieve.machine.memory import read_tmpfs
gaps = []
for tmpfs in read_tmpfs(Host(), gaps):
    if "reprieve-m" in tmpfs.path:
        print(ascii(tmpfs.path), tmpfs.size_bytes, tmpfs.used_bytes)
print(gaps)
"""


def in_mount_namespace(script: str, folder: Path, show: str = _SHOW) -> list[str]:
    """What `show` prints in a mount namespace of its own, after a shell script."""
    argv = [program("unshare"), "-m", "sh", "-ec", f'{script}\nexec "$0" -c "$1"', sys.executable, show]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        missing(f"the right to mount: {done.stderr.strip()[-200:]}")
    return done.stdout.splitlines()


def test_a_tmpfs_is_told_once_with_its_size_and_a_name_with_blanks(tmp_path: Path) -> None:
    made = in_mount_namespace(
        'mkdir "$PWD/reprieve-m a" reprieve-m2; mount -t tmpfs -o size=4m x "reprieve-m a";'
        'mount --bind "reprieve-m a" reprieve-m2; head -c 1048576 /dev/zero >reprieve-m2/f',
        tmp_path,
    )
    place = f"{tmp_path}/reprieve-m a"
    assert made == [f"{place!r} {4 << 20} {1 << 20}", "[]"]


def test_a_tmpfs_below_another_mount_tells_no_more_than_its_size(tmp_path: Path) -> None:
    made = in_mount_namespace(
        "mkdir reprieve-m; mount -t tmpfs -o size=4m x reprieve-m; head -c 1048576 /dev/zero >reprieve-m/f;"
        "mount -t tmpfs -o size=8m y reprieve-m",
        tmp_path,
    )
    assert [line.split()[1:] for line in made[:2]] == [[str(4 << 20), "None"], [str(8 << 20), "0"]]


def test_a_ramfs_has_no_size(tmp_path: Path) -> None:
    made = in_mount_namespace("mkdir reprieve-m; mount -t ramfs x reprieve-m; echo some >reprieve-m/f", tmp_path)
    assert [line.split()[1:] for line in made[:1]] == [["None", "None"]]


# -- other machines ----------------------------------------------------------------------------------------------------


def test_a_captured_machine_s_tmpfs_is_not_the_disk_that_holds_the_copy(tmp_path: Path) -> None:
    (tmp_path / "dev/shm").mkdir(parents=True)
    host = tree(tmp_path, "proc/self/mountinfo", "7 1 0:999999 / /dev/shm rw - tmpfs tmpfs rw,size=1024k\n")
    assert read_tmpfs(host, []) == (Tmpfs(path="/dev/shm", size_bytes=1 << 20, used_bytes=None),)


def test_a_tmpfs_below_a_server_s_file_system_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "net/shm").mkdir(parents=True)
    held = os.stat(tmp_path).st_dev
    device = f"{os.major(held)}:{os.minor(held)}"  # what would answer, if it were asked
    lines = f"7 1 0:9 / /net rw - nfs4 server:/ rw\n8 7 {device} / /net/shm rw - tmpfs tmpfs rw\n"
    assert read_tmpfs(tree(tmp_path, "proc/self/mountinfo", lines), [])[0].used_bytes is None
    near = tree(tmp_path, "proc/self/mountinfo", lines.splitlines(keepends=True)[1])
    assert read_tmpfs(near, [])[0].used_bytes is not None  # else the test would show nothing


def test_optional_fields_of_a_mount_are_passed_over(tmp_path: Path) -> None:
    line = "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue\n"
    host = tree(tmp_path, "proc/1/mountinfo", line)
    assert read_mounts(host, []) == [Mount("98:0", "/mnt1", "/mnt 2", "ext3", "rw,errors=continue", "rw,noatime")]


@pytest.mark.parametrize(
    ("line", "kind", "read_only"),
    [
        ("1 0 8:1 / / rw,noatime - ext4 /dev/sda1 rw", "ext4", False),
        ("1 0 0:30 /@ / rw - btrfs /dev/sda1 rw,subvol=/@", "btrfs", False),
        ("1 0 8:1 / / ro,relatime - ext4 /dev/sda1 rw", "ext4", True),
        ("1 0 7:0 / / rw - squashfs /dev/loop0 ro,errors=continue", "squashfs", True),
    ],
)
def test_what_is_at_the_root_is_the_last_that_was_mounted_there(
    tmp_path: Path, line: str, kind: str, read_only: bool
) -> None:
    text = f"0 0 0:2 / / rw - rootfs rootfs rw\n{line}\n9 1 8:2 / /home rw - xfs /dev/sda2 rw\n"
    found = read_root(tree(tmp_path, "proc/self/mountinfo", text), [])
    assert found == RootFs(kind=kind, read_only=read_only)  # of a captured machine it is not known how full it is
    assert read_root(tree(tmp_path / "none", "proc/self/mountinfo", ""), []) is None


def test_of_this_machine_how_full_the_root_is_is_told_too() -> None:
    found, state = read_root(Host(), []), os.statvfs("/")
    assert found is not None
    assert found.size_bytes == state.f_blocks * state.f_frsize
    assert found.free_bytes is not None
    assert found.free_bytes <= found.size_bytes


def test_swap_areas_have_their_names_and_negative_priorities(tmp_path: Path) -> None:
    text = (
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/zram0                              partition\t2097148\t\t1024\t\t100\n"
        "/swap\\040file\\134x\\040(deleted)             file\t\t524284\t\t0\t\t-2\n"
    )
    areas = read_swaps(tree(tmp_path, "proc/swaps", text), [])
    assert [(area.name, area.kind, area.size_bytes, area.used_bytes, area.priority) for area in areas] == [
        ("/dev/zram0", "partition", 2097148 * 1024, 1 << 20, 100),
        ("/swap file\\x (deleted)", "file", 524284 * 1024, 0, -2),
    ]


def test_a_cut_file_tells_what_came_before_the_cut(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert read_meminfo(tree(tmp_path, "proc/meminfo", "MemTotal:  8 kB\nHugePages_Total:  1"), gaps) == (
        ("MemTotal", 8192),
    )
    assert len(gaps) == 1  # it may have been 10


def test_digits_of_another_script_are_no_figure(tmp_path: Path) -> None:
    assert read_meminfo(tree(tmp_path, "proc/meminfo", "MemTotal:  ٣ kB\nMemFree:  1_0 kB\n"), []) == ()


def test_a_zone_keeps_what_was_said_first_and_not_a_cpu_s_list(tmp_path: Path) -> None:
    text = (
        "Node 1, zone   Normal\n  per-node stats\n      nr_inactive_anon 5\n  pages free     77\n        min      1\n"
        "        low      2\n        high     3\n        present  90\n        protection: (0, 4)\n  pagesets\n"
        "    cpu: 0\n              count: 1\n              high:  378\n              batch: 63\n"
    )
    tree(tmp_path, "proc/buddyinfo", "Node 1, zone   Normal      5      6 \n")
    (zone,) = read_zones(tree(tmp_path, "proc/zoneinfo", text), [])
    assert (zone.node, zone.free_pages, zone.high_pages, zone.managed_pages) == (1, 77, 3, None)
    assert (zone.protection_pages, zone.free_blocks) == ((0, 4), (5, 6))
