"""The task dump: dump_tasks() in mm/oom_kill.c. Rows are read by the header in the text, never by kernel version."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import cache
from itertools import chain, repeat, takewhile
from operator import attrgetter
from typing import Any, NamedTuple

from reprieve.model.oom import Kill, Task
from reprieve.oom.line import Line
from reprieve.oom.pattern import compiled

_FIELD = {  # the header's words that are ours; a column of any other name is kept by that name
    "uid": "uid",
    "tgid": "tgid",
    "total_vm": "total_vm_pages",
    "rss": "rss_pages",
    "rss_anon": "rss_anon_pages",
    "rss_file": "rss_file_pages",
    "rss_shmem": "rss_shmem_pages",
    "pgtables_bytes": "pgtables_bytes",
    "nr_ptes": "nr_ptes",
    "nr_pmds": "nr_pmds",
    "swapents": "swap_pages",
    "oom_adj": "oom_adj",
    "oom_score_adj": "oom_score_adj",
}
_HEADER = r"\s*\[\s*pid\s*\]\s+(uid\s+.*)"
_ROW = r"\s*\[\s*([0-9]{1,10})\]\s+([0-9].*)"
_ROWS = r"(?m)^[ \t]*\[[ \t]*([0-9]{1,10})\][ \t]+([0-9].*)$"
_FIGURE_WORD = r"-?[0-9]{1,20}"
_LONG, _DIGITS = 256, 20  # characters: a row that is longer is looked at for figures that are none of 64 bits
_WHOLE = attrgetter("whole")
_OF_A_TASK = tuple(field.name for field in fields(Task))
_COMMON = ("uid", "tgid", "total_vm", "rss")  # every kernel's first columns


def parse_header(text: str) -> tuple[str, ...] | None:
    """The columns of a task table, `pid` first, as printed; None if it is another line."""
    match = compiled(_HEADER).match(text)
    return ("pid", *match[1].split()) if match else None


def parse_rows(lines: Iterable[Line], columns: tuple[str, ...] | None) -> list[Task]:
    """The rows under `columns` with which the lines begin. Of a line that is not whole the last word may be cut.

    Without a header only the columns are read that every kernel prints first, and those its figures give away.
    """
    if columns is None:
        rows = (parse_rows((guessed,), names) for guessed, names in map(_guess, lines))
        return list(chain.from_iterable(takewhile(bool, rows)))
    names = columns[1 if columns[0] == "pid" else 0 : -1 if columns[-1] == "name" else None]
    lines = list(lines)
    numbers, pids, comms, figures = _usual_rows(lines, len(names)) or _any_rows(lines, len(names))
    known: dict[str, Iterable[Any]] = {"line": numbers, "pid": pids, "comm": comms}
    others: dict[str, tuple[int | None, ...]] = {}
    for name, column in zip(names, figures, strict=False):
        if name in _FIELD:
            known[_FIELD[name]] = column
        else:
            others[name] = column
    known["others"] = [
        tuple([(name, told) for name, told in zip(others, row, strict=True) if told is not None])
        for row in zip(*others.values(), strict=True)
    ] or repeat(())
    in_order = [known.get(name, repeat(None)) for name in _OF_A_TASK]
    return list(map(_task, zip(*in_order, strict=False)))


class _Rows(NamedTuple):
    """Of the rows with which lines begin, by columns."""

    lines: Sequence[int]
    pids: Sequence[int]
    comms: Sequence[str | None]
    figures: Sequence[tuple[int | None, ...]]


def _usual_rows(lines: Sequence[Line], width: int) -> _Rows | None:
    """Where all are rows, and whole: read together, in half the time. None: one is not."""
    texts = [line.text for line in lines]
    found = compiled(_ROWS).findall("\n".join(texts))
    if len(found) != len(lines) or not all(map(_WHOLE, lines)) or max(map(len, texts), default=0) > _LONG:
        return None
    words = [rest.split(None, width) for _, rest in found]
    if {*map(len, words)} != {width + 1}:
        return None
    *figures, comms = zip(*words, strict=True)
    try:
        told = [tuple(map(int, column)) for column in figures]
    except ValueError:
        return None
    return _Rows([line.number for line in lines], [int(pid) for pid, _ in found], [*map(str.rstrip, comms)], told)


def _any_rows(lines: Sequence[Line], width: int) -> _Rows:
    row_of = compiled(_ROW).match
    numbers, pids, comms, figures = [], [], [], []
    for line in lines:
        match = row_of(line.text)
        if match is None:
            break
        pid, rest = match.groups()
        words = rest.split(None, width)
        if not line.whole:
            words.pop()
        comm = words.pop().rstrip() if len(words) > width else None
        try:
            if len(line.text) > _LONG and max(map(len, words), default=0) > _DIGITS:
                raise ValueError("no figure of 64 bits")
            told: list[int | None] = [*map(int, words)]
        except ValueError:  # damaged: no word of it is sure to be in its column
            comm, told = None, []
        if len(told) < width:
            told += [None] * (width - len(told))
        numbers.append(line.number)
        pids.append(int(pid))
        comms.append(comm)
        figures.append(told)
    return _Rows(numbers, pids, comms, [*zip(*figures, strict=True)])


def _task(values: tuple[Any, ...]) -> Task:
    """The noun of these values, in the order of its fields: by their names it takes four times as long."""
    new: Any = object.__new__(Task)
    (
        new.line,
        new.pid,
        new.tgid,
        new.uid,
        new.comm,
        new.total_vm_pages,
        new.rss_pages,
        new.rss_anon_pages,
        new.rss_file_pages,
        new.rss_shmem_pages,
        new.pgtables_bytes,
        new.nr_ptes,
        new.nr_pmds,
        new.swap_pages,
        new.oom_adj,
        new.oom_score_adj,
        new.others,
    ) = values
    task: Task = new
    return task


def _guess(line: Line) -> tuple[Line, tuple[str, ...]]:
    """A row whose header is lost, and its columns. Three figures and a name after `rss` are page tables, swap and adj,
    if the first is whole KiB of bytes; anything else could be two things, and is left out."""
    pid, _, rest = line.text.partition("]")
    words = rest.split()
    count = next((i for i, word in enumerate(words) if not compiled(_FIGURE_WORD).fullmatch(word)), len(words))
    names: tuple[str, ...] = _COMMON
    if count == 7 and int(words[4]) >= 4096 and int(words[4]) % 1024 == 0:
        names = (*_COMMON, "pgtables_bytes", "swapents", "oom_score_adj")
    elif count == 10 and int(words[7]) >= 4096 and int(words[7]) % 1024 == 0:
        names = (*_COMMON, "rss_anon", "rss_file", "rss_shmem", "pgtables_bytes", "swapents", "oom_score_adj")
    elif count < len(_COMMON):
        words = words[: max(count, 1)]  # of one that is cut within its first figure the pid counts
    else:
        words = [*words[: len(_COMMON)], *words[count:]]
    return line._replace(text=f"{pid}] {' '.join(words)}"), names


# Printed by __oom_kill_process() in mm/oom_kill.c. 2.6 gives the name alone, or "vsz:"; RHEL 6 puts the UID before the
# name, RHEL 7 after it: so the pid comes first, then each further field on its own. A comm may hold ")" and blanks;
# each of its 15 bytes may be an escape of four characters.
_KILLED = (
    r"[\s*\-|•`]*(?P<lead>[^:]{0,60}: ?)?(?:K|(?<=: )OOM k)illed process (?P<pid>[0-9]{1,10})(?=[\s,]|$)"
    r"(?:, UID (?P<uid>[0-9]{1,10}),)?(?: \((?P<comm>(?:\\x[0-9a-f]{2}|.){0,15})\)(?=[\s,.]|$))?"
)
LEADS = ("out of memory", "memory cgroup out of memory", "no available memory")
_FIGURE = r"\b([a-z-]{1,20}+):([0-9]{1,20}+)kB"


def parse_kill(text: str, *, line: int = 1, whole: bool = True, pgtables_bytes: int | None = None) -> Kill | None:
    """Read a "Killed process" line; None if it is another line, or ends before the pid. A field not told whole is None.

    `pgtables_bytes` is the victim's figure in the task dump; without it the printed unit is believed. Another program
    that quotes the line in its own is no kill: the kernel's begins with it, or with what ran out.

    >>> parse_kill("Killed process 7 (java) total-vm:9kB, UID:0 pgtables:40960kB oom", pgtables_bytes=40960)
    Kill(line=1, pid=7, comm='java', total_vm_bytes=9216, anon_rss_bytes=None, ..., pgtables_bytes=40960, uid=0, ...)
    """
    match = compiled(_KILLED).match(text)
    if match is None or (not whole and match.end("pid") == len(text)):
        return None
    lead = match["lead"]
    if lead is not None and not lead.lower().startswith(LEADS):
        return None
    rest = text[match.end() :]
    printed = compiled(_FIGURE).findall(rest)  # a figure without its unit is cut: absent
    size = {name: int(kb) * 1024 for name, kb in reversed(printed)}  # the first counts: another line may be glued on
    # Linux 70cb6d267790 (v5.4) printed bytes here and called them kB, until 941f762bcb27 ("mm/oom: fix pgtables units
    # mismatch in Killed process message"). Both are backported: ask the task dump, not the version.
    if pgtables_bytes is not None and size.get("pgtables") == pgtables_bytes * 1024:
        size["pgtables"] = pgtables_bytes
    return Kill(
        line=line,
        pid=int(match["pid"]),
        comm=match["comm"] if whole or rest.strip() else None,
        total_vm_bytes=size.get("total-vm", size.get("vsz", size.get("vm"))),
        anon_rss_bytes=size.get("anon-rss"),
        file_rss_bytes=size.get("file-rss"),
        shmem_rss_bytes=size.get("shmem-rss"),
        pgtables_bytes=size.get("pgtables"),
        uid=int(match["uid"]) if match["uid"] else last_number("UID[: ]", "[0-9]{1,10}", rest, whole),
        oom_score_adj=last_number("oom_score_adj:", "-?[0-9]{1,6}", rest, whole),
    )


@cache
def _number(name: str, number: str) -> re.Pattern[str]:
    """It begins with the name, which is found at a leap; whether a word begins there is asked behind it."""
    begins = rf"(?<!\w{name})" if name[0].isalpha() else ""
    return re.compile(rf"{name}{begins}({number})(?=\D|$)")


def last_number(name: str, number: str, text: str, whole: bool) -> int | None:
    """The number of that shape behind the name; None if there is none, or the text is cut right behind it."""
    match = _number(name, number).search(text)
    return int(match[1]) if match and (whole or match.end() < len(text)) else None
