"""The journals here are real ones, written by systemd-journal-remote out of the lines of a real report."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from reprieve.machine.host import Identity
from reprieve.machine.journal import journal_sources, lacks_boot
from reprieve.machine.log import named
from reprieve.model.finding import Failure, Gap
from tests.machine.real import program, read

NOBODY = Identity()
MACHINE = "0123456789abcdef0123456789abcdef"
OLD_BOOT, QUIET_BOOT, NEW_BOOT = "a" * 32, "b" * 32, "c" * 32
REPORT = (
    "java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
    "Mem-Info:",
    "Out of memory: Killed process 77 (java) total-vm:9kB, anon-rss:8kB, file-rss:0kB",
)
HOUR_US = 3600 * 1_000_000
BEGIN_US = 1_790_000_000_000_000


def entry(at_us: int, boot_id: str, message: bytes, transport: str = "kernel", facility: int = 0) -> bytes:
    """One entry of the Journal Export Format; a message that is no plain text goes with its length before it."""
    head = (
        f"__REALTIME_TIMESTAMP={BEGIN_US + at_us}\n__MONOTONIC_TIMESTAMP={at_us % HOUR_US}\n_BOOT_ID={boot_id}\n"
        f"_MACHINE_ID={MACHINE}\n_HOSTNAME=node7\n_TRANSPORT={transport}\nSYSLOG_FACILITY={facility}\nPRIORITY=4\n"
        f"_SOURCE_MONOTONIC_TIMESTAMP={at_us % HOUR_US}\n"
    ).encode()
    return head + b"MESSAGE\n" + len(message).to_bytes(8, "little") + message + b"\n\n"


def report(at_us: int, boot_id: str) -> bytes:
    return b"".join(entry(at_us + n * 1000, boot_id, line.encode()) for n, line in enumerate(REPORT))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Three boots: the first and the last with a kill, the last with days of other lines before it."""
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    program("journalctl")
    entries = [entry(0, OLD_BOOT, b"Linux version 6.1"), report(HOUR_US, OLD_BOOT)]
    entries += [entry(2 * HOUR_US + n, QUIET_BOOT, b"usb 1-1: new device") for n in range(50)]
    entries += [entry(n * HOUR_US, NEW_BOOT, b"eth0: link up") for n in range(3, 55)]
    entries += [entry(55 * HOUR_US, NEW_BOOT, b"Out of memory: Killed process 1 (fake)", "stdout")]
    entries += [report(55 * HOUR_US + 1, NEW_BOOT), entry(55 * HOUR_US + 4000, NEW_BOOT, b"caf\xe9 is no text")]
    entries += [entry(55 * HOUR_US + 5000, NEW_BOOT, b"Killed process 5 (a lie)", facility=1)]
    path = tmp_path / "system.journal"
    subprocess.run([remote, f"--output={path}", "-"], input=b"".join(entries), check=True, capture_output=True)
    return path


def messages(text: bytes) -> list[str | list[int]]:
    return [json.loads(line)["MESSAGE"] for line in text.splitlines()]


def test_a_boot_without_a_word_about_memory_is_no_source(journal: Path) -> None:
    sources, gaps = named([str(journal)], NOBODY)
    assert [source.boot_id for source in sources] == [NEW_BOOT, OLD_BOOT]
    assert [source.name for source in sources] == [f"{journal} (boot cccccccc)", f"{journal} (boot aaaaaaaa)"]
    assert {source.machine_id for source in sources} == {MACHINE}
    assert gaps == []


def test_what_is_read_is_the_kernels_words_from_the_first_hit_on_and_of_no_other_program(journal: Path) -> None:
    [new, _], _ = named([str(journal)], NOBODY)
    text, gaps = read(new)
    assert messages(text) == [*REPORT, list(b"caf\xe9 is no text"), "Killed process 5 (a lie)"]
    assert gaps == []


def test_lines_carry_what_tells_who_wrote_them_where_and_when(journal: Path) -> None:
    [new, _], _ = named([str(journal)], NOBODY)
    first, *_, last = [json.loads(line) for line in read(new)[0].splitlines()]
    assert first["_BOOT_ID"] == NEW_BOOT
    assert first["_MACHINE_ID"] == MACHINE
    assert first["_HOSTNAME"] == "node7"
    assert first["_TRANSPORT"] == "kernel"
    assert {"__REALTIME_TIMESTAMP", "_SOURCE_MONOTONIC_TIMESTAMP", "PRIORITY"} <= first.keys()
    assert (first["SYSLOG_FACILITY"], last["SYSLOG_FACILITY"]) == ("0", "1")


def test_after_the_last_hit_reading_goes_on_for_a_while_and_then_stops(journal: Path) -> None:
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    path = journal.parent / "long.journal"
    later = (entry(n * 1000, NEW_BOOT, b"eth0: link up" + b"." * 900) for n in range(10_000, 14_000))
    text = report(0, NEW_BOOT) + b"".join(later)
    subprocess.run([remote, f"--output={path}", "-"], input=text, check=True, capture_output=True)
    [source], _ = named([str(path)], NOBODY)
    read_text, gaps = read(source)
    assert messages(read_text[: read_text.rfind(b"\n")])[: len(REPORT)] == [*REPORT]
    assert 1_000_000 < len(read_text) < 2_000_000
    assert gaps == []


def test_a_whole_folder_of_journals_can_be_asked(journal: Path) -> None:
    gaps: list[Gap] = []
    sources = journal_sources((f"--directory={journal.parent}",), name="journal", gaps=gaps)
    assert [source.boot_id for source in sources] == [NEW_BOOT, OLD_BOOT]
    assert gaps == []


def test_a_journal_among_other_files_of_a_folder_is_found(journal: Path) -> None:
    (journal.parent / "kern.log").write_text("text\n")
    (journal.parent / "kern.log.1.gz").write_bytes(gzip.compress(b"older\n"))
    (journal.parent / "core").write_bytes(b"\x7fELF\0\0")
    sources, gaps = named([str(journal.parent)], NOBODY)
    assert sorted(source.kind for source in sources) == ["file", "file", "journal", "journal"]
    assert gaps == []


def test_a_damaged_journal_is_a_gap_in_journalctls_own_words(journal: Path) -> None:
    os.truncate(journal, 100)
    with pytest.raises(Failure, match=r"system\.journal: Failed to open"):
        named([str(journal)], NOBODY)


def test_a_journal_without_a_word_about_memory_is_a_source_without_a_line(journal: Path) -> None:
    remote = program("systemd-journal-remote", "/lib/systemd", "/usr/lib/systemd")
    path = journal.parent / "quiet [*?].journal"
    text = entry(0, OLD_BOOT, b"Linux version 6.1")
    subprocess.run([remote, f"--output={path}", "-"], input=text, check=True, capture_output=True)
    [source], gaps = named([str(path)], NOBODY)
    assert (source.name, read(source)) == (str(path), (b"", []))
    assert gaps == []


def test_a_name_that_looks_like_a_pattern_is_taken_as_it_is(journal: Path) -> None:
    path = journal.rename(journal.parent / "s?stem [a*].journal")
    sources, gaps = named([str(path)], NOBODY)
    assert [source.boot_id for source in sources] == [NEW_BOOT, OLD_BOOT]
    assert len(read(sources[0])[0].splitlines()) == 5
    assert gaps == []


def test_without_journalctl_a_journal_file_is_a_gap_that_says_so(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Failure, match="journalctl is not installed"):
        named([str(journal)], NOBODY)


@pytest.mark.parametrize(
    ("option", "refusal"),
    [
        ("--grep", "Compiled without pattern matching support"),
        ("--output-fields", "journalctl: unrecognized option '--output-fields=MESSAGE'"),  # before 236
    ],
)
def test_a_journalctl_that_cannot_search_is_read_whole(
    journal: Path, monkeypatch: pytest.MonkeyPatch, option: str, refusal: str
) -> None:
    folder = journal.parent / "bin"
    folder.mkdir()
    older = folder / "journalctl"  # the real one, behind a door that refuses what older ones do not know
    door = f'case "$*" in *{option}*) echo "{refusal}" >&2; exit 1;; esac'
    older.write_text(f'#!/bin/sh\n{door}\nexec {program("journalctl")} "$@"\n')
    older.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    [source], gaps = named([str(journal)], NOBODY)
    assert (source.name, source.boot_id) == (str(journal), None)
    text, more = read(source)
    assert "usb 1-1: new device" in messages(text)
    assert gaps == more == []


def test_a_line_that_goes_on_and_on_is_left_out_and_told_of(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = journal.parent / "bin"
    folder.mkdir()
    door = folder / "journalctl"  # the real one, behind a hundred MiB on one line
    endless = 'case "$*" in *--grep*) head -c 104857600 /dev/zero | tr "\\0" x; echo;; esac'
    door.write_text(f'#!/bin/sh\n{endless}\nexec {program("journalctl")} "$@"\n')
    door.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    sources, gaps = named([str(journal)], NOBODY)
    assert [source.boot_id for source in sources] == [NEW_BOOT, OLD_BOOT]
    assert [gap.reason for gap in gaps] == ["lines of more than 1 MiB were not read: 1"]


def test_a_journalctl_that_may_not_be_run_is_a_gap(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = journal.parent / "bin"
    folder.mkdir()
    (folder / "journalctl").write_text("not executable")
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(Failure, match="journalctl could not be started: Permission denied"):
        named([str(journal)], NOBODY)


def test_a_reader_who_leaves_early_leaves_no_process_behind(journal: Path) -> None:
    [new, _], _ = named([str(journal)], NOBODY)
    blocks = new.blocks([])
    next(blocks)
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before = set(children.read_text().split())
    blocks.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(before - set(children.read_text().split())) == 1


def test_a_boot_is_not_said_to_be_lacking_where_the_journal_did_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = tmp_path / "journalctl"
    refuses.write_text("#!/bin/sh\necho 'Failed to open journal: Input/output error' >&2\nexit 1\n")
    refuses.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [gap.reason for gap in lacks_boot("-1")] == ["Failed to open journal: Input/output error"]
