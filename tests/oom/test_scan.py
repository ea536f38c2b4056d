from __future__ import annotations

import re
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reprieve.oom.scan import Excerpt, scan
from tests.machine.real import missing

KIB = 1024
MIB = 1024 * KIB
BLOCK = 512 * KIB

TRIGGER = b"Nov 23 18:14:42 node7 kernel: [77.1] java invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0\n"
OLD_TRIGGER = b"oom-killer: gfp_mask=0xd0, order=0\n"
KILL = b"Nov 23 18:14:42 node7 kernel: [77.2] Out of memory: Killed process 7 (java) total-vm:9kB, anon-rss:8kB\n"
FAILURE = b"Nov 23 18:14:42 node7 kernel: [77.3] swapper/0: page allocation failure: order:4, mode:0x40dc0\n"
ROW = b"Nov 23 18:14:42 node7 kernel: [77.1] [    412]   999   412    40000     1234    61440        0    0 nginx\n"
SYSRQ = b"Nov 23 18:14:42 node7 kernel: [77.0] SysRq : Manual OOM execution\n"
REAPED = b"Nov 23 18:14:43 node7 kernel: [77.9] oom_reaper: reaped process 7 (java), now anon-rss:0kB\n"
GROUP = b"Nov 23 18:14:43 node7 kernel: [77.9] Tasks in /a are going to be killed due to memory.oom.group set\n"
PANIC = b"Nov 23 18:14:43 node7 kernel: [77.9] Kernel panic - not syncing: System is deadlocked on memory\n"
ORDINARY = b"Nov 23 18:14:42 node7 sshd[811]: Connection closed by 198.51.100.7 port 40022 [preauth]\n"

Scan = Callable[[list[bytes]], list[Excerpt]]


def with_find(blocks: list[bytes]) -> list[Excerpt]:
    return list(scan(blocks, hyperscan_above_bytes=None))


def with_hyperscan(blocks: list[bytes]) -> list[Excerpt]:
    return list(scan(blocks, hyperscan_above_bytes=0))


@pytest.fixture(params=[with_find, with_hyperscan])
def engine(request: pytest.FixtureRequest) -> Scan:
    if request.param is with_hyperscan and find_spec("hyperscan") is None:
        missing("hyperscan")
    return request.param  # type: ignore[no-any-return]


def ordinary(size: int) -> bytes:
    """So many bytes of ordinary lines, the last one torn unless it fits."""
    return (ORDINARY * (size // len(ORDINARY) + 1))[:size]


def lines(size: int) -> bytes:
    return ORDINARY * (size // len(ORDINARY))


def in_blocks(text: bytes, size: int = BLOCK) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def regions(excerpts: list[Excerpt]) -> list[tuple[int, bytes]]:
    """Where excerpts begin and what they hold, those that continue another joined to it."""
    joined: list[tuple[int, bytes]] = []
    for excerpt in excerpts:
        if excerpt.continues:
            start, data = joined.pop()
            assert start + len(data) == excerpt.offset
            joined.append((start, data + excerpt.data))
        else:
            joined.append((excerpt.offset, excerpt.data))
    return joined


# What must be silent


def test_no_text_has_no_excerpts() -> None:
    assert with_find([]) == []
    assert with_find([b"", b""]) == []


def test_ordinary_lines_are_passed_over(engine: Scan) -> None:
    assert engine(in_blocks(lines(MIB))) == []


def test_words_that_look_alike_are_passed_over(engine: Scan) -> None:
    alike = b"room zoom bloom OOMKilled\nkilled process group leader 7\nresult 'oom-kill'\nKill process 7 or a child\n"
    assert engine(in_blocks(alike * 20_000)) == []


# What a region holds


def test_a_small_text_comes_out_whole_though_nothing_in_it_is_known() -> None:
    wrapped = b"java invoked oom-\nkiller: gfp_mask=0x"
    assert with_find([wrapped[:9], wrapped[9:]]) == [Excerpt(offset=0, data=wrapped, continues=False)]


@pytest.mark.parametrize("trigger", [TRIGGER, OLD_TRIGGER])
def test_a_report_is_cut_out_with_the_lines_before_and_after(engine: Scan, trigger: bytes) -> None:
    report = trigger + ROW * 300 + KILL
    before, after = lines(MIB), lines(MIB)
    ((offset, data),) = regions(engine(in_blocks(before + report + after)))
    assert report in data
    assert data.startswith(b"Nov 23")
    assert data.endswith(b"\n")
    assert 0 < len(before) - offset <= 256
    assert 256 <= len(data) - data.index(b"Killed process") <= 256 + len(ORDINARY)


@pytest.mark.parametrize(
    "more", [REAPED, GROUP, PANIC, b"java invoked oom-\n", b"OOM killed process 9\n", b"Mem-Info:\n"]
)
def test_what_else_there_is_of_a_report_is_in_it(engine: Scan, more: bytes) -> None:
    report = SYSRQ + lines(800) + TRIGGER + ROW * 50 + KILL + lines(3_500) + more
    before = lines(MIB)
    ((offset, data),) = regions(engine(in_blocks(before + report + lines(2 * KIB) + more + lines(MIB))))
    assert report in data
    assert 0 < len(before) - offset <= KIB
    assert data.endswith(more)
    assert data.count(more) == 1  # the other is too far away


@pytest.mark.parametrize("kind", ["woven", "entries", "short"])
def test_lines_behind_a_kill_are_in_it_where_they_may_be_of_a_report(engine: Scan, kind: str) -> None:
    begin = b"_TRANSPORT=kernel\n" if kind == "entries" else b""
    triggers = TRIGGER * (2 if kind == "woven" else 1)  # the other is of another host, and its end may be lost
    report = triggers + (b"" if kind == "short" else ROW * 50) + KILL
    ((_, data),) = regions(engine(in_blocks(begin + lines(MIB) + report + lines(MIB))))
    told = len(data) if kind == "short" else len(data) - data.index(b"Killed process")
    assert 4 * KIB <= told <= 4 * KIB + 2 * len(ORDINARY)


def test_a_task_table_may_have_thousands_of_rows(engine: Scan) -> None:
    report = TRIGGER + ROW * 4_800 + KILL
    excerpts = engine(in_blocks(lines(MIB) + report + lines(MIB)))
    assert [excerpt.continues for excerpt in excerpts] == [False, True]
    assert all(excerpt.data.endswith(b"\n") and len(excerpt.data) <= 256 * KIB for excerpt in excerpts)
    assert report in regions(excerpts)[0][1]


def test_a_kill_whose_trigger_is_lost_brings_what_was_before_it(engine: Scan) -> None:
    ((_, data),) = regions(engine(in_blocks(lines(MIB) + ROW * 500 + KILL + lines(MIB))))
    assert ROW * 500 + KILL in data


def test_a_kill_brings_nothing_that_was_given_before(engine: Scan) -> None:
    excerpts = engine(in_blocks(lines(MIB) + TRIGGER + KILL + lines(20 * KIB) + KILL + lines(MIB)))
    assert [excerpt.continues for excerpt in excerpts] == [False, True]
    assert regions(excerpts)[0][1].count(KILL) == 2


def test_a_failure_after_a_kill_is_whole(engine: Scan) -> None:
    failure = FAILURE + ROW * 200
    ((_, data),) = regions(engine(in_blocks(lines(MIB) + TRIGGER + KILL + failure + lines(MIB))))
    assert failure in data


def test_a_line_longer_than_64_kib_is_cut_so_far_before_the_anchor() -> None:
    text = lines(MIB) + b"x" * MIB + KILL + b"y" * MIB + b"\n" + lines(MIB)
    ((offset, data),) = regions(with_find(in_blocks(text)))
    at = text.index(b"Killed process")
    assert (offset, offset + len(data)) == (at - 64 * KIB, at + 4 * KIB + 64 * KIB)


# However it is fed


@pytest.mark.parametrize("anchor", [TRIGGER, KILL, FAILURE])
def test_an_anchor_is_found_wherever_a_block_ends_in_it(engine: Scan, anchor: bytes) -> None:
    for end in range(len(anchor)):
        text = ordinary(BLOCK - end - 1) + b"\n" + anchor + lines(BLOCK)
        assert anchor in regions(engine(in_blocks(text)))[0][1]


@pytest.mark.parametrize("size", [BLOCK, 100 * KIB])
def test_a_block_may_be_overwritten_once_the_next_but_one_is_asked_for(size: int) -> None:
    text = lines(MIB) + TRIGGER + ROW * 4_000 + KILL + lines(MIB)

    def reused() -> Iterator[bytes | bytearray]:
        buffer, other = bytearray(size), bytearray(size)
        for at in range(0, len(text) - size, size):
            buffer[:] = text[at : at + size]
            yield buffer
            buffer, other = other, buffer
        yield text[at + size :]

    assert list(scan(reused())) == with_find(in_blocks(text))


TEXTS = st.lists(
    st.one_of(
        st.sampled_from([TRIGGER, OLD_TRIGGER, KILL, FAILURE, ROW, SYSRQ, REAPED, ORDINARY]),
        st.sampled_from(
            [b"oom-kil", b"ler: gfp_mask=", b"Killed ", b"process", b"page allocation", b" failure", b"\n", b"\r\n"]
        ),
        st.sampled_from([TRIGGER.replace(b"\n", b"\r\n"), KILL * 300, b"\0" * 5_000, b"\xff" * 300_000]),
        st.integers(0, 300_000).map(ordinary),
        st.integers(BLOCK - 200, BLOCK + 200).map(ordinary),
        st.sampled_from([KIB, 4 * KIB, 64 * KIB, 512 * KIB]).map(ordinary),
        st.sampled_from([KIB, 4 * KIB, 64 * KIB, 512 * KIB]).map(lines),
    ),
    min_size=4,
    max_size=16,
).map(b"".join)


@given(text=TEXTS, size=st.integers(1_000, 3 * BLOCK))
@settings(max_examples=150, deadline=None)
def test_what_is_cut_out_depends_on_the_text_alone(text: bytes, size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reprieve.oom.scan._TASK_TABLE", 512 * KIB)  # the end of a longer one is as hard to find
        excerpts = with_find([text])
        assert with_find(in_blocks(text, size)) == excerpts
        assert list(scan([memoryview(text)], hyperscan_above_bytes=0)) == excerpts
        assert list(scan(in_blocks(text, size), hyperscan_above_bytes=BLOCK)) == excerpts
    assert all(0 < len(excerpt.data) <= BLOCK for excerpt in excerpts)
    if len(text) >= BLOCK:
        assert [(start, start + len(data)) for start, data in regions(excerpts)] == spans(text)
        assert b"".join(text[offset : offset + len(data)] for offset, data in regions(excerpts)) == b"".join(
            excerpt.data for excerpt in excerpts
        )


MORE = re.compile(b"(?is).*(oom|kill process|illed process|ut of memory|kernel panic|mem-info)")


def spans(text: bytes) -> list[tuple[int, int]]:
    """Where the regions of a text are, found with the whole of it at hand."""
    found: list[tuple[int, int]] = []
    anchors = list(re.finditer(b"oom-killer: gfp_mask=|Killed process|page allocation failure", text))
    while anchors:
        at, done = anchors[0].start(), found[-1][1] if found else 0
        asked_for = b"anual OOM" in text[max(0, at - KIB) : at]
        reach = 64 * KIB if anchors[0][0] == b"Killed process" else KIB if asked_for else 256
        until, awaited, end, kill, waiting = at, 0, at + 1, None, 0
        while anchors and anchors[0].start() < end:
            anchor, kill = anchors.pop(0), None
            match anchor[0]:
                case b"oom-killer: gfp_mask=":
                    awaited, waiting = anchor.start() + 512 * KIB, waiting + 1
                case b"Killed process":
                    until, awaited, waiting = max(until, anchor.start() + 4 * KIB), 0, max(waiting - 1, 0)
                    kill = anchor.start() if until == anchor.start() + 4 * KIB else None
                case _:
                    until = max(until, anchor.start() + 64 * KIB)
            limit = max(until, awaited)
            newline = text.find(b"\n", limit, limit + 64 * KIB)
            end = min(limit + 64 * KIB if newline < 0 else newline + 1, len(text))
        starts = [match.end() for match in re.finditer(b"\n", text[max(done, at - 64 * KIB - 1) : at])]
        starts = [max(done, at - 64 * KIB - 1) + start for start in starts]
        near = [start for start in starts if start >= at - reach]
        start = done if at - reach <= done else [*near[:1], *starts[-1:], max(done, at - 64 * KIB)][0]
        if kill is not None and not waiting:
            least = max(kill + 256, start + 4 * KIB)
            told = MORE.match(text, least, end)
            end = text.find(b"\n", told.start(1) if told else least, end) + 1 or end
        if found and start == done:
            start = found.pop()[0]
        found.append((start, end))
    return found


def test_without_hyperscan_the_kills_are_found_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)  # what a machine without its wheel answers an import with
    text = lines(MIB) + FAILURE + lines(MIB) + FAILURE + lines(MIB) + TRIGGER + KILL + lines(MIB)
    found = regions(list(scan(in_blocks(text), hyperscan_above_bytes=2 * MIB - BLOCK)))
    assert [(FAILURE in data, TRIGGER + KILL in data) for _, data in found] == [(True, False), (False, True)]


# However hostile it is


def test_a_log_of_anchors_alone_comes_out_whole_and_in_pieces(engine: Scan) -> None:
    text = (TRIGGER + KILL) * 10_000
    excerpts = engine(in_blocks(text))
    assert regions(excerpts) == [(0, text)]
    assert max(len(excerpt.data) for excerpt in excerpts) <= BLOCK


@pytest.mark.parametrize("block", [b"x" * BLOCK, (KILL * 3_000)[:BLOCK], (TRIGGER + ROW * 3_000)[:BLOCK]])
def test_memory_does_not_grow_with_the_text(engine: Scan, block: bytes) -> None:
    engine([block])
    tracemalloc.start()
    for excerpt in scan(repeat(block, 64), hyperscan_above_bytes=None if engine is with_find else 0):  # 16 MiB
        assert len(excerpt.data) <= BLOCK
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB
