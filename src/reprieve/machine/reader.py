"""One source → the events in it, in its order and in constant memory."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import chain, islice
from typing import NamedTuple, TypeVar

from reprieve.machine.source import Block, Folder, Source, Told
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, OomReport, Stamp
from reprieve.oom.line import Line
from reprieve.oom.lines import newlines, read_lines, read_spine
from reprieve.oom.report import read_events
from reprieve.oom.same import NODE_AGENTS
from reprieve.oom.scan import LEAST_BYTES, PIECE_BYTES, Excerpt, scan
from reprieve.oom.tables import parse_kill
from reprieve.units import size

_COUNTED_BYTES = 8 * 1024 * 1024  # lines are numbered this far: counting costs more than searching
_STEP = LEAST_BYTES
_QUOTED_LINES = 8  # between two quotes of one kill
_PASTE_BYTES = 2 * 1024 * 1024  # a pod is 10 KiB of JSON, and people paste a few
_BEGIN_BYTES, _END_BYTES = 64 * 1024, 16 * 1024  # of a text without events: is there a line of a kernel log in it?
NO_KERNEL_LOG = "holds no line of a kernel log"
TOO_LITTLE = "names an OOM kill, but not whose limit it was"
_WHAT_TO_GIVE = (
    "give that of the machine it ran on, `journalctl -k` or `dmesg`; or `docker inspect`, `kubectl describe pod`"
)
_REPORT = "give all that the kernel wrote then, from “invoked oom-killer” on"
_WHOLE = (
    "give all that `docker inspect CONTAINER`, `kubectl describe pod POD` or `kubectl get pod POD -o json` print, or "
    "the kernel log of its host"
)
# One of these is in every status that tells of an end; without them nothing more is loaded.
_STATUS_WORDS = (
    *(
        b"OOMKilled",
        b"ontainerStatuses",
        b"terminated:",
        b"state: CONTAINER_",
        b"/tasks/",
        b" container oom ",
        b" container die ",
        b"Container ID:",
        b"State:",
        b'"exitCode"',
        b"Active: ",
        b"Result=",
    ),
    *(
        b'"Type"',
        b"killed by the OOM killer",
        b"OOM killer killed some",
        b"systemd-oomd killed",
        b" due to memory ",
        b"sending SIG",
        b"Sending SIG",
        b"with result 'oom-kill'",
        b"Exited (137)",
    ),
    *(b"SystemOOM", b"System OOM encountered", b"OOMKilling", b"Evicted", b'"CONTAINER_', b"POD ID", b"sandboxID: "),
    *(b" failed liveness probe", b" failed startup probe"),
)
# A row of `kubectl get pods`, of `docker ps --all`: whose limit it was, and when, or who sent SIGKILL, is not in it.
_KILLED_ROW = rb"(?m)^[>| \t]*\S+(?:[ \t]+\S+)?[ \t]+\d+/\d+[ \t]+(?:Init:)?OOMKilled\b"
_EXITED_ROW = rb"\bExited \(137\) "
_UNREAD_YAML = (
    "is YAML that could not be read",
    "give it as JSON: `kubectl get pod POD -o json`, `crictl inspect CONTAINER`",
)
# Statuses that are not read, or tell too little: by what they are known, what they are, and what to give instead.
_UNREAD = (
    (
        _KILLED_ROW,
        f"{TOO_LITTLE}, nor when",
        "give `kubectl describe pod POD`, `docker inspect CONTAINER`, or the kernel log of its host",
    ),
    (
        _EXITED_ROW,
        "names an end by SIGKILL (137), and not who sent it",
        "give `docker inspect CONTAINER`, or the kernel log of its host",
    ),
    (
        rb"(?m)^[>| \t]*(?:containerStatuses: *$|sandboxID: \w)",
        *_UNREAD_YAML,
    ),
    (
        rb'(?m)^CONTAINER +IMAGE +CREATED +STATE |"podSandboxId"',
        "lists containers, and not how they ended",
        "give `crictl inspect CONTAINER`, or the kernel log of its host",
    ),
)
NO_LOGS = (NO_KERNEL_LOG, *(reason for _, reason, _ in _UNREAD))
_HOLE = rb"\0{9,}"  # a crash leaves zeros before lines; eight may be a length, of what programs wrote
_PROOFS = ("kmsg", "journal")  # kinds whose records only the kernel can mark as its own
_PIECES = 36  # of 256 KiB: the longest task table that is read, 8 MiB, with all around it

Event = OomReport | AllocationFailure | Ending
_Kind = TypeVar("_Kind", bound=OomReport | AllocationFailure)


def names_a_kill(gaps: Iterable[Gap]) -> bool:
    """Is one of them that a part of a status tells of an OOM kill?"""
    from reprieve.oom.foreign import BY_OOM

    return any(gap.reason.startswith(TOO_LITTLE) or gap.reason.endswith(BY_OOM) for gap in gaps)


class Passage(NamedTuple):
    """Where the whole text of an event stands: from the end of the one before to the beginning of the next."""

    source: str
    boot_id: str | None
    proves: bool
    pieces: tuple[tuple[int, bytes], ...]  # the number of the first line, and the text
    start: int
    until: int | None  # None: to the end of the pieces

    def read(self, brief: _Kind) -> _Kind:
        """The event with all that is told of it; as it was read briefly, if its whole text tells of no such event."""
        lines = chain.from_iterable(self._lines())
        for event in _events(lines, self.source, self.boot_id, self.proves):
            if isinstance(event, type(brief)) and _is_same(event, brief):
                return event
        return brief

    def _lines(self) -> Iterator[Iterator[Line]]:
        for first, data in self.pieces:
            begin = _after_lines(data, self.start - first)
            end = len(data) if self.until is None else _after_lines(data, self.until - first)
            if begin < end:
                text = data[begin:end].decode(errors="backslashreplace")
                yield read_lines(text, max(first, self.start))


def read_source(source: Source, gaps: list[Gap]) -> Iterator[Event]:
    """The events of one source, in its order, in constant memory; behind them the statuses pasted into it.

    Lines are numbered from 1 up to 8 MiB. Behind that an event is named by the byte where its text begins,
    `kern.log@812345678`, and its lines count from there.
    """
    paste, proves = _Paste(gaps), source.kind in _PROOFS
    events = False
    for name, first, region in _regions(source, paste, gaps):
        lines = _lines_of(_whole(region, first), name, gaps)
        for event in _events(lines, name, source.boot_id, proves):
            events = True
            yield event
    yield from paste.told_behind(source, gaps, events=events)


def read_briefly(source: Source, gaps: list[Gap]) -> Iterator[tuple[OomReport | AllocationFailure, Passage] | Ending]:
    """The same events with what a summary needs alone, a tenth of the work; and where to read each whole."""
    paste, proves = _Paste(gaps), source.kind in _PROOFS
    events = False
    for name, first, region in _regions(source, paste, gaps):
        pieces: deque[tuple[int, bytes]] = deque(maxlen=_PIECES)
        lines = _lines_of(_spine(region, first, pieces), name, gaps)
        before: OomReport | AllocationFailure | None = None
        start = first
        for event in _events(lines, name, source.boot_id, proves):
            if before is not None:
                yield before, Passage(name, source.boot_id, proves, tuple(pieces), start, event.line)
                start = before.last_line + 1
                while len(pieces) > 1 and pieces[1][0] <= start:
                    pieces.popleft()
            before = event
        if before is not None:
            events = True
            yield before, Passage(name, source.boot_id, proves, tuple(pieces), start, None)
    yield from paste.told_behind(source, gaps, events=events)


def _events(
    lines: Iterable[Line], name: str, boot_id: str | None, proves: bool
) -> Iterator[OomReport | AllocationFailure]:
    for event in _each_once(read_events(lines, name)):
        if isinstance(event, OomReport):
            verified = event.verified if proves else None  # anybody can write a file that looks like a kernel's record
            if (event.verified, event.boot_id) != (verified, event.boot_id or boot_id):
                event = replace(event, verified=verified, boot_id=event.boot_id or boot_id)
        yield event


def _is_same(event: OomReport | AllocationFailure, brief: OomReport | AllocationFailure) -> bool:
    if isinstance(event, OomReport) and isinstance(brief, OomReport):
        if event.kills and brief.kills:
            return event.kills[0].line == brief.kills[0].line
        if event.trigger and brief.trigger:
            return event.trigger.line == brief.trigger.line
    return event.line <= brief.line <= event.last_line


def _after_lines(data: bytes, count: int) -> int:
    """Where the text behind that many lines begins."""
    at = 0
    for _ in range(count):
        at = data.find(b"\n", at) + 1
        if not at:
            return len(data)
    return at


def _each_once(events: Iterable[OomReport | AllocationFailure]) -> Iterator[OomReport | AllocationFailure]:
    """The same events; a kill of which guides and tickets quote one line, and then another, is one kill."""
    before: OomReport | AllocationFailure | None = None
    for event in events:
        if isinstance(before, OomReport) and isinstance(event, OomReport) and _is_quoted_again(before, event):
            before = _joined(before, event)
            continue
        if before is not None:
            yield before
        before = event
    if before is not None:
        yield before


def _is_quoted_again(one: OomReport, other: OomReport) -> bool:
    """Not if both tell the sizes: then they are two kills, or one that is known again in another source."""
    if len(one.kills) != 1 or len(other.kills) != 1 or other.line - one.last_line > _QUOTED_LINES:
        return False
    kill, again = one.kills[0], other.kills[0]
    if (kill.pid, kill.comm) != (again.pid, again.comm) or other.stamp not in (Stamp(), one.stamp):
        return False
    return None in (kill.total_vm_bytes, again.total_vm_bytes) and other.trigger is None and other.tasks is None


def _joined(one: OomReport, other: OomReport) -> OomReport:
    """What both tell together."""
    names = [field.name for field in fields(OomReport) if getattr(one, field.name) in (None, ())]
    sizes = one.kills if one.kills[0].total_vm_bytes is not None else other.kills
    return replace(
        one,
        **{name: getattr(other, name) for name in names},
        kills=sizes,
        last_line=other.last_line,
        missing=tuple(part for part in one.missing if part in other.missing),
        lines=one.lines + other.lines,
    )


class _Paste:
    """The beginning of a source, kept while it may be what people paste of a manager's words; and its end."""

    def __init__(self, gaps: Sequence[Gap]) -> None:
        self.gaps_before = len(gaps)
        self.text = bytearray()
        self.last: Block = b""  # if it does not fit; the source may write over it when it is asked for two more
        self.fits = True

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        for block in blocks:
            self.fits = self.fits and len(self.text) + len(block) <= _PASTE_BYTES
            if self.fits or not self.text:
                self.text += block
            else:
                self.last = block
            yield block

    def told_behind(self, source: Source, gaps: list[Gap], *, events: bool) -> Iterator[Ending]:
        """How workloads ended, where managers tell; where nothing was found, not even events, what that means."""
        is_text = source.kind in ("file", "pipe")
        told, gaps_before = False, len(gaps)
        for ending in self._endings(source, gaps) if is_text and self.text else ():
            told = True
            yield ending
        if source.within is not None:
            hides = any(gap.hides for gap in gaps[self.gaps_before :])
            is_log = told or events or (self._is_kernel_log() if is_text else bool(self.text) or not hides)
            gaps += _judged(source.within, is_log=is_log, hides=hides)
        elif is_text and self.text and not (told or events) and source.named and len(gaps) == gaps_before:
            self._judge(source, gaps)

    def _endings(self, source: Source, gaps: list[Gap]) -> Iterator[Ending]:
        if not self.fits:
            as_json = self.text.lstrip().startswith((b"[", b"{")) and b"OOMKilled" in self.text
            if as_json or b"\n  containerStatuses:\n" in self.text or b"\n    containerStatuses:\n" in self.text:
                hint = "give those of the container or pod in question alone"
                gaps.append(
                    Gap(place=source.name, reason="holds more statuses than 2 MiB: they were not read", hint=hint)
                )
            return
        if not any(word in self.text for word in _STATUS_WORDS):
            return
        told, unread, _ = source.told if source.told is not None else _told(self.text)
        yield from (replace(ending, source=source.name) for ending in told)
        shapes = () if told else _UNREAD
        lacks = ((reason, hint) for shape, reason, hint in shapes if re.search(shape, self.text))
        for reason, hint in islice((_UNREAD_YAML,) if unread else lacks, 1):
            gaps.append(Gap(place=source.name, reason=reason, hint=hint))
            if not any(ending.oom_killed for ending in told):
                gaps += filter(None, [self._word(source)])

    def _word(self, source: Source) -> Gap | None:
        from reprieve.oom.foreign import oom_killed

        word = oom_killed(bytes(self.text[:_PASTE_BYTES]).decode(errors="backslashreplace"))
        if word is None:
            return None
        return Gap(place=f"{source.name}:{word.line}", reason=f"{word.words}: {word.means}", hides=False)

    def _judge(self, source: Source, gaps: list[Gap]) -> None:
        """That nothing was found means nothing where no line is the kernel's."""
        from reprieve.machine.log import is_text
        from reprieve.oom.foreign import is_of_programs, remains, signs

        in_one_line = len(self.text) > PIECE_BYTES and b"\n" not in self.text[:PIECE_BYTES]
        if in_one_line and self.text.startswith((b"[", b"{")):
            reason = f"is JSON in one line of more than {size(PIECE_BYTES)}, which is not read whole"
            gaps.append(Gap(place=source.name, reason=reason, hint="jq -r '.. | strings' FILE | reprieve why"))
            return
        if not is_text(self.text):  # which is told of already
            return
        if self._is_kernel_log():
            left = next(filter(None, map(remains, self._looked_at())), None)
            if left is not None:
                at = f"{source.name}:{left.line}" if self.fits else source.name  # of a part of it, where it is large
                part = Gap(place=at, reason=f"{left.words}: {left.means}", hides=False)
                gaps += (Gap(place=source.name, reason=TOO_LITTLE, hint=_REPORT), part)
            return
        if (word := self._word(source)) is not None:  # who else sends a SIGKILL is not the question then
            gaps += (Gap(place=source.name, reason=TOO_LITTLE, hint=_WHOLE), word)
            return
        begin, *rest = self._looked_at()
        for sign in signs(begin):
            at = f"{source.name}:{sign.line}"
            gaps.append(Gap(place=at, reason=f"{sign.words}: {sign.means}", hides=False))
        where = "" if not rest else " at its beginning or end"
        where += ": what it holds, programs wrote" if is_of_programs(begin) else ""
        gaps.append(Gap(place=source.name, reason=f"{NO_KERNEL_LOG}{where}", hint=_WHAT_TO_GIVE))

    def _is_kernel_log(self) -> bool:
        from reprieve.oom.foreign import is_kernel_log

        return any(is_kernel_log(part, whole=self.fits) for part in self._looked_at())

    def _looked_at(self) -> Iterator[str]:
        """All of a small text; of a large one the first lines and the last, and any whose tag is the kernel's."""
        for part in self._parts():
            yield re.sub(_HOLE, b"", part).decode(errors="backslashreplace")

    def _parts(self) -> Iterator[bytes]:
        if len(self.text) <= _BEGIN_BYTES:
            yield bytes(self.text)
            return
        yield bytes(self.text[: self.text.rfind(b"\n", 0, _BEGIN_BYTES) + 1 or _BEGIN_BYTES])
        end = bytes((self.last or self.text)[-_END_BYTES:])
        yield end[end.find(b"\n") + 1 :]
        for tag in (b" kernel: ", b'"_TRANSPORT":"kernel"', b'"_TRANSPORT" : "kernel"'):
            if (at := self.text.find(tag)) >= 0:
                yield bytes(self.text[self.text.rfind(b"\n", 0, at) + 1 : _end_of_line(self.text, at)])


def _end_of_line(text: Block, at: int) -> int:
    return text.find(b"\n", at) + 1 or len(text)


def _judged(folder: Folder, *, is_log: bool, hides: bool) -> Iterator[Gap]:
    """One more of its sources has been read; behind the last, where none was a kernel log, that it holds none."""
    folder.unread -= 1
    folder.holds_log = folder.holds_log or is_log
    folder.hides = folder.hides or hides
    if not (folder.unread or folder.holds_log or folder.hides):
        yield Gap(place=folder.name, reason=NO_KERNEL_LOG, hint=_WHAT_TO_GIVE)


def read_ahead(source: Source) -> Source:
    """The same, with what it tells of ends if it is small: whose kill is meant is known before any is read.

    What was taken from a pipe for it is given again.
    """
    lost: list[Gap] = []
    blocks = source.blocks(lost)
    start: deque[bytes] = deque()
    size_bytes = 0
    while size_bytes <= _PASTE_BYTES and (block := next(blocks, None)) is not None:
        start.append(bytes(block))  # it is overwritten
        size_bytes += len(block)
    text = b"".join(start) if size_bytes <= _PASTE_BYTES else b""
    if any(word in text for word in _STATUS_WORDS):
        told = _told(text)
        source = source._replace(told=told._replace(given=tuple(_given(told.endings, text))))
    return source._replace(blocks=_given_again(start, blocks, lost)) if source.kind == "pipe" else source


def _given(endings: Sequence[Ending], text: bytes) -> Iterator[Ending]:
    """Not what a node's agents wrote into the kernel log itself: that is there of each kill, and asks for none."""
    agents = {ending.line for ending in endings if ending.manager in NODE_AGENTS}
    if not agents:
        return iter(endings)
    from reprieve.oom.foreign import is_kernel_log, is_of_programs

    log = text.decode(errors="backslashreplace")
    lines = enumerate(log.split("\n"), 1)
    in_log = {number for number, line in lines if number in agents and is_of_programs(line)}
    if not (in_log and is_kernel_log(log)):
        return iter(endings)
    return (ending for ending in endings if ending.line not in in_log)


def _given_again(
    start: deque[bytes], rest: Iterator[Block], lost: Sequence[Gap]
) -> Callable[[list[Gap]], Iterator[Block]]:
    def blocks(gaps: list[Gap]) -> Iterator[Block]:
        while start:
            yield start.popleft()
        yield from rest
        gaps += lost

    return blocks


def _told(text: Block) -> Told:
    from reprieve.oom.ending import read_endings

    unread: list[int] = []
    endings = read_endings(text.decode(errors="backslashreplace"), unread)
    return Told(tuple(endings), bool(unread))


def _regions(source: Source, paste: _Paste, gaps: list[Gap]) -> Iterator[tuple[str, int, Iterator[Excerpt]]]:
    """Excerpts that follow each other without a hole, together: a report may stand in two of them.

    With the name of their source, and the number of their first line.
    """
    counter = _LineCounter()
    excerpts = scan(counter.watch(paste.watch(source.blocks(gaps))))
    waiting = next(excerpts, None)

    def region(first: Excerpt) -> Iterator[Excerpt]:
        nonlocal waiting
        waiting = None
        yield first
        for excerpt in excerpts:
            if not excerpt.continues:
                waiting = excerpt
                return
            yield excerpt

    while waiting is not None:
        before = counter.lines_before(waiting)
        name = source.name if before is not None else f"{source.name}@{waiting.offset}"
        one = region(waiting)
        yield name, 1 if before is None else before + 1, one
        deque(one, maxlen=0)  # whatever the reader left


def _whole(excerpts: Iterable[Excerpt], first: int) -> Iterator[Iterator[Line]]:
    for excerpt in excerpts:
        yield read_lines(excerpt.data.decode(errors="backslashreplace"), first)
        first += newlines(excerpt.data)


def _spine(excerpts: Iterable[Excerpt], first: int, pieces: deque[tuple[int, bytes]]) -> Iterator[Iterator[Line]]:
    for excerpt in excerpts:
        pieces.append((first, excerpt.data))
        yield read_spine(excerpt.data, first)
        first += newlines(excerpt.data)


def _lines_of(excerpts: Iterable[Iterator[Line]], name: str, gaps: list[Gap]) -> Iterator[Line]:
    """The lines that may be the kernel's; those that programs wrote to look like a kill are told of, once."""
    forged = first = 0
    for excerpt in excerpts:
        lines = list(excerpt)
        programs = [line for line in lines if line.kernel is False]
        for line in filter(is_forged, programs):
            forged += 1
            first = first or line.number
        yield from [line for line in lines if line.kernel is not False] if programs else lines
    if forged:
        gaps.append(forgery(f"{name}:{first}", others=forged - 1))


def is_forged(line: Line) -> bool:
    """Did a program write it, to look like a kill?"""
    return line.kernel is False and "Killed process" in line.text and parse_kill(line.text) is not None


def forgery(place: str, *, others: int = 0) -> Gap:
    """The note that forged lines leave, the first of them at that place.

    Anybody may write such lines: they must not make a healthy answer sick.
    """
    more = "" if not others else ", and so does another" if others == 1 else f", and so do {others} others"
    return Gap(place=place, reason=f"looks like a kill, but a program wrote it{more}", hides=False)


class _LineCounter:
    """How many lines stand before an excerpt, known by counting in steps while the text goes by."""

    def __init__(self) -> None:
        self.sums = [0]  # newlines before each step

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks; their newlines are counted as they pass, up to 8 MiB."""
        rest = b""
        for block in blocks:
            if len(self.sums) * _STEP <= _COUNTED_BYTES:
                text = rest + block
                whole = len(text) - len(text) % _STEP
                for start in range(0, whole, _STEP):
                    self.sums.append(self.sums[-1] + newlines(text, start, start + _STEP))
                rest = bytes(text[whole:])
            yield block
        if len(self.sums) * _STEP <= _COUNTED_BYTES:
            self.sums.append(self.sums[-1] + newlines(rest))

    def lines_before(self, excerpt: Excerpt) -> int | None:
        """The number of lines before the excerpt; None behind what was counted.

        It begins within a step whose end it has passed, or the text has ended: newlines up to there, less its own.
        """
        at, into = divmod(excerpt.offset, _STEP)
        if into == 0:
            return self.sums[at] if at < len(self.sums) else None
        if at + 1 >= len(self.sums):
            return None
        return self.sums[at + 1] - newlines(excerpt.data, 0, _STEP - into)
