"""Captured machines in archives: what is taken out of them, and what an archive cannot make us do."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from reprieve.machine.host import READ_BYTES, Host
from reprieve.machine.observe import observe
from reprieve.machine.unpack import is_archive, unpacked
from reprieve.model.finding import Failure, Gap
from tests.conftest import Run
from tests.machine.test_archive import TOP, member
from tests.oom.test_living import HOSTS

MACHINES = sorted(folder.name for folder in HOSTS.iterdir() if (folder / "proc").is_dir())


def packed(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> str:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is a parameter
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def file(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, len(data)), data


def link(name: str, to: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind=tarfile.SYMTYPE, link=to), b""


MEMINFO = file(f"{TOP}/proc/meminfo", b"MemTotal: 9 kB\n")


def tree(root: str) -> set[str]:
    return {os.path.relpath(os.path.join(at, name), root) for at, _, names in os.walk(root) for name in names}


@pytest.mark.parametrize("host", MACHINES)
def test_a_machine_that_was_packed_is_the_one_that_was_captured(tmp_path: Path, host: str) -> None:
    with tarfile.open(tmp_path / "machine.tar.gz", "w:gz") as archive:
        archive.add(HOSTS / host, arcname=TOP)
    gaps: list[Gap] = []
    with unpacked(str(tmp_path / "machine.tar.gz"), gaps) as root:
        machine = observe(Host(root), gaps, unique_s=0)
    told: list[Gap] = []
    assert machine == observe(Host(str(HOSTS / host)), told, unique_s=0)
    assert gaps == told


@pytest.mark.parametrize("verb", [("check",), ("next",), ("top", "--once")])
def test_each_verb_that_takes_a_captured_root_takes_it_packed(
    reprieve: Run, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    with tarfile.open(tmp_path / "of-any-name", "w:xz") as archive:
        archive.add(HOSTS / "v2-systemd-252", arcname=TOP)
    one, other = (reprieve(*verb, "--from", origin) for origin in (tmp_path / "of-any-name", HOSTS / "v2-systemd-252"))
    assert (one.stdout, one.stderr, one.returncode) == (other.stdout, other.stderr, other.returncode)
    assert one.stdout


def test_what_is_not_on_the_list_or_leads_elsewhere_is_left_out(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "report.tar",
        MEMINFO,
        file(f"{TOP}/etc/shadow", b"secret"),
        file(f"{TOP}/proc/../../../../{tmp_path}/proc/vmstat", b"x"),
        file("/proc/vmstat", b"x"),
        file("proc/vmstat", b"x"),  # without a top folder it is sys, or whatever is first
        file(f"{TOP}/proc/{'a/' * 600}b", b"x"),
        link(f"{TOP}/proc/swaps", "/etc/passwd"),
        link(f"{TOP}/sys/fs/cgroup", str(tmp_path)),
        file(f"{TOP}/sys/fs/cgroup/memory.max", b"max\n"),
        link(f"{TOP}/proc/self", "../../.."),
        (member(f"{TOP}/proc/zoneinfo", kind=tarfile.CHRTYPE), b""),
        (member(f"{TOP}/proc/buddyinfo", kind=tarfile.LNKTYPE, link="/etc/passwd"), b""),
        file(f"{TOP}/proc/meminfo", b"MemTotal: 1 kB\n"),  # the second of that name
        file(f"{TOP}/proc/meminfo/x", b""),
    )
    before = set(os.listdir(tmp_path))
    gaps: list[Gap] = []
    with unpacked(path, gaps) as root:
        assert tree(root) == {"proc/meminfo", "sys/fs/cgroup/memory.max"}
        assert Path(root, "proc/meminfo").read_bytes() == MEMINFO[1]
    assert not os.path.exists(root)
    assert set(os.listdir(tmp_path)) == before
    assert gaps == []


def test_where_links_led_is_kept_where_it_matters(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "report.tar",
        link(f"{TOP}/proc/self", "77"),
        file(f"{TOP}/proc/77/mountinfo", b"mounts\n"),
        link(f"{TOP}/sys/block/zram0", "../devices/virtual/block/zram0"),
        file(f"{TOP}/sys/devices/virtual/block/zram0/disksize", b"4096\n"),
        link(f"{TOP}/etc/systemd/system/masked.service", "/dev/null"),
        file(f"{TOP}/lib/systemd/system/masked.service", b"[Service]\nMemoryMax=1\n"),
    )
    with unpacked(path, []) as root:
        assert Host(root).read("/proc/self/mountinfo") == b"mounts\n"
        assert Host(root).read("/sys/block/zram0/disksize") == b"4096\n"
        assert Host(root).read("/etc/systemd/system/masked.service") == b""


def test_what_is_too_large_is_a_gap_and_what_follows_is_read(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "report.tar.gz",
        file(f"{TOP}/proc/vmstat", bytes(READ_BYTES + 1)),
        MEMINFO,
        mode="w:gz",
    )
    gaps: list[Gap] = []
    with unpacked(path, gaps) as root:
        assert tree(root) == {"proc/meminfo"}
    assert [gap.reason for gap in gaps] == ["too large to take out"]


def test_a_cut_archive_gives_what_came_before_the_cut_and_says_so(tmp_path: Path) -> None:
    whole = Path(packed(tmp_path / "report.tar", MEMINFO, file(f"{TOP}/proc/vmstat", bytes(9000))))
    whole.write_bytes(whole.read_bytes()[:3000])
    gaps: list[Gap] = []
    with unpacked(str(whole), gaps) as root:
        assert "proc/meminfo" in tree(root)
    assert [gap.reason.partition(":")[0] for gap in gaps] == ["damaged archive"]


def test_an_archive_of_something_else_is_a_failure(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", file(f"{TOP}/etc/hosts", b"x"))
    with pytest.raises(Failure, match="holds no machine"), unpacked(path, []):
        pass
    (tmp_path / "b.tar.xz").write_bytes(b"no archive")
    assert not is_archive(str(tmp_path / "b.tar.xz"))
    assert not is_archive(str(tmp_path / "absent"))
