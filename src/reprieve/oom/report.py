"""Lines of a kernel log → out-of-memory events.

One event is what one call of the OOM killer left: from "X invoked oom-killer" to the kill, the panic or the word that
nobody could be killed, and what comes later of it (the group's other members, the reaper). Logs come cut, interleaved,
rate-limited and quoted: every line is read on its own shape, an event has what was found, and a part that is not there
is absent. Printed by mm/oom_kill.c (dump_header, oom_kill_process, __oom_kill_process, out_of_memory).
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice

from reprieve.model.oom import AllocationFailure, OomReport
from reprieve.oom.draft import Draft
from reprieve.oom.line import Line
from reprieve.oom.lines import host, read_lines

# Words that only a line of that kind has: the cheapest test there is, on every line of a log.
_OF_KILLS = (  # all of these lines hold "ill"
    ("oom-killer", "trigger"),
    ("Killed process", "kill"),
    ("OOM killed process", "kill"),
    ("ill process", "select"),
    ("oom-kill:constraint=", "constraint"),
    (" killed as a result of limit of ", "task_in"),
    ("memory.oom.group set", "group"),
    ("no killable process", "no_killable"),
)
_OTHERS = (
    ("Kernel panic", "panic"),
    ("page allocation failure", "failure"),
    ("oom_reaper: ", "reaped"),
    (" mems_allowed=", "cpuset"),
    ("PID: ", "cpu"),
    ("Pid: ", "cpu"),
    ("anual OOM execution", "sysrq"),
    ("Tasks state (memory", "title"),
)
_ALL = (*_OF_KILLS, *_OTHERS)
_WITHOUT_COLON = tuple((word, kind) for word, kind in _OTHERS if kind in ("cpuset", "title"))  # hold no ": "
_TOGETHER = 500  # lines read together at most: a table may have eighty thousand
_LONG = 4096  # characters; longer ones, which the kernel does not print, are read one at a time: each may have 256 KiB
_MOST, _TASKS = 16, 30_000  # events of several hosts that are read at once, and the rows of all their tables
_NEVER_FIRST = ("reaped", "cpuset", "cpu")  # kinds that begin no event
# Of the memory's lines, by which an event may begin.
_MEMORY = ("Mem-", " free:", "usage ", "cgroup stats for", "lowmem_reserve", " pages RAM", "swap ", "*4kB ")


def read_reports(text: str, source: str = "-", first: int = 1) -> Iterator[OomReport | AllocationFailure]:
    """All events in a log, in its order; `first` is the number of the text's first line in its source."""
    return read_events(read_lines(text, first), source)


def read_events(lines: Iterable[Line], source: str = "-") -> Iterator[OomReport | AllocationFailure]:
    """All events in a stream of lines."""
    reader = EventReader(source)
    yield from reader.feed(lines)
    yield from reader.flush()


class EventReader:
    """Reads lines as a log grows. An event is out when the next but one begins: its reaper may come late.

    Where hosts write to one log their lines alternate: from the first line on that another host has in a report which
    has not ended, each line is of a report of its own host.
    """

    def __init__(self, source: str = "-") -> None:
        self.source = source
        self.drafts: list[Draft] = []  # the last is being read
        self.by_host = False

    def feed(self, lines: Iterable[Line]) -> Iterator[OomReport | AllocationFailure]:
        """Read lines more, those of one kind that follow each other together; the events that are over now."""
        for kind, run in groupby(lines, _kind):
            if kind == "long":
                for line in run:
                    yield from self._read(_kind(line, len(line.text)), [line])
                continue
            while together := list(islice(run, _TOGETHER)):
                if kind != "nothing":
                    yield from self._read(kind, together)

    def _read(self, kind: str | None, lines: list[Line]) -> Iterator[OomReport | AllocationFailure]:
        if kind is not None and not self.by_host:  # to ask each line of no kind, or of a table, would take too long
            self.by_host = self._are_of_several(lines if kind != "table" else lines[:1])
        for whose, run in groupby(lines, _host_of) if self.by_host else ((None, lines),):
            yield from self._read_of(whose, kind, list(run))
            yield from self._over()  # a table may have filled what there is room for

    def _are_of_several(self, lines: list[Line]) -> bool:
        """Are they of several hosts, or of another than the event that is being read?"""
        reading = self.drafts[-1].host if self.drafts and not self.drafts[-1].ended else None
        if reading is not None:
            word = f" {reading} "  # to look for it is faster than to ask
            lines = [line for line in lines if word not in line.head]
            if not lines:
                return False
        elif len(lines) == 1:
            return False
        return len({reading, *map(_host_of, lines)} - {None}) > 1

    def _read_of(
        self, whose: str | None, kind: str | None, lines: list[Line]
    ) -> Iterator[OomReport | AllocationFailure]:
        """Lines of that host; None: it is not told, or there is one alone."""
        while lines:
            drafts = self.drafts if whose is None else [draft for draft in self.drafts if draft.host == whose]
            if drafts and (taken := drafts[-1].take(kind, lines)):
                lines = lines[taken:]
                continue
            line, lines = lines[0], lines[1:]
            if kind == "reaped" and any(draft.reap(line) for draft in reversed(drafts)):
                continue
            if kind in _NEVER_FIRST or (kind is None and not any(map(line.text.__contains__, _MEMORY))):
                continue
            begun = Draft(self.source, line)
            if drafts and kind in ("trigger", "sysrq"):
                begun.crowded = drafts[-1].mixed or any(draft.is_cut() for draft in drafts)
            elif drafts:
                begun.mixed = drafts[-1].mixed
            if begun.take(kind, [line]):
                self.drafts.append(begun)
                yield from self._over()

    def _over(self) -> Iterator[OomReport | AllocationFailure]:
        while self._is_over():
            if (event := self.drafts.pop(0).finish()) is not None:
                yield event

    def _is_over(self) -> bool:
        """Is the oldest event, as the next but one of its host has begun, or there are too many?"""
        if not self.by_host or len(self.drafts) < 3:
            return len(self.drafts) > 2
        alike = sum(draft.host == self.drafts[0].host for draft in self.drafts)
        return alike > 2 or len(self.drafts) > _MOST or sum(len(draft.tasks or ()) for draft in self.drafts) > _TASKS

    def flush(self) -> Iterator[OomReport | AllocationFailure]:
        """What has been begun, as it is: the log has ended, or is quiet."""
        drafts, self.drafts = self.drafts, []
        for draft in drafts:
            if (event := draft.finish()) is not None:
                yield event


def _host_of(line: Line) -> str | None:
    return host(line.head)


def _kind(line: Line, longest: int = _LONG - 1) -> str | None:
    """What the line may be by its words; None: part of a block, or nobody's."""
    text = line.text
    if line.kernel is False or not text:
        return "nothing"
    if len(text) > longest:
        return "long"
    first = text[0]
    if first == "[" or (first in " \t" and text[1:2] == "["):
        inside = text.lstrip(" \t[")
        if inside[:1] in "0123456789<":  # else it is of a driver, a firewall, or a name
            return "table"
        if inside.startswith("pid"):
            return "header"
    if first == "o" and text.startswith("oom-kill:"):  # its names are of strangers: they may hold words of any kind
        return "constraint"
    if "ill" not in text and ": " not in text and "=" not in text and "(" not in text:
        return None  # as nearly all lines: a letter is found faster than a word
    for word, kind in _ALL if "ill" in text else _OTHERS if ": " in text else _WITHOUT_COLON:
        if word in text:
            return kind
    return None
