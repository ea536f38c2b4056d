"""Sources → the events in them: each once, whatever number of logs it was written to."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice
from time import monotonic
from typing import NamedTuple, TypeVar

from reprieve.machine.reader import Event, Passage, forgery, is_forged, read_ahead, read_briefly, read_source
from reprieve.machine.source import Block, Source
from reprieve.model.ending import Ending
from reprieve.model.finding import Gap
from reprieve.model.oom import AllocationFailure, Kill, OomReport, OomSummary, Stamp
from reprieve.model.snapshot import Snapshot
from reprieve.oom.counted import unlogged
from reprieve.oom.incident import follows
from reprieve.oom.limit import reached
from reprieve.oom.lines import host, read_lines, stamp
from reprieve.oom.moments import elapsed_s
from reprieve.oom.report import EventReader
from reprieve.oom.same import Statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.machine.follow import Said

HISTORY = 256  # how many events before one are looked at to say how often it happens: a bound, so time stays linear
REMEMBERED = 20_000  # events of one source: a log that is nothing but kill lines must not fill the memory
_ALIKE = 64  # events of other sources that an event is compared with: a pid and all its sizes hardly come again
_CHATTER_S = 2.0  # other lines have come so long: the event is over, though the log is never quiet
_TAIL_BYTES = 4096  # the last line with a stamp is in them
_SAME_MOMENT_S = 2.0  # two clocks of one kernel line: printk's own stamp and the journal's


_Key = tuple[object, ...]
_When = tuple[float, int]  # a moment; where sources tell none, the place of the source in the order of their dates
_Rank = tuple[bool, float, int]  # is it of a workload whose status was given too; then its moment
_Told = TypeVar("_Told", OomReport, AllocationFailure)
Wanted = Callable[[OomSummary | AllocationFailure | Ending], bool]


class Seen(NamedTuple):
    """An event, those before it with itself, at most `HISTORY`, and what engines said of it meanwhile."""

    event: Event
    history: Sequence[OomSummary] = ()
    endings: tuple[Ending, ...] = ()


def tell(
    sources: Sequence[Source],
    wanted: Wanted,
    most: int,
    gaps: Iterable[Gap] = (),
    *,
    ended: bool = False,
    of_named: bool = False,
) -> Snapshot:
    """The newest `most` events that are wanted, and what is known of all kills and ends. Every source is read once.

    `ended`: rather those whose end is told than a later one that was cut off, or that found nobody left to kill: it
    would explain little. And where the status of a container or pod is among the sources, rather the kill of that one;
    where one of them tells of an end by SIGKILL, or with `of_named`, of that one or none.

    Those that prove their boot are read first: what others hold too is known as what it is from the beginning.
    """
    seen = Known()
    all_gaps = list(gaps)
    endings: list[Ending] = []
    named = Statuses()
    if ended and most:  # with a status its kill is meant, rather than the newest
        sources = [read_ahead(source) if _is_given(source) else source for source in sources]
        for ending in chain.from_iterable(source.told.given for source in sources if source.told is not None):
            named.add(ending, asked_for=wanted(ending))
    ooms: list[tuple[_Rank, OomReport]] = []
    failures: list[tuple[_Rank, AllocationFailure]] = []
    by_date = _newest_first(sources)
    tails = [_Tail(source) for source in by_date]
    for at, (age, source) in enumerate(sorted(enumerate(by_date), key=lambda aged: _proof(aged[1]))):
        when = _dating(source, -age, alone=len(sources) == 1)
        newest: deque[tuple[_Rank, OomReport, Passage]] = deque(maxlen=most)
        refused: deque[tuple[_Rank, AllocationFailure, Passage]] = deque(maxlen=most)
        passed_over: tuple[_Rank, OomReport, Passage] | None = None
        for told in read_briefly(source._replace(blocks=tails[age].blocks), all_gaps):
            if isinstance(told, Ending):
                endings.append(told)
                continue
            event, passage = told
            if isinstance(event, OomReport) and event.scope is None:
                event = passage.read(event)  # cut: only its figures of memory show whose memory it was
            moment = when(event)
            if isinstance(event, AllocationFailure):
                if wanted(event):
                    refused.append(((False, *moment), event, passage))
            elif seen.add(event, at, moment, wanted):
                one = ((named.tell_of(event), *moment), event, passage)
                if newest and newest[-1][0][0] and not one[0][0]:
                    continue
                if ended and newest and not _explains(event, newest[-1][1]):
                    passed_over = one
                else:
                    newest.append(one)
                    passed_over = None
        if passed_over is not None and _tells_more(passed_over, newest[-1]):
            newest.append(passed_over)
        ooms = _newest(ooms, newest, most)
        failures = _newest(failures, refused, most)
    history = tuple(seen.oldest_first())
    meant = of_named or named.of_a_kill
    if meant and not any(rank[0] for rank, _ in ooms):  # what is of another container is not what was asked for
        ooms = [(rank, oom) for rank, oom in ooms if oom.workload is None]
    if seen.forgotten:
        reason = f"{seen.forgotten} older events are not counted: the newest {REMEMBERED} of a source are"
        all_gaps.append(Gap(place="history", reason=reason, hint="reprieve why --all --json tells of each"))
    all_gaps += _unlogged(sources, history, seen)
    return Snapshot(
        ooms=tuple(oom for _, oom in ooms),
        history=history,
        log_ends=_end_after(ooms[-1][1], tails) if ooms else None,
        allocation_failures=tuple(failure for _, failure in failures),
        logs=tuple(source.name for source in logs_among(sources, all_gaps)),
        endings=tuple(endings),
        gaps=tuple(all_gaps),
    )


def _is_given(source: Source) -> bool:
    """Is it a text that was named, or lies in what was? What this machine's own logs quote asks for nothing."""
    return source.kind in ("file", "pipe") and (source.named or source.within is not None)


def logs_among(sources: Iterable[Source], gaps: Iterable[Gap]) -> list[Source]:
    """Those that have been read and may be kernel logs: none that lies in a folder without one."""
    unseen = {gap.place for gap in gaps if gap.hides}
    return [
        source for source in sources if source.name not in unseen and (source.within is None or source.within.holds_log)
    ]


def retell(told: Snapshot, wanted: Wanted, most: int, place: str, *, ended: bool = False) -> Snapshot:
    """The same of what a file of that name holds, which has the newest events whole, and of the others a summary.

    Only what the logs tell: of the machine as it lived nothing is left, nor of what of it could not be seen.
    """
    asked_for = [event for event in told.history if wanted(event)]
    ooms = [oom for oom in told.ooms if wanted(summarise(oom))]
    while ended and len(ooms) > 1 and not _explains(ooms[-1], ooms[-2]):
        ooms.pop()
    ooms = ooms[max(len(ooms) - most, 0) :]
    gaps = list(told.gaps)
    if (lacking := min(most, len(asked_for)) - len(ooms)) > 0 and not ended:
        events = "1 older event is" if lacking == 1 else f"{lacking} older events are"
        gaps.append(Gap(place=place, reason=f"{events} not whole in it", hint="--list tells of all"))
    refused = [failure for failure in told.allocation_failures if wanted(failure)]
    return replace(
        told,
        ooms=tuple(ooms),
        log_ends=told.log_ends if ooms and ooms[-1] is told.ooms[-1] else None,
        allocation_failures=tuple(refused[max(len(refused) - most, 0) :]),
        machine=None,
        gaps=tuple(gaps),
        machine_gaps=(),
    )


class _Tail:
    """The end of a source, kept as it is read."""

    __slots__ = ("source", "text")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = b""

    def blocks(self, gaps: list[Gap]) -> Iterator[Block]:
        """Those of the source."""
        for block in self.source.blocks(gaps):
            self.text = (self.text + block[-_TAIL_BYTES:])[-_TAIL_BYTES:]
            yield block

    def last_head(self) -> str | None:
        """The prefix of the last line that has a stamp; None if there is none near the end."""
        for raw in reversed(self.text.decode(errors="backslashreplace").split("\n")):
            for line in read_lines(raw):
                if stamp(line.head) != Stamp():
                    return line.head
        return None


def _end_after(newest: OomReport, tails: Sequence[_Tail]) -> Stamp | None:
    """Until when the log tells what followed the newest event; None where that is not known.

    A log is carried on in the newest of its rotations. Of the journal only what is near events is read.
    """
    ends: list[tuple[float, Stamp]] = []
    for tail in tails:
        is_own = newest.source == tail.source.name or newest.source.startswith(f"{tail.source.name}@")
        if tail.source.kind == "journal" or not (is_own or tail is tails[0]):
            continue
        head = tail.last_head() or ""
        end = stamp(head)
        if tail.source.kind == "kmsg":
            end = Stamp(uptime_s=monotonic())  # of the same clock as printk's stamps, but for a drift
        if not is_own and (newest.host is None or newest.host != host(head)):
            continue
        if not is_own:  # its boot may be another
            end = replace(end, uptime_s=None)
        if (after_s := elapsed_s(newest.stamp, end)) is not None:
            ends.append((after_s, end))
    return max(ends, key=lambda end: end[0])[1] if ends else None


def _explains(oom: OomReport, before: OomReport) -> bool:
    """Does it tell more than the one before: not if its end is lost, nor if it met the other's victim still dying."""
    if oom.kills or oom.panic:
        return True
    return oom.no_killable and not (before.kills and follows(before, oom))


def _tells_more(cut: tuple[_Rank, OomReport, Passage], ended: tuple[_Rank, OomReport, Passage]) -> bool:
    """Of one shortage: has the report whose end is lost the figures of memory, and the other nothing but its end?"""
    whole = ended[2].read(ended[1])
    if cut[1].no_killable or whole.memory is not None or whole.memcg is not None or whole.tasks is not None:
        return False
    other = cut[2].read(cut[1])
    return (other.memory is not None or other.memcg is not None) and follows(whole, other)


def _proof(source: Source) -> int:
    """The kernel's buffer before the journal before what anybody may have written."""
    return {"kmsg": 0, "journal": 1}.get(source.kind, 2)


def _dating(source: Source, place: int, *, alone: bool) -> Callable[[OomReport | AllocationFailure], _When]:
    """When an event was: as it tells, else as the one before it, else when the source was written.

    Of a source that is alone nothing is asked: its own order is the order.
    """
    if alone:
        return lambda _event: (0.0, 0)
    from reprieve.machine.clock import moment_of

    before = float("inf") if source.newest_s is None else source.newest_s

    def when(event: OomReport | AllocationFailure) -> _When:
        nonlocal before
        moment = moment_of(event.stamp, this_boot=source.kind == "kmsg")
        before = before if moment is None else moment
        return before, place

    return when


def _newest(
    kept: list[tuple[_Rank, _Told]], more: Iterable[tuple[_Rank, _Told, Passage]], most: int
) -> list[tuple[_Rank, _Told]]:
    """The newest of both, oldest first; of the new ones those that stay are read whole."""
    both: list[tuple[_Rank, _Told, Passage | None]] = [(when, event, None) for when, event in kept]
    both += more
    newest = deque(sorted(both, key=lambda told: told[0]), maxlen=most)
    return [(when, event if passage is None else passage.read(event)) for when, event, passage in newest]


def stream(sources: Sequence[Source], seen: "Known", wanted: Wanted, gaps: list[Gap]) -> Iterator[Seen]:
    """Every event that is wanted, the oldest first, as it is read; all of them are known then."""
    history: deque[OomSummary] = deque(maxlen=HISTORY)
    for at, source in enumerate(reversed(_newest_first(sources))):
        for event in read_source(source, gaps):
            if not isinstance(event, OomReport):
                if wanted(event):
                    yield Seen(event, history)
                continue
            asked_for = seen.add(event, at, (0.0, 0), wanted)
            if seen.newest is not None:
                history.append(seen.newest)
            if asked_for:
                yield Seen(event, history)
    gaps += _unlogged(sources, seen.oldest_first(), seen)


def _unlogged(sources: Sequence[Source], history: Iterable[OomSummary], seen: "Known") -> Iterator[Gap]:
    """That the kernel has killed more since its boot than the logs tell: its buffer keeps the newest lines alone."""
    log = next((source for source in sources if source.kills), None)
    if log is None or log.kills is None or seen.forgotten:
        return
    from time import CLOCK_BOOTTIME, clock_gettime, time

    from reprieve.machine.clock import moment_of
    from reprieve.machine.kmsg import LARGER

    booted_s = time() - clock_gettime(CLOCK_BOOTTIME) - _SAME_MOMENT_S
    logged = 0
    for event in history:
        if event.boot_id is None:  # of a file: of this boot perhaps
            moment = moment_of(event.stamp)
            logged += len(event.victims) if moment is None or moment >= booted_s else 0
        elif event.boot_id == log.boot_id:
            logged += len(event.victims)
    if logged < log.kills:
        yield unlogged(log.kills, logged, f"a journal on disk keeps all (mkdir /var/log/journal); {LARGER}")


def watch(
    lines: "Iterable[str | Said | None]", name: str, wanted: Wanted, gaps: list[Gap], boot_id: str | None = None
) -> Iterator[Seen | None]:
    """Every event that is wanted, once silence, or the next ones, show that it is over; None at each silence.

    Of lines that programs wrote to look like a kill the first is told of: there may be any number. What an engine says
    of a kill is told with the kernel's report of it, or by itself where there is none.
    """
    from reprieve.machine.engine_events import Engines

    reader = EventReader(name)
    history: deque[OomSummary] = deque(maxlen=HISTORY)
    engines = Engines()

    def events() -> Iterator[OomReport | AllocationFailure | None]:
        number = 0
        warned = False
        claimed, since_s = 0, 0.0  # the newest line of an event, and when it came
        for text in lines:
            if text is None:
                yield from reader.flush()
                yield None
                continue
            if engines.overdue() and not reader.drafts:  # a report that has begun may be the one they wait for
                yield None
            if not isinstance(text, str):
                engines.add(text)
                continue
            number += 1
            arrived = list(read_lines(f"{text}\n", number))
            if not warned and any(map(is_forged, arrived)):
                warned = True
                gaps.append(forgery(f"{name}:{number}"))
            yield from reader.feed(arrived)
            if not reader.drafts:
                continue
            if (newest := max(draft.last_line for draft in reader.drafts)) != claimed:
                claimed, since_s = newest, monotonic()
            elif monotonic() - since_s > _CHATTER_S:
                yield from reader.flush()
        yield from reader.flush()

    for event in events():
        if event is None:
            if engines.overdue():
                yield from (Seen(ending) for ending in engines.unexplained() if wanted(ending))
            yield None
        elif isinstance(event, AllocationFailure):
            if wanted(event):
                yield Seen(event, history)
        else:
            event = event if event.boot_id is not None else replace(event, boot_id=boot_id)
            history.append(summarise(event))
            said = engines.of(history[-1])
            if wanted(history[-1]):
                yield Seen(event, history, said)
    yield from (Seen(ending) for ending in engines.unexplained() if wanted(ending))


def gone_groups(ooms: Iterable[OomReport], boot_id: str | None) -> tuple[str, ...]:
    """The cgroups whose limit these events were about and that are no more, of this machine and boot."""
    ours = [oom for oom in ooms if oom.boot_id is not None and oom.boot_id == boot_id]
    paths = {oom.limit_of.path: None for oom in ours if oom.limit_of is not None}
    if not paths:
        return ()
    from reprieve.machine.cgroup import gone
    from reprieve.machine.host import Host

    return gone(Host(), paths)


def _newest_first(sources: Sequence[Source]) -> list[Source]:
    """What has no date is live: the kernel's buffer, the journal, a pipe."""
    return sorted(sources, key=lambda source: -source.newest_s if source.newest_s is not None else float("-inf"))


def summarise(oom: OomReport) -> OomSummary:
    """An event in little."""
    usage = reached(oom) or (oom.memcg.usage("memory") if oom.memcg else None)
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
        limit_name=usage.name if usage and isinstance(limit, int) else None,
        no_killable=oom.no_killable,
        panic=oom.panic is not None,
    )


def _freed_bytes(kills: tuple[Kill, ...]) -> int | None:
    """Resident memory of the victims, shared memory included where it is told; None if a kill line does not tell."""
    total = 0
    for kill in kills:
        if kill.anon_rss_bytes is None or kill.file_rss_bytes is None:
            return None
        total += kill.anon_rss_bytes + kill.file_rss_bytes + (kill.shmem_rss_bytes or 0)
    return total if kills else None


class _Entry:
    """An event that was seen; another source that holds it too is added to its summary."""

    __slots__ = ("key", "source", "summary", "when")

    def __init__(self, key: _Key, source: int, summary: OomSummary, when: _When) -> None:
        self.key = key
        self.source = source
        self.summary = summary
        self.when = when


class Known:
    """All events so far, each once: the kernel's buffer, the journal and /var/log hold the same kill.

    Sources come one after the other. One of them may hold a kill twice: two logs put into one file.
    """

    def __init__(self) -> None:
        self.by_source: list[deque[_Entry]] = []
        self.entries: dict[_Key, dict[int, deque[_Entry]]] = {}  # those that are alike, by source
        self.elsewhere: dict[_Key, deque[_Entry]] = {}  # of those the ones this source has not told yet
        self.forgotten = 0
        self.left_out = 0  # that are not wanted
        self.newest: OomSummary | None = None  # the event that was added last; None if it was known

    def add(self, oom: OomReport, source: int, when: _When, wanted: Wanted) -> bool:
        """Is it to be told? Not again, unless only what both sources tell shows that it is wanted."""
        while len(self.by_source) <= source:
            self.by_source.append(deque())
            self.elsewhere.clear()
        summary, key = summarise(oom), _key(oom)
        alike = self.entries.setdefault(key, {})
        for entry in islice(reversed(alike.get(source, ())), _ALIKE):
            if _is_printed_again(entry.summary, summary):
                entry.summary = replace(_merged(entry.summary, summary), also_in=entry.summary.also_in)
                self.newest = None
                return False
        if key not in self.elsewhere and alike.keys() - {source}:
            others = (entries for origin, entries in alike.items() if origin != source)
            self.elsewhere[key] = deque(chain.from_iterable(others))
        for at, entry in enumerate(islice(self.elsewhere.get(key, ()), _ALIKE)):
            known = entry.summary
            if _may_be_one(known, summary):
                del self.elsewhere[key][at]
                entry.summary = _merged(known, summary)
                self.newest = None
                is_new = wanted(entry.summary) and not wanted(known)
                self.left_out -= is_new
                return is_new
        entry = _Entry(key, source, summary, when)
        alike.setdefault(source, deque()).append(entry)
        self.by_source[source].append(entry)
        if len(self.by_source[source]) > REMEMBERED:
            self._forget(self.by_source[source].popleft())
        self.newest = summary
        is_wanted = wanted(summary)
        self.left_out += not is_wanted
        return is_wanted

    def _forget(self, entry: _Entry) -> None:
        self.forgotten += 1
        alike = self.entries[entry.key]
        alike[entry.source].popleft()  # it is the oldest of them
        if not alike[entry.source]:
            del alike[entry.source]
        if not alike:
            del self.entries[entry.key]

    def oldest_first(self) -> Iterator[OomSummary]:
        """By date; those of one date as their source has them."""
        for entry in sorted(chain.from_iterable(self.by_source), key=lambda entry: entry.when):
            yield entry.summary


def _key(oom: OomReport) -> _Key:
    """What is the same in all logs that hold an event: the victim and its sizes; without one, who asked and when."""
    if oom.kills:
        first = oom.kills[0]
        return (first.pid, first.comm, first.total_vm_bytes, first.anon_rss_bytes, first.file_rss_bytes)
    trigger = oom.trigger
    uptime_s = None if oom.stamp.uptime_s is None else round(oom.stamp.uptime_s)
    return (trigger.comm if trigger else None, trigger.pid if trigger else None, oom.panic, uptime_s)


def _merged(one: OomSummary, other: OomSummary) -> OomSummary:
    """What two sources tell of one event: the first of them, and what it does not know."""
    stamp = other.stamp if one.stamp.wall_s is None and other.stamp.text is not None else one.stamp
    uptime_s = one.stamp.uptime_s if one.stamp.uptime_s is not None else other.stamp.uptime_s
    return replace(
        one,
        stamp=replace(stamp, uptime_s=uptime_s),
        host=one.host or other.host,
        boot_id=one.boot_id or other.boot_id,
        also_in=(*one.also_in, other.source),
    )


def _is_printed_again(one: OomSummary, other: OomSummary) -> bool:
    """Of two that are alike in one source: nobody is killed twice at one microsecond. Coarser dates prove nothing."""
    since, also_since = one.stamp.uptime_s, other.stamp.uptime_s
    at, also_at = one.stamp.wall_s, other.stamp.wall_s
    if since is not None and also_since is not None:
        at_once = since == also_since
    else:
        at_once = at is not None and at == also_at and not at.is_integer()
    return at_once and bool(one.victims) and _may_be_one(one, other)


def _may_be_one(one: OomSummary, other: OomSummary) -> bool:
    """Not if they are of two boots or hosts, or their clocks are too far apart."""
    if None not in (one.boot_id, other.boot_id) and one.boot_id != other.boot_id:
        return False
    if None not in (one.host, other.host) and one.host != other.host:
        return False
    since, also_since = one.stamp.uptime_s, other.stamp.uptime_s
    return since is None or also_since is None or abs(since - also_since) <= _SAME_MOMENT_S
