import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from reprieve.machine.pstore import pstore_sources
from reprieve.model.finding import Gap
from tests.machine.real import read


def record(path: Path, text: str, at_s: int) -> None:
    path.write_text(text)
    os.utime(path, (at_s, at_s))


def test_a_machine_that_never_crashed_has_no_source_and_no_gap(tmp_path: Path) -> None:
    gaps: list[Gap] = []
    assert pstore_sources([str(tmp_path), str(tmp_path / "absent")], gaps=gaps) == []
    assert gaps == []


def test_a_record_that_is_moved_while_the_folder_is_read_does_not_take_the_others_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path / "dmesg-efi-1", "Oops#1 Part1\ngone\n", 1000)
    record(tmp_path / "dmesg-efi-2", "Panic#2 Part1\nhere\n", 1009)
    scandir = os.scandir

    @contextmanager
    def listed_before(folder: str) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            listed = list(entries)
        (tmp_path / "dmesg-efi-1").unlink()
        yield iter(listed)

    monkeypatch.setattr(os, "scandir", listed_before)
    gaps: list[Gap] = []
    [source] = pstore_sources([str(tmp_path)], gaps=gaps)
    assert read(source) == (b"Panic#2 Part1\nhere\n", [])
    assert gaps == [Gap(place=str(tmp_path / "dmesg-efi-1"), reason="does not exist")]


def test_parts_are_joined_in_the_order_they_were_printed(tmp_path: Path) -> None:
    record(tmp_path / "dmesg-efi-170000000001001", "Oops#1 Part1\n<4>[    9.3] three\n", 1000)
    record(tmp_path / "dmesg-efi-170000000002001", "Oops#1 Part2\n<4>[    9.2] two", 1000)
    record(tmp_path / "dmesg-efi-170000000003001", "Oops#1 Part3\n<4>[    9.1] one\n", 1001)
    record(tmp_path / "dmesg-efi-170000009901002", "Panic#2 Part1\n<0>[   12.2] five\n", 1009)
    record(tmp_path / "dmesg-efi-170000009902002", "Panic#2 Part2\n<0>[   12.1] four\n", 1009)
    record(tmp_path / "mce-erst-1", "not a log", 1009)
    [source] = pstore_sources([str(tmp_path)], gaps=[])
    text, gaps = read(source)
    assert [line.split()[-1] for line in text.splitlines()] == [b"one", b"two", b"three", b"four", b"five"]
    assert (source.name, source.kind, source.newest_s, gaps) == (str(tmp_path), "pstore", 1009.0, [])


def test_what_systemd_pstore_joined_is_read_once(tmp_path: Path) -> None:
    folder = tmp_path / "1700000000"
    folder.mkdir()
    record(folder / "dmesg-efi-170000000001001", "Oops#1 Part1\nx\n", 1000)
    record(folder / "dmesg.txt", "x\n", 1001)
    [source] = pstore_sources([str(tmp_path)], gaps=[])
    assert source.name == str(folder / "dmesg.txt")
    assert read(source) == (b"x\n", [])
