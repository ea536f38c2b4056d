"""Files that are memory, and shared memory of System V: real ones, made for the test."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprieve.machine import shm
from reprieve.machine.host import Host
from reprieve.machine.shm import LEAST_BYTES, find_largest, read_segments
from reprieve.model.finding import Gap
from reprieve.model.machine import Segment, Tmpfs
from tests.machine.real import missing

HOSTS = Path(__file__).parent.parent / "hosts"
MIB = 1 << 20
HEAD = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime"
HEAD += "      dtime      ctime                   rss                  swap\n"


def sysvipc(root: Path, text: str | bytes) -> Host:
    file = root / "proc/sysvipc/shm"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Host(str(root))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tmpfs of the test's own, as a captured one would lie: nobody else writes there."""
    (tmp_path / "shm").mkdir()
    return tmp_path / "shm"


def look(
    folder: Path, *, used: int | None = 64 * MIB, mounted: frozenset[str] = frozenset()
) -> tuple[Tmpfs, list[Gap]]:
    gaps: list[Gap] = []
    asked = Tmpfs(path=f"/{folder.name}", size_bytes=None, used_bytes=used)
    (told,) = find_largest(Host(str(folder.parent)), gaps, (asked,), mounted)
    return told, gaps


# -- nothing to tell ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [None, 0, LEAST_BYTES - 1])
def test_a_file_system_that_holds_little_or_does_not_tell_is_not_looked_into(folder: Path, used: int | None) -> None:
    (folder / "file").write_bytes(b"x" * MIB)
    told, gaps = look(folder, used=used)
    assert (told.largest, told.found_bytes, gaps) == ((), None, [])


def test_no_shared_memory_is_none(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert read_segments(Host(str(tmp_path)), gaps) == ()
    assert read_segments(sysvipc(tmp_path, HEAD), gaps) == ()
    assert gaps == []


def test_a_file_that_goes_while_it_is_looked_at_leaves_no_gap(folder: Path) -> None:
    told, gaps = look(folder.parent / "gone")
    assert (told.largest, told.found_bytes, gaps) == ((), 0, [])


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_counts_once_by_what_it_takes_however_many_names_it_has(folder: Path) -> None:
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/large").write_bytes(b"x" * 2 * MIB)
    (folder / "deep/again").hardlink_to(folder / "deep/er/large")
    (folder / "small").write_bytes(b"x" * 4096)
    (folder / "link").symlink_to("/etc")
    os.truncate(folder / "small", 8 * MIB)  # a hole takes nothing
    os.mkfifo(folder / "pipe")
    told, gaps = look(folder)
    assert gaps == []
    assert [file.held_bytes for file in told.largest] == [2 * MIB, 4096]
    assert told.found_bytes == 2 * MIB + 4096
    assert told.largest[0].path in ("/shm/deep/er/large", "/shm/deep/again")
    assert told.largest[0].uid == os.geteuid()


def test_only_the_largest_are_named(folder: Path) -> None:
    for at in range(8):
        (folder / f"{at}").write_bytes(b"x" * 4096 * (at + 1))
    told, _ = look(folder)
    assert [file.path for file in told.largest] == [f"/shm/{at}" for at in (7, 6, 5, 4, 3)]
    assert told.found_bytes == 4096 * 36


def test_what_is_mounted_within_is_not_touched(folder: Path) -> None:
    (folder / "served").mkdir()
    (folder / "served/file").write_bytes(b"x" * MIB)
    told, gaps = look(folder, mounted=frozenset({"/shm", "/shm/served"}))
    assert (told.largest, told.found_bytes, gaps) == ((), 0, [])


def test_more_files_than_are_looked_at_are_a_gap(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(30):
        (folder / f"{at}").touch()
    monkeypatch.setattr(shm, "ENTRIES", 20)
    told, gaps = look(folder)
    assert told.found_bytes is None
    assert [(gap.place, gap.reason) for gap in gaps] == [("/shm", "holds more than the 20 files that were looked at")]


def test_a_path_too_long_to_be_asked_for_is_a_gap(folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    try:
        for _ in range(20):  # each name is short enough, all of them together are not
            os.mkdir("d" * 250, dir_fd=here)
            here, above = os.open("d" * 250, os.O_RDONLY, dir_fd=here), here
            os.close(above)
    finally:
        os.close(here)
    told, gaps = look(folder)
    assert told.found_bytes is None
    assert [gap.reason for gap in gaps] == ["file name too long"]
    subprocess.run(["rm", "-r", folder], check=True)


def test_names_that_are_no_unicode_are_told_all_the_same(folder: Path) -> None:
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))).write_bytes(b"x" * 4096)
    told, _ = look(folder)
    assert told.largest[0].path == "/shm/\\xff"


def test_what_was_deleted_and_is_held_open_is_the_rest(tmp_path: Path) -> None:
    code = """
import sys
from reprieve.machine.host import Host
from reprieve.machine.memory import read_mounts, read_tmpfs
from reprieve.machine.shm import find_largest
folder, gaps = sys.argv[1], []
open(f"{folder}/named", "wb").write(b"x" * 3_000_000)
held = open(f"{folder}/gone", "wb")
held.write(b"x" * 5_000_000)
held.flush()
__import__("os").unlink(f"{folder}/gone")
mounted = {mount.path for mount in read_mounts(Host(), gaps)}
alone = tuple(tmpfs for tmpfs in read_tmpfs(Host(), gaps) if tmpfs.path == folder)  # /tmp may be one, with many files
(own,) = find_largest(Host(), gaps, alone, mounted)
print(own.size_bytes, own.used_bytes, own.found_bytes, own.largest[0].path, gaps)
"""
    mount = f"mount -t tmpfs -o size=16m made '{tmp_path}' && exec \"$0\" -c \"$1\" '{tmp_path}'"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, sys.executable, code], capture_output=True, text=True
    )
    if "unshare: " in done.stderr:
        missing("the right to make a mount namespace")
    size, used, found, path, gaps = done.stdout.split()
    assert (int(size), path, gaps) == (16 * MIB, f"{tmp_path}/named", "[]")
    assert 3_000_000 <= int(found) < 3_100_000
    assert 5_000_000 <= int(used) - int(found) < 5_100_000


# -- shared memory of System V -----------------------------------------------------------------------------------------


@pytest.fixture
def segment() -> Iterator[int]:
    libc = ctypes.CDLL(None, use_errno=True)
    number = libc.shmget(0, ctypes.c_size_t(3 * MIB), 0o1600)  # IPC_CREAT of a key of its own
    if number < 0:
        missing("shared memory of System V")
    yield number
    libc.shmctl(number, 0, None)  # IPC_RMID


def test_shared_memory_that_nobody_maps_is_told_with_its_maker(segment: int) -> None:
    gaps: list[Gap] = []
    told = {one.number: one for one in read_segments(Host(), gaps)}
    assert gaps == []
    expected = Segment(
        number=segment,
        size_bytes=3 * MIB,
        creator_pid=os.getpid(),
        attached=0,
        uid=os.geteuid(),
        rss_bytes=0,
        swap_bytes=0,
    )
    assert told[segment] == expected


def test_a_captured_segment_with_a_negative_key_is_read() -> None:
    gaps: list[Gap] = []
    (one,) = read_segments(Host(str(HOSTS / "v2-systemd-252")), gaps)
    assert (one.number, one.size_bytes, one.creator_pid, one.attached) == (0, 3_000_000, 200, 0)
    assert gaps == []


def test_an_older_kernel_tells_no_resident_part(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    line = "0 5 600 4096 7 0 1 1000 100 1000 100 1 0 1\n"
    told = Segment(number=5, size_bytes=4096, creator_pid=7, attached=1, uid=1000)
    assert (read_segments(sysvipc(tmp_path, line), gaps), gaps) == ((told,), [])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(min_size=1, max_size=200))
def test_bytes_at_random_are_a_gap_and_nothing_is_raised(tmp_path: Path, content: bytes) -> None:
    gaps: list[Gap] = []
    told = read_segments(sysvipc(tmp_path, content), gaps)
    if content.strip(b"\n"):
        assert gaps
    repr(told).encode()
