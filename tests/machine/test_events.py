"""Where an event stands, and that each is told once."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprieve.machine import events
from reprieve.machine.events import HISTORY, Known, stream, tell, watch
from reprieve.machine.reader import _LineCounter, read_source
from reprieve.machine.source import Source, file_source
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, OomReport, OomSummary
from reprieve.oom.scan import Excerpt
from tests.logs_of import LOGS, text_of

MIB = 1024 * 1024
NOISE = b"Mar 22 19:50:05 host sshd[77]: Accepted publickey for deploy from 192.0.2.1 port 5\n"
KILL = "[ {at}.000000] Out of memory: Killed process {pid} (leak) total-vm:9kB, anon-rss:{rss}kB, file-rss:1kB\n"


def source(text: bytes, name: str = "kern.log", newest_s: float | None = None, block: int = 256 * 1024) -> Source:
    blocks = [text[at : at + block] for at in range(0, len(text), block)]
    return Source(name=name, kind="file", blocks=lambda _gaps: iter(blocks), newest_s=newest_s)


def kills(*pids: int, rss: int = 8) -> bytes:
    return "".join(KILL.format(at=100 * pid, pid=pid, rss=rss) for pid in pids).encode()


def everything(_event: OomSummary | AllocationFailure | Ending) -> bool:
    return True


def pids(ooms: "tuple[OomReport, ...]") -> list[int]:
    return [oom.kills[0].pid for oom in ooms]


# -- line numbers ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(), block=st.sampled_from([1000, 4096, 65536, 256 * 1024, 700_000]), size=st.integers(0, 900_000)
)
def test_lines_are_counted_as_a_naive_count_counts_them(seed: int, block: int, size: int) -> None:
    chance = random.Random(seed)
    text = bytearray(chance.randbytes(size))  # a newline in 256 bytes
    for at in range(0, size, chance.randint(3000, 50_000)):
        text[at : at + chance.randint(0, 300)] = b"\n" * 300
    text = text[:size]
    counter = _LineCounter()
    seen = 0
    for piece in counter.watch(bytes(text[at : at + block]) for at in range(0, size, block)):
        seen += len(piece)
    for _ in range(20):
        offset = chance.randint(0, size)
        data = bytes(text[offset : offset + chance.choice([1, 4096, 10_000])])
        if offset + len(data) < min(size, offset + 4096):
            data = bytes(text[offset : offset + 4096])  # an excerpt ends with its text, or behind its step
        assert counter.lines_before(Excerpt(offset, data, False)) == text.count(b"\n", 0, offset)


@pytest.mark.parametrize("before", [0, 1, 4095, 4096, 4097, 100_000, 3 * MIB])
def test_an_event_has_the_number_of_its_line(before: int) -> None:
    text = (NOISE * (before // len(NOISE) + 1))[:before].rpartition(b"\n")[0] + b"\n" + text_of("084").encode()
    (oom,) = read_source(source(text), [])
    assert isinstance(oom, OomReport)
    for number, line in oom.lines:
        assert text.split(b"\n")[number - 1].decode().endswith(line)


def test_beyond_8_mib_an_event_is_named_by_its_byte() -> None:
    noise = NOISE * (9 * MIB // len(NOISE))
    text = kills(7) + noise + b"[ 999.000000] usb 1-1: new\n" + kills(8)
    near, far = read_source(source(text), [])
    assert isinstance(near, OomReport)
    assert isinstance(far, OomReport)
    assert (near.source, near.line) == ("kern.log", 1)
    name, _, offset = far.source.partition("@")
    assert name == "kern.log"
    lines = text[int(offset) :].split(b"\n")
    assert b"Killed process 8 " in lines[far.line - 1]


# -- each once ---------------------------------------------------------------------------------------------------------


def test_two_kills_with_equal_sizes_in_one_source_are_two() -> None:
    asked = b"[ 700.000000] leak invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
    once = asked + kills(7)
    assert len(tell([source(once + once.replace(b"700.0", b"1900.0"))], everything, 5).history) == 2


def test_a_report_that_stands_twice_in_one_source_is_one_kill() -> None:
    asked = b"[ 700.000000] leak invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
    log = asked + kills(7) + b"[ 701.000000] usb 1-1: new\n"
    two_logs = log * 2
    (only,) = tell([source(two_logs)], everything, 5).history
    assert (only.line, only.also_in) == (1, ())
    assert len(tell([source(two_logs)], everything, 5).ooms) == 1
    assert len([*stream([source(two_logs)], Known(), everything, [])]) == 1
    assert len(tell([source(log + log.replace(b"700.000000", b"700.000001"))], everything, 5).history) == 2
    dated = b"Nov 23 14:08:41 lab kernel: "
    unproven = dated + asked.partition(b"] ")[2] + dated + kills(7)
    assert len(tell([source(unproven * 2)], everything, 5).history) == 2  # the date of a whole second proves nothing


def test_the_formats_of_one_journal_that_prove_the_moment_tell_of_one_kill() -> None:
    text = (LOGS / "lab" / "6.1.0-56-cloud-amd64__systemd-journal-formats.out.txt").read_bytes()
    parts = dict(part.split(b"\n", 1) for part in text.split(b"##### ")[1:])
    one, other = (parts[f"journalctl -k -o {name}".encode()] for name in ("short-monotonic", "json"))
    alone = [summary.victims for summary in tell([source(one)], everything, 9).history]
    assert [summary.victims for summary in tell([source(one + other)], everything, 9).history] == alone


def test_a_log_of_one_kill_again_and_again_is_counted_and_known_again(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0
    may_be_one = events._may_be_one

    def counted(one: OomSummary, other: OomSummary) -> bool:
        nonlocal compared
        compared += 1
        return may_be_one(one, other)

    monkeypatch.setattr(events, "_may_be_one", counted)
    asked = b"[ 700.000000] leak invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
    again = b"".join((asked + kills(7)).replace(b"700.000000", b"%d.000000" % (700 + 5 * at)) for at in range(500))
    later = again.replace(b".000000]", b"999.000000]")
    one, same, other = source(again, "a", 1.0), source(again, "b", 2.0), source(later, "c", 3.0)
    assert [len(summary.also_in) for summary in tell([one, same], everything, 1).history] == [1] * 500
    assert compared == 500
    assert len(tell([one, other], everything, 1).history) == 1000
    assert compared <= 500 + 500 * events._ALIKE


def test_the_same_kill_in_two_sources_is_one_that_names_both() -> None:
    told = tell([source(kills(7, 8), "a", 1.0), source(kills(8), "b", 2.0)], everything, 5)
    assert sorted(summary.victims[0][0] for summary in told.history) == [7, 8]
    (both,) = (summary for summary in told.history if summary.also_in)
    assert {both.source, *both.also_in} == {"a", "b"}


def test_kills_of_two_boots_are_two() -> None:
    one, other = (
        Source(name=boot, kind="journal", blocks=lambda _gaps: iter((kills(7),)), boot_id=boot) for boot in ("a", "b")
    )
    assert len(tell([one, other], everything, 5).history) == 2


def test_a_kill_quoted_in_two_pieces_is_one_with_what_both_tell() -> None:
    constraint = b"oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,"
    constraint += b"task_memcg=/a,task=leak,pid=7,uid=0\n"
    (oom,) = read_source(source(kills(7) + b"\n" + constraint + b"Out of memory: Killed process 7 (leak)\n"), [])
    assert isinstance(oom, OomReport)
    assert oom.constraint == "CONSTRAINT_NONE"
    assert oom.kills[0].anon_rss_bytes == 8192
    assert [number for number, _ in oom.lines] == [1, 3, 4]


# -- which, and in which order -----------------------------------------------------------------------------------------


def test_the_newest_are_those_of_the_newest_source_in_the_order_of_time() -> None:
    old, new = source(kills(1, 2, 3), "old", 1.0), source(kills(4, 5), "new", 2.0)
    told = tell([old, new], everything, 3)
    assert pids(told.ooms) == [3, 4, 5]
    assert [summary.victims[0][0] for summary in told.history] == [1, 2, 3, 4, 5]


def dated(*pids: int) -> bytes:
    """Each of the minute of its pid, and of the same uptime as `kills` has it."""
    lines = (f"2026-11-01T10:{pid:02}:00+00:00 host kernel: {kills(pid).decode()}" for pid in pids)
    return "".join(lines).encode()


def proven(text: bytes, boot: str, kind: str = "journal") -> Source:
    return source(text, f"{kind} {boot}")._replace(kind=kind, boot_id=boot)


def test_dates_in_the_lines_count_before_the_dates_of_files() -> None:
    copied, grown = source(dated(4, 5), "copied", 1.0), source(dated(1, 2, 6), "grown", 2.0)
    told = tell([copied, grown], everything, 2)
    assert pids(told.ooms) == [5, 6]
    assert [summary.victims[0][0] for summary in told.history] == [1, 2, 4, 5, 6]


@pytest.mark.parametrize(
    ("counted", "beside", "told"),
    [
        (None, [], None),  # a kernel that counts none, or a log of files
        (2, [], None),
        (1, [], None),  # one more came while the log was read
        (5, [], "5 since boot by the kernel's own count, and the logs that could be read tell of 2: older"),
        (5, [proven(kills(7, 8, 9), "b" * 32)], "the logs that could be read tell of 2"),  # of the boot before
        (5, [proven(kills(7, 8, 9), "a" * 32)], None),
        (5, [source(kills(7, 8, 9))], None),  # of a file without dates: of this boot perhaps
        (5, [source(dated(7, 8, 9).replace(b"2026", b"2001"))], "the logs that could be read tell of 2"),
    ],
)
def test_kills_whose_lines_are_overwritten_are_counted_as_not_seen(
    counted: int | None, beside: list[Source], told: str | None
) -> None:
    buffer = proven(kills(1, 2), "a" * 32, "kmsg")._replace(kills=counted)
    gaps: list[Gap] = []
    assert list(stream([buffer, *beside], Known(), everything, gaps))
    for unseen in (gaps, *(tell([buffer, *beside], wanted, 1).gaps for wanted in (everything, lambda _: False))):
        assert [gap.hides for gap in unseen] == [True] * (told is not None)
        assert all(gap.place == "kills" and (told or "") in gap.reason for gap in unseen)
    (none,) = tell([proven(b"", "a" * 32, "kmsg")._replace(kills=3)], everything, 1).gaps
    assert "3 since boot by the kernel's own count, and no log that could be read tells of one" in none.reason


def test_one_source_is_told_in_its_own_order() -> None:
    assert pids(tell([source(dated(5, 4))], everything, 2).ooms) == [5, 4]


def test_what_two_sources_tell_of_a_kill_is_asked_for_together() -> None:
    log, journal = source(dated(7), "kern.log", 9e9), proven(kills(7, 8), "b")
    (seven, eight) = tell([log, journal], everything, 2).history
    assert (seven.source, seven.boot_id, seven.host, seven.also_in) == ("journal b", "b", "host", ("kern.log",))
    assert (seven.stamp.uptime_s, seven.stamp.wall_s is None, eight.stamp.wall_s) == (700.0, False, None)

    def both(summary: OomSummary | AllocationFailure | Ending) -> bool:
        return isinstance(summary, OomSummary) and summary.boot_id == "b" and summary.stamp.wall_s is not None

    assert pids(tell([log, journal], both, 2).ooms) == [7]
    assert [len(seen.history) for seen in stream([log, journal], Known(), both, [])] == [1]


def test_a_stream_gives_each_with_those_before_it() -> None:
    many = range(1, HISTORY + 50)
    lengths = [len(seen.history) for seen in stream([source(kills(*many))], Known(), everything, [])]
    assert lengths == [min(count, HISTORY) for count in many]


def test_a_status_is_read_behind_the_events_unless_the_text_is_large() -> None:
    status = (LOGS.parent / "captures" / "docker-inspect-oom-pid1.json").read_bytes()
    (ending,) = read_source(source(status, "paste"), [])
    assert isinstance(ending, Ending)
    assert ending.source == "paste"
    gaps: list[Gap] = []
    assert list(read_source(source(status * 400), gaps)) == []
    assert [gap.reason for gap in gaps] == ["holds more statuses than 2 MiB: they were not read"]


# -- as lines come -----------------------------------------------------------------------------------------------------


def test_an_event_is_told_at_the_silence_behind_it() -> None:
    given: list[str | None] = []

    def lines() -> Iterator[str | None]:
        for line in (*kills(7).decode().splitlines(), None, *kills(8).decode().splitlines()):
            given.append(line)
            yield line

    told = watch(lines(), "log", everything, [], "boot")
    first = next(told)
    assert first is not None
    assert isinstance(first.event, OomReport)
    assert (first.event.kills[0].pid, first.event.boot_id, given[-1]) == (7, "boot", None)
    assert next(told) is None
    last = next(told)
    assert last is not None
    assert isinstance(last.event, OomReport)
    assert (last.event.line, len(last.history)) == (2, 2)  # silence is no line


def test_an_event_is_told_though_the_log_is_never_quiet() -> None:
    def lines() -> Iterator[str | None]:
        yield from kills(7).decode().splitlines()
        for number in range(2000):
            time.sleep(0.02)
            yield f"[ {800 + number}.000000] nft: IN=eth0 OUT= SRC=192.0.2.1"
        raise AssertionError("it waited for silence")

    told = next(watch(lines(), "log", everything, []))
    assert told is not None
    assert isinstance(told.event, OomReport)


def test_a_report_that_comes_line_by_line_is_the_report_of_the_file() -> None:
    text = text_of("lab/6.1.0-56-cloud-amd64__memcg.txt")
    (whole,) = (event for event in read_source(source(text.encode(), "log"), []) if isinstance(event, OomReport))
    (told,) = watch(iter(text.splitlines()), "log", everything, [])
    assert told is not None
    assert told.event == whole


def test_what_a_program_wrote_is_no_kill_and_is_told_of() -> None:
    gaps: list[Gap] = []
    record = "12,3657,6016870419,-;Out of memory: Killed process 7 (leak) total-vm:9kB, anon-rss:8kB, file-rss:1kB"
    assert list(watch(iter((record,) * 1000), "log", everything, gaps)) == []
    assert [gap.place for gap in gaps] == ["log:1"]


def test_a_kill_is_explained_rather_than_a_later_report_that_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "kern.log"
    log.write_text(
        "[1.0] Out of memory: Killed process 7 (a) total-vm:4kB, anon-rss:3kB, file-rss:0kB\n"
        "[9.0] b invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0\n"
    )
    sources = [file_source(str(log))]
    (rather,) = tell(sources, lambda _: True, 1, ended=True).ooms
    (newest,) = tell(sources, lambda _: True, 1).ooms
    assert [kill.pid for kill in rather.kills] == [7]
    assert newest.kills == ()
