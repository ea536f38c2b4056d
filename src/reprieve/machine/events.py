"""Sources → the events in them: each once, whatever number of logs it was written to."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain

from reprieve.machine.source import Block, Source
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, Kill, OomReport, OomSummary, Stamp
from reprieve.oom.lines import Line, read_lines
from reprieve.oom.report import EventReader, read_events
from reprieve.oom.scan import Excerpt, scan
from reprieve.oom.tables import parse_kill

HISTORY = 256  # how many events before one are looked at to say how often it happens: a bound, so time stays linear
_COUNTED_BYTES = 8 * 1024 * 1024  # lines are numbered this far: counting costs more than searching
_STEP = 4096
_QUOTED_LINES = 8  # between two quotes of one kill
_PASTE_BYTES = 2 * 1024 * 1024  # a pod is 10 KiB of JSON, and people paste a few
# One of these is in every status that tells of an end; without them nothing more is loaded.
_STATUS_WORDS = (b"OOMKilled", b"containerStatuses", b"/tasks/", b"Container ID:", b"Active: ", b"Result=", b'"Type"')
_SAME_MOMENT_S = 2.0  # two clocks of one kernel line: printk's own stamp and the journal's


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What sources tell: the events asked for, all that was seen, and what could not be seen."""

    ooms: tuple[OomReport, ...]  # oldest first
    history: tuple[OomSummary, ...]  # all of them, oldest first
    allocation_failures: tuple[AllocationFailure, ...]
    endings: tuple[Ending, ...]  # what managers say, where their words were pasted
    gaps: tuple[Gap, ...]


Wanted = Callable[[OomSummary], bool]
Event = OomReport | AllocationFailure | Ending
Seen = tuple[Event, deque[OomSummary]]  # an event, and those before it with itself, at most `HISTORY`


def tell(sources: Sequence[Source], wanted: Wanted, most: int, gaps: Iterable[Gap] = ()) -> Told:
    """The newest `most` events that are wanted, with what is known of all others. Every source is read once."""
    ordered = _newest_first(sources)
    seen = _Seen()
    all_gaps = list(gaps)
    failures: deque[AllocationFailure] = deque(maxlen=most)
    endings: list[Ending] = []
    kept: list[OomReport] = []
    for at, source in enumerate(ordered):
        newest: deque[OomReport] = deque(maxlen=max(0, most - len(kept)))
        for event in read_source(source, all_gaps):
            if isinstance(event, AllocationFailure):
                failures.append(event)
            elif isinstance(event, Ending):
                endings.append(event)
            elif (summary := seen.add(event, at)) is not None and wanted(summary):
                newest.append(event)
        kept = [*newest, *kept]
    history = tuple(seen.oldest_first())
    return Told(
        ooms=tuple(kept),
        history=history,
        allocation_failures=tuple(failures),
        endings=tuple(endings),
        gaps=tuple(all_gaps),
    )


def stream(sources: Sequence[Source], wanted: Wanted, gaps: list[Gap]) -> Iterator[Seen]:
    """Every event that is wanted, the oldest first, as it is read."""
    seen = _Seen()
    history: deque[OomSummary] = deque(maxlen=HISTORY)
    for at, source in enumerate(reversed(_newest_first(sources))):
        for event in read_source(source, gaps):
            if not isinstance(event, OomReport):
                yield event, history
            elif (summary := seen.add(event, at)) is not None:
                history.append(summary)
                if wanted(summary):
                    yield event, history


def watch(
    lines: Iterable[str | None], name: str, wanted: Wanted, gaps: list[Gap], boot_id: str | None = None
) -> Iterator[Seen | None]:
    """Every event that is wanted, once silence, or the next ones, show that it is over; None at each silence."""
    reader = EventReader(name)
    history: deque[OomSummary] = deque(maxlen=HISTORY)

    def events() -> Iterator[OomReport | AllocationFailure | None]:
        number = 0
        for text in lines:
            if text is None:
                yield from reader.flush()
                yield None
                continue
            number += 1
            for line in _by_the_kernel(read_lines(f"{text}\n", number), name, gaps):
                yield from reader.feed(line)
        yield from reader.flush()

    for event in events():
        if event is None:
            yield None
        elif isinstance(event, AllocationFailure):
            yield event, history
        else:
            event = event if event.boot_id is not None else replace(event, boot_id=boot_id)
            history.append(summarise(event))
            if wanted(history[-1]):
                yield event, history


def _newest_first(sources: Sequence[Source]) -> list[Source]:
    """What has no date is live: the kernel's buffer, the journal, a pipe."""
    return sorted(sources, key=lambda source: -source.newest_s if source.newest_s is not None else float("-inf"))


def read_source(source: Source, gaps: list[Gap]) -> Iterator[Event]:
    """The events of one source, in its order, in constant memory; behind them the statuses pasted into it.

    Lines are numbered from 1 up to 8 MiB. Behind that an event is named by the byte where its text begins,
    `kern.log@812345678`, and its lines count from there.
    """
    counter, paste = _LineCounter(), _Paste()
    excerpts = scan(counter.watch(paste.watch(source.blocks(gaps))))
    for region in _regions(excerpts):
        first = next(region)
        number = counter.lines_before(first)
        name = source.name if number is not None else f"{source.name}@{first.offset}"
        lines = _lines(chain((first,), region), 1 if number is None else number + 1)
        for event in _each_once(read_events(_by_the_kernel(lines, name, gaps), name)):
            if isinstance(event, OomReport) and event.boot_id is None and source.boot_id is not None:
                event = replace(event, boot_id=source.boot_id)
            yield event
    if source.kind in ("file", "pipe"):
        yield from paste.endings(source.name, gaps)


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
    """Not if both tell the sizes: then they are two kills, or one that _Seen knows again in another source."""
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
    """The beginning of a source, kept while it may be what people paste of a manager's words."""

    def __init__(self) -> None:
        self.text = bytearray()
        self.fits = True

    def watch(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The same blocks."""
        for block in blocks:
            self.fits = self.fits and len(self.text) + len(block) <= _PASTE_BYTES
            if self.fits or not self.text:
                self.text += block
            yield block

    def endings(self, source: str, gaps: list[Gap]) -> Iterator[Ending]:
        """How workloads ended, where managers tell."""
        if not any(word in self.text for word in _STATUS_WORDS):
            return
        if not self.fits:
            if self.text.lstrip().startswith((b"[", b"{")) and b"OOMKilled" in self.text:
                hint = "give those of the container or pod in question alone"
                gaps.append(Gap(place=source, reason="holds more statuses than 2 MiB: they were not read", hint=hint))
            return
        from reprieve.oom.ending import read_endings

        for ending in read_endings(self.text.decode(errors="backslashreplace")):
            yield replace(ending, source=source)


def _regions(excerpts: Iterator[Excerpt]) -> Iterator[Iterator[Excerpt]]:
    """Excerpts that follow each other without a hole, together: a report may stand in two of them."""
    waiting = deque(_next_of(excerpts))

    def region() -> Iterator[Excerpt]:
        yield waiting.popleft()
        for excerpt in excerpts:
            if not excerpt.continues:
                waiting.append(excerpt)
                return
            yield excerpt

    while waiting:
        one = region()
        yield one
        deque(one, maxlen=0)  # whatever the reader left


def _next_of(excerpts: Iterator[Excerpt]) -> Iterator[Excerpt]:
    first = next(excerpts, None)
    if first is not None:
        yield first


def _lines(excerpts: Iterable[Excerpt], first: int) -> Iterator[Line]:
    for excerpt in excerpts:
        yield from read_lines(excerpt.data.decode(errors="backslashreplace"), first)
        first += excerpt.data.count(b"\n")


def _by_the_kernel(lines: Iterable[Line], name: str, gaps: list[Gap]) -> Iterator[Line]:
    """The same lines; one that a program wrote to look like a kill is told of, and is none."""
    for line in lines:
        if line.kernel is False and "Killed process" in line.text and parse_kill(line.text) is not None:
            gaps.append(Gap(place=f"{name}:{line.number}", reason="looks like a kill, but a program wrote it"))
        yield line


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
                    self.sums.append(self.sums[-1] + text.count(b"\n", start, start + _STEP))
                rest = bytes(text[whole:])
            yield block
        if len(self.sums) * _STEP <= _COUNTED_BYTES:
            self.sums.append(self.sums[-1] + rest.count(b"\n"))

    def lines_before(self, excerpt: Excerpt) -> int | None:
        """The number of lines before the excerpt; None behind what was counted.

        It begins within a step whose end it has passed, or the text has ended: newlines up to there, less its own.
        """
        at, into = divmod(excerpt.offset, _STEP)
        if into == 0:
            return self.sums[at] if at < len(self.sums) else None
        if at + 1 >= len(self.sums):
            return None
        return self.sums[at + 1] - excerpt.data.count(b"\n", 0, _STEP - into)


def summarise(oom: OomReport) -> OomSummary:
    """An event in little."""
    usage = oom.memcg.usage("memory") if oom.memcg else None
    limit = usage.limit_bytes if usage else None
    return OomSummary(
        source=oom.source,
        line=oom.line,
        stamp=oom.stamp,
        host=oom.host,
        boot_id=oom.boot_id,
        scope=oom.scope,
        workload=oom.workload,
        limit_of=oom.limit_of,
        victims=tuple((kill.pid, kill.comm) for kill in oom.kills),
        freed_bytes=_freed_bytes(oom.kills),
        limit_bytes=limit if isinstance(limit, int) else None,
        no_killable=oom.no_killable,
        panic=oom.panic is not None,
    )


def _freed_bytes(kills: tuple[Kill, ...]) -> int | None:
    """Resident memory of the victims; None if a kill line does not tell. Shared memory stays with those who share."""
    total = 0
    for kill in kills:
        if kill.anon_rss_bytes is None or kill.file_rss_bytes is None:
            return None
        total += kill.anon_rss_bytes + kill.file_rss_bytes
    return total if kills else None


class _Seen:
    """All events so far, each once: the kernel's buffer, the journal and /var/log hold the same kill."""

    def __init__(self) -> None:
        self.by_source: list[list[OomSummary]] = []
        self.where: dict[_Key, list[tuple[int, int]]] = {}  # source and place in it

    def add(self, oom: OomReport, source: int) -> OomSummary | None:
        """Its summary; None if another source has told it before."""
        while len(self.by_source) <= source:
            self.by_source.append([])
        summary = summarise(oom)
        places = self.where.setdefault(_key(oom), [])
        for other, at in places:
            known = self.by_source[other][at]
            if other != source and summary.source not in known.also_in and _may_be_one(known, summary):
                self.by_source[other][at] = replace(known, also_in=(*known.also_in, summary.source))
                return None
        places.append((source, len(self.by_source[source])))
        self.by_source[source].append(summary)
        return summary

    def oldest_first(self) -> Iterator[OomSummary]:
        """Sources come newest first, the events of each oldest first."""
        for summaries in reversed(self.by_source):
            yield from summaries


_Key = tuple[object, ...]


def _key(oom: OomReport) -> _Key:
    """What is the same in all logs that hold an event: the victim and its sizes; without one, who asked and when."""
    if oom.kills:
        first = oom.kills[0]
        return (first.pid, first.comm, first.total_vm_bytes, first.anon_rss_bytes, first.file_rss_bytes)
    trigger = oom.trigger
    uptime_s = None if oom.stamp.uptime_s is None else round(oom.stamp.uptime_s)
    return (trigger.comm if trigger else None, trigger.pid if trigger else None, oom.panic, uptime_s)


def _may_be_one(one: OomSummary, other: OomSummary) -> bool:
    """Not if they are of two boots or hosts, or their clocks are too far apart."""
    if None not in (one.boot_id, other.boot_id) and one.boot_id != other.boot_id:
        return False
    if None not in (one.host, other.host) and one.host != other.host:
        return False
    since, also_since = one.stamp.uptime_s, other.stamp.uptime_s
    return since is None or also_since is None or abs(since - also_since) <= _SAME_MOMENT_S
