"""Bytes of any length → the parts of them that may tell of an OOM kill, at the speed of memory.

A log is searched for three literals that kernels have printed since 2.6; only the text around them is cut out, to be
parsed. Two engines find the literals and agree: `bytes.find`, and hyperscan, which pays from some megabytes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from reprieve.oom.lines import has_entries

_TRIGGER = b"oom-killer: gfp_mask="  # dump_header(); up to 2.6.18 without the name of a task before it
_KILL = b"Killed process"  # __oom_kill_process(), all forms; "Kill process .. or sacrifice child" is followed by it
_FAILURE = b"page allocation failure"  # warn_alloc()
_ANCHORS = (_TRIGGER, _KILL, _FAILURE)  # no one begins as another ends: their hits never overlap
_SYSRQ = b"anual OOM"  # may stand before a trigger
# Behind a kill, in small letters: the reaper, its group, a panic, another report whose anchor is lost or broken.
_MORE = (b"oom", b"kill process", b"illed process", b"ut of memory", b"kernel panic", b"mem-info")
_HINTS = (b"oom-k", b"Kill", b"page al")  # how they begin: short, and rare in logs by its last bytes (see below)
_OVERLAP = max(map(len, _ANCHORS)) - 1  # an anchor torn by the end of a block has at most this much on either side

_BLOCK = 512 * 1024  # two fit the second-level cache, read and searched there; from 4 MiB on it is slower
PIECE_BYTES = 256 * 1024  # the largest excerpt: a text, or a line, below it comes out whole
_FAR = 64 * 1024  # before an anchor without a trigger; after a failure; and the longest line that is kept whole
_BEGIN = 4 * 1024  # of the text: is it one of entries that have many lines each?
LEAST_BYTES = 4 * 1024  # of a region, if the text goes on: who counts lines does it in steps of that
_NEAR = 1024  # before a trigger or a failure, if SysRq is there
_BESIDE = 256  # before one without, and after a kill: the line may be broken
_TASK_TABLE = 8 * 1024 * 1024  # after a trigger, until its kill: eighty thousand tasks
_AFTERMATH = 4 * 1024  # after a kill, up to the last of those words: ordinary lines take as long to read
_KEPT = _FAR + 2 * _OVERLAP  # of the text before a block, if the region that is open does not reach further back

_Hit = tuple[int, bytes]  # where an anchor begins, and which
_Find = Callable[[bytes | bytearray], list[_Hit]]


class Excerpt(NamedTuple):
    """Whole lines out of a text, at most 256 KiB; a line longer than 64 KiB may be cut, at any byte."""

    offset: int  # of its first byte in the plain (decompressed) text
    data: bytes  # the last line lacks its newline where the text ends without one
    continues: bool  # follows the excerpt before without a hole: lines of one report may stand in both


def scan(
    blocks: Iterable[bytes | bytearray | memoryview], *, hyperscan_above_bytes: int | None = 4 * 1024 * 1024
) -> Iterator[Excerpt]:
    """Cut out what may belong to OOM reports and page allocation failures, in order, in constant memory.

    Blocks may have any size and be overwritten once the next but one is asked for. A text below 256 KiB comes out
    whole: pastes are wrapped and torn in places where no literal survives, and parsing them costs little.
    `hyperscan_above_bytes`: how much to search before hyperscan is loaded; None: never. Where it does not exist,
    allocation failures are looked for up to there, and kills to the end: the third pass would take a third more.
    """
    cutter = _Cutter()
    find: _Find = _find
    for block in _even(blocks):
        if cutter.known == 0 and len(block) < PIECE_BYTES:
            yield Excerpt(offset=0, data=bytes(block), continues=False)
            return
        if hyperscan_above_bytes is not None and cutter.known >= hyperscan_above_bytes:
            find, hyperscan_above_bytes = _load_hyperscan() or _find_kills, None
        yield from cutter.take(block, find)
    yield from cutter.finish()


def _even(blocks: Iterable[bytes | bytearray | memoryview]) -> Iterator[bytes | bytearray]:
    """The same text in blocks of 256 to 768 KiB, the last one smaller; those of up to 512 KiB are handed on uncopied.

    Smaller ones are put together, larger ones taken apart: a text of a gigabyte is not searched, or copied, as one.
    """
    parts: list[bytes] = []
    filled = 0
    for block in blocks:
        as_it_is = len(block) <= _BLOCK and not isinstance(block, memoryview)
        for at in range(0, len(block), _BLOCK):
            piece = block if as_it_is else bytes(memoryview(block)[at : at + _BLOCK])
            if len(piece) >= PIECE_BYTES and not parts and not isinstance(piece, memoryview):
                yield piece
                continue
            parts.append(bytes(piece))
            filled += len(piece)
            if filled >= PIECE_BYTES:
                yield b"".join(parts)
                parts, filled = [], 0
    if parts:
        yield b"".join(parts)


def _find(text: bytes | bytearray, anchors: Iterable[bytes] = _ANCHORS) -> list[_Hit]:
    """The anchors in order. A pass for each: an alternation in `re` takes five times as long as all of them."""
    hits = []
    for anchor in anchors:
        at = text.find(anchor)
        while at >= 0:
            hits.append((at, anchor))
            at = text.find(anchor, at + len(anchor))
    return sorted(hits)


def _across(seam: bytes | bytearray, end: int, anchor: bytes) -> int:
    """Where the anchor begins that lies across that end; -1: it does not."""
    return seam.find(anchor, max(end - len(anchor) + 1, 0), end + len(anchor) - 1)


def _find_kills(text: bytes | bytearray) -> list[_Hit]:
    return _find(text, (_TRIGGER, _KILL))


def _load_hyperscan() -> _Find | None:
    """The same in one pass; None where hyperscan has no wheel, or the processor is too old for it."""
    try:
        import hyperscan
    except ImportError:
        return None
    database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    count = len(_HINTS)
    try:  # no hint holds anything that an expression would not take literally
        database.compile(expressions=_HINTS, ids=range(count), elements=count, flags=[0] * count)
    except hyperscan.error:
        return None
    hits: list[_Hit] = []

    def note(number: int, _start: int, end: int, _flags: int, _context: object) -> None:
        hits.append((end - len(_HINTS[number]), _ANCHORS[number]))  # it tells where a match ends, and that only

    def find(text: bytes | bytearray) -> list[_Hit]:
        # It compares a few last bytes of each expression first. Whole anchors end in "ller", "cess" and "lure", which
        # logs are full of: tried, they need half as long again.
        hits.clear()
        # isal leaves the upper halves of vector registers in use, with which the scan takes four times as long: tried.
        text.find(b"\0", 0, 4096)  # libc's memchr clears them
        database.scan(text, match_event_handler=note)  # type: ignore[type-var]  # it takes any buffer
        return sorted(hit for hit in hits if text.startswith(hit[1], hit[0]))  # it promises no order

    return find


class _Cutter:
    """Takes the text block by block and keeps the region that is open, in offsets of the whole text.

    A region opens at an anchor, is prolonged by the anchors in it, and closes at the end of a line.
    """

    def __init__(self) -> None:
        self.known = 0  # bytes taken so far
        self.before: bytes | bytearray = b""  # the block before, which is still as it was
        self.text = b""  # the last of the bytes: from `start` on if a region is open, and at least _KEPT; else nothing
        self.of_entries = False  # what proves who wrote a message may stand far before it, or behind
        self.open = False
        self.begun = 0  # where the region does
        self.start = 0  # of what the next excerpt holds
        self.done = 0  # where the last one ended
        self.until = 0  # the region goes on to the end of the line that holds this byte
        self.awaited = 0  # or this one, if no kill comes before
        self.waiting = 0  # triggers in it whose kill has not come
        self.kill: int | None = None  # the last anchor in it, if it is one behind which little is told

    def take(self, block: bytes | bytearray, find: _Find) -> Iterator[Excerpt]:
        """Give what the next block makes complete."""
        if self.known == 0 and has_entries(bytes(block[:_BEGIN])):
            self.of_entries = True
        torn = min(_OVERLAP, self.known)  # what stands before the block in the seam that an anchor may lie across
        seam = self.before[-_OVERLAP:] + block[:_OVERLAP]
        hits = [(self.known - torn + at, anchor) for anchor in _ANCHORS if (at := _across(seam, torn, anchor)) >= 0]
        hits += [(self.known + at, anchor) for at, anchor in find(block)]
        self.known += len(block)
        before, self.before = self.before, block
        if not hits and not self.open:
            return
        self.text = b"".join((self.text or memoryview(before)[-_KEPT:], block))
        for at, anchor in hits:
            yield from self._meet(at, anchor)
        if self.open:
            searched = self.known - _OVERLAP  # beyond, an anchor may begin that is torn
            if (end := self._end()) <= searched:
                yield from self._close(end)
            else:
                yield from self._give_pieces(min(self._least(), searched))
        self.text = self.text[min(self.start, self.known - _KEPT) - self.known :] if self.open else b""

    def finish(self) -> Iterator[Excerpt]:
        """Give what is left: the text has ended."""
        if self.open:
            yield from self._close(min(self._end(), self.known))

    def _meet(self, at: int, anchor: bytes) -> Iterator[Excerpt]:
        if self.open and at > self._limit() and at >= (end := self._end()):
            yield from self._close(end)
        if not self.open:
            self.open, self.until, self.awaited, self.waiting = True, at, 0, 0
            self.begun = self.start = self._begin(at, _FAR if anchor == _KILL else self._reach(at))
        if anchor == _TRIGGER:
            self.awaited = at + _TASK_TABLE
            self.waiting += 1
        elif anchor == _KILL:
            self.awaited = 0
            self.waiting = max(self.waiting - 1, 0)
            self.until = max(self.until, at + _AFTERMATH)
        else:
            self.until = max(self.until, at + _FAR)
        alone = anchor == _KILL and self.until == at + _AFTERMATH and not self.waiting and not self.of_entries
        self.kill = at if alone else None

    def _reach(self, at: int) -> int:
        """How far before a trigger, or a failure, there may be something of it."""
        if self.of_entries:
            return _FAR
        base = self.known - len(self.text)
        return _NEAR if self.text.find(_SYSRQ, max(0, at - _NEAR - base), at - base) >= 0 else _BESIDE

    def _begin(self, at: int, reach: int) -> int:
        """The first line that begins within `reach` bytes before the anchor; else the one that holds the anchor."""
        if at - reach <= self.done:
            return self.done
        base, earliest = self.known - len(self.text), max(self.done, at - _FAR)
        newline = self.text.find(b"\n", at - reach - 1 - base, at - base)
        if newline < 0:
            newline = self.text.rfind(b"\n", earliest - base, at - base)
        return earliest if newline < 0 else base + newline + 1

    def _limit(self) -> int:
        return max(self.until, self.awaited)

    def _least(self) -> int:
        """The region goes on at least so far."""
        return self._limit() if self.kill is None else max(self.kill + _BESIDE, self.begun + LEAST_BYTES)

    def _end(self) -> int:
        """Where the region ends if no other anchor comes; more than is known if it goes on."""
        base, limit = self.known - len(self.text), self._limit()
        newline = self.text.find(b"\n", limit - base, limit - base + _FAR)
        return limit + _FAR if newline < 0 else base + newline + 1

    def _close(self, end: int) -> Iterator[Excerpt]:
        if self.kill is not None:
            base = self.known - len(self.text)
            least = max(self._least() - base, 0)
            behind = self.text[least : end - base].lower()
            newline = self.text.find(b"\n", least + max(0, *map(behind.rfind, _MORE)), end - base)
            end = end if newline < 0 else base + newline + 1
        yield from self._give_pieces(end)
        yield self._give(end)
        self.open = False

    def _give_pieces(self, end: int) -> Iterator[Excerpt]:
        """Give full pieces of what lies before `end`, and leave the last."""
        while end - self.start > PIECE_BYTES:
            base = self.known - len(self.text)
            newline = self.text.rfind(b"\n", self.start - base, self.start - base + PIECE_BYTES)
            yield self._give(self.start + PIECE_BYTES if newline < 0 else base + newline + 1)

    def _give(self, end: int) -> Excerpt:
        base = self.known - len(self.text)
        data = self.text[self.start - base : end - base]
        excerpt = Excerpt(offset=self.start, data=data, continues=0 < self.done == self.start)
        self.start = self.done = end
        return excerpt
