import gzip
import io
import lzma
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from reprieve.machine.archive import archive_sources, holds_kernel_lines
from reprieve.machine.host import Identity
from reprieve.machine.log import named
from reprieve.model.finding import Failure, Gap
from tests.machine.real import program, read
from tests.machine.test_journal import OLD_BOOT, report

NOBODY = Identity()
TOP = "sosreport-node7-2026-11-23-abcdefg"
FILES = {
    "sos_commands/kernel/dmesg": b"[    1.0] boot\n",
    "sos_commands/logs/journalctl_--no-pager_--boot": b"Nov 23 12:00:00 node7 kernel: text\n",
    "var/log/messages": b"Nov 23 12:00:00 node7 kernel: newest\n",
    "var/log/messages-20261101.gz": gzip.compress(b"Nov 1 12:00:00 node7 kernel: older\n"),
    "sos_commands/process/ps_auxwww": b"root 1 0.0 init\n",
    "proc/meminfo": b"MemTotal: 1 kB\n",
    "etc/shadow": b"root:x\n",
}
KERNEL_FILES = sorted(name for name in FILES if holds_kernel_lines(name))


def test_an_archive_whose_files_are_called_otherwise_is_told_which_names_count(tmp_path: Path) -> None:
    archive, gaps = tmp_path / "logs.tar", list[Gap]()
    with tarfile.open(archive, "w") as file:
        file.addfile(tarfile.TarInfo("t4/oom.txt"))
    assert archive_sources(str(archive), gaps) == []
    (gap,) = gaps
    assert gap.reason == "holds no file that is called as logs of the kernel are"
    assert gap.hint is not None
    assert "kern.log" in gap.hint


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mtime = size, kind, link, 1_790_000_000
    return info


def sosreport(path: Path, mode: str = "w", extra: dict[str, bytes] | None = None) -> str:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is a parameter
        for name, data in {**{f"{TOP}/{name}": data for name, data in FILES.items()}, **(extra or {})}.items():
            archive.addfile(member(name, len(data)), io.BytesIO(data))
    return str(path)


def test_only_files_with_kernel_lines_are_on_the_list() -> None:
    assert not any(
        map(holds_kernel_lines, ("etc/shadow", "proc/kmsg", "var/log/secure", "var/log/messages/x", "x.journal.d"))
    )
    assert [name.split("/")[-1] for name in KERNEL_FILES] == [
        "dmesg",
        "journalctl_--no-pager_--boot",
        "messages",
        "messages-20261101.gz",
    ]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_packed_sosreport_gives_its_kernel_files_and_no_other(tmp_path: Path, mode: str) -> None:
    path = sosreport(tmp_path / "report", mode)
    sources, gaps = named([path], NOBODY)
    texts = {source.name.removeprefix(f"{path}: "): read(source)[0] for source in sources}
    assert sorted(texts) == KERNEL_FILES
    assert texts["var/log/messages-20261101.gz"] == b"Nov 1 12:00:00 node7 kernel: older\n"
    assert gaps == []


def test_an_archive_of_logs_that_is_no_sosreport_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "logs.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name in ("./kern.log", "node7/syslog.1", "notes.txt"):
            archive.addfile(member(name, 5), io.BytesIO(b"text\n"))
    sources, _ = named([str(path)], NOBODY)
    assert [source.name for source in sources] == [f"{path}: ./kern.log", f"{path}: node7/syslog.1"]


def test_a_journal_in_a_sosreport_is_read_by_journalctl(tmp_path: Path) -> None:
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    journal = tmp_path / "system.journal"
    text = report(0, OLD_BOOT)
    subprocess.run([remote, f"--output={journal}", "-"], input=text, check=True, capture_output=True)
    inside = "var/log/journal/0123/system.journal"
    path = sosreport(tmp_path / "report.tar", extra={f"{TOP}/{inside}": journal.read_bytes()})
    [source] = [source for source in named([path], NOBODY)[0] if source.kind == "journal"]
    assert (source.name, source.boot_id) == (f"{path}: {inside}", OLD_BOOT)
    assert read(source)[0].count(b"Killed process 77") == 1


def test_a_journal_that_is_too_long_as_text_is_read_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    journal = tmp_path / "system.journal"
    subprocess.run([remote, f"--output={journal}", "-"], input=report(0, OLD_BOOT), check=True, capture_output=True)
    path = tmp_path / "logs.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(journal, "system.journal")
        archive.addfile(member("kern.log", 5), io.BytesIO(b"text\n"))
    sources, gaps = named([str(path)], NOBODY)
    assert gaps == []
    assert max(len(read(source)[0]) for source in sources) > 1000
    monkeypatch.setattr("reprieve.machine.archive._TOTAL_BYTES", journal.stat().st_size + 1000)
    sources, gaps = named([str(path)], NOBODY)
    assert {source.name: len(read(source)[0]) for source in sources} == {
        f"{path}: system.journal": 1000,  # the order of the keys is another each time
        f"{path}: kern.log": 5,
    }
    assert [(gap.place, gap.reason) for gap in gaps] == [
        (f"{path}: system.journal", "too large to take out; read up to there")
    ]


def test_a_member_can_be_read_twice(tmp_path: Path) -> None:
    sources, _ = named([sosreport(tmp_path / "report.tar")], NOBODY)
    assert [read(source) for source in sources] == [read(source) for source in sources]


def test_an_unpacked_sosreport_gives_the_same_files(tmp_path: Path) -> None:
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "dmesg").symlink_to("/etc/passwd")
    sources, gaps = named([str(tmp_path)], NOBODY)
    assert sorted(os.path.relpath(source.name, tmp_path) for source in sources) == KERNEL_FILES
    assert gaps == []


def test_what_an_archive_says_of_links_devices_and_other_places_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("/var/log/messages", f"{TOP}/../../var/log/messages", f"../{TOP}/var/log/messages"):
            archive.addfile(member(name, 4), io.BytesIO(b"evil"))
        archive.addfile(member(f"{TOP}/var/log/kern.log", kind=tarfile.SYMTYPE, link="/etc/shadow"))
        archive.addfile(member(f"{TOP}/var/log/syslog", kind=tarfile.LNKTYPE, link="/etc/shadow"))
        archive.addfile(member(f"{TOP}/var/log/dmesg", kind=tarfile.CHRTYPE))
        archive.addfile(member(f"{TOP}/var/log/dmesg.0", kind=tarfile.FIFOTYPE))
        archive.addfile(member(f"{TOP}/var/log/kern.log.1", 5), io.BytesIO(b"text\n"))
    before = set(os.listdir("/var/tmp"))
    [source], gaps = named([str(path)], NOBODY)
    assert source.name == f"{path}: var/log/kern.log.1"
    assert read(source) == (b"text\n", [])
    assert set(os.listdir("/var/tmp")) == before
    assert gaps == []


def test_a_member_that_claims_terabytes_is_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "report.tar"
    honest = member(f"{TOP}/var/log/messages", 5).tobuf() + b"text\n".ljust(512, b"\0")
    path.write_bytes(honest + member(f"{TOP}/var/log/kern.log", 1 << 42).tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    [source], gaps = named([str(path)], NOBODY)
    assert read(source) == (b"text\n", [])
    assert [gap.place for gap in gaps] == [f"{path}: var/log/kern.log", str(path)]
    assert [gap.reason for gap in gaps] == [
        "too large to take out",
        "damaged archive: unexpected end of data; read up to there",
    ]


def sparse(name: str, stored: bytes, size: int) -> bytes:
    """A sparse file of that size in GNU's old format, all of it a hole but its beginning."""
    header = bytearray(member(name, len(stored), kind=tarfile.GNUTYPE_SPARSE).tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (0, len(stored))
    header[483:495] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + stored.ljust(-(-len(stored) // 512) * 512, b"\0")


def test_the_holes_of_a_sparse_member_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "report.tar"
    holes = [sparse(f"{TOP}/var/log/{name}", b"x" * 3_000_000, 1 << 60) for name in ("lastlog", "kern.log")]
    holes += [sparse(f"{TOP}/var/log/syslog", b"one\n", 8)]
    honest = member(f"{TOP}/var/log/messages", 5).tobuf() + b"text\n".ljust(512, b"\0")
    path.write_bytes(b"".join(holes) + honest + bytes(1024))
    sources, gaps = named([str(path)], NOBODY)
    assert {source.name: read(source)[0] for source in sources} == {
        f"{path}: var/log/syslog": b"one\n\0\0\0\0",
        f"{path}: var/log/messages": b"text\n",
    }
    assert [(gap.place, gap.reason) for gap in gaps] == [(f"{path}: var/log/kern.log", "too large to take out")]


@pytest.mark.parametrize("key", ["GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.realsize"])
def test_a_header_whose_figures_are_none_is_damage(tmp_path: Path, key: str) -> None:
    path = tmp_path / "report.tar"
    damaged = member(f"{TOP}/var/log/kern.log", 5)
    damaged.pax_headers = {key: "x,y"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member(f"{TOP}/var/log/messages", 5), io.BytesIO(b"text\n"))
        archive.addfile(damaged, io.BytesIO(b"lost\n"))
    [source], gaps = named([str(path)], NOBODY)
    assert read(source) == (b"text\n", [])
    assert [gap.reason.partition(":")[0] for gap in gaps] == ["damaged archive"]


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "report.tar.xz"
    header = member("x", (1 << 33) - 1, kind=tarfile.XHDTYPE).tobuf()
    with lzma.open(path, "wb", preset=0) as file:
        file.write(header + bytes(64 * 1024 * 1024))
    with pytest.raises(Failure, match="a header of more than 1 MiB"):
        named([str(path)], NOBODY)


def test_a_cut_archive_gives_what_came_before_the_cut(tmp_path: Path) -> None:
    path = Path(sosreport(tmp_path / "report.tar", extra={f"{TOP}/var/log/kern.log": b"x" * 100_000}))
    os.truncate(path, path.stat().st_size - 60_000)
    sources, gaps = named([str(path)], NOBODY)
    assert len(sources) == len(KERNEL_FILES)
    assert [gap.reason for gap in gaps] == ["damaged archive: unexpected end of data; read up to there"]
