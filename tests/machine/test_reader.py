"""Reading briefly, and reading whole again, against reading whole at once."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from reprieve.machine.events import summarise
from reprieve.machine.reader import read_briefly, read_source
from reprieve.machine.source import file_source
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary
from tests.logs_of import all_logs

TOLD_BY_FIGURES = {"stamp", "line", "scope"}  # where an event's end is cut off, its stack or figures tell the scope


def whole(path: Path) -> list[OomReport | AllocationFailure]:
    gaps: list[Gap] = []
    return [event for event in read_source(file_source(str(path)), gaps) if not isinstance(event, Ending)]


@pytest.mark.parametrize("path", all_logs(), ids=lambda path: path.name)
def test_a_brief_reading_sees_the_same_events_and_finds_each_again(path: Path) -> None:
    gaps: list[Gap] = []
    brief = [told for told in read_briefly(file_source(str(path)), gaps) if not isinstance(told, Ending)]
    events = whole(path)
    assert len(brief) == len(events)
    for event, (short, passage) in zip(events, brief, strict=True):
        assert passage.read(short) == event
        if isinstance(event, OomReport) and isinstance(short, OomReport):
            long, little = summarise(event), summarise(short)
            names = [field.name for field in fields(OomSummary) if field.name not in TOLD_BY_FIGURES]
            assert [getattr(little, name) for name in names] == [getattr(long, name) for name in names]
            assert little.scope in (long.scope, None)


def test_events_far_apart_in_a_large_file_are_found_again(tmp_path: Path) -> None:
    one = next(path for path in all_logs() if path.name.startswith("084")).read_bytes()
    other = next(path for path in all_logs() if path.name.startswith("016")).read_bytes()
    noise = b"Mar 22 19:50:05 host sshd[77]: Accepted publickey for deploy from 192.0.2.1 port 5\n" * 20_000
    log = tmp_path / "kern.log"
    log.write_bytes(noise + one + noise + other + noise)
    gaps: list[Gap] = []
    brief = [told for told in read_briefly(file_source(str(log)), gaps) if not isinstance(told, Ending)]
    events = whole(log)
    assert [passage.read(short) for short, passage in brief] == events
    assert len(events) == 3
    first = events[0]
    assert log.read_bytes().split(b"\n")[first.line - 1].endswith(first.text(first.line).encode())
    assert replace(first, lines=()) != events[1]


HEAD = "Mar  1 00:00:{second:02d} node7 kernel: [{uptime}.000000] "
MEM = "Mem-Info:\nactive_anon:105234 inactive_anon:1683744 isolated_anon:0\n free:21201 free_pcp:63 free_cma:0"
COLUMNS = "[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"


def report(tasks: int, number: int) -> bytes:
    """A report with that many rows of a hundred bytes, the victim's last."""
    row = "[{0:7d}]  1000 {0:5d}    90000    10000   200000        0             0 worker"
    said = [
        "java invoked oom-killer: gfp_mask=0x1100cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0",
        *MEM.split("\n"),
        "Tasks state (memory values in pages):",
        COLUMNS,
        *(row.format(pid) for pid in range(tasks)),
        f"Out of memory: Killed process {tasks - 1} (worker) total-vm:360000kB, anon-rss:40000kB, file-rss:0kB, "
        "shmem-rss:0kB, UID:1000 pgtables:195kB oom_score_adj:0",
    ]
    return "".join(f"{HEAD.format(second=number, uptime=100 + number)}{text}\n" for text in said).encode()


def test_the_lines_of_a_short_report_are_counted_wherever_it_stands(tmp_path: Path) -> None:
    noise = b"Nov 23 18:14:42 node7 sshd[811]: Connection closed by 198.51.100.7 port 40022 [preauth]\n"
    head = b"Nov 23 18:14:42 node7 kernel: [   77.123456] "
    trigger = head + b"java invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0\n"
    killed = head + b"Out of memory: Killed process 77 (java) total-vm:100kB, anon-rss:50kB, file-rss:0kB\n"
    log = tmp_path / "kern.log"
    for before in range(4_000, 4_048):  # lines of 89 bytes: all places within 4 KiB
        log.write_bytes(noise * before + trigger + killed + noise * 5_000)
        (event,) = [event for event in whole(log) if isinstance(event, OomReport)]
        assert (event.line, event.kills[0].line) == (before + 1, before + 2)
        ((brief, _),) = [told for told in read_briefly(file_source(str(log)), []) if not isinstance(told, Ending)]
        assert brief.line == before + 1


def test_a_report_of_twenty_thousand_tasks_is_one_report(tmp_path: Path) -> None:
    noise = b"Mar 22 19:50:05 host sshd[77]: Accepted publickey for deploy from 192.0.2.1 port 5\n" * 8_000
    log = tmp_path / "kern.log"
    log.write_bytes(noise + report(20_000, 1) + noise)
    (event,) = whole(log)
    assert isinstance(event, OomReport)
    assert event.missing == ()
    assert event.tasks is not None
    assert len(event.tasks) == 20_000
    assert event.victim is not None
    assert event.text(event.victim.line) is not None
    gaps: list[Gap] = []
    ((short, passage),) = [told for told in read_briefly(file_source(str(log)), gaps) if not isinstance(told, Ending)]
    assert passage.read(short) == event


def test_a_storm_of_large_reports_is_found_again_whole(tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    log.write_bytes(b"".join(report(5_000, number) for number in range(8)))
    gaps: list[Gap] = []
    brief = [told for told in read_briefly(file_source(str(log)), gaps) if not isinstance(told, Ending)]
    again = [passage.read(short) for short, passage in brief]
    assert again == whole(log)
    assert [len(event.tasks or ()) for event in again if isinstance(event, OomReport)] == [5_000] * 8


def test_what_is_kept_of_a_log_of_nothing_but_kills_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    log.write_bytes(b"Killed process 1 (a)\n" * 800_000)
    gaps: list[Gap] = []
    told = [told for told in read_briefly(file_source(str(log)), gaps) if not isinstance(told, Ending)]
    assert told
    for _, passage in told:
        assert sum(len(data) for _, data in passage.pieces) <= 10 * 1024 * 1024


def test_yaml_that_is_given_up_is_a_gap_beside_what_was_read(tmp_path: Path) -> None:
    spoilt = f"---\nlastState:\n  terminated:\n    exitCode: 1\n    message: {'x' * 200_000}\n" + "]\n" * 25
    killed = "---\nlastState:\n  terminated:\n    exitCode: 137\n    reason: OOMKilled\n"
    log = tmp_path / "pods"
    not_read = (str(log), "is YAML that could not be read")
    word = f"{log}:{spoilt.count(chr(10)) + 5}"
    for text, exit_codes, places in (
        (killed, [137], []),
        (spoilt + killed, [137], [not_read]),
        (f"{spoilt}{killed}]\n]\n", [], [not_read, word]),
        (f"{spoilt}{killed}]\n]\n---\nstate:\n  terminated:\n    exitCode: 1\n", [1], [not_read, word]),
    ):
        log.write_text(text)
        gaps: list[Gap] = []
        told = [event.exit_code for event in read_source(file_source(str(log)), gaps) if isinstance(event, Ending)]
        assert told == exit_codes
        assert [(gap.place, gap.reason) if gap.hides else gap.place for gap in gaps] == places
